// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A header that Xen 4.17 has sent, and what a host that means harm would make of it.

use super::*;
use crate::xen::hotplug::{Plugged, SCRIPT};
use whimbrel_model::guest::{Guest, Mac};
use whimbrel_model::passport::{Accelerator, Cpu, Device, DeviceKind, EngineKind, Passport};
use whimbrel_model::units::Bytes;

/// The first bytes of `xl save` in the hosts of `./x e2e xen`.
const RECORDED: &[u8] = include_bytes!("../recorded/header-4.17.bin");

fn offered() -> (Guest, Passport) {
    let text = r#"
name = "web1"
memory = "128 MiB"
[boot]
kernel = "/files/vmlinuz"
ramdisk = "/files/witness.cpio"
command_line = "console=hvc0 quiet witness.ip=10.77.0.50/24 witness.memory=8 witness.seed=50"
[[disk]]
path = "/dev/vdb"
format = "raw"
[[network]]
bridge = "xenbr0"
"#;
    let file = whimbrel_model::text_file::TextFile { name: "", text, base: None };
    let guest = whimbrel_model::guest::file::parse(&file).unwrap();
    let mac = Mac([0x00, 0x16, 0x3e, 0x32, 0x10, 0x00]);
    let passport = Passport {
        guest: "321051ca-ee15-436f-a8bc-dbf68ce50587".parse().unwrap(),
        engine: EngineKind::Xen,
        engine_version: "4.17.5".to_owned(),
        accelerator: Accelerator::Kvm,
        machine: "xenpvh".to_owned(),
        cpu: Cpu { model: "host".to_owned(), features: Vec::new() },
        memory: Bytes::mib(128),
        cpu_count: 1,
        cpu_count_max: 1,
        devices: vec![Device {
            id: "net0".to_owned(),
            kind: DeviceKind::Network { index: 0, mac },
            pci_slot: None,
            rom_bytes: None,
        }],
        boot_files: Vec::new(),
    };
    (guest, passport)
}

fn take_from(bytes: &[u8]) -> Result<Vec<u8>, HeaderError> {
    let (guest, passport) = offered();
    take(&mut &bytes[..], &Offered::of(&guest, &passport, &Plugged::default()))
}

/// The recorded header with one text in its configuration replaced, and the lengths to match.
fn with(from: &str, to: &str) -> Vec<u8> {
    let config = &RECORDED[HEADER_BYTES + 4..RECORDED.len() - 8];
    let config = String::from_utf8(config.to_vec()).unwrap();
    assert!(config.contains(from), "{from}");
    let config = config.replacen(from, to, 1);
    let length = u32::try_from(config.len()).unwrap();
    let mut bytes = RECORDED[..HEADER_BYTES - 4].to_vec();
    bytes.extend_from_slice(&(length + 4).to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(config.as_bytes());
    bytes
}

/// It passes to the byte, and what follows it is not touched.
#[test]
fn a_real_header_passes() {
    let mut from = RECORDED;
    let (guest, passport) = offered();
    let taken = take(&mut from, &Offered::of(&guest, &passport, &Plugged::default())).unwrap();
    assert_eq!(from, b"LibxlFmt");
    assert_eq!(taken, RECORDED[..RECORDED.len() - 8]);
}

/// What was written for the process that compares is what it reads.
#[test]
fn an_offer_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (guest, passport) = offered();
    Offered::write(&guest, &passport, &Plugged::default(), directory.path()).unwrap();
    let read = Offered::read(directory.path()).unwrap();
    assert_eq!(read, Offered::of(&guest, &passport, &Plugged::default()));
}

/// Each host chooses for itself what plugs the devices in: whatever the source does, what reaches
/// xl is this host's choice, and nothing else has changed.
#[test]
fn the_scripts_are_this_host_s_own() {
    let (guest, passport) = offered();
    let ours = Plugged::all(&guest);
    let script = format!("\"script\": \"{SCRIPT}\",");
    let sent = with("\"pdev_path\"", &format!("{script} \"pdev_path\""));
    let taken = |sent: &[u8], plugged: &Plugged| {
        let mut from = &[sent, b"LibxlFmt"].concat()[..];
        let taken = take(&mut from, &Offered::of(&guest, &passport, plugged)).unwrap();
        assert_eq!(from, b"LibxlFmt");
        // What was made of it is a header again, and stays as it is.
        let again = take(&mut &taken[..], &Offered::of(&guest, &passport, plugged)).unwrap();
        assert_eq!(again, taken);
        assert_eq!(taken.last(), Some(&0));
        let config = &taken[HEADER_BYTES + 4..taken.len() - 1];
        serde_json::from_slice::<serde_json::Value>(config).unwrap()
    };
    let plain = taken(&RECORDED[..RECORDED.len() - 8], &Plugged::default());
    assert_eq!(taken(&sent, &Plugged::default()), plain, "the source's is taken away");
    let mut expected = plain;
    for list in ["disks", "nics"] {
        expected[list][0]["script"] = SCRIPT.into();
    }
    assert_eq!(taken(&RECORDED[..RECORDED.len() - 8], &ours), expected, "ours is put there");
    assert_eq!(taken(&sent, &ours), expected);
    for foreign in ["/tmp/evil", "/etc/xen/scripts/block", "", "/run/whimbrel/xen-hotplug2"] {
        for list in ["\"pdev_path\"", "\"bridge\""] {
            let sent = with(list, &format!("\"script\": \"{foreign}\", {list}"));
            let found = take(&mut &sent[..], &Offered::of(&guest, &passport, &ours));
            assert!(matches!(found, Err(HeaderError::NotAsOffered(_))), "{foreign}: {found:?}");
        }
    }
}

/// A guest whose balloon is in use, and one whose weight was changed, are what was offered.
#[test]
fn what_a_host_may_change_passes() {
    for (from, to) in [
        ("\"target_memkb\": 131072", "\"target_memkb\": 65536"),
        ("\"weight\": 256", "\"weight\": 512"),
        ("\"on_crash\": \"preserve\"", "\"on_crash\": \"destroy\""),
    ] {
        take_from(&with(from, to)).unwrap();
    }
}

#[test]
fn nothing_else_passes() {
    let disk = "\"disks\": [";
    for (from, to, why) in [
        // Another disk, one more, none, a written one that was read-only, a script of its choice.
        ("/dev/vdb", "/dev/vda", "`disks/pdev_path` is `/dev/vda`, and `/dev/vdb` was offered"),
        (disk, "\"disks\": [{\"pdev_path\":\"/dev/vda\",\"vdev\":\"xvdb\"},", "it has `disks`"),
        (disk, "\"disks\": [], \"x\": [", "a list of 0, and a list of 1"),
        ("\"raw\"", "\"qcow2\"", "`disks/format`"),
        ("\"readwrite\": 1", "\"script\": \"/tmp/x\"", "it has `disks/script`"),
        ("\"readwrite\": 1", "\"backend_domid\": 7", "it has `disks/backend_domid`"),
        // Another network, name, identity or kind of guest.
        ("xenbr0", "management", "`nics/bridge`"),
        ("\"nictype\": \"vif\"", "\"script\": \"/tmp/x\"", "it has `nics/script`"),
        ("\"web1\"", "\"Domain-0\"", "`c_info/name`"),
        ("321051ca", "421051ca", "`c_info/uuid`"),
        ("\"pvh\"", "\"hvm\"", "`c_info/type`"),
        // More memory and processors than were found room for.
        ("\"max_memkb\": 131072", "\"max_memkb\": 131073", "and 131072 was offered"),
        ("\"target_memkb\": 131072", "\"target_memkb\": -1", "`b_info/target_memkb` is -1"),
        ("\"max_vcpus\": 1", "\"max_vcpus\": 64", "`b_info/max_vcpus` is 64"),
        // Devices of the host, and programs that run on it.
        (disk, "\"pcidevs\": [{\"bus\":0}], \"disks\": [", "it has `pcidevs`"),
        ("\"claim_mode\"", "\"device_model\": \"/tmp/x\", \"claim_mode\"", "`b_info/device_model`"),
        ("\"claim_mode\"", "\"bootloader\": \"/tmp/x\", \"claim_mode\"", "`b_info/bootloader`"),
        ("\"type.pvh\": {", "\"type.pvh\": {\"kernel\": \"/x\"", "it has `b_info/type.pvh`"),
        ("\"msr_relaxed\": \"False\"", "\"msr_relaxed\": \"True\"", "it has `b_info/arch_x86"),
        // What one reader takes for this and another for that.
        (disk, "\"disks\": [], \"disks\": [", "`disks` twice"),
        ("/dev/vdb", "/dev/vdb\\u0000x", "a string with a NUL"),
        ("\"vdev\"", "\"vd\\u0065v\": \"xvda\", \"vdev\"", "`vdev` twice"),
        (": 1,", ": 1.0,", "invalid type"),
    ] {
        let error = take_from(&with(from, to)).expect_err(to).to_string();
        assert!(error.contains(why), "{to}: {error}");
    }
}

/// A header that is broken, cut short or longer than any is refused before memory is taken for it.
#[test]
fn lengths_are_bounded() {
    for length in [0, 3, u32::try_from(CONFIG_BYTES_MAX).unwrap() + 1, u32::MAX] {
        let mut bytes = RECORDED.to_vec();
        bytes[44..48].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(take_from(&bytes), Err(HeaderError::NoHeader(_))), "{length}");
    }
    for at in [0, 33, 36, 40, HEADER_BYTES] {
        let mut bytes = RECORDED.to_vec();
        bytes[at] ^= 0x40;
        assert!(matches!(take_from(&bytes), Err(HeaderError::NoHeader(_))), "{at}");
    }
    for length in [0, 10, HEADER_BYTES, RECORDED.len() - 20] {
        assert!(matches!(take_from(&RECORDED[..length]), Err(HeaderError::Cut(_))), "{length}");
    }
}

/// So deep that a reader's stack would end.
#[test]
fn depth_is_bounded() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let error = take_from(&with("\"avail_vcpus\": [", &format!("\"x\": {deep}, \"y\": [")));
    assert!(matches!(error, Err(HeaderError::NotJson(_))));
}
