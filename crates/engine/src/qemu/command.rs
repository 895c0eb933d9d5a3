// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The command line of a guest's QEMU: a pure function of the passport, the definition, and what
//! the launcher found on this host.
//!
//! Whatever a person wrote goes through JSON (`-blockdev`, `-device`, `-netdev`, `-object`), or
//! stands alone as an argument that QEMU takes literally (`-append`, `-kernel`, `-initrd`), or had
//! its commas doubled. So no file name can become an option.
//!
//! Three choices that are not obvious:
//!
//! - **`cache.direct` wherever the file system allows it.** The page cache of this host then never
//!   holds a block of the guest, so a target that reads the same image over a network file system
//!   cannot see, nor leave behind, an old one. It also leaves the memory to the guests.
//! - **`-action shutdown=pause,panic=pause`.** A guest that ends while it moves must be seen and
//!   judged by us; an engine that simply exits would look like one that crashed.
//! - **`enforce=on`.** A CPU that is not exactly the one of the passport is refused at the start,
//!   not discovered by a program in the guest.

use super::QemuConfig;
use super::probe::accelerator_name;
use crate::contract::{Launch, Start};
use crate::error::EngineError;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use whimbrel_model::guest::{
    Boot, BootFrom, Disk, DiskDevice, DiskFormat, DiskSource, Forward, Network, NetworkKind,
    Protocol,
};
use whimbrel_model::passport::{BootRole, Device, DeviceKind, Passport};

/// What the launcher found and opened, by the numbers the child will know it by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// A listening socket for the monitor.
    pub(super) monitor_fd: i32,
    /// A listening socket for the serial console, if the guest has one.
    pub(super) console_fd: Option<i32>,
    /// What the console says is kept here, too, for nobody may be listening.
    pub(super) console_log: PathBuf,
    /// For each `bridge` network in order.
    pub(super) taps: Vec<Tap>,
    /// For each disk in order.
    pub(super) disks: Vec<DiskPlace>,
    /// The guest's own UEFI variables.
    pub(super) uefi_variables: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    pub(super) fd: i32,
    /// `/dev/vhost-net`, opened for this tap: the kernel moves the packets then.
    pub(super) vhost_fd: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskPlace {
    pub(super) is_block_device: bool,
    /// The file system takes `O_DIRECT`.
    pub(super) is_direct: bool,
}

/// Returns QEMU's arguments, without the program.
pub(super) fn arguments(
    config: &QemuConfig,
    launch: &Launch,
    found: &Surroundings,
) -> Result<Vec<String>, EngineError> {
    let mut line = Line(Vec::new());
    general(&mut line, config, launch)?;
    machine(&mut line, &launch.passport)?;
    boot(&mut line, launch)?;
    let monitor = format!("socket,id=monitor,fd={},server=on,wait=off", found.monitor_fd);
    line.add("-chardev", monitor);
    line.add("-mon", "chardev=monitor,mode=control");
    for device in &launch.passport.devices {
        add_device(&mut line, launch, found, device)?;
    }
    if launch.start == Start::Incoming {
        line.add("-incoming", "defer");
    }
    Ok(line.0)
}

struct Line(Vec<String>);

impl Line {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }

    fn add_json(&mut self, option: &str, value: &Value) {
        self.add(option, value.to_string());
    }
}

fn general(line: &mut Line, config: &QemuConfig, launch: &Launch) -> Result<(), EngineError> {
    line.0.extend(["-nodefaults", "-no-user-config", "-S"].map(str::to_owned));
    if let Some(directory) = &config.data_dir {
        line.add("-L", text(directory)?);
    }
    // A guest's name has no comma, by its type.
    line.add("-name", format!("guest={},debug-threads=on", launch.guest.name));
    line.add("-uuid", launch.passport.guest.to_string());
    let denied = "obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
    line.add("-sandbox", format!("on,{denied}"));
    line.add("-action", "reboot=reset,shutdown=pause,panic=pause");
    line.add("-msg", "timestamp=on");
    line.add("-display", "none");
    line.add("-rtc", "base=utc");
    Ok(())
}

fn machine(line: &mut Line, passport: &Passport) -> Result<(), EngineError> {
    check_word(&passport.machine)?;
    let mut machine = format!("{},usb=off,dump-guest-core=off,graphics=off", passport.machine);
    if let Some(firmware) = firmware_of(passport) {
        let code = json!({
            "driver": "raw", "node-name": "firmware0-code", "read-only": true,
            "file": { "driver": "file", "filename": text(firmware)? },
        });
        line.add_json("-blockdev", &code);
        machine.push_str(",pflash0=firmware0-code,pflash1=firmware0-variables");
    }
    line.add("-machine", machine);
    let threads = match accelerator_name(passport.accelerator) {
        "tcg" => ",thread=multi",
        _ => "",
    };
    line.add("-accel", format!("{}{threads}", accelerator_name(passport.accelerator)));
    // The passport may come from another host: its words are checked like any other.
    passport.cpu.model.split(',').try_for_each(check_word)?;
    let enforce = match passport.cpu.model.as_str() {
        "host" | "max" => "",
        _ => ",enforce=on",
    };
    line.add("-cpu", format!("{}{enforce}", passport.cpu.model));
    let (count, max) = (passport.cpu_count, passport.cpu_count_max);
    line.add("-smp", format!("cpus={count},maxcpus={max},sockets=1,cores={max},threads=1"));
    line.add("-m", format!("size={}M", passport.memory.as_mib_ceil()));
    Ok(())
}

fn firmware_of(passport: &Passport) -> Option<&Path> {
    let files = &passport.boot_files;
    files.iter().find(|file| file.role == BootRole::Firmware).map(|file| file.path.as_path())
}

fn boot(line: &mut Line, launch: &Launch) -> Result<(), EngineError> {
    match &launch.guest.boot {
        Boot::Kernel { kernel, ramdisk, command_line } => {
            line.add("-kernel", text(kernel)?);
            if let Some(ramdisk) = ramdisk {
                line.add("-initrd", text(ramdisk)?);
            }
            line.add("-append", command_line);
        }
        Boot::Firmware { .. } => line.add("-boot", "strict=on"),
    }
    Ok(())
}

fn add_device(
    line: &mut Line,
    launch: &Launch,
    found: &Surroundings,
    device: &Device,
) -> Result<(), EngineError> {
    let id = &device.id;
    match &device.kind {
        DeviceKind::Serial => {
            let log = doubled(text(&found.console_log)?);
            let fd = found.console_fd.ok_or_else(|| unmatched(device))?;
            line.add(
                "-chardev",
                format!(
                    "socket,id={id}-back,fd={fd},server=on,wait=off,logfile={log},logappend=on"
                ),
            );
            let card = json!({ "driver": "isa-serial", "id": id, "chardev": format!("{id}-back") });
            line.add_json("-device", &card);
        }
        DeviceKind::Panic => {
            line.add_json("-device", &json!({ "driver": "pvpanic", "id": id }));
        }
        DeviceKind::Rng => {
            let back = format!("{id}-back");
            line.add_json("-object", &json!({ "qom-type": "rng-builtin", "id": back }));
            let card = json!({ "driver": "virtio-rng-pci", "id": id, "rng": back });
            line.add_json("-device", &placed(card, launch, device));
        }
        DeviceKind::Balloon => {
            let card = json!({ "driver": "virtio-balloon-pci", "id": id, "deflate-on-oom": true });
            line.add_json("-device", &placed(card, launch, device));
        }
        DeviceKind::Firmware => {
            let variables = json!({
                "driver": "raw", "node-name": "firmware0-variables",
                "file": { "driver": "file", "filename": text(&found.uefi_variables)? },
            });
            line.add_json("-blockdev", &variables);
        }
        DeviceKind::Network { index, mac } => {
            let network = launch.guest.networks.get(*index).ok_or_else(|| unmatched(device))?;
            line.add_json("-netdev", &network_back(launch, found, *index, network, device)?);
            // No ROM: it is only for booting from the network, and one of another size on the
            // target would break a migration at its end.
            let card = json!({
                "driver": "virtio-net-pci", "id": id, "netdev": format!("{id}-back"),
                "mac": mac.to_string(), "romfile": "",
            });
            line.add_json("-device", &placed(card, launch, device));
        }
        DeviceKind::Disk { index } => add_disk(line, launch, found, device, *index)?,
    }
    Ok(())
}

/// Puts a PCI device where the passport says.
fn placed(mut card: Value, launch: &Launch, device: &Device) -> Value {
    if let Some(slot) = device.pci_slot {
        let bus = if is_q35(&launch.passport) { "pcie.0" } else { "pci.0" };
        card["bus"] = json!(bus);
        card["addr"] = json!(format!("{slot:#x}"));
    }
    card
}

fn is_q35(passport: &Passport) -> bool {
    passport.machine.starts_with("pc-q35-")
}

fn network_back(
    launch: &Launch,
    found: &Surroundings,
    index: usize,
    network: &Network,
    device: &Device,
) -> Result<Value, EngineError> {
    let id = format!("{}-back", device.id);
    match &network.kind {
        NetworkKind::Bridge { .. } => {
            let is_bridge = |network: &&Network| matches!(network.kind, NetworkKind::Bridge { .. });
            let nth = launch.guest.networks[..index].iter().filter(is_bridge).count();
            let tap = found.taps.get(nth).ok_or_else(|| unmatched(device))?;
            let mut back = json!({ "type": "tap", "id": id, "fd": tap.fd.to_string() });
            match tap.vhost_fd {
                Some(fd) => {
                    back["vhost"] = json!(true);
                    back["vhostfd"] = json!(fd.to_string());
                }
                None => back["vhost"] = json!(false),
            }
            Ok(back)
        }
        NetworkKind::User { forwards } => {
            let forwards = forwards.iter().map(forward).collect::<Result<Vec<_>, EngineError>>()?;
            Ok(json!({ "type": "user", "id": id, "hostfwd": forwards }))
        }
    }
}

fn forward(forward: &Forward) -> Result<Value, EngineError> {
    let protocol = match forward.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    if forward.host.is_ipv6() {
        let what = format!("forwarding {} with user networking: only IPv4 works", forward.host);
        return Err(EngineError::Unsupported { what });
    }
    Ok(json!({ "str": format!("{protocol}:{}-:{}", forward.host, forward.guest_port) }))
}

fn add_disk(
    line: &mut Line,
    launch: &Launch,
    found: &Surroundings,
    device: &Device,
    index: usize,
) -> Result<(), EngineError> {
    let disk = launch.guest.disks.get(index).ok_or_else(|| unmatched(device))?;
    let place = found.disks.get(index).copied().unwrap_or_default();
    line.add_json("-blockdev", &disk_back(disk, place, &device.id)?);
    let mut card = match disk.device {
        // A guest whose storage fails is stopped, and goes on when the storage is back.
        DiskDevice::Disk => json!({
            "driver": "virtio-blk-pci", "serial": device.id, "werror": "stop", "rerror": "stop",
        }),
        DiskDevice::Cdrom => json!({ "driver": "ide-cd", "bus": cdrom_bus(launch, index)? }),
    };
    card["id"] = json!(device.id);
    card["drive"] = json!(format!("{}-image", device.id));
    if let Some(order) = boot_order(launch, disk.device, index) {
        card["bootindex"] = json!(order);
    }
    line.add_json("-device", &placed(card, launch, device));
    Ok(())
}

/// Where the n-th CD drive is plugged in: every operating system's installer finds it there.
fn cdrom_bus(launch: &Launch, index: usize) -> Result<String, EngineError> {
    let is_cdrom = |disk: &&Disk| disk.device == DiskDevice::Cdrom;
    let nth = launch.guest.disks[..index].iter().filter(is_cdrom).count();
    // q35 has six SATA ports, i440fx two IDE channels.
    let places = if is_q35(&launch.passport) { 6 } else { 2 };
    if nth >= places {
        let what = format!("more than {places} CD drives in a `{}`", launch.passport.machine);
        return Err(EngineError::Unsupported { what });
    }
    Ok(format!("ide.{nth}"))
}

/// Returns the place of a disk among those the firmware tries; none where it loads a kernel.
fn boot_order(launch: &Launch, device: DiskDevice, index: usize) -> Option<usize> {
    let Boot::Firmware { from, .. } = &launch.guest.boot else { return None };
    let is_first = match (from, device) {
        (BootFrom::Disk, DiskDevice::Disk) | (BootFrom::Cdrom, DiskDevice::Cdrom) => true,
        (BootFrom::Disk, DiskDevice::Cdrom) | (BootFrom::Cdrom, DiskDevice::Disk) => false,
    };
    Some(if is_first { index } else { launch.guest.disks.len() + index })
}

fn disk_back(disk: &Disk, place: DiskPlace, id: &str) -> Result<Value, EngineError> {
    let is_read_only = disk.is_read_only || disk.device == DiskDevice::Cdrom;
    let mut file = match &disk.source {
        DiskSource::Path(path) => json!({
            "driver": if place.is_block_device { "host_device" } else { "file" },
            "filename": text(path)?, "locking": "on",
        }),
        DiskSource::Nfs(url) => nfs(url)?,
    };
    file["node-name"] = json!(format!("{id}-file"));
    file["cache"] = json!({ "direct": place.is_direct, "no-flush": false });
    file["discard"] = json!("unmap");
    file["read-only"] = json!(is_read_only);
    file["auto-read-only"] = json!(false);
    let driver = match disk.format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    };
    Ok(json!({
        "driver": driver, "node-name": format!("{id}-image"), "file": file,
        "cache": { "direct": place.is_direct, "no-flush": false },
        "discard": "unmap", "read-only": is_read_only, "auto-read-only": false,
    }))
}

/// Takes `nfs://server/export/image` apart, for QEMU's own NFS client.
fn nfs(url: &str) -> Result<Value, EngineError> {
    let wrong = || EngineError::Unsupported { what: format!("the disk `{url}`") };
    let rest = url.strip_prefix("nfs://").ok_or_else(wrong)?;
    let slash = rest.find('/').ok_or_else(wrong)?;
    let (host, path) = rest.split_at(slash);
    if host.is_empty() || path.len() < 2 {
        return Err(wrong());
    }
    let server = json!({ "type": "inet", "host": host });
    Ok(json!({ "driver": "nfs", "server": server, "path": path }))
}

/// A passport that speaks of a device the definition does not have.
fn unmatched(device: &Device) -> EngineError {
    EngineError::Unsupported {
        what: format!("the passport's device `{}`, which the definition lacks", device.id),
    }
}

fn check_word(word: &str) -> Result<(), EngineError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=');
    if !word.is_empty() && word.chars().all(allowed) {
        return Ok(());
    }
    Err(EngineError::Unsupported { what: format!("`{word}` as a machine type or CPU model") })
}

fn text(path: &Path) -> Result<&str, EngineError> {
    path.to_str().ok_or_else(|| EngineError::Unsupported {
        what: format!("the file name `{}`, which is not UTF-8", path.display()),
    })
}

/// Hides commas from QEMU's older option syntax.
fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::samples;
    use whimbrel_model::passport::{Accelerator, BootFile, Cpu, EngineKind};

    fn launch(change: impl FnOnce(&mut Launch)) -> Launch {
        let guest = samples::everything();
        let cpu = Cpu { model: "Westmere-v1,-aes".to_owned(), features: Vec::new() };
        let mut launch = Launch {
            passport: Passport {
                guest: samples::ID,
                engine: EngineKind::Qemu,
                engine_version: "7.2.22".to_owned(),
                accelerator: Accelerator::Tcg,
                machine: "pc-q35-7.2".to_owned(),
                cpu,
                memory: guest.memory.size,
                cpu_count: guest.cpus.count,
                cpu_count_max: guest.cpus.count_max,
                devices: crate::qemu::freeze::devices(samples::ID, &guest).unwrap(),
                boot_files: Vec::new(),
            },
            guest,
            directory: PathBuf::from("/guests/web1/run"),
            taps: Vec::new(),
            start: Start::Boot,
            run_as: None,
            wrapper: Vec::new(),
        };
        change(&mut launch);
        launch
    }

    fn found() -> Surroundings {
        let file = DiskPlace { is_block_device: false, is_direct: true };
        let device = DiskPlace { is_block_device: true, is_direct: true };
        Surroundings {
            monitor_fd: 3,
            console_fd: Some(4),
            console_log: PathBuf::from("/guests/a,b/console.log"),
            taps: vec![Tap { fd: 5, vhost_fd: None }],
            disks: vec![file, file, DiskPlace::default(), device, DiskPlace::default()],
            uefi_variables: PathBuf::from("/guests/web1/run/uefi-variables.fd"),
        }
    }

    /// One option and its value a line, as a person would write them.
    fn lines(launch: &Launch, found: &Surroundings) -> String {
        let arguments = arguments(&QemuConfig::default(), launch, found).unwrap();
        arguments.join(" ").replace(" -", "\n-")
    }

    /// The whole line of a guest with one of everything. A change here changes the machine of
    /// every guest there is: add, never alter.
    #[test]
    fn everything_at_once() {
        insta::assert_snapshot!(lines(&launch(|_| {}), &found()));
    }

    #[test]
    fn an_incoming_uefi_guest_with_kvm_that_boots_a_cd_on_i440fx() {
        let launch = launch(|launch| {
            launch.start = Start::Incoming;
            launch.guest.boot = Boot::Firmware {
                firmware: whimbrel_model::guest::Firmware::Uefi,
                from: BootFrom::Cdrom,
            };
            launch.guest.networks.truncate(1);
            launch.guest.disks.remove(1);
            launch.guest.disks.truncate(2);
            let passport = &mut launch.passport;
            passport.devices = crate::qemu::freeze::devices(samples::ID, &launch.guest).unwrap();
            passport.machine = "pc-i440fx-7.2".to_owned();
            passport.accelerator = Accelerator::Kvm;
            passport.boot_files = vec![BootFile {
                role: BootRole::Firmware,
                path: PathBuf::from("/usr/share/OVMF/OVMF_CODE_4M.fd"),
                bytes: 1,
                blake3: [0; 32],
            }];
        });
        let taps = vec![Tap { fd: 5, vhost_fd: Some(6) }];
        insta::assert_snapshot!(lines(&launch, &Surroundings { taps, ..found() }));
    }

    /// A hostile passport cannot add options, and a disk that nobody defined is not guessed.
    #[test]
    fn words_of_a_passport_are_checked() {
        let check = |change: fn(&mut Launch)| {
            assert!(arguments(&QemuConfig::default(), &launch(change), &found()).is_err());
        };
        check(|launch| launch.passport.machine = "pc-q35-7.2,kernel=/etc/shadow".to_owned());
        check(|launch| launch.passport.cpu.model = "max,a b".to_owned());
        check(|launch| launch.guest.disks.truncate(1));
        check(|launch| launch.guest.networks.clear());
    }

    #[test]
    fn nfs_urls_are_taken_apart() {
        let found = nfs("nfs://10.0.0.1/xen/guest.img").unwrap();
        assert_eq!(found["server"]["host"], "10.0.0.1");
        assert_eq!(found["path"], "/xen/guest.img");
        for wrong in ["nfs://", "nfs://host", "nfs://host/", "http://host/a", "nfs:///a"] {
            assert!(nfs(wrong).is_err(), "{wrong}");
        }
    }
}
