// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A domain that others have started, in the words of a guest's definition.
//!
//! What is made of it is compared with what it was made of, as the target does when a guest comes:
//! what the two do not have in common, a definition cannot say. So a guest that can be adopted can
//! be moved, too.

use super::config::{self, MACHINE_HVM, MACHINE_PV, MACHINE_PVH};
use super::header::{BRIDGE_UNSAID, Difference, Offered};
use super::hotplug::Plugged;
use super::json::Json;
use crate::contract::{Described, Foreign};
use crate::error::EngineError;
use std::path::PathBuf;
use whimbrel_model::guest::{
    Boot, BootFrom, Cpus, Devices, Disk, DiskDevice, DiskFormat, DiskSource, Firmware, Guest,
    Memory, Network, NetworkKind, Policies, Policy, file,
};
use whimbrel_model::id::{GuestId, GuestName};
use whimbrel_model::text_file::TextFile;
use whimbrel_model::units::Bytes;

/// Most reasons that are named.
const REASONS_MAX: usize = 12;
const LISTED_BYTES_MAX: usize = 1 << 20;
/// What stands in for a name that cannot be one; the guest is refused for it.
const UNNAMED: &str = "unnamed";

/// Reads what `xl list -l` says of one domain.
pub(super) fn describe(listed: &str, foreign: &Foreign) -> Result<Described, EngineError> {
    let config = config_of(listed, foreign)?;
    let mut reader = Reader { config: &config, unfit: Vec::new(), notes: Vec::new() };
    let guest = reader.guest(foreign.id);
    let Reader { mut unfit, notes, .. } = reader;
    let offered = Offered::of(
        &guest,
        &super::passport(foreign.id, &guest, String::new()),
        &Plugged::default(),
    );
    unfit.extend(offered.differences(&config).into_iter().map(words));
    // Rules of a definition that xl does not have: lengths, names of disks.
    let text = file::render(&guest);
    if let Err(error) = file::parse(&TextFile { name: "", text: &text, base: None }) {
        let key = error.key.map(|key| format!("`{key}`: ")).unwrap_or_default();
        unfit.push(format!("{key}{}", error.fault));
    }
    if unfit.is_empty() {
        return Ok(Described { guest, notes });
    }
    if unfit.len() > REASONS_MAX {
        let more = unfit.split_off(REASONS_MAX).len();
        unfit.push(format!("{more} more"));
    }
    Err(EngineError::NotExpressible { guest: foreign.name.clone(), what: unfit })
}

/// Finds the configuration of the one domain that was asked for.
fn config_of(listed: &str, foreign: &Foreign) -> Result<Json, EngineError> {
    let unreadable = |reason: String| EngineError::Refused {
        guest: foreign.name.clone(),
        command: "xl list -l".to_owned(),
        reason,
    };
    if listed.len() > LISTED_BYTES_MAX {
        return Err(unreadable(format!("it says {} bytes of one domain", listed.len())));
    }
    let json = serde_json::from_str(listed).map_err(|error| unreadable(error.to_string()))?;
    let Json::List(mut domains) = json else {
        return Err(unreadable("its answer is not a list".to_owned()));
    };
    let config = domains.pop().and_then(|domain| domain.take("config"));
    config.ok_or_else(|| unreadable("its answer has no configuration".to_owned()))
}

/// Names a setting that a definition cannot say.
fn words(difference: Difference) -> String {
    match difference {
        Difference::Differs { key, found, .. } | Difference::NotOffered { key, found } => {
            format!("`{key}` ({found})")
        }
    }
}

/// A configuration on its way to a guest.
struct Reader<'a> {
    config: &'a Json,
    unfit: Vec<String>,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn guest(&mut self, id: GuestId) -> Guest {
        let kind = self.config.text("c_info/type");
        let is_it = |machine: &&str| Some(config::kind(machine)) == kind;
        let machine = [MACHINE_PV, MACHINE_HVM].into_iter().find(is_it).unwrap_or(MACHINE_PVH);
        let guest = Guest {
            name: self.name(),
            id: Some(id),
            memory: self.memory(),
            cpus: self.cpus(),
            machine: Some(machine.to_owned()),
            boot: if machine == MACHINE_HVM { self.firmware() } else { self.kernel() },
            disks: self.disks(),
            networks: self.networks(),
            devices: Devices { has_balloon: true, has_rng: true, has_serial: true },
            on: Policies {
                poweroff: self.policy("on_poweroff"),
                reboot: self.policy("on_reboot"),
                crash: self.policy("on_crash"),
            },
            autostart: false,
            keep_memory: true,
        };
        self.note_what_changes();
        guest
    }

    fn name(&mut self) -> GuestName {
        let name = self.config.text("c_info/name").unwrap_or_default();
        GuestName::new(name).unwrap_or_else(|error| {
            self.unfit.push(error.to_string());
            GuestName::new(UNNAMED).expect("it is letters")
        })
    }

    /// What its balloon may have: less is what it was squeezed to.
    fn memory(&mut self) -> Memory {
        let kib = |key| self.config.number(key).and_then(|kib| u64::try_from(kib).ok());
        let max = kib("b_info/max_memkb").unwrap_or_default();
        let size = Bytes::mib(max.div_ceil(1 << 10).min(u64::from(u32::MAX)));
        if let Some(now) = kib("b_info/target_memkb").filter(|now| *now < max) {
            let now = Bytes(now << 10);
            self.notes.push(format!("it has {now} now, and {size} from its next start"));
        }
        Memory { size, min: None }
    }

    fn cpus(&self) -> Cpus {
        let number = |key| self.config.number(key).and_then(|count| u32::try_from(count).ok());
        let count_max = number("b_info/max_vcpus").unwrap_or(1);
        let online = self.config.list("b_info/avail_vcpus").len();
        let count = u32::try_from(online).ok().filter(|count| *count > 0).unwrap_or(count_max);
        Cpus { count, count_max, model: None }
    }

    /// What is neither of these two is found when the two configurations are compared.
    fn firmware(&self) -> Boot {
        let bios = self.config.text("b_info/type.hvm/bios");
        let is_uefi = bios == Some(config::bios(Firmware::Uefi));
        let order = self.config.text("b_info/type.hvm/boot");
        let is_cdrom = order == Some(config::boot_order(BootFrom::Cdrom));
        Boot::Firmware {
            firmware: if is_uefi { Firmware::Uefi } else { Firmware::Bios },
            from: if is_cdrom { BootFrom::Cdrom } else { BootFrom::Disk },
        }
    }

    fn kernel(&mut self) -> Boot {
        let path = |key| self.config.text(key).map(PathBuf::from);
        let kernel = path("b_info/kernel");
        if kernel.is_none() {
            self.unfit.push("no `b_info/kernel`".to_owned());
        }
        Boot::Kernel {
            kernel: kernel.unwrap_or_default(),
            ramdisk: path("b_info/ramdisk"),
            command_line: self.config.text("b_info/cmdline").unwrap_or_default().to_owned(),
        }
    }

    fn disks(&self) -> Vec<Disk> {
        let disks = self.config.list("disks").iter().map(|disk| Disk {
            source: DiskSource::Path(disk.text("pdev_path").unwrap_or_default().into()),
            format: match disk.text("format") {
                Some("qcow2") => DiskFormat::Qcow2,
                _ => DiskFormat::Raw,
            },
            is_read_only: disk.number("readwrite").unwrap_or_default() == 0,
            device: match disk.number("is_cdrom") {
                Some(1) => DiskDevice::Cdrom,
                _ => DiskDevice::Disk,
            },
            name: disk.text("vdev").map(str::to_owned),
        });
        disks.collect()
    }

    fn networks(&self) -> Vec<Network> {
        let cards = self.config.list("nics").iter().map(|nic| {
            let bridge = nic.text("bridge").unwrap_or(BRIDGE_UNSAID).to_owned();
            let mac = nic.text("mac").and_then(|mac| mac.parse().ok());
            Network { mac, kind: NetworkKind::Bridge { bridge } }
        });
        cards.collect()
    }

    fn policy(&mut self, key: &str) -> Policy {
        let (policy, lost) = match self.config.text(key) {
            None | Some("destroy") => return Policy::Destroy,
            Some("restart") => return Policy::Restart,
            Some("preserve") => return Policy::Preserve,
            Some("rename_restart") => (Policy::Restart, "the old guest is not kept beside it"),
            Some("coredump_destroy") => (Policy::Destroy, "no core is dumped"),
            Some("coredump_restart") => (Policy::Restart, "no core is dumped"),
            Some(other) => {
                self.unfit.push(format!("`{key}` (`{}`)", other.escape_debug()));
                return Policy::Destroy;
            }
        };
        let was = self.config.text(key).unwrap_or_default();
        self.notes.push(format!("`{key}` is `{was}`, and {lost}"));
        policy
    }

    /// What touches the guest alone and is not kept.
    fn note_what_changes(&mut self) {
        let clock = self.config.text("b_info/tsc_mode").unwrap_or("default");
        if clock != "native" {
            let note = format!("`tsc_mode` is `{clock}` now, and `native` from its next start");
            self.notes.push(note);
        }
        let share = |key, usual| self.config.number(key).is_some_and(|share| share != usual);
        if share("b_info/sched_params/weight", 256) || share("b_info/sched_params/cap", 0) {
            let note = "its weight and cap on the processors are Xen's own from its next start";
            self.notes.push(note.to_owned());
        }
    }
}

#[cfg(test)]
mod tests;
