// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What Xen 4.17 says of guests that `xl create` made from classic files, and what would be made
//! of guests that ours cannot be.

use super::*;
use std::time::Duration;
use whimbrel_model::run_state::RunState;

/// A disk, a network card, less memory than its balloon could have.
const PVH: &str = include_str!("../recorded/list-pvh-4.17.json");
/// `vif = ['']`, and no word of processors.
const PV: &str = include_str!("../recorded/list-pv-4.17.json");
/// Made by us: a whole machine that boots a CD.
const HVM: &str = include_str!("../recorded/list-hvm-4.17.json");

fn foreign(name: &str, id: &str) -> Foreign {
    Foreign {
        id: id.parse().unwrap(),
        name: name.to_owned(),
        run: RunState::Running,
        memory: Bytes::mib(64),
        cpu_count: 1,
        cpu_time: Duration::ZERO,
    }
}

fn pvh(listed: &str) -> Result<Described, EngineError> {
    describe(listed, &foreign("db2", "fab6bd72-ecd4-11f1-8f6a-525400000101"))
}

#[test]
fn a_pvh_guest_is_read() {
    let Described { guest, notes } = pvh(PVH).unwrap();
    assert_eq!(
        file::render(&guest),
        r#"version = 1
name = "db2"
uuid = "fab6bd72-ecd4-11f1-8f6a-525400000101"
memory = "96 MiB"
vcpus = 1
vcpus_max = 1
machine = "xenpvh"
on_poweroff = "destroy"
on_reboot = "restart"
on_crash = "restart"
autostart = false
keep_memory = true
balloon = true
rng = true
serial = true

[boot]
kernel = "/files/vmlinuz"
ramdisk = "/files/witness.cpio"
command_line = "console=hvc0 quiet witness.ip=10.77.0.61/24 witness.memory=8 witness.seed=61"

[[disk]]
path = "/dev/vdb"
format = "raw"
read_only = false
device = "disk"
name = "xvda"

[[network]]
mac = "00:16:3e:11:22:33"
bridge = "xenbr0"
"#
    );
    assert_eq!(
        notes,
        [
            "it has 64 MiB now, and 96 MiB from its next start",
            "`tsc_mode` is `default` now, and `native` from its next start",
        ]
    );
}

/// What libxl leaves out is what it fills in: one processor, and the bridge `xenbr0`.
#[test]
fn a_pv_guest_is_read() {
    let id = "1833447e-ecd5-11f1-aaee-525400000101";
    let Described { guest, .. } = describe(PV, &foreign("db3", id)).unwrap();
    assert_eq!(guest.machine.as_deref(), Some(MACHINE_PV));
    assert_eq!((guest.cpus.count, guest.cpus.count_max), (1, 1));
    let bridge = NetworkKind::Bridge { bridge: "xenbr0".to_owned() };
    assert_eq!(guest.networks[0].kind, bridge);
    assert_eq!(guest.networks[0].mac.unwrap().to_string(), "00:16:3e:18:ec:7d");
    assert_eq!(guest.on.crash, Policy::Destroy);
}

fn hvm(listed: &str) -> Result<Described, EngineError> {
    describe(listed, &foreign("web1", "8e2d7d23-6888-44d2-8d23-ce1532c8ca40"))
}

/// What is read of a whole machine is what it was made from.
#[test]
fn a_whole_machine_is_read() {
    let Described { guest, notes } = hvm(HVM).unwrap();
    assert_eq!(guest.machine.as_deref(), Some(MACHINE_HVM));
    assert_eq!(guest.boot, Boot::Firmware { firmware: Firmware::Bios, from: BootFrom::Cdrom });
    assert_eq!(notes, [""; 0]);
    let passport = super::super::passport(guest.id.unwrap(), &guest, "4.17".to_owned());
    let text = super::super::config::text(&guest, &passport, &Plugged::default()).unwrap();
    for line in [
        "type=\"hvm\"",
        "bios=\"seabios\"\nboot=\"d\"\nserial=\"pty\"\nvga=\"none\"\nvnc=0",
        "\"format=raw,vdev=hda,access=rw,target=/dev/vdb\"",
        "\"format=raw,vdev=hdb,access=ro,devtype=cdrom,target=/files/boot.iso\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let Described { guest, .. } = hvm(&HVM.replacen("seabios", "ovmf", 1)).unwrap();
    assert_eq!(guest.boot, Boot::Firmware { firmware: Firmware::Uefi, from: BootFrom::Cdrom });
}

/// A screen, another card, a device of the host, other words for QEMU: none of it is taken along.
#[test]
fn what_a_whole_machine_may_not_have_is_refused() {
    let machine = "\"type.hvm\": {";
    for (from, to, why) in [
        ("\"False\"\n", "\"True\", \"listen\": \"0.0.0.0\"\n", "`b_info/type.hvm/vnc/enable`"),
        ("\"kind\": \"none\"", "\"kind\": \"cirrus\"", "`b_info/type.hvm/vga/kind` (`cirrus`)"),
        ("\"pty\"", "\"file:/etc/passwd\"", "`b_info/type.hvm/serial`"),
        ("\"boot\": \"d\"", "\"boot\": \"n\"", "`b_info/type.hvm/boot` (`n`)"),
        (machine, "\"type.hvm\": {\"nested_hvm\": \"True\",", "`b_info/type.hvm/nested_hvm`"),
        (machine, "\"device_model\": \"/x\", \"type.hvm\": {", "`b_info/device_model` (`/x`)"),
        (machine, "\"kernel\": \"/x\", \"type.hvm\": {", "`b_info/kernel` (`/x`)"),
        ("\"vif_ioemu\"", "\"vif\"", "`nics/nictype` (`vif`)"),
        ("\"rdm\": {", "\"rdm\": {\"strategy\": \"host\"", "`b_info/type.hvm/rdm`"),
    ] {
        assert!(HVM.contains(from), "{from}");
        let error = hvm(&HVM.replacen(from, to, 1)).expect_err(to);
        assert!(matches!(error, EngineError::NotExpressible { .. }), "{to}: {error}");
        assert!(error.to_string().contains(why), "{to}: {error}");
    }
}

/// A file of ours that says the same makes the same guest, and the passport has its address.
#[test]
fn a_definition_and_a_passport_say_all_of_it() {
    let Described { guest, .. } = pvh(PVH).unwrap();
    let passport = super::super::passport(guest.id.unwrap(), &guest, "4.17".to_owned());
    let text = super::super::config::text(&guest, &passport, &Plugged::default()).unwrap();
    for line in [
        "uuid=\"fab6bd72-ecd4-11f1-8f6a-525400000101\"",
        "vif=[\"mac=00:16:3e:11:22:33,bridge=xenbr0\"]",
        "disk=[\"format=raw,vdev=xvda,access=rw,target=/dev/vdb\"]",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

/// Everything that a definition cannot say is named.
#[test]
fn what_cannot_be_said_is_refused() {
    let disks = "\"disks\": [";
    for (from, to, why) in [
        ("\"pvh\"", "\"hvm\"", "`b_info/type.hvm` (not there)"),
        ("\"type.pvh\": {", "\"type.hvm\": {\"bios\": \"seabios\"", "`b_info/type.hvm`"),
        ("\"claim_mode\"", "\"device_model\": \"/x\", \"claim_mode\"", "`b_info/device_model`"),
        (
            "\"claim_mode\"",
            "\"bootloader\": \"pygrub\", \"claim_mode\"",
            "`b_info/bootloader` (`pygrub`)",
        ),
        ("\"kernel\"", "\"x\"", "no `b_info/kernel`, `b_info/x` (`/files/vmlinuz`)"),
        ("\"/files/vmlinuz\"", "\"vmlinuz\"", "`boot.kernel`: the path `vmlinuz` is relative"),
        (disks, "\"pcidevs\": [{\"bus\":3}], \"disks\": [", "`pcidevs`"),
        (disks, "\"vfbs\": [{\"devid\":0}], \"disks\": [", "`vfbs`"),
        (disks, "\"vkbs\": [{\"devid\":0}], \"disks\": [", "`vkbs`"),
        ("\"readwrite\": 1", "\"readwrite\": 1, \"script\": \"block-drbd\"", "`disks/script`"),
        ("\"readwrite\": 1", "\"readwrite\": 1, \"backend_domid\": 7", "`disks/backend_domid`"),
        ("\"raw\"", "\"vhd\"", "`disks/format` (`vhd`)"),
        ("\"/dev/vdb\"", "\"vdb\"", "the path `vdb` is relative"),
        ("\"nictype\": \"vif\"", "\"script\": \"vif-route\"", "`nics/script`"),
        ("\"devid\": 0", "\"ip\": \"10.0.0.1\"", "`nics/ip`"),
        ("\"on_crash\": \"restart\"", "\"on_crash\": \"soft_reset\"", "`on_crash` (`soft_reset`)"),
        ("\"max_vcpus\": 1", "\"max_vcpus\": 4096", "4096"),
        ("98304", "8192", "16 MiB"),
    ] {
        assert!(PVH.contains(from), "{from}");
        let error = pvh(&PVH.replacen(from, to, 1)).expect_err(to);
        assert!(matches!(error, EngineError::NotExpressible { .. }), "{to}: {error}");
        assert!(error.to_string().contains(why), "{to}: {error}");
    }
}

/// All of it at once, and no more than can be read.
#[test]
fn the_reasons_are_named_together() {
    let many: String = (0..20).map(|number| format!("\"key{number:02}\": 1, ")).collect();
    let error = pvh(&PVH.replacen("\"claim_mode\"", &format!("{many}\"claim_mode\""), 1));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`b_info/key00` (1), `b_info/key01` (1)"), "{error}");
    assert!(error.ends_with("8 more"), "{error}");
}

/// A name that ours cannot have is a reason, too.
#[test]
fn names_are_checked() {
    let error = pvh(&PVH.replacen("\"db2\"", "\"7\"", 1)).unwrap_err().to_string();
    assert!(error.contains("digits only"), "{error}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    let long = " ".repeat(LISTED_BYTES_MAX + 1);
    for listed in ["", "{}", "[]", "[{\"domid\": 2}]", long.as_str()] {
        assert!(matches!(pvh(listed), Err(EngineError::Refused { .. })), "{listed:.20}");
    }
}
