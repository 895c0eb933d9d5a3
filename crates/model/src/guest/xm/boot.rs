// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the guest boots, and how the names of its disks follow it to another engine.

use super::Import;
use crate::guest::file::COMMAND_LINE_BYTES_MAX;
use crate::guest::{Boot, BootFrom, Disk, DiskDevice, Firmware};
use crate::passport::EngineKind;
use crate::text_file::{Fault, FileError, printable};
use std::path::PathBuf;

/// What kind of guest the file describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its kernel knows that it runs on Xen, or boots like one that does.
    Paravirtual,
    /// It sees a whole machine with firmware.
    Machine,
}

pub(super) fn boot(import: &mut Import<'_>, disks: &mut [Disk]) -> Result<Boot, FileError> {
    let kind = kind(import)?;
    let kernel = import.path("kernel")?;
    let is_loader = kernel.as_ref().is_some_and(|kernel| kernel.ends_with("hvmloader"));
    let names = rename(import, disks);
    if import.options.engine != EngineKind::Xen {
        warn_inside(import, &names);
    }
    match kernel.filter(|_| !(kind == Kind::Machine && is_loader)) {
        Some(kernel) => kernel_boot(import, kernel, &names),
        None if kind == Kind::Machine => firmware_boot(import, disks),
        None => Err(no_kernel(import)),
    }
}

fn kind(import: &mut Import<'_>) -> Result<Kind, FileError> {
    let word = match import.text("type")? {
        Some(kind) => Some(kind),
        None => import.text("builder")?,
    };
    let Some(item) = word else { return Ok(Kind::Paravirtual) };
    match item.text.as_str() {
        "hvm" => Ok(Kind::Machine),
        "pv" | "pvh" | "linux" | "generic" => Ok(Kind::Paravirtual),
        other => Err(item.unsupported(
            format!("guests of the kind `{}` are not known", printable(other)),
            "the kinds are `pv`, `pvh` and `hvm`",
        )),
    }
}

fn no_kernel(import: &Import<'_>) -> FileError {
    match import.text("bootloader") {
        Ok(Some(loader)) => loader.unsupported(
            format!("`{}` takes the kernel out of the guest's disk", loader.text),
            "copy kernel and ramdisk to the hosts and give `kernel` and `ramdisk`; or, where the \
             disk has a boot loader of its own, say `type = \"hvm\"`",
        ),
        Ok(None) | Err(_) => FileError {
            file: import.file.name.to_owned(),
            place: None,
            key: Some("kernel".to_owned()),
            fault: Box::new(Fault::Missing { text: "there is nothing to boot".to_owned() }),
        },
    }
}

fn firmware_boot(import: &mut Import<'_>, disks: &[Disk]) -> Result<Boot, FileError> {
    let firmware = match import.text("firmware")? {
        Some(item) => Some(item),
        None => import.text("bios")?,
    };
    let firmware = match firmware {
        None => Firmware::Bios,
        Some(item) => match item.text.as_str() {
            "bios" | "seabios" | "rombios" => Firmware::Bios,
            "uefi" | "ovmf" => Firmware::Uefi,
            other => {
                return Err(item.unsupported(
                    format!("the firmware `{}` is not known", printable(other)),
                    "the firmwares are `bios` and `uefi`",
                ));
            }
        },
    };
    let has = |device| disks.iter().any(|disk| disk.device == device);
    let order = import.text("boot")?;
    let from = match order.as_ref().and_then(|order| order.text.chars().next()) {
        None | Some('c') if has(DiskDevice::Disk) => BootFrom::Disk,
        None | Some('d') if has(DiskDevice::Cdrom) => BootFrom::Cdrom,
        Some('n') => {
            let order = order.expect("its first character was seen");
            return Err(order.unsupported(
                "guests do not boot over the network",
                "boot it from a disk or a CD-ROM image: `boot = \"c\"` or `boot = \"d\"`",
            ));
        }
        Some(_) | None => {
            let text = "there is no disk to boot from".to_owned();
            return Err(match order {
                Some(order) => order.error(Fault::Conflict { text }),
                None => FileError {
                    file: import.file.name.to_owned(),
                    place: None,
                    key: Some("disk".to_owned()),
                    fault: Box::new(Fault::Missing { text }),
                },
            });
        }
    };
    Ok(Boot::Firmware { firmware, from })
}

/// A disk's name before and after.
struct Renamed {
    old: String,
    new: String,
}

/// Gives the disks the names they will have in the guest, and tells.
fn rename(import: &mut Import<'_>, disks: &mut [Disk]) -> Vec<Renamed> {
    if import.options.engine == EngineKind::Xen {
        return Vec::new();
    }
    let (mut disk_count, mut cdrom_count) = (0_u8, 0_u8);
    let mut names = Vec::new();
    for disk in disks {
        let new = match disk.device {
            DiskDevice::Disk => {
                disk_count += 1;
                format!("vd{}", char::from(b'a' + disk_count - 1))
            }
            DiskDevice::Cdrom => {
                cdrom_count += 1;
                format!("sr{}", cdrom_count - 1)
            }
        };
        let old = disk.name.take().expect("every entry of `disk` has a name");
        import.notes.push(format!("disk {old} is {new} in the guest ({})", disk.source));
        names.push(Renamed { old, new });
    }
    names
}

fn kernel_boot(
    import: &mut Import<'_>,
    kernel: PathBuf,
    names: &[Renamed],
) -> Result<Boot, FileError> {
    let ramdisk = import.path("ramdisk")?;
    let mut words = Vec::new();
    match import.text("cmdline")? {
        // As `xl` does: the whole line, and `root` and `extra` do not count.
        Some(line) => words.extend(line.text.split_whitespace().map(str::to_owned)),
        None => {
            if let Some(root) = import.text("root")? {
                words.extend(format!("root={}", root.text).split_whitespace().map(str::to_owned));
            }
            if let Some(extra) = import.text("extra")? {
                words.extend(extra.text.split_whitespace().map(str::to_owned));
            }
        }
    }
    if import.options.engine != EngineKind::Xen {
        words.iter_mut().for_each(|word| follow_disk(import, word, names));
        follow_console(import, &mut words);
    }
    let command_line = words.join(" ");
    if command_line.len() > COMMAND_LINE_BYTES_MAX || command_line.chars().any(char::is_control) {
        let text = format!(
            "the kernel's command line is one line of at most {COMMAND_LINE_BYTES_MAX} bytes, and \
             here are {}",
            command_line.len()
        );
        return Err(FileError {
            file: import.file.name.to_owned(),
            place: None,
            key: Some("extra".to_owned()),
            fault: Box::new(Fault::BadValue { text }),
        });
    }
    Ok(Boot::Kernel { kernel, ramdisk, command_line })
}

/// Rewrites `root=/dev/xvda1` and its like.
fn follow_disk(import: &mut Import<'_>, word: &mut String, names: &[Renamed]) {
    let Some((key, device)) = word.split_once("=/dev/") else { return };
    let found = names.iter().find_map(|Renamed { old, new }| {
        let partition = device.strip_prefix(old.as_str())?;
        // A whole device with a number in its name has no partitions: `xvda10` is not in `xvda1`.
        let has_partitions = !old.ends_with(|c: char| c.is_ascii_digit());
        let is_partition = has_partitions && partition.bytes().all(|b| b.is_ascii_digit());
        (partition.is_empty() || is_partition).then(|| format!("{key}=/dev/{new}{partition}"))
    });
    match found {
        Some(new) if new == *word => {}
        Some(new) => {
            import.notes.push(format!("{word} is {new} now"));
            *word = new;
        }
        None if key == "root" && is_xen_name(device) => {
            let text =
                format!("no entry of `disk` is called `{device}`, and {word} stays as it is");
            import.warn_key("root", text);
        }
        None => {}
    }
}

fn is_xen_name(device: &str) -> bool {
    ["xvd", "sd", "hd"].iter().any(|prefix| device.starts_with(prefix))
}

/// Xen's console is `hvc0` (once `xvc0`) and needs no argument; here it is a serial port.
fn follow_console(import: &mut Import<'_>, words: &mut Vec<String>) {
    const SERIAL: &str = "console=ttyS0";
    for word in words.iter_mut() {
        if matches!(word.as_str(), "console=hvc0" | "console=xvc0") {
            import.notes.push(format!("{word} is {SERIAL} now"));
            *word = SERIAL.to_owned();
        }
    }
    if !words.iter().any(|word| word.starts_with("console=")) {
        import.notes.push(format!("{SERIAL} was added: it is what `whimbrel console` shows"));
        words.push(SERIAL.to_owned());
    }
}

/// Names what only the guest's owner can change.
fn warn_inside(import: &mut Import<'_>, names: &[Renamed]) {
    let changed: Vec<_> = names
        .iter()
        .filter(|name| name.old != name.new)
        .map(|name| format!("/dev/{} is /dev/{}", name.old, name.new))
        .collect();
    if !changed.is_empty() {
        let text = format!(
            "look into the guest's /etc/fstab, which may name its disks: {}",
            changed.join(", ")
        );
        import.warn_key("disk", text);
    }
    let text = "the guest must bring virtio drivers (virtio_pci, virtio_blk, virtio_net), \
                in its ramdisk, too: Xen's devices and IDE disks are not there";
    import.warn_key("disk", text.to_owned());
}
