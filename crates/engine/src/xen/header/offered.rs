// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a guest was offered with, in the words of xl's configuration: the shape of the real one,
//! with those values that must be the same.
//!
//! It is kept beside the guest, as the process that compares is not the daemon.

use super::{EngineError, Json, Path, PathBuf, Read};
use crate::xen::config;
use crate::xen::hotplug::{Plugged, SCRIPT};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use whimbrel_model::guest::{Boot, DiskDevice, DiskFormat, DiskSource, Guest};
use whimbrel_model::passport::Passport;

/// Where it is kept.
pub(in crate::xen) const FILE: &str = "offered.json";
const FILE_BYTES_MAX: u64 = 256 << 10;

/// What a value that was not offered may be.
enum Harmless {
    /// Of a setting that only touches the guest itself.
    Anything,
    /// What it is without having been set.
    Only(&'static str),
    Number(i128),
    /// A group without settings.
    Empty,
}

/// Settings that need not be in an offer, by group.
const HARMLESS: &[(&str, Harmless)] = &[
    ("on_poweroff", Harmless::Anything),
    ("on_reboot", Harmless::Anything),
    ("on_crash", Harmless::Anything),
    ("on_watchdog", Harmless::Anything),
    ("on_soft_reset", Harmless::Anything),
    // Of no number in particular.
    ("c_info/domid", Harmless::Number(0xffff_ffff)),
    ("c_info/run_hotplug_scripts", Harmless::Only("True")),
    ("b_info/avail_vcpus", Harmless::Anything),
    ("b_info/tsc_mode", Harmless::Anything),
    ("b_info/sched_params", Harmless::Anything),
    ("b_info/claim_mode", Harmless::Anything),
    ("b_info/video_memkb", Harmless::Number(0)),
    ("b_info/type.pvh", Harmless::Empty),
    ("b_info/type.pv", Harmless::Empty),
    ("b_info/type.hvm/sdl", Harmless::Empty),
    ("b_info/type.hvm/spice", Harmless::Empty),
    ("b_info/type.hvm/rdm", Harmless::Empty),
    ("b_info/arch_arm", Harmless::Empty),
    ("b_info/arch_x86/msr_relaxed", Harmless::Only("False")),
    ("disks/colo_restore_enable", Harmless::Only("False")),
    ("nics/devid", Harmless::Anything),
    ("nics/nictype", Harmless::Only("vif")),
];
/// A balloon may have made it less.
const AT_MOST: [&str; 2] = ["b_info/max_memkb", "b_info/target_memkb"];
/// The bridge of a network card that names none.
pub(in crate::xen) const BRIDGE_UNSAID: &str = "xenbr0";
/// What plugs a device in.
const SCRIPT_KEY: &str = "script";
/// What tells the members of a list apart.
const NAMES: [(&str, &str); 2] = [("disks", "vdev"), ("nics", "mac")];

/// A setting that is not as it was offered.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(in crate::xen) enum Difference {
    #[error("`{key}` is {found}, and {expected} was offered")]
    Differs { key: String, found: String, expected: String },
    #[error("it has `{key}` ({found}), which was not offered")]
    NotOffered { key: String, found: String },
}

/// What must be in the header.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::xen) struct Offered(Json);

impl Offered {
    /// Writes down what was offered, in the guest's own directory.
    pub(in crate::xen) fn write(
        guest: &Guest,
        passport: &Passport,
        plugged: &Plugged,
        directory: &Path,
    ) -> Result<(), EngineError> {
        let path = directory.join(FILE);
        let text = of(guest, passport, plugged).to_string();
        std::fs::write(&path, text).map_err(|source| failed("write", path, source))
    }

    pub(in crate::xen) fn read(directory: &Path) -> std::io::Result<Offered> {
        let mut text = Vec::new();
        let file = std::fs::File::open(directory.join(FILE))?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
        Ok(Offered(serde_json::from_slice(&text)?))
    }

    /// Compares with what was sent.
    pub(in crate::xen) fn differences(&self, sent: &Json) -> Vec<Difference> {
        let mut found = Vec::new();
        compare("", sent, Some(&self.0), &mut found);
        found
    }

    /// Returns what was sent with this host's own choice of what plugs the devices in; none where
    /// it is the same.
    pub(super) fn with_own_scripts(&self, sent: &Json) -> Option<Json> {
        let mut own = sent.clone();
        for (list, name) in NAMES {
            let Some(sent) = own.list_mut(list) else { continue };
            for item in sent.iter_mut().filter_map(Json::map_mut) {
                let same = |other: &&Json| other.at(name) == item.get(name);
                let script = self.0.list(list).iter().find(same);
                match script.and_then(|other| other.at(SCRIPT_KEY)) {
                    Some(script) => item.insert(SCRIPT_KEY.to_owned(), script.clone()),
                    None => item.remove(SCRIPT_KEY),
                };
            }
        }
        (own != *sent).then_some(own)
    }

    pub(in crate::xen) fn of(guest: &Guest, passport: &Passport, plugged: &Plugged) -> Offered {
        let value = of(guest, passport, plugged);
        Offered(serde_json::from_value(value).expect("a checked guest has no NUL in it"))
    }
}

fn failed(action: &'static str, path: PathBuf, source: std::io::Error) -> EngineError {
    EngineError::File { action, path, source }
}

fn of(guest: &Guest, passport: &Passport, plugged: &Plugged) -> Value {
    let mut build = json!({
        "max_vcpus": passport.cpu_count_max,
        "max_memkb": passport.memory.0 >> 10,
        "target_memkb": passport.memory.0 >> 10,
        "arch_x86": {},
    });
    match &guest.boot {
        Boot::Kernel { kernel, ramdisk, command_line } => {
            build["kernel"] = json!(kernel.to_string_lossy());
            build["ramdisk"] = json!(ramdisk.as_ref().map(|path| path.to_string_lossy()));
            build["cmdline"] = json!(command_line);
        }
        Boot::Firmware { firmware, from } => {
            build["type.hvm"] = json!({
                "bios": config::bios(*firmware),
                "boot": config::boot_order(*from),
                "serial": config::SERIAL,
                "vga": { "kind": "none" },
                "vnc": { "enable": "False" },
            });
        }
    }
    let disks = guest.disks.iter().enumerate().map(|(index, disk)| {
        let path = match &disk.source {
            DiskSource::Path(path) => path.to_string_lossy().into_owned(),
            DiskSource::Nfs(url) => url.clone(),
        };
        let script = plugged.disk(index);
        let mut item = json!({
            "pdev_path": path,
            "vdev": config::disk_name(index, disk, &passport.machine),
            "format": match disk.format { DiskFormat::Raw => "raw", DiskFormat::Qcow2 => "qcow2" },
            "readwrite": u8::from(!disk.is_read_only),
            "is_cdrom": u8::from(disk.device == DiskDevice::Cdrom),
            "removable": u8::from(disk.device == DiskDevice::Cdrom),
        });
        add_script(&mut item, script);
        item
    });
    let networks = config::networks(guest, passport);
    let networks = networks.map(|(mac, bridge)| {
        let mac = mac.map(|mac| mac.to_string());
        let mut item = json!({ "mac": mac, "bridge": bridge });
        if passport.machine == config::MACHINE_HVM {
            item["nictype"] = json!("vif_ioemu");
        }
        add_script(&mut item, plugged.networks());
        item
    });
    json!({
        "c_info": {
            "type": config::kind(&passport.machine),
            "name": guest.name.as_str(),
            "uuid": passport.guest.to_string(),
        },
        "b_info": build,
        "disks": disks.collect::<Vec<_>>(),
        "nics": networks.collect::<Vec<_>>(),
    })
}

fn add_script(item: &mut Value, script: Option<&str>) {
    if let Some(script) = script {
        item[SCRIPT_KEY] = json!(script);
    }
}

/// Compares what was sent at `place` with what was offered there, if anything was.
fn compare(place: &str, sent: &Json, offered: Option<&Json>, found: &mut Vec<Difference>) {
    let is_as_offered = match (sent, offered) {
        // Either host has chosen for itself, and here this one's choice is put in its place.
        (Json::Text(sent), _) if is_script(place) => sent == SCRIPT,
        (_, _) if is_script(place) => false,
        (Json::Map(sent), Some(Json::Map(offered))) => {
            return compare_maps(place, sent, offered, found);
        }
        (Json::List(sent), Some(Json::List(offered))) => {
            return compare_lists(place, sent, offered, found);
        }
        (Json::Number(sent), Some(Json::Number(most))) if AT_MOST.contains(&place) => {
            (0..=*most).contains(sent)
        }
        (sent, Some(offered)) => sent == offered,
        (sent, None) => is_harmless(place, sent),
    };
    if is_as_offered {
        return;
    }
    let (key, sent) = (place.to_owned(), sent.to_string());
    found.push(match offered {
        Some(offered) => Difference::Differs { key, found: sent, expected: offered.to_string() },
        None => Difference::NotOffered { key, found: sent },
    });
}

fn compare_maps(
    place: &str,
    sent: &BTreeMap<String, Json>,
    offered: &BTreeMap<String, Json>,
    found: &mut Vec<Difference>,
) {
    let below =
        |key: &str| if place.is_empty() { key.to_owned() } else { format!("{place}/{key}") };
    for (key, sent) in sent {
        compare(&below(key), sent, offered.get(key), found);
    }
    for (key, expected) in offered.iter().filter(|(key, _)| !sent.contains_key(*key)) {
        let key = below(key);
        if !is_meant_unsaid(&key, expected) && !is_script(&key) {
            let (found_there, expected) = ("not there".to_owned(), expected.to_string());
            found.push(Difference::Differs { key, found: found_there, expected });
        }
    }
}

/// Whether a setting that is left out has this value: libxl leaves out what is nothing, and fills
/// in what a domain cannot be without.
fn is_meant_unsaid(place: &str, value: &Json) -> bool {
    match value {
        Json::Null | Json::Number(0) => true,
        Json::Number(1) => place == "b_info/max_vcpus",
        Json::Text(text) if place == "nics/bridge" => text == BRIDGE_UNSAID,
        Json::Text(text) => text.is_empty(),
        Json::List(items) => items.is_empty(),
        Json::Map(map) => map.is_empty(),
        Json::Bool(_) | Json::Number(_) => false,
    }
}

/// Compares two lists, whose members may stand in another order.
fn compare_lists(place: &str, sent: &[Json], offered: &[Json], found: &mut Vec<Difference>) {
    let name = NAMES.iter().find(|(list, _)| *list == place).map_or("", |(_, name)| name);
    let named = |item: &Json| match item {
        Json::Map(map) => map.get(name).cloned(),
        _ => None,
    };
    let mut left: Vec<&Json> = offered.iter().collect();
    for sent in sent {
        let at = left.iter().position(|offered| named(offered) == named(sent));
        let offered = at.map(|at| left.swap_remove(at));
        compare(place, sent, offered, found);
    }
    if !left.is_empty() {
        found.push(Difference::Differs {
            key: place.to_owned(),
            found: format!("a list of {}", sent.len()),
            expected: format!("a list of {}", offered.len()),
        });
    }
}

fn is_script(place: &str) -> bool {
    NAMES.iter().any(|(list, _)| place.strip_prefix(list) == Some("/script"))
}

fn is_harmless(place: &str, sent: &Json) -> bool {
    let rule = HARMLESS.iter().find(|(known, _)| *known == place).map(|(_, rule)| rule);
    match (rule, sent) {
        (Some(Harmless::Anything), _) => true,
        (Some(Harmless::Only(value)), Json::Text(sent)) => sent == value,
        (Some(Harmless::Number(value)), Json::Number(sent)) => sent == value,
        (Some(Harmless::Empty), Json::Map(map)) => map.is_empty(),
        _ => false,
    }
}
