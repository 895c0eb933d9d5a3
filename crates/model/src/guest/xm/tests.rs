// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The seed's guest becomes a guest of QEMU and says how; old and new disk syntax mean the same;
//! what cannot be kept is refused where it stands; nothing is executed and nothing panics.

use super::*;
use crate::guest::file::render;
use crate::problem::Remedy;
use proptest::prelude::*;

const SEED: &str = r#"
# The guest of the chapter, with the two devices of its log.
name = "centos.5-1"
memory = 128
maxmem = 256
kernel = "/boot/vmlinuz-2.6.18-xen"
ramdisk = "/boot/initrd-2.6.18-xen.img"
disk = [ 'tap:aio:/xen/xenguest.img,xvda1,w',   # root
         'tap:aio:/xen/xenguest.swap,xvda2,w' ] # swap
root = "/dev/xvda1 ro"
vif = [ 'mac=00:16:3e:01:02:03, bridge=xenbr0' ]
vfb = [ 'type=vnc,vncunused=1' ]
on_reboot   = 'restart'
on_crash    = 'rename-restart'
"#;

fn import(text: &str, engine: EngineKind) -> Result<Imported, FileError> {
    let file = TextFile { name: "web1.cfg", text, base: None };
    parse(&file, Options { engine, bridge: None })
}

fn qemu(text: &str) -> Result<Imported, FileError> {
    import(text, EngineKind::Qemu)
}

fn show(imported: &Imported) -> String {
    let Imported { guest, notes, warnings } = imported;
    let mut text = render(guest);
    notes.iter().for_each(|note| text.push_str(&format!("note: {note}\n")));
    for Warning { place, key, text: warning } in warnings {
        let line = place.map(|place| place.line).unwrap_or_default();
        text.push_str(&format!("warning: line {line}: {key}: {warning}\n"));
    }
    text
}

#[test]
fn the_seed_s_guest_runs_on_qemu() {
    insta::assert_snapshot!(show(&qemu(SEED).unwrap()));
}

#[test]
fn on_xen_the_guest_stays_as_it_was() {
    let imported = import(SEED, EngineKind::Xen).unwrap();
    let names: Vec<_> = imported.guest.disks.iter().map(|disk| disk.name.clone()).collect();
    assert_eq!(names, [Some("xvda1".to_owned()), Some("xvda2".to_owned())]);
    assert!(render(&imported.guest).contains("command_line = \"root=/dev/xvda1 ro\""));
    assert_eq!(imported.notes, Vec::<String>::new());
}

#[test]
fn a_whole_machine_boots_by_its_firmware() {
    let text = r#"
builder = "hvm"; name = 'win'
kernel = "/usr/lib/xen/boot/hvmloader"
memory = 0x400
vcpus = 2
maxvcpus = 4
uuid = "bd0c2520-1094-0b71-a3ed-c6a5f917f235"
firmware = 'uefi'
boot = "dc"
acpi = 1
pci = []
localtime = 0
usbdevice = 'tablet'
disk = [ "phy:vg0/win,hda,w", "file:/iso/win.iso,hdc:cdrom,r", ",hdd:cdrom,r" ]
vif = [ 'type=ioemu', '' ]
on_xend_start = 'start'
"#;
    insta::assert_snapshot!(show(&qemu(text).unwrap()));
}

fn disks_of(list: &str) -> Result<Vec<crate::guest::Disk>, FileError> {
    let text = format!("name = 'a'\nmemory = 64\nkernel = '/k'\ndisk = [ {list} ]\n");
    import(&text, EngineKind::Xen).map(|imported| imported.guest.disks)
}

#[test]
fn old_and_new_disks_mean_the_same() {
    let same = |entries: &[&str]| {
        let first = disks_of(&format!("'{}'", entries[0])).unwrap();
        for entry in &entries[1..] {
            assert_eq!(disks_of(&format!("'{entry}'")).as_ref(), Ok(&first), "{entry}");
        }
        first
    };
    same(&[
        "file:/xen/a.img,xvda,w",
        "tap:aio:/xen/a.img,xvda,w",
        "tap2:tapdisk:aio:/xen/a.img,/dev/xvda,w",
        "/xen/a.img,raw,xvda,rw",
        "/xen/a.img,raw,xvda",
        "/xen/a.img, , xvda, w",
        "format=raw, vdev=xvda, access=rw, target=/xen/a.img",
        "vdev=xvda,backendtype=qdisk,target=/xen/a.img",
    ]);
    same(&["tap:qcow2:/a,xvdb,r", "/a,qcow2,xvdb,ro", "format=qcow2,vdev=xvdb,access=r,target=/a"]);
    same(&["phy:/dev/vg/a,sda1,w", "phy:vg/a,sda1,w", "/dev/vg/a,,sda1,w"]);
    let cd = same(&[
        "file:/cd.iso,hdc:cdrom,r",
        "/cd.iso,raw,hdc,ro,cdrom",
        "vdev=hdc,cdrom,target=/cd.iso",
    ]);
    assert!(cd[0].is_read_only && cd[0].device == crate::guest::DiskDevice::Cdrom);
    // `target=` takes all that follows.
    let comma = disks_of("'vdev=xvda,target=/a,b.img'").unwrap();
    assert_eq!(comma[0].source.to_string(), "/a,b.img");
}

#[test]
fn partitions_of_a_whole_disk_keep_their_numbers() {
    let text = "name='a'\nmemory=64\nkernel='/k'\ndisk=['file:/a,xvda,w','file:/b,sdb,w']\n\
                root='/dev/xvda2 ro'\nextra='resume=/dev/sdb1 console=hvc0 quiet'\n";
    let guest = qemu(text).unwrap().guest;
    assert!(
        render(&guest).contains("\"root=/dev/vda2 ro resume=/dev/vdb1 console=ttyS0 quiet\""),
        "{}",
        render(&guest)
    );
    // A whole device with a number in its name is no disk with partitions.
    let text = text.replace("xvda,w", "xvda1,w").replace("xvda2 ro", "xvda10 ro");
    let imported = qemu(&text).unwrap();
    assert!(render(&imported.guest).contains("root=/dev/xvda10 ro resume=/dev/vdb1"));
    assert!(imported.warnings.iter().any(|warning| warning.key == "root"));
    // `cmdline` is the whole line, and what names no disk of the file stays.
    let text = text.replace("extra=", "cmdline=").replace("resume=/dev/sdb1", "root=UUID=1");
    let guest = qemu(&text).unwrap().guest;
    assert!(render(&guest).contains("\"root=UUID=1 console=ttyS0 quiet\""));
}

#[test]
fn every_refusal_is_named_with_its_place_and_a_remedy() {
    let mut all = String::new();
    let mut check = |text: &str| {
        let error = qemu(text).expect_err(text);
        all.push_str(&format!("{error}\n    {}: {}\n", error.code(), error.remedy()));
    };
    check("import os\nname = 'a'");
    check("def f():\n  pass");
    check("name = 'a'\nmemory = 64 * 2");
    check("name = 'a' + 'b'");
    check("name = os.uname()[1]");
    check("name = 'a\nmemory = 64");
    check("name += 'a'");
    check("name = '\\x41'");
    check("disk = [ 'a' 'b' ]");
    check("disk = [ 'a', [ 'b' ] ]");
    check("disk = [ 'a',\n");
    check("memory = 1.5");
    check("name = 'a' 'b'");
    check("name 'a'");
    let head = |more: &str| {
        format!("name = 'a'\nmemory = 64\nkernel = '/k'\ndisk = ['file:/a,xvda,w']\n{more}\n")
    };
    assert!(qemu(&head("")).is_ok());
    check("memory = 64\nkernel = '/k'");
    check("name = 'a'\nkernel = '/k'");
    check("name = 'a'\nmemory = 64");
    check(&head("name = 'a b'"));
    check(&head("memory = 8"));
    check(&head("memory = []"));
    check(&head("vcpus = 0"));
    check(&head("uuid = 'x'"));
    check(&head("extar = 'single'"));
    check(&head("kernel = 'vmlinuz'"));
    check(&head("pci = [ '00:1f.0' ]"));
    check(&head("dhcp = 'dhcp'"));
    check(&head("acpi = 0"));
    check(&head("localtime = 1"));
    check(&head("nestedhvm = 1"));
    check(&head("cpuid = 'host,tm=0'"));
    check(&head("type = 'unikernel'"));
    check(&head("on_crash = 'explode'"));
    check(&head("on_reboot = 'soft-reset'"));
    check(&head("kernel = None\nbootloader = 'pygrub'"));
    check(&head("builder = 'hvm'\nkernel = ''\nboot = 'n'"));
    check(&head("builder = 'hvm'\nkernel = ''\nboot = 'd'"));
    check(&head("builder = 'hvm'\nkernel = ''\nbios = 'coreboot'"));
    check(&head(&format!("extra = '{}'", "x".repeat(COMMAND_LINE))));
    check(&head("disk = ['file:/a,xvda,w', 'file:/a,xvdb,w']"));
    check(&head("disk = ['file:/a,xvda,w', 'file:/b,xvda,w']"));
    check(&head("disk = ['file:/a,xvda,w', 'file:/b,xvda1,w']"));
    check(&head("disk = ['file:/a']"));
    check(&head("disk = ['file:a,xvda,w']"));
    check(&head("disk = ['file:/a,xvda,x']"));
    check(&head("disk = ['file:/a,xvda,w,storage']"));
    check(&head("disk = ['tap:vhd:/a,xvda,w']"));
    check(&head("disk = ['iscsi:target,xvda,w']"));
    check(&head("disk = ['/a,raw,xvda,w,,more']"));
    check(&head("disk = ['vdve=xvda,target=/a']"));
    check(&head("disk = ['script=block-iscsi,vdev=xvda,target=/a']"));
    check(&head("disk = [ 7 ]"));
    check(&head("vif = ['mac=01:00:00:00:00:00']"));
    check(&head("vif = ['script=vif-route']"));
    check(&head("vif = ['brigde=br0']"));
    check(&head("vif = ['mac=0:16:3e:0:0:1', 'mac=0:16:3e:0:0:1']"));
    insta::assert_snapshot!(all);
}

const COMMAND_LINE: usize = crate::guest::file::COMMAND_LINE_BYTES_MAX + 1;

#[test]
fn python_s_ways_of_writing_are_read() {
    let check = |text: &str, expected: Value| {
        let file = TextFile { name: "", text, base: None };
        let value = syntax::parse(&file).unwrap().pop().unwrap().value;
        assert_eq!(value, expected, "{text}");
    };
    let text = |text: &str| Value::Text(text.to_owned());
    check("a = 'x' # comment", text("x"));
    check("a=\"it's\";", text("it's"));
    check("a = 'say \\'hi\\''", text("say 'hi'"));
    check("a = r'C:\\x'", text("C:\\x"));
    check("a = u\"x\"", text("x"));
    check("a = \"\"\"x\ny\"\"\"", text("x\ny"));
    check("a = ''", text(""));
    check("a = '#'", text("#"));
    check("a \\\n = \\\n 7", Value::Number(7));
    check("a = 0x10", Value::Number(16));
    check("a = 010", Value::Number(8));
    check("a = 0", Value::Number(0));
    check("a = -5L", Value::Number(-5));
    check("a = True", Value::Number(1));
    check("a = None", Value::None);
    check("a = (\n)\n", Value::List(Vec::new()));
    check("a = 'x'; b = 2", Value::Number(2));
    check("\u{feff}a = 1\r\n", Value::Number(1));
}

#[test]
fn a_classic_file_is_told_from_a_toml_one() {
    let check = |name, text, expected| {
        assert_eq!(is_classic(&TextFile { name, text, base: None }), expected, "{name} {text}");
    };
    check("web1.cfg", "", true);
    check("web1.toml", SEED, false);
    check("auto/web1", SEED, true);
    check("web1", crate::sample::GUEST_FILE, false);
    check("web1", "", false);
}

#[test]
fn no_key_has_two_fates() {
    let tables = [keys::IGNORED, keys::REFUSED_IF_ON, keys::REFUSED_IF_OFF];
    let tabled = tables.iter().flat_map(|table| table.iter()).flat_map(|(keys, _)| keys.iter());
    let all: Vec<_> = keys::TRANSLATED.iter().map(|(key, _)| key).chain(tabled).collect();
    let unique: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(all.len(), unique.len());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\\n\\\\'\"\\[\\]=,#äλ]{0,80}") {
        let _ = qemu(&text);
        let _ = qemu(&format!("name='a'\nmemory=64\nkernel='/k'\ndisk = ['{text}']"));
        let _ = qemu(&format!("name='a'\nmemory=64\nkernel='/k'\nvif = ['{text}']"));
    }

    #[test]
    fn no_cut_makes_the_reader_panic(cut in 0..SEED.len()) {
        let _ = qemu(&SEED[..cut]);
    }
}
