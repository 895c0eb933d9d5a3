// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest file means what it says, every mistake is named where it stands, and what is written
//! is read back unchanged, whatever the guest.

use super::*;
use crate::guest::Protocol;
use crate::problem::Remedy;
use proptest::prelude::*;

const SMALL: &str = "name = \"web1\"\nmemory = \"512 MiB\"\n[[disk]]\npath = \"/xen/a.img\"\n";

fn read(text: &str) -> Result<Guest, FileError> {
    parse(&TextFile { name: "web1.toml", text, base: None })
}

#[test]
fn a_small_file_gets_the_documented_defaults() {
    let guest = read(SMALL).unwrap();
    insta::assert_snapshot!(render(&guest), @r#"
    version = 1
    name = "web1"
    memory = "512 MiB"
    vcpus = 1
    vcpus_max = 1
    on_poweroff = "destroy"
    on_reboot = "restart"
    on_crash = "restart"
    autostart = false
    keep_memory = true
    balloon = true
    rng = true
    serial = true

    [boot]
    firmware = "bios"
    from = "disk"

    [[disk]]
    path = "/xen/a.img"
    format = "raw"
    read_only = false
    device = "disk"
    "#);
}

#[test]
fn everything_can_be_said() {
    let text = r#"
        version = 1
        name = "centos.5-1"
        uuid = "bd0c2520-1094-0b71-a3ed-c6a5f917f235"
        memory = "1G"
        memory_min = "512M"
        vcpus = 2
        vcpus_max = 4
        cpu = "Skylake-Server,-hle"
        machine = "pc-q35-7.2"
        on_crash = "preserve"
        autostart = true
        keep_memory = false
        rng = false

        [boot]
        kernel = "/xen/vmlinuz"
        ramdisk = "initrd.img"
        command_line = 'root=/dev/vda "quoted" ro'

        [[disk]]
        path = "./root.qcow2"
        name = "xvda1"

        [[disk]]
        nfs = "nfs://10.0.0.1/xen/data.img"
        read_only = true

        [[disk]]
        path = "/iso/cd.iso"
        device = "cdrom"

        [[network]]
        bridge = "br0"
        mac = "52:54:00:12:34:56"

        [[network]]
        user = true
        forward = ["tcp:2222->22", "udp:[::1]:5353->53"]
    "#;
    let base = Path::new("/home/me");
    let guest = parse(&TextFile { name: "c.toml", text, base: Some(base) }).unwrap();
    insta::assert_snapshot!(render(&guest), @r#"
    version = 1
    name = "centos.5-1"
    uuid = "bd0c2520-1094-0b71-a3ed-c6a5f917f235"
    memory = "1 GiB"
    memory_min = "512 MiB"
    vcpus = 2
    vcpus_max = 4
    cpu = "Skylake-Server,-hle"
    machine = "pc-q35-7.2"
    on_poweroff = "destroy"
    on_reboot = "restart"
    on_crash = "preserve"
    autostart = true
    keep_memory = false
    balloon = true
    rng = false
    serial = true

    [boot]
    kernel = "/xen/vmlinuz"
    ramdisk = "/home/me/initrd.img"
    command_line = 'root=/dev/vda "quoted" ro'

    [[disk]]
    path = "/home/me/root.qcow2"
    format = "qcow2"
    read_only = false
    device = "disk"
    name = "xvda1"

    [[disk]]
    nfs = "nfs://10.0.0.1/xen/data.img"
    format = "raw"
    read_only = true
    device = "disk"

    [[disk]]
    path = "/iso/cd.iso"
    format = "raw"
    read_only = true
    device = "cdrom"

    [[network]]
    mac = "52:54:00:12:34:56"
    bridge = "br0"

    [[network]]
    user = true
    forward = ["tcp:127.0.0.1:2222->22", "udp:[::1]:5353->53"]
    "#);
    assert_eq!(read(&render(&guest)), Ok(guest));
}

#[test]
fn every_mistake_is_named_with_its_place_and_a_remedy() {
    let mut all = String::new();
    let mut check = |text: &str| {
        let error = read(text).expect_err(text);
        all.push_str(&format!("{error}\n    {}: {}\n", error.code(), error.remedy()));
    };
    check("name = \"a\nmemory = 1");
    check("name = \"a\"\nmemroy = \"1G\"");
    check("name = \"a\"\nmemory = \"1G\"\n[boot]\nkernle = \"/x\"");
    check("name = \"a\"\nmemory = \"1G\"\nzzz = 1");
    check("name = \"a\"\nmemory = 512");
    check("name = \"a\"\nmemory = \"512\"");
    check("name = \"a\"\nmemory = \"1 MiB\"");
    check("name = \"a\"\nmemory = \"536870913 B\"");
    check("name = \"17\"\nmemory = \"1G\"");
    check("memory = \"1G\"\n[[disk]]\npath = \"/a\"");
    check("name = \"a\"");
    check("name = \"a\"\nmemory = \"1G\"");
    check("version = 2");
    check("name = \"a\"\nmemory = \"1G\"\nuuid = \"x\"");
    let tail = |more: &str| format!("{SMALL}{more}");
    let head = |more: &str| format!("{more}\n{SMALL}");
    check(&head("memory_min = \"1G\""));
    check(&head("memory_min = \"256M\"\nballoon = false"));
    check(&head("vcpus = 0"));
    check(&head("vcpus = 4\nvcpus_max = 2"));
    check(&head("vcpus = -1"));
    check(&head("cpu = \"host -drive x\""));
    check(&head("machine = \"-q35\""));
    check(&head("on_crash = \"explode\""));
    check(&head("autostart = \"yes\""));
    check(&tail("[[disk]]\npath = \"/xen/a.img\""));
    check(&tail("[[disk]]\npath = \"b.img\""));
    check(&tail("[[disk]]\npath = \"/xen/../etc/shadow\""));
    check(&tail("[[disk]]\nnfs = \"nfs://server\""));
    check(&tail("[[disk]]\nnfs = \"nfs://server/a?uid=0\""));
    check(&tail("[[disk]]\npath = \"/b\"\nnfs = \"nfs://server/x/a\""));
    check(&tail("[[disk]]\nformat = \"raw\""));
    check(&tail("[[disk]]\npath = \"/b\"\nformat = \"vhd\""));
    check(&tail("[[disk]]\npath = \"/b\"\ndevice = \"cdrom\"\nread_only = false"));
    check(&tail("[boot]\nramdisk = \"/r\""));
    check(&tail("[boot]\nkernel = \"/k\"\nfirmware = \"uefi\""));
    check(&tail("[boot]\nfrom = \"cdrom\""));
    check(&tail("[boot]\nkernel = \"/k\"\ncommand_line = \"a\\nb\""));
    check(&tail("[[network]]"));
    check(&tail("[[network]]\nbridge = \"br0\"\nuser = true"));
    check(&tail("[[network]]\nbridge = \"br0\"\nforward = [\"tcp:1->2\"]"));
    check(&tail("[[network]]\nbridge = \"a/b\""));
    check(&tail("[[network]]\nuser = true\nforward = [\"tcp:1\"]"));
    check(&tail("[[network]]\nuser = true\nforward = [\"tcp:1->2\", \"tcp:1->3\"]"));
    check(&tail("[[network]]\nuser = true\nmac = \"01:00:00:00:00:00\""));
    check(&tail("[network]\nuser = true"));
    check(&"#".repeat(text_file::FILE_BYTES_MAX + 1));
    insta::assert_snapshot!(all, @r#"
    web1.toml:1:10: invalid basic string, expected `"`
        file/syntax: correct line 1 of web1.toml
    web1.toml:2:1: unknown key `memroy`
        file/unknown-key: did you mean `memory`? Correct line 2 of web1.toml
    web1.toml:4:1: unknown key `boot.kernle`
        file/unknown-key: did you mean `kernel`? Correct line 4 of web1.toml
    web1.toml:3:1: unknown key `zzz`
        file/unknown-key: remove it from line 3 of web1.toml; known here: version, name, uuid, memory, memory_min, vcpus, vcpus_max, cpu, machine, on_poweroff, on_reboot, on_crash, autostart, keep_memory, balloon, rng, serial, boot, disk, network
    web1.toml:2:10: `memory`: expected a string, found a whole number
        file/wrong-type: correct line 2 of web1.toml
    web1.toml:2:10: `memory`: `512` is not a size; write a number with a unit: `512 MiB`, `4G`, `100 MB`
        file/bad-value: correct line 2 of web1.toml
    web1.toml:2:10: `memory`: 1 MiB is not between 16 MiB and 16 TiB
        file/bad-value: correct line 2 of web1.toml
    web1.toml:2:10: `memory`: 536870913 bytes are not a whole number of MiB
        file/bad-value: correct line 2 of web1.toml
    web1.toml:1:8: `name`: the name `17` consists of digits only, so it would be mistaken for an id
        file/bad-value: correct line 1 of web1.toml
    web1.toml: `name`: a guest needs a name
        file/missing-key: add it to web1.toml
    web1.toml: `memory`: a guest needs memory: `memory = "512 MiB"`
        file/missing-key: add it to web1.toml
    web1.toml: `boot`: there is nothing to boot: give a `[[disk]]` or a `kernel`
        file/missing-key: add it to web1.toml
    web1.toml: the file has version 2, and this Whimbrel reads version 1
        file/version: upgrade Whimbrel on this host
    web1.toml:3:8: `uuid`: invalid character: found `x` at 0
        file/bad-value: correct line 3 of web1.toml
    web1.toml:1:14: `memory_min`: 1 GiB is more than `memory`, which is 512 MiB
        file/conflict: correct line 1 of web1.toml
    web1.toml:1:14: `memory_min`: a guest is squeezed by its balloon, and `balloon` is false
        file/conflict: correct line 1 of web1.toml
    web1.toml:1:9: `vcpus`: 0 is not a number from 1 to 255
        file/bad-value: correct line 1 of web1.toml
    web1.toml:2:13: `vcpus_max`: 2 is less than `vcpus`, which is 4
        file/conflict: correct line 2 of web1.toml
    web1.toml:1:9: `vcpus`: -1 is not a number from 1 to 255
        file/bad-value: correct line 1 of web1.toml
    web1.toml:1:7: `cpu`: a CPU model cannot contain ` `
        file/bad-value: correct line 1 of web1.toml
    web1.toml:1:11: `machine`: a machine type begins with a letter or a digit and has at most 1024 bytes
        file/bad-value: correct line 1 of web1.toml
    web1.toml:1:12: `on_crash`: `explode` is not one of `destroy`, `restart`, `preserve`
        file/bad-value: correct line 1 of web1.toml
    web1.toml:1:13: `autostart`: expected true or false, found a string
        file/wrong-type: correct line 1 of web1.toml
    web1.toml:5:1: `disk[1]`: `/xen/a.img` is a disk of this guest already
        file/conflict: correct line 5 of web1.toml
    web1.toml:6:8: `disk[1].path`: the path `b.img` is relative; begin it with `/`
        file/bad-value: correct line 6 of web1.toml
    web1.toml:6:8: `disk[1].path`: the path `/xen/../etc/shadow` contains `..`; write where it really leads
        file/bad-value: correct line 6 of web1.toml
    web1.toml:6:7: `disk[1].nfs`: `nfs://server` is not `nfs://server/export/image`
        file/bad-value: correct line 6 of web1.toml
    web1.toml:6:7: `disk[1].nfs`: `nfs://server/a?uid=0` is not `nfs://server/export/image`
        file/bad-value: correct line 6 of web1.toml
    web1.toml:7:7: `disk[1].nfs`: `path` is given, too; a disk lies in one place
        file/conflict: correct line 7 of web1.toml
    web1.toml:5:1: `disk[1].path`: a disk needs `path` or `nfs`
        file/missing-key: add it to web1.toml
    web1.toml:7:10: `disk[1].format`: `vhd` is not one of `raw`, `qcow2`
        file/bad-value: correct line 7 of web1.toml
    web1.toml:5:1: `disk[1]`: nobody writes on a CD-ROM; leave `read_only` out
        file/conflict: correct line 5 of web1.toml
    web1.toml:6:11: `boot.ramdisk`: it goes with `kernel`, and there is none
        file/conflict: correct line 6 of web1.toml
    web1.toml:7:12: `boot.firmware`: `kernel` is given, so no firmware boots a disk; keep one of them
        file/conflict: correct line 7 of web1.toml
    web1.toml: it boots from a CD-ROM, and no disk has `device = "cdrom"`
        file/conflict: correct web1.toml
    web1.toml:7:16: `boot.command_line`: a command line is one line, without control characters
        file/bad-value: correct line 7 of web1.toml
    web1.toml:5:1: `network[0].bridge`: a card needs `bridge = "br0"` or `user = true`
        file/missing-key: add it to web1.toml
    web1.toml:6:10: `network[0].bridge`: `user` is true, too; a card is on one network
        file/conflict: correct line 6 of web1.toml
    web1.toml:7:12: `network[0].forward[0]`: ports are forwarded with `user = true` only; on a bridge the guest has an address of its own
        file/conflict: correct line 7 of web1.toml
    web1.toml:6:10: `network[0].bridge`: `a/b` is not the name of a bridge
        file/bad-value: correct line 6 of web1.toml
    web1.toml:7:12: `network[0].forward[0]`: `tcp:1` is not a port forward; write `tcp:127.0.0.1:2222->22` or `udp:5353->53`
        file/bad-value: correct line 7 of web1.toml
    web1.toml:5:1: `network[0]`: tcp port 127.0.0.1:1 is forwarded already
        file/conflict: correct line 5 of web1.toml
    web1.toml:7:7: `network[0].mac`: `01:00:00:00:00:00` is a group address; the first byte of a card's own address is even
        file/bad-value: correct line 7 of web1.toml
    web1.toml:5:1: `network`: expected a list of tables, found a table
        file/wrong-type: correct line 5 of web1.toml
    web1.toml: the file has 65537 bytes, and at most 65536 are read
        file/too-long: give a file that somebody wrote, not an image
    "#);
}

#[test]
fn counts_are_bounded() {
    let disks: String = (0..=DISKS_MAX).map(|i| format!("[[disk]]\npath = \"/d{i}\"\n")).collect();
    let error = read(&format!("name = \"a\"\nmemory = \"1G\"\n{disks}")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "web1.toml:3:1: `disk`: a guest has at most 24 disks, and here are 25"
    );
    let cards = "[[network]]\nbridge = \"br0\"\n".repeat(NETWORKS_MAX + 1);
    assert!(read(&format!("{SMALL}{cards}")).is_err());
}

#[test]
fn the_reference_explains_every_key() {
    let page = reference();
    for section in [&schema::TOP, &schema::BOOT, &schema::DISK, &schema::NETWORK] {
        for key in section.keys.iter().filter(|key| !key.value.is_empty()) {
            assert!(page.contains(&format!("### `{}`", key.name)), "{}", key.name);
            assert!(key.about.ends_with('.') && !key.default.is_empty(), "{}", key.name);
        }
    }
    // The example of the page is a guest file.
    let example = schema::INTRO.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    assert!(read(example).is_ok());
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Destroy), Just(Policy::Restart), Just(Policy::Preserve)]
}

fn any_path() -> impl Strategy<Value = std::path::PathBuf> {
    // Every printable character, quotes, backslashes and other scripts included.
    "/[a-zA-Zäπ'\"\\\\# =,]{1,12}/[ -~]{0,8}[a-z]".prop_filter_map("one clean path", |text| {
        let file = TextFile { name: "", text: "", base: None };
        file.path(&text).ok()
    })
}

fn any_disk() -> impl Strategy<Value = Disk> {
    let source = prop_oneof![
        any_path().prop_map(DiskSource::Path),
        "nfs://[a-z]{1,5}/[a-z]{1,5}/[a-z]{1,5}".prop_map(DiskSource::Nfs),
    ];
    let format = prop_oneof![Just(DiskFormat::Raw), Just(DiskFormat::Qcow2)];
    let name = proptest::option::of("xvd[a-h][1-9]?");
    (source, format, any::<bool>(), any::<bool>(), name).prop_map(
        |(source, format, is_cdrom, is_read_only, name)| Disk {
            source,
            format,
            is_read_only: is_read_only || is_cdrom,
            device: if is_cdrom { DiskDevice::Cdrom } else { DiskDevice::Disk },
            name,
        },
    )
}

fn any_network() -> impl Strategy<Value = Network> {
    let mac = any::<[u8; 6]>().prop_map(|mut mac| {
        mac[0] = mac[0] & 0xfe | 2;
        Mac(mac)
    });
    let forward = (any::<bool>(), any::<std::net::SocketAddr>(), 1..=u16::MAX).prop_filter_map(
        "ports are not zero, and no scope is written",
        |(is_tcp, mut host, guest_port)| {
            if let std::net::SocketAddr::V6(address) = &mut host {
                address.set_scope_id(0);
                address.set_flowinfo(0);
            }
            let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
            (host.port() != 0).then_some(Forward { protocol, host, guest_port })
        },
    );
    let kind = prop_oneof![
        "[a-z][a-z0-9.-]{0,14}".prop_map(|bridge| NetworkKind::Bridge { bridge }),
        proptest::collection::vec(forward, 0..3)
            .prop_map(|forwards| NetworkKind::User { forwards }),
    ];
    (proptest::option::of(mac), kind).prop_map(|(mac, kind)| Network { mac, kind })
}

fn any_boot() -> impl Strategy<Value = Boot> {
    let kernel = (any_path(), proptest::option::of(any_path()), "[ -~äπ]{0,40}")
        .prop_map(|(kernel, ramdisk, command_line)| Boot::Kernel { kernel, ramdisk, command_line });
    let firmware = prop_oneof![Just(Firmware::Bios), Just(Firmware::Uefi)];
    prop_oneof![
        kernel,
        firmware.prop_map(|firmware| Boot::Firmware { firmware, from: BootFrom::Disk })
    ]
}

prop_compose! {
    fn any_guest()(
        name in "[a-z][a-z0-9._-]{0,20}",
        id in proptest::option::of(any::<[u8; 16]>()),
        size in 16_u64..100_000,
        min in proptest::option::of(16_u64..100_000),
        count in 1_u32..=255,
        more in 0_u32..100,
        model in proptest::option::of("[A-Z][a-z]{0,8}(,[+-][a-z]{1,5}){0,3}"),
        machine in proptest::option::of("pc-q35-[1-9]\\.[0-9]"),
        boot in any_boot(),
        disks in proptest::collection::vec(any_disk(), 0..5),
        networks in proptest::collection::vec(any_network(), 0..4),
        on in (any_policy(), any_policy(), any_policy()),
        flags in any::<[bool; 5]>(),
    ) -> Guest {
        let min = min.map(|min| Bytes::mib(min.min(size)));
        let first = Disk {
            source: DiskSource::Path("/first".into()),
            format: DiskFormat::Raw,
            is_read_only: false,
            device: DiskDevice::Disk,
            name: None,
        };
        let mut seen = HashSet::from([first.source.clone()]);
        let disks = disks.into_iter().filter(|disk| seen.insert(disk.source.clone()));
        Guest {
            name: GuestName::new(name).unwrap(),
            id: id.map(|bytes| GuestId(uuid::Uuid::from_bytes(bytes))),
            memory: Memory { size: Bytes::mib(size), min },
            cpus: Cpus { count, count_max: (count + more).min(255), model },
            machine,
            boot,
            disks: std::iter::once(first).chain(disks).collect(),
            networks,
            devices: Devices {
                has_balloon: flags[0] || min.is_some(),
                has_rng: flags[1],
                has_serial: flags[2],
            },
            on: Policies { poweroff: on.0, reboot: on.1, crash: on.2 },
            autostart: flags[3],
            keep_memory: flags[4],
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(guest in any_guest()) {
        let text = render(&guest);
        prop_assert_eq!(read(&text), Ok(guest), "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_cut_makes_the_reader_panic(guest in any_guest(), cut in any::<prop::sample::Index>()) {
        let text = render(&guest);
        let _ = read(&text.chars().take(cut.index(text.len())).collect::<String>());
    }
}
