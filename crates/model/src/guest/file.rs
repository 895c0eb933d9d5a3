// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The guest file: TOML, version 1. People write it, the store keeps it, hosts send it.
//!
//! What is read is either a [`Guest`] whose every value is checked, or one error that names the
//! place. What is written says everything, also what would have been the default, because a
//! default may change with the next version and a guest must not.

mod schema;

use super::{
    Boot, BootFrom, Cpus, DISKS_MAX, Devices, Disk, DiskDevice, DiskFormat, DiskSource, Firmware,
    Forward, Guest, Mac, Memory, NETWORKS_MAX, Network, NetworkKind, Policies, Policy, VCPUS_MAX,
};
use crate::id::{GuestId, GuestName};
use crate::text_file::{self, Fault, Field, FileError, Table, TextFile, printable};
use crate::units::Bytes;
use std::collections::HashSet;
use std::fmt::{Display, Write};
use std::path::Path;

/// The version this Whimbrel reads and writes.
pub const VERSION: u32 = 1;
/// Smallest and largest memory of a guest.
pub const MEMORY_MIN: Bytes = Bytes::mib(16);
pub const MEMORY_MAX: Bytes = Bytes(16 << 40);
/// Longest kernel command line, as Linux takes it on x86.
pub const COMMAND_LINE_BYTES_MAX: usize = 2047;
/// Longest CPU model, machine type or `nfs://` address.
pub const WORD_BYTES_MAX: usize = 1024;
/// Most port forwards of one network card.
pub const FORWARDS_MAX: usize = 64;

const POLICIES: [(&str, Policy); 3] =
    [("destroy", Policy::Destroy), ("restart", Policy::Restart), ("preserve", Policy::Preserve)];
const FIRMWARES: [(&str, Firmware); 2] = [("bios", Firmware::Bios), ("uefi", Firmware::Uefi)];
const BOOT_FROM: [(&str, BootFrom); 2] = [("disk", BootFrom::Disk), ("cdrom", BootFrom::Cdrom)];
const FORMATS: [(&str, DiskFormat); 2] = [("raw", DiskFormat::Raw), ("qcow2", DiskFormat::Qcow2)];
const DEVICES: [(&str, DiskDevice); 2] = [("disk", DiskDevice::Disk), ("cdrom", DiskDevice::Cdrom)];

/// Reads a guest file and checks everything that can be checked without the host.
pub fn parse(file: &TextFile<'_>) -> Result<Guest, FileError> {
    text_file::open(file, &schema::TOP, |top| {
        version(top)?;
        let disks = disks(top)?;
        Ok(Guest {
            name: match top.string("name")? {
                Some(name) => name.check(GuestName::new)?,
                None => return Err(top.missing("name", "a guest needs a name")),
            },
            id: top.string("uuid")?.map(|id| id.check(str::parse::<GuestId>)).transpose()?,
            memory: memory(top)?,
            cpus: cpus(top)?,
            machine: top
                .string("machine")?
                .map(|machine| word(&machine, "machine type"))
                .transpose()?,
            boot: boot(top, &disks)?,
            disks,
            networks: networks(top)?,
            devices: Devices {
                has_balloon: top.bool("balloon")?.unwrap_or(true),
                has_rng: top.bool("rng")?.unwrap_or(true),
                has_serial: top.bool("serial")?.unwrap_or(true),
            },
            on: Policies {
                poweroff: policy(top, "on_poweroff", Policy::Destroy)?,
                reboot: policy(top, "on_reboot", Policy::Restart)?,
                crash: policy(top, "on_crash", Policy::Restart)?,
            },
            autostart: top.bool("autostart")?.unwrap_or(false),
            keep_memory: top.bool("keep_memory")?.unwrap_or(true),
        })
    })
}

fn version(top: &Table<'_>) -> Result<(), FileError> {
    match top.number("version", 0..=u32::MAX)? {
        None | Some(VERSION) => Ok(()),
        Some(other) => Err(top.error(None, Fault::Version { found: other.to_string() })),
    }
}

fn memory(top: &Table<'_>) -> Result<Memory, FileError> {
    let size = |field: &Field<'_, &str>| {
        let size = field.check(Bytes::parse)?;
        match size {
            _ if !(MEMORY_MIN..=MEMORY_MAX).contains(&size) => {
                Err(field.bad(format!("{size} is not between {MEMORY_MIN} and {MEMORY_MAX}")))
            }
            _ if !size.0.is_multiple_of(Bytes::MIB) => {
                Err(field.bad(format!("{} bytes are not a whole number of MiB", size.0)))
            }
            _ => Ok(size),
        }
    };
    let Some(field) = top.string("memory")? else {
        return Err(top.missing("memory", "a guest needs memory: `memory = \"512 MiB\"`"));
    };
    let memory = size(&field)?;
    let Some(field) = top.string("memory_min")? else {
        return Ok(Memory { size: memory, min: None });
    };
    let min = size(&field)?;
    if min > memory {
        return Err(field.error(Fault::Conflict {
            text: format!("{min} is more than `memory`, which is {memory}"),
        }));
    }
    if top.bool("balloon")? == Some(false) {
        let text = "a guest is squeezed by its balloon, and `balloon` is false".to_owned();
        return Err(field.error(Fault::Conflict { text }));
    }
    Ok(Memory { size: memory, min: Some(min) })
}

fn cpus(top: &Table<'_>) -> Result<Cpus, FileError> {
    let count = top.number("vcpus", 1..=VCPUS_MAX)?.unwrap_or(1);
    let count_max = top.number("vcpus_max", 1..=VCPUS_MAX)?.unwrap_or(count);
    if count_max < count {
        let text = format!("{count_max} is less than `vcpus`, which is {count}");
        return Err(top.error(Some("vcpus_max"), Fault::Conflict { text }));
    }
    let model = top.string("cpu")?.map(|model| word(&model, "CPU model")).transpose()?;
    Ok(Cpus { count, count_max, model })
}

fn word(field: &Field<'_, &str>, what: &str) -> Result<String, FileError> {
    field.check(|text| check_word(text, what))
}

/// Checks what will become a word of the engine's command line.
pub(crate) fn check_word(text: &str, what: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".,_+=-".contains(c);
    if let Some(found) = text.chars().find(|&c| !allowed(c)) {
        return Err(format!("a {what} cannot contain `{}`", printable(found)));
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || text.len() > WORD_BYTES_MAX {
        return Err(format!(
            "a {what} begins with a letter or a digit and has at most {WORD_BYTES_MAX} bytes"
        ));
    }
    Ok(text.to_owned())
}

fn policy(top: &Table<'_>, key: &str, default: Policy) -> Result<Policy, FileError> {
    Ok(top.string(key)?.map(|field| field.word(&POLICIES)).transpose()?.unwrap_or(default))
}

fn boot(top: &Table<'_>, disks: &[Disk]) -> Result<Boot, FileError> {
    let Some(table) = top.table("boot", &schema::BOOT)? else {
        return firmware_boot(top, None, disks);
    };
    let Some(kernel) = table.string("kernel")? else {
        for key in ["ramdisk", "command_line"] {
            if let Some(field) = table.string(key)? {
                let text = "it goes with `kernel`, and there is none".to_owned();
                return Err(field.error(Fault::Conflict { text }));
            }
        }
        return firmware_boot(top, Some(&table), disks);
    };
    for key in ["firmware", "from"] {
        if let Some(field) = table.string(key)? {
            let text =
                "`kernel` is given, so no firmware boots a disk; keep one of them".to_owned();
            return Err(field.error(Fault::Conflict { text }));
        }
    }
    let command_line = match table.string("command_line")? {
        None => String::new(),
        Some(field) if field.value.len() > COMMAND_LINE_BYTES_MAX => {
            let bytes = field.value.len();
            return Err(field.bad(format!(
                "the command line has {bytes} bytes, and Linux takes at most \
                 {COMMAND_LINE_BYTES_MAX}"
            )));
        }
        Some(field) if field.value.chars().any(char::is_control) => {
            return Err(field.bad("a command line is one line, without control characters"));
        }
        Some(field) => field.value.to_owned(),
    };
    let ramdisk = table.string("ramdisk")?.map(|ramdisk| ramdisk.path()).transpose()?;
    Ok(Boot::Kernel { kernel: kernel.path()?, ramdisk, command_line })
}

fn firmware_boot(
    top: &Table<'_>,
    boot: Option<&Table<'_>>,
    disks: &[Disk],
) -> Result<Boot, FileError> {
    let has = |device| disks.iter().any(|disk| disk.device == device);
    let string = |key| boot.map_or(Ok(None), |table| table.string(key));
    let firmware = string("firmware")?.map(|field| field.word(&FIRMWARES)).transpose()?;
    let from = string("from")?.map(|field| field.word(&BOOT_FROM)).transpose()?;
    let default = if has(DiskDevice::Disk) { BootFrom::Disk } else { BootFrom::Cdrom };
    let from = from.unwrap_or(default);
    let is_there = match from {
        BootFrom::Disk => has(DiskDevice::Disk),
        BootFrom::Cdrom => has(DiskDevice::Cdrom),
    };
    if !is_there {
        return Err(match from {
            _ if disks.is_empty() => {
                top.missing("boot", "there is nothing to boot: give a `[[disk]]` or a `kernel`")
            }
            BootFrom::Disk => top.conflict("it boots from a disk, and all disks are CD-ROMs"),
            BootFrom::Cdrom => {
                top.conflict("it boots from a CD-ROM, and no disk has `device = \"cdrom\"`")
            }
        });
    }
    Ok(Boot::Firmware { firmware: firmware.unwrap_or(Firmware::Bios), from })
}

fn disks(top: &Table<'_>) -> Result<Vec<Disk>, FileError> {
    let tables = top.tables("disk", &schema::DISK)?;
    if tables.len() > DISKS_MAX {
        let text = format!("a guest has at most {DISKS_MAX} disks, and here are {}", tables.len());
        return Err(top.error(Some("disk"), Fault::BadValue { text }));
    }
    let mut seen = HashSet::new();
    let mut disks = Vec::with_capacity(tables.len());
    for table in &tables {
        let disk = disk(table)?;
        if !seen.insert(disk.source.clone()) {
            return Err(
                table.conflict(format!("`{}` is a disk of this guest already", disk.source))
            );
        }
        disks.push(disk);
    }
    Ok(disks)
}

fn disk(table: &Table<'_>) -> Result<Disk, FileError> {
    let source = match (table.string("path")?, table.string("nfs")?) {
        (Some(path), None) => DiskSource::Path(path.path()?),
        (None, Some(nfs)) => DiskSource::Nfs(nfs.check(check_nfs)?),
        (Some(_), Some(nfs)) => {
            let text = "`path` is given, too; a disk lies in one place".to_owned();
            return Err(nfs.error(Fault::Conflict { text }));
        }
        (None, None) => return Err(table.missing("path", "a disk needs `path` or `nfs`")),
    };
    let format = table.string("format")?.map(|format| format.word(&FORMATS)).transpose()?;
    let device = table.string("device")?.map(|device| device.word(&DEVICES)).transpose()?;
    let device = device.unwrap_or(DiskDevice::Disk);
    let read_only = table.bool("read_only")?;
    if device == DiskDevice::Cdrom && read_only == Some(false) {
        return Err(table.conflict("nobody writes on a CD-ROM; leave `read_only` out"));
    }
    Ok(Disk {
        format: format.unwrap_or_else(|| format_by_name(&source)),
        source,
        is_read_only: read_only.unwrap_or(false) || device == DiskDevice::Cdrom,
        device,
        name: table.string("name")?.map(|name| name.check(check_disk_name)).transpose()?,
    })
}

/// The name decides, never the content: whoever may write a raw image could make it look like
/// qcow2, and name a file of the host as its backing.
fn format_by_name(source: &DiskSource) -> DiskFormat {
    match Path::new(&source.to_string()).extension().and_then(|name| name.to_str()) {
        Some("qcow2") => DiskFormat::Qcow2,
        _ => DiskFormat::Raw,
    }
}

pub(crate) fn check_nfs(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("nfs://").unwrap_or_default();
    let (server, path) = rest.split_once('/').unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_graphic() && !"?#,\\\"'`".contains(c);
    let is_good = !server.is_empty()
        && !path.trim_matches('/').is_empty()
        && url.len() <= WORD_BYTES_MAX
        && url.chars().all(is_plain)
        && path.split('/').all(|part| part != "..");
    match is_good {
        true => Ok(url.to_owned()),
        false => Err(format!("`{}` is not `nfs://server/export/image`", printable(url))),
    }
}

pub(super) fn check_disk_name(name: &str) -> Result<String, String> {
    let is_good = (1..=16).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    match is_good {
        true => Ok(name.to_owned()),
        false => Err(format!("`{}` is not a disk's name like `xvda1`", printable(name))),
    }
}

fn networks(top: &Table<'_>) -> Result<Vec<Network>, FileError> {
    let tables = top.tables("network", &schema::NETWORK)?;
    if tables.len() > NETWORKS_MAX {
        let count = tables.len();
        let text =
            format!("a guest has at most {NETWORKS_MAX} network cards, and here are {count}");
        return Err(top.error(Some("network"), Fault::BadValue { text }));
    }
    let mut macs = HashSet::new();
    let mut ports = HashSet::new();
    let mut networks = Vec::with_capacity(tables.len());
    for table in &tables {
        let network = network(table)?;
        if let Some(mac) = network.mac.filter(|&mac| !macs.insert(mac)) {
            return Err(table.conflict(format!("another card of this guest has the address {mac}")));
        }
        if let NetworkKind::User { forwards } = &network.kind {
            let taken = forwards.iter().find(|f| !ports.insert((f.protocol, f.host)));
            if let Some(Forward { protocol, host, .. }) = taken {
                return Err(table.conflict(format!("{protocol} port {host} is forwarded already")));
            }
        }
        networks.push(network);
    }
    Ok(networks)
}

fn network(table: &Table<'_>) -> Result<Network, FileError> {
    let mac = table.string("mac")?.map(|mac| mac.check(str::parse::<Mac>)).transpose()?;
    let forwards = table.strings("forward")?;
    if forwards.len() > FORWARDS_MAX {
        let text = format!("a card has at most {FORWARDS_MAX} forwards");
        return Err(table.error(Some("forward"), Fault::BadValue { text }));
    }
    let is_user = table.bool("user")?.unwrap_or(false);
    let kind = match (table.string("bridge")?, is_user) {
        (Some(bridge), true) => {
            let text = "`user` is true, too; a card is on one network".to_owned();
            return Err(bridge.error(Fault::Conflict { text }));
        }
        (Some(bridge), false) => {
            if let Some(forward) = forwards.first() {
                let text = "ports are forwarded with `user = true` only; on a bridge the guest has \
                            an address of its own";
                return Err(forward.error(Fault::Conflict { text: text.to_owned() }));
            }
            NetworkKind::Bridge { bridge: bridge.check(check_bridge)? }
        }
        (None, true) => NetworkKind::User {
            forwards: forwards
                .iter()
                .map(|forward| forward.check(str::parse::<Forward>))
                .collect::<Result<_, _>>()?,
        },
        (None, false) => {
            return Err(table.missing("bridge", "a card needs `bridge = \"br0\"` or `user = true`"));
        }
    };
    Ok(Network { mac, kind })
}

/// Checks the name of a bridge by the kernel's rules for interfaces.
pub(crate) fn check_bridge(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_graphic() && !"/:%".contains(c);
    match (1..=15).contains(&name.len()) && name.chars().all(allowed) && !matches!(name, "." | "..")
    {
        true => Ok(name.to_owned()),
        false => Err(format!("`{}` is not the name of a bridge", printable(name))),
    }
}

/// Returns the guest as a guest file: the same text for the same guest, complete and readable.
pub fn render(guest: &Guest) -> String {
    let mut out = Writer(String::new());
    let Guest { name, id, memory, cpus, machine, boot, disks, networks, devices, on, .. } = guest;
    out.raw("version", VERSION);
    out.string("name", name);
    out.option("uuid", id.as_ref());
    out.string("memory", memory.size.to_exact_string());
    out.option("memory_min", memory.min.map(Bytes::to_exact_string));
    out.raw("vcpus", cpus.count);
    out.raw("vcpus_max", cpus.count_max);
    out.option("cpu", cpus.model.as_ref());
    out.option("machine", machine.as_ref());
    out.string("on_poweroff", say(&POLICIES, on.poweroff));
    out.string("on_reboot", say(&POLICIES, on.reboot));
    out.string("on_crash", say(&POLICIES, on.crash));
    out.raw("autostart", guest.autostart);
    out.raw("keep_memory", guest.keep_memory);
    out.raw("balloon", devices.has_balloon);
    out.raw("rng", devices.has_rng);
    out.raw("serial", devices.has_serial);
    out.header("[boot]");
    match boot {
        Boot::Kernel { kernel, ramdisk, command_line } => {
            out.string("kernel", kernel.display());
            out.option("ramdisk", ramdisk.as_ref().map(|path| path.display()));
            out.string("command_line", command_line);
        }
        Boot::Firmware { firmware, from } => {
            out.string("firmware", say(&FIRMWARES, *firmware));
            out.string("from", say(&BOOT_FROM, *from));
        }
    }
    disks.iter().for_each(|disk| out.disk(disk));
    networks.iter().for_each(|network| out.network(network));
    out.0
}

/// Returns the word for a value.
fn say<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    let found = words.iter().find(|(_, each)| *each == value);
    found.map(|(word, _)| *word).expect("every value has a word")
}

/// A guest file in the making.
struct Writer(String);

impl Writer {
    fn header(&mut self, header: &str) {
        write!(self.0, "\n{header}\n").expect("a String takes everything");
    }

    fn raw(&mut self, key: &str, value: impl Display) {
        writeln!(self.0, "{key} = {value}").expect("a String takes everything");
    }

    fn string(&mut self, key: &str, value: impl Display) {
        self.raw(key, toml::Value::String(value.to_string()));
    }

    fn option(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.string(key, value);
        }
    }

    fn disk(&mut self, disk: &Disk) {
        self.header("[[disk]]");
        match &disk.source {
            DiskSource::Path(path) => self.string("path", path.display()),
            DiskSource::Nfs(url) => self.string("nfs", url),
        }
        self.string("format", say(&FORMATS, disk.format));
        self.raw("read_only", disk.is_read_only);
        self.string("device", say(&DEVICES, disk.device));
        self.option("name", disk.name.as_ref());
    }

    fn network(&mut self, network: &Network) {
        self.header("[[network]]");
        self.option("mac", network.mac);
        match &network.kind {
            NetworkKind::Bridge { bridge } => self.string("bridge", bridge),
            NetworkKind::User { forwards } => {
                self.raw("user", true);
                let list = forwards.iter().map(|f| toml::Value::String(f.to_string())).collect();
                self.raw("forward", toml::Value::Array(list));
            }
        }
    }
}

/// Returns the reference page of the format, `docs/reference/guest-file.md`.
pub fn reference() -> String {
    let sections = [&schema::TOP, &schema::BOOT, &schema::DISK, &schema::NETWORK];
    text_file::render("The guest file", schema::INTRO, &sections)
}

#[cfg(test)]
mod tests;
