// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Disks: `tap:aio:/xen/web1.img,xvda1,w`, and `format=qcow2, vdev=xvda, target=/xen/web1.img`.

use super::{Import, Item};
use crate::guest::file::check_disk_name;
use crate::guest::{DISKS_MAX, Disk, DiskDevice, DiskFormat, DiskSource};
use crate::similar;
use crate::text_file::{Fault, FileError, printable};
use std::collections::HashSet;

/// Where the parts of a disk stand in `xl`'s syntax when they have no names.
const POSITIONS: [&str; 4] = ["target", "format", "vdev", "access"];
/// What `xl` lets a disk say, beside its flags.
const KEYS: [&str; 7] = ["target", "format", "vdev", "access", "backendtype", "backend", "script"];

/// A disk as its entry says it.
#[derive(Default)]
struct Entry<'a> {
    target: &'a str,
    format: &'a str,
    vdev: &'a str,
    access: &'a str,
    is_cdrom: bool,
}

/// Reads the list `disk`. Every disk of the result has the name that the guest knew it by.
pub(super) fn disks(import: &mut Import<'_>) -> Result<Vec<Disk>, FileError> {
    let items = import.texts("disk")?;
    if items.len() > DISKS_MAX {
        let count = items.len();
        let text = format!("a guest has at most {DISKS_MAX} disks, and here are {count}");
        return Err(items[DISKS_MAX].error(Fault::BadValue { text }));
    }
    let (mut disks, mut sources) = (Vec::new(), HashSet::new());
    for item in &items {
        let Some(disk) = disk(import, item)? else { continue };
        if !sources.insert(disk.source.clone()) {
            let text = format!("`{}` is a disk of this guest already", disk.source);
            return Err(item.error(Fault::Conflict { text }));
        }
        let name = disk.name.clone().unwrap_or_default();
        let other = disks.iter().filter_map(|disk: &Disk| disk.name.as_deref());
        if let Some(other) = other.into_iter().find(|other| overlap(other, &name)) {
            let text = match other == name {
                true => format!("two disks are called `{name}`"),
                false => format!("`{name}` and `{other}` would be one device in the guest"),
            };
            return Err(item.error(Fault::Conflict { text }));
        }
        disks.push(disk);
    }
    Ok(disks)
}

/// Whether two names mean one device: the same, or a disk and its partition.
fn overlap(a: &str, b: &str) -> bool {
    let is_partition = |whole: &str, part: &str| {
        let number = part.strip_prefix(whole);
        number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_partition(a, b) || is_partition(b, a)
}

fn disk(import: &mut Import<'_>, item: &Item) -> Result<Option<Disk>, FileError> {
    let (entry, format) = match split_scheme(item)? {
        Some((format, rest)) => (old_entry(item, rest)?, format),
        None => {
            let entry = new_entry(item)?;
            let format = format_of(item, entry.format)?;
            (entry, format)
        }
    };
    let name = entry.vdev.trim_start_matches("/dev/").trim_start_matches("ioemu:");
    let (name, is_cdrom) = match name.split_once(':') {
        Some((name, "cdrom")) => (name, true),
        Some((name, "disk")) => (name, false),
        Some(_) | None => (name, entry.is_cdrom),
    };
    let name = check_disk_name(name).map_err(|text| item.bad(text))?;
    if entry.target.is_empty() {
        if !is_cdrom {
            return Err(item.bad(format!("the disk `{name}` has no file")));
        }
        import.warn(item, format!("`{name}` is an empty CD-ROM drive, and is left out"));
        return Ok(None);
    }
    let access = entry.access.trim_end_matches('!');
    if access != entry.access {
        let text = format!("`!` of `{name}`: every start asks who owns the disk, whatever it says");
        import.warn(item, text);
    }
    let is_read_only = match access {
        "" | "w" | "rw" => is_cdrom,
        "r" | "ro" => true,
        _ => return Err(item.bad(format!("`{access}` is neither `r` nor `w`"))),
    };
    Ok(Some(Disk {
        source: source(import, item, entry.target)?,
        format,
        is_read_only,
        device: if is_cdrom { DiskDevice::Cdrom } else { DiskDevice::Disk },
        name: Some(name),
    }))
}

fn source(import: &Import<'_>, item: &Item, target: &str) -> Result<DiskSource, FileError> {
    let path = match target.strip_prefix("phy:") {
        // xend looked for it among the devices.
        Some(device) if !device.starts_with('/') => format!("/dev/{device}"),
        Some(device) => device.to_owned(),
        None => target.to_owned(),
    };
    import.file.path(&path).map(DiskSource::Path).map_err(|text| item.bad(text))
}

/// Splits off `tap:aio:` and its like, which also say the format. `phy:` stays: it says where
/// relative names lie.
fn split_scheme(item: &Item) -> Result<Option<(DiskFormat, &str)>, FileError> {
    let text = item.text.trim();
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(None) };
    match scheme {
        // An empty drive, as both tools once wrote it.
        _ if text.starts_with(',') && text.contains(":cdrom") => Ok(Some((DiskFormat::Raw, text))),
        "phy" => Ok(Some((DiskFormat::Raw, text))),
        "file" => Ok(Some((DiskFormat::Raw, rest))),
        "tap" | "tap2" => {
            let rest = rest.strip_prefix("tapdisk:").unwrap_or(rest);
            let (driver, path) = rest.split_once(':').unwrap_or(("", rest));
            let driver = if driver.is_empty() { "aio" } else { driver };
            Ok(Some((format_of(item, driver)?, path)))
        }
        "nbd" | "iscsi" | "drbd" | "rbd" | "npiv" => Err(item.unsupported(
            format!("disks by `{scheme}:` are not known"),
            "attach it to every host and give its block device: `phy:/dev/…`",
        )),
        _ => Ok(None),
    }
}

fn format_of(item: &Item, format: &str) -> Result<DiskFormat, FileError> {
    match format {
        "" | "raw" | "aio" | "sync" => Ok(DiskFormat::Raw),
        "qcow2" => Ok(DiskFormat::Qcow2),
        "qcow" | "vhd" | "vmdk" | "qed" | "vdi" | "ram" => Err(item.unsupported(
            format!("images in the format `{format}` are not run"),
            "convert it: `qemu-img convert -O raw OLD NEW`",
        )),
        _ => Err(item.bad(format!("`{format}` is not a format; `raw` and `qcow2` are"))),
    }
}

/// `PATH,xvda1,w`, after its scheme.
fn old_entry<'a>(item: &Item, rest: &'a str) -> Result<Entry<'a>, FileError> {
    let parts: Vec<_> = rest.split(',').map(str::trim).collect();
    match parts[..] {
        [target, vdev] => Ok(Entry { target, vdev, ..Entry::default() }),
        [target, vdev, access] => Ok(Entry { target, vdev, access, ..Entry::default() }),
        [_, _, _, domain, ..] => Err(driver_domain(item, domain)),
        [] | [_] => Err(item.bad("a disk is `FILE,NAME,r` or `FILE,NAME,w`")),
    }
}

fn driver_domain(item: &Item, domain: &str) -> FileError {
    item.unsupported(
        format!("the disk comes from the domain `{domain}`, and there are no driver domains"),
        "let the hosts themselves reach the disk",
    )
}

/// `target=…`, `vdev=…` in any order, or by position.
fn new_entry(item: &Item) -> Result<Entry<'_>, FileError> {
    let mut entry = Entry::default();
    let (mut rest, mut position) = (item.text.trim(), 0);
    while !rest.is_empty() {
        let (part, after) = rest.split_once(',').unwrap_or((rest, ""));
        let part = part.trim();
        // `target=` takes all that follows: a path may contain commas.
        if let Some(target) = rest.trim_start().strip_prefix("target=") {
            entry.target = target.trim();
            return Ok(entry);
        }
        match part.split_once('=') {
            Some((key, value)) => set(item, &mut entry, key.trim(), value.trim())?,
            None if matches!(part, "cdrom" | "devtype=cdrom") => entry.is_cdrom = true,
            None if matches!(part, "discard" | "no-discard" | "direct-io-safe") => {}
            None => {
                let key = POSITIONS.get(position).copied().ok_or_else(|| {
                    item.bad(format!("`{}` is one part too many", printable(part)))
                })?;
                set(item, &mut entry, key, part)?;
                position += 1;
            }
        }
        rest = after;
    }
    Ok(entry)
}

fn set<'a>(item: &Item, entry: &mut Entry<'a>, key: &str, value: &'a str) -> Result<(), FileError> {
    match key {
        "target" => entry.target = value,
        "format" => entry.format = value,
        "vdev" => entry.vdev = value,
        "access" => entry.access = value,
        "devtype" => entry.is_cdrom = value == "cdrom",
        // How Xen reached the file; the engine here has one way.
        "backendtype" => {}
        "backend" if matches!(value, "0" | "Domain-0" | "dom0") => {}
        "backend" => return Err(driver_domain(item, value)),
        "script" => {
            return Err(item.unsupported(
                format!("the disk is made by the script `{value}`"),
                "attach it to every host and give its block device: `phy:/dev/…`",
            ));
        }
        _ => {
            let hint = similar::hint(key, KEYS);
            return Err(item.bad(format!("a disk has no `{}`{hint}", printable(key))));
        }
    }
    Ok(())
}
