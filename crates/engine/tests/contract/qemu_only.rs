// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What only a real QEMU can show: its facts, its command line, its files and its guests.

use crate::bench::{Bench, Kind, Limits, Wire, options, until, until_state, within};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;
use whimbrel_engine::qemu::{Qemu, QemuConfig};
use whimbrel_engine::{Engine, EngineError, Migration, RunAs, Start};
use whimbrel_model::guest::{
    Boot, BootFrom, Disk, DiskDevice, DiskFormat, DiskSource, Firmware, Forward, Network,
    NetworkKind, Protocol,
};
use whimbrel_model::problem::Remedy;
use whimbrel_model::run_state::RunState;

/// Machine code of a boot sector: `out 0x604, 0x2000`, the ACPI order to power off.
const POWERS_OFF: [u8; 10] = [0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd];
/// `out 0x505, 1`: the panic device's bell.
const PANICS: [u8; 9] = [0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd];
/// `out 0x3f8, '!'`: says so on the serial line, and stays.
const SPEAKS: [u8; 8] = [0xba, 0xf8, 0x03, 0xb0, 0x21, 0xee, 0xeb, 0xfe];

/// Makes a disk whose boot sector is this program.
pub(crate) fn boot_disk(bench: &Bench, program: &[u8]) -> Disk {
    let disk = bench.disk("boot.img");
    let DiskSource::Path(path) = &disk.source else { unreachable!("disks here are files") };
    let mut sector = program.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(16 << 20, 0);
    std::fs::write(path, sector).unwrap();
    disk
}

#[tokio::test]
async fn the_facts_of_this_host_make_sense() {
    let Some(bench) = Bench::new(Kind::Qemu).await else { return };
    let facts = bench.engine.facts().await.unwrap();
    assert!(facts.machines.contains(&facts.machine_default), "{facts:?}");
    assert!(facts.machine_default.starts_with("pc-q35-"), "{facts:?}");
    assert!(facts.cpu_features.iter().any(|feature| feature == "sse2"), "{facts:?}");
    assert!(!facts.accelerator_reason.is_empty() && facts.cpu_model.contains("-v"), "{facts:?}");
    assert_eq!(bench.engine.facts().await.unwrap(), facts, "asked twice");
}

/// What this host cannot give of a CPU model is switched off for ever, and is not promised.
#[tokio::test]
async fn a_passport_promises_only_what_the_guest_sees() {
    let Some(bench) = Bench::new(Kind::Qemu).await else { return };
    let facts = bench.engine.facts().await.unwrap();
    let model = "Icelake-Server-v1,-aes".to_owned();
    let defined = bench.define(|guest| guest.cpus.model = Some(model)).await;
    let cpu = &defined.passport.cpu;
    assert!(cpu.features.iter().all(|feature| facts.cpu_features.contains(feature)));
    assert!(!cpu.features.iter().any(|feature| feature == "aes"));
    // It starts with `enforce`, so QEMU itself confirms the list.
    bench.launch(&defined, "alpha", Start::Boot).await.destroy().await.unwrap();
}

/// The guest's own end is held for us to see, whichever way it ends.
#[tokio::test]
async fn guests_that_end_are_held() {
    for (program, expected) in
        [(&POWERS_OFF[..], RunState::ShutDown), (&PANICS[..], RunState::Panicked)]
    {
        let Some(bench) = Bench::new(Kind::Qemu).await else { return };
        let disk = boot_disk(&bench, program);
        let defined = bench.define(|guest| guest.disks.push(disk)).await;
        let guest = bench.launch(&defined, "alpha", Start::Boot).await;
        guest.resume().await.unwrap();
        until_state(&guest, expected).await;
        guest.destroy().await.unwrap();
    }
}

/// One of everything, on both machine families and with UEFI: QEMU takes the command line, and
/// takes it a second time for the target.
#[tokio::test]
async fn every_kind_of_device_is_accepted_and_moves() {
    for (machine, firmware) in
        [("q35", Firmware::Bios), ("pc", Firmware::Bios), ("q35", Firmware::Uefi)]
    {
        let Some(bench) = Bench::new(Kind::Qemu).await else { return };
        if firmware == Firmware::Uefi && !std::path::Path::new("/usr/share/OVMF").exists() {
            eprintln!("SKIPPED: no UEFI firmware is installed (Debian: `apt install ovmf`)");
            return;
        }
        let disks = [
            bench.disk("a, \"b\".img"),
            Disk { device: DiskDevice::Cdrom, ..bench.disk("install.iso") },
            Disk { is_read_only: true, ..bench.disk("data.img") },
            qcow2(&bench).await,
        ];
        let defined = bench
            .define(|guest| {
                guest.machine = Some(machine.to_owned());
                guest.boot = Boot::Firmware { firmware, from: BootFrom::Cdrom };
                guest.disks.extend(disks);
                guest.cpus.count_max = 2;
                let forwards = vec![Forward {
                    protocol: Protocol::Udp,
                    host: "127.0.0.1:0".parse().unwrap(),
                    guest_port: 53,
                }];
                guest.networks =
                    vec![Network { mac: None, kind: NetworkKind::User { forwards } }; 2];
            })
            .await;
        let source = bench.launch(&defined, "alpha", Start::Boot).await;
        source.resume().await.unwrap();
        let target = bench.launch(&defined, "beta", Start::Incoming).await;
        let listening = target.receive(options()).await.unwrap();
        let wire = Wire::new(bench.folder.path(), listening, Limits::NONE);
        source.send(options(), wire.end.clone()).await.unwrap();
        until(&target, "the target", |m| matches!(m, Migration::Completed(_))).await;
        until(&source, "the source", |m| matches!(m, Migration::Completed(_))).await;
        target.resume().await.unwrap();
        source.destroy().await.unwrap();
        target.destroy().await.unwrap();
    }
}

async fn qcow2(bench: &Bench) -> Disk {
    let path = bench.folder.path().join("swap.qcow2");
    let made = tokio::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&path)
        .arg("8M")
        .status()
        .await;
    assert!(made.unwrap().success());
    Disk {
        source: DiskSource::Path(path),
        format: DiskFormat::Qcow2,
        is_read_only: false,
        device: DiskDevice::Disk,
        name: None,
    }
}

/// Two guests on one image: the second is refused by name, and nothing of it stays.
#[tokio::test]
async fn an_image_in_use_is_named() {
    let Some(bench) = Bench::new(Kind::Qemu).await else { return };
    let disk = bench.disk("shared.img");
    let first = bench.define(|guest| guest.disks.push(disk.clone())).await;
    let second = bench.define(|guest| guest.disks.push(disk)).await;
    let guest = bench.launch(&first, "alpha", Start::Boot).await;
    let refused = bench.engine.launch(bench.launch_of(&second, "beta", Start::Boot)).await;
    let error = refused.err().expect("one image, two guests");
    assert_eq!(error.code(), "engine/image-locked", "{error}");
    assert!(error.to_string().contains("shared.img"), "{error}");
    let left: Vec<_> = std::fs::read_dir(bench.directory("beta")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.path().extension().unwrap() == "log"), "{left:?}");
    guest.destroy().await.unwrap();
}

/// Between the source's release and the target's start somebody else takes the image: the target
/// says so and stands still; when the image is free again, the source can go on.
#[tokio::test]
async fn a_target_without_its_disk_says_so() {
    let Some(bench) = Bench::new(Kind::Qemu).await else { return };
    let disk = bench.disk("shared.img");
    let mover = bench.define(|guest| guest.disks.push(disk.clone())).await;
    let thief = bench.define(|guest| guest.disks.push(disk)).await;
    let source = bench.launch(&mover, "alpha", Start::Boot).await;
    source.resume().await.unwrap();
    let target = bench.launch(&mover, "beta", Start::Incoming).await;
    let listening = target.receive(options()).await.unwrap();
    let wire = Wire::new(bench.folder.path(), listening, Limits::NONE);
    source.send(options(), wire.end.clone()).await.unwrap();
    until(&target, "the target", |m| matches!(m, Migration::Completed(_))).await;
    until(&source, "the source", |m| matches!(m, Migration::Completed(_))).await;
    let thief = bench.launch(&thief, "gamma", Start::Boot).await;
    for guest in [&target, &source] {
        let error = guest.resume().await.unwrap_err();
        assert!(matches!(error, EngineError::ImageLocked { .. }), "{error}");
        assert_eq!(guest.run_state().await.unwrap(), RunState::Paused);
    }
    thief.destroy().await.unwrap();
    target.destroy().await.unwrap();
    source.resume().await.unwrap();
    assert_eq!(source.run_state().await.unwrap(), RunState::Running);
    source.destroy().await.unwrap();
}

/// QEMU runs as the user it was given, and an image that this user may not open is an error with
/// the cure in it.
#[tokio::test]
async fn the_engine_is_unprivileged() {
    const NOBODY: RunAs = RunAs { uid: 65534, gid: 65534 };
    let Some(bench) = Bench::new(Kind::Qemu).await else { return };
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root can start an engine as another user");
        return;
    }
    let open = |path: PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(bench.folder.path().to_owned(), 0o755);
    let disk = bench.disk("private.img");
    open(bench.folder.path().join("private.img"), 0o600);
    let run_as = |defined, host| {
        let launch = bench.launch_of(defined, host, Start::Boot);
        std::os::unix::fs::chown(&launch.directory, Some(NOBODY.uid), Some(NOBODY.gid)).unwrap();
        whimbrel_engine::Launch { run_as: Some(NOBODY), ..launch }
    };
    let defined = bench.define(|_| {}).await;
    let guest = bench.engine.launch(run_as(&defined, "alpha")).await.unwrap();
    guest.resume().await.unwrap();
    let process = std::fs::metadata(format!("/proc/{}", guest.process().pid)).unwrap();
    assert_eq!((process.uid(), process.gid()), (NOBODY.uid, NOBODY.gid));
    let status = std::fs::read_to_string(format!("/proc/{}/status", guest.process().pid)).unwrap();
    let groups = status.lines().find(|line| line.starts_with("Groups:")).unwrap();
    assert_eq!(groups.trim(), "Groups:");
    guest.destroy().await.unwrap();

    let defined = bench.define(|guest| guest.disks.push(disk)).await;
    let refused = bench.engine.launch(run_as(&defined, "beta")).await;
    let error = refused.err().expect("the image is private");
    assert_eq!(error.code(), "engine/permission-denied", "{error}");
    assert!(error.remedy().contains("chown nobody"), "{}", error.remedy());
}

/// A program that greets like a QEMU of 2021 is refused with both versions.
#[tokio::test]
async fn an_old_qemu_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("qemu-old");
    let script = "#!/bin/sh\n\
        echo '{\"QMP\": {}}'; read line; echo '{\"return\": {}, \"id\": 0}'; read line\n\
        echo '{\"return\": {\"qemu\": {\"major\": 6, \"minor\": 2, \"micro\": 0}}, \"id\": 1}'\n\
        read line\n";
    std::fs::write(&binary, script).unwrap();
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
    let engine = Qemu::new(QemuConfig { binary, ..QemuConfig::default() });
    let error = engine.facts().await.unwrap_err();
    assert_eq!(error.code(), "engine/too-old", "{error}");
    assert!(error.to_string().contains("6.2.0") && error.to_string().contains("7.2"), "{error}");
}

#[tokio::test]
async fn a_missing_qemu_is_said_to_be_missing() {
    let binary = PathBuf::from("/nonexistent/qemu");
    let engine = Qemu::new(QemuConfig { binary, ..QemuConfig::default() });
    assert_eq!(engine.facts().await.unwrap_err().code(), "engine/not-installed");
}

/// The console is there before anybody listens: what was said meanwhile is in the log.
#[tokio::test]
async fn the_console_is_logged() {
    let Some(bench) = Bench::new(Kind::Qemu).await else { return };
    let disk = boot_disk(&bench, &SPEAKS);
    let defined = bench.define(|guest| guest.disks.push(disk)).await;
    let guest = bench.launch(&defined, "alpha", Start::Boot).await;
    guest.resume().await.unwrap();
    let log = bench.directory("alpha").join("console.log");
    within("the log", async {
        while !std::fs::read(&log).is_ok_and(|text| text.contains(&b'!')) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    guest.destroy().await.unwrap();
}
