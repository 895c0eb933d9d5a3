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
    insta::assert_snapshot!(all);
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
