// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A plan says beforehand what a migration would meet, quickly and without touching the guest; and
//! what it says of memory that others would give back is done.

use super::refusals::rename_bridge;
use crate::bootable;
use crate::disk;
use crate::lab::{Export, Host, NfsServer, Ran, SHARED};
use crate::scene::{CONFIG, Cast, SOON, Scene, engines, json, lives_only_on, state, until};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// How long a plan may take, whatever it finds.
const PLAN_MAX: Duration = Duration::from_secs(2);
/// A wire, in Mbit/s, that makes the first pass so long that the guest's writing is measured.
const SLOW_WIRE: u32 = 50;
/// What is left on the target before a guest arrives that needs more.
const LEFT: u64 = 50 << 20;

/// Plans, and returns what was printed and every finding.
fn plan(host: &Host, options: &[&str]) -> Result<(Ran, Vec<Value>)> {
    let ran = host.whimbrel(&[&["plan", "web1", "beta", "--json"], options].concat())?;
    let plan: Value = serde_json::from_str(&ran.stdout).with_context(|| format!("{ran}"))?;
    println!("{:?} for {options:?}", ran.took);
    Ok((ran, plan["findings"].as_array().context("no findings")?.clone()))
}

/// Returns how severe a finding is, where the plan has it.
fn severity<'a>(findings: &'a [Value], code: &str) -> Option<&'a str> {
    let found = findings.iter().filter(|finding| finding["code"] == code);
    let worst = found.max_by_key(|finding| match finding["severity"].as_str() {
        Some("blocker") => 2,
        Some("warning") => 1,
        _ => 0,
    });
    worst?["severity"].as_str()
}

/// A plan is there within two seconds: of a fit target, over a slow wire, with an engine started as
/// a proof, and of a target that is not fit. Nothing is left of it, and the guest goes on.
pub(super) fn made_in_two_seconds(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let engine = engines(alpha, "web1")?;
    for (options, wire) in [(&[][..], None), (&[], Some(SLOW_WIRE)), (&["--prove"], None)] {
        alpha.set_rate(wire)?;
        let (ran, findings) = plan(alpha, options)?;
        ensure!(ran.status.code() == Some(0), "{ran}");
        ensure!(ran.took < PLAN_MAX, "it took {:?} over {wire:?}: {ran}", ran.took);
        for code in ["plan/segment", "plan/disk-same", "plan/disk-space", "plan/rom", "plan/memory"]
        {
            ensure!(severity(&findings, code) == Some("ok"), "{code}: {ran}");
        }
        let is_proved = severity(&findings, "plan/proof") == Some("ok");
        ensure!(is_proved != options.is_empty(), "{ran}");
        // There is no KVM to be had here: where there is, nothing is emulated.
        let is_emulated = json(alpha, &["info"])?["engines"][0]["accelerator"] == "tcg";
        let warned = severity(&findings, "plan/emulated") == Some("warning");
        ensure!(warned == is_emulated, "{ran}");
        ensure!(engines(beta, "web1")?.is_empty(), "an engine is left on beta");
    }
    let stopped = alpha.whimbrel(&["plan", "web1", "beta", "--stop-and-copy"])?.ok()?;
    ensure!(!stopped.contains("plan/emulated"), "{stopped}");
    rename_bridge(beta, "br0", "br9")?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(ran.status.code() == Some(1) && ran.took < PLAN_MAX, "{:?}: {ran}", ran.took);
    ensure!(severity(&findings, "plan/bridge") == Some("blocker"), "{ran}");
    rename_bridge(beta, "br9", "br0")?;
    ensure!(engines(alpha, "web1")? == engine, "the engine changed");
    witness.is_well().map(drop)
}

/// The target has a bridge of the right name, with nothing behind it.
pub(super) fn two_bridges_that_are_not_one_network(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    rename_bridge(beta, "br0", "br9")?;
    sh(beta, "ip link add br0 type bridge && ip link set br0 up")?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(ran.status.code() == Some(1) && ran.took < PLAN_MAX, "{:?}: {ran}", ran.took);
    ensure!(severity(&findings, "plan/segment") == Some("blocker"), "{ran}");
    let refused = alpha.whimbrel(&["migrate", "web1", "beta"])?.refused(1, "plan/segment")?;
    ensure!(refused.contains("--no-probe"), "{refused}");
    let (ran, findings) = plan(alpha, &["--no-probe"])?;
    ensure!(ran.status.code() == Some(0) && severity(&findings, "plan/segment").is_none(), "{ran}");
    sh(beta, "ip link del br0")?;
    rename_bridge(beta, "br9", "br0")?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/segment") == Some("ok"), "{ran}");
    witness.is_well().map(drop)
}

/// QEMU that answers every question, and does not come up for a guest that arrives.
const BROKEN_QEMU: &str = r#"#!/bin/sh
case "$*" in
*-incoming*) echo "qemu: cannot set up guest memory" >&2; exit 1 ;;
*) exec qemu-system-x86_64 "$@" ;;
esac
"#;

/// What nobody can tell from facts is found by trying: the target's engine does not start.
pub(super) fn an_engine_that_does_not_start(setting: &Setting) -> Result<()> {
    let scene = with_other_qemu(setting, BROKEN_QEMU, Where::Beta)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let (ran, _) = plan(alpha, &[])?;
    ensure!(ran.status.code() == Some(0), "{ran}");
    let (ran, findings) = plan(alpha, &["--prove"])?;
    ensure!(ran.status.code() == Some(1), "{ran}");
    ensure!(severity(&findings, "plan/proof") == Some("blocker"), "{ran}");
    ensure!(ran.stdout.contains("cannot set up guest memory"), "the reason is missing: {ran}");
    ensure!(engines(beta, "web1")?.is_empty(), "an engine on the target");
    sh(beta, "! ls /var/lib/whimbrel/proofs/* 2>/dev/null").context("a proof's place is left")?;
    witness.is_well().map(drop)
}

/// A host in maintenance gets no guest, by plan, by offer, by `create` or at its boot; the guests
/// that are there go on, and may leave.
pub(super) fn a_host_in_maintenance(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let there = scene.create(beta, &Cast::web2().with_keys("autostart = true"))?;
    beta.configure(&format!("[host]\nmaintenance = true\n{CONFIG}"))?;
    beta.whimbrel(&["reload"])?.ok()?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/maintenance") == Some("blocker"), "{ran}");
    let refused = alpha.whimbrel(&["migrate", "web1", "beta"])?.refused(1, "plan/maintenance")?;
    ensure!(refused.contains("`maintenance = true`"), "{refused}");
    let hosts = json(alpha, &["host", "list"])?;
    ensure!(hosts["hosts"][1]["is_relocation_enabled"] == false, "it takes guests: {hosts}");
    let file = scene.guest_file(&Cast::named("web3", 53))?;
    beta.whimbrel(&["create", &file])?.refused(1, "host/in-maintenance")?;
    ensure!(state(beta, "web3")?.is_none(), "it was defined");
    let checks = json(beta, &["doctor"])?;
    let checks = checks.as_array().context("no checks")?;
    ensure!(severity(checks, "doctor/maintenance") == Some("warning"), "{checks:?}");

    there.is_well()?;
    beta.whimbrel(&["stop", "--now", "web2"])?.ok()?;
    beta.whimbrel(&["start", "web2"])?.refused(1, "host/in-maintenance")?;
    beta.stop_daemon()?;
    let number = scene.lab.directory().join("boot_id");
    fs::write(&number, "11111111-2222-4333-8444-555555555555\n")?;
    beta.show(&number, "/proc/sys/kernel/random/boot_id")?;
    beta.start_daemon()?;
    until("`autostart` is refused", SOON, || {
        Ok(beta.whimbrel(&["log"])?.ok()?.contains("`beta` is in maintenance, so guest `web2`"))
    })?;
    ensure!(engines(beta, "web2")?.is_empty(), "it was started");
    beta.whimbrel(&["migrate", "web2", "alpha"])?.ok().context("a guest may leave")?;
    beta.configure(CONFIG)?;
    beta.whimbrel(&["reload"])?.ok()?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    witness.is_well().map(drop)
}

/// The source's firewall lets the target not in: it is said, with the command of that firewall.
pub(super) fn a_way_back_that_is_closed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let alpha = scene.alpha();
    let witness = scene.create(alpha, &Cast::web1())?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/way-back") == Some("ok"), "{ran}");
    alpha.set_blocked(Some(8002))?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(ran.status.code() == Some(0) && ran.took < PLAN_MAX, "{:?}: {ran}", ran.took);
    ensure!(severity(&findings, "plan/way-back") == Some("warning"), "{ran}");
    for word in ["10.77.0.1:8002", "No route to host", "nft insert rule inet"] {
        ensure!(ran.stdout.contains(word), "`{word}` is not in: {ran}");
    }
    alpha.set_blocked(None)?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/way-back") == Some("ok"), "{ran}");
    witness.is_well().map(drop)
}

/// QEMU that gives its guests a disk of a kind that it cannot send.
const FETTERED_QEMU: &str = r#"#!/bin/sh
case "$*" in
*none,accel=*) exec qemu-system-x86_64 "$@" ;;
*) exec qemu-system-x86_64 "$@" -blockdev driver=null-co,node-name=scratch,size=1048576 \
    -device nvme,drive=scratch,serial=scratch ;;
esac
"#;

/// The engine of the source says beforehand which device it cannot send.
pub(super) fn a_device_that_cannot_move(setting: &Setting) -> Result<()> {
    let scene = with_other_qemu(setting, FETTERED_QEMU, Where::Alpha)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/hindrance") == Some("blocker"), "{ran}");
    let refused = alpha.whimbrel(&["migrate", "web1", "beta"])?.refused(1, "plan/hindrance")?;
    ensure!(refused.contains("nvme"), "{refused}");
    ensure!(engines(beta, "web1")?.is_empty(), "an engine on the target");
    witness.is_well().map(drop)
}

/// What a guest's UEFI remembers travels with its memory, and is in the target's file once the
/// guest runs there. Of a stopped guest it stays, which is said.
pub(super) fn uefi_variables_travel(setting: &Setting) -> Result<()> {
    bootable::need_uefi()?;
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let mut cast = Cast::web1().with_memory(320, 32);
    let image = scene.lab.shared.join("boot.img");
    bootable::make(&scene.image, &cast.command_line(), &image)?;
    cast.boot = Some("[boot]\nfirmware = \"uefi\"\n".to_owned());
    cast.disks =
        format!("[[disk]]\npath = \"{SHARED}/boot.img\"\nformat = \"raw\"\nread_only = true\n");
    let witness = scene.create(alpha, &cast)?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/uefi-variables") == Some("ok"), "{ran}");
    let before = variables(alpha)?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    witness.is_well()?;
    ensure!(variables(beta)? == before, "the variables did not travel");
    ensure!(template()? != before, "the firmware has written nothing");
    beta.whimbrel(&["stop", "--now", "web1"])?.ok()?;
    let ran = beta.whimbrel(&["plan", "web1", "alpha", "--json"])?;
    let stays: Value = serde_json::from_str(&ran.stdout).with_context(|| format!("{ran}"))?;
    let stays = stays["findings"].as_array().context("no findings")?.clone();
    ensure!(severity(&stays, "plan/uefi-variables") == Some("warning"), "{ran}");
    Ok(())
}

/// Returns the digest of the UEFI variables of the one guest that has some on a host.
fn variables(host: &Host) -> Result<String> {
    let script = "sha256sum < $(ls /var/lib/whimbrel/guests/*/run/uefi-variables.fd)";
    host.command("/bin/sh".as_ref(), &["-c", script], "")?.ok()
}

/// Returns the digest of the variables that a guest begins with.
fn template() -> Result<String> {
    crate::command::stdout_of(
        std::process::Command::new("/bin/sh")
            .args(["-c", "sha256sum < /usr/share/OVMF/OVMF_VARS_4M.fd"]),
    )
}

/// A disk that only the engine opens, on a server that does not let it: the plan tells by whose
/// word, before an engine is started.
pub(super) fn an_nfs_server_that_says_no(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let store = scene.lab.directory().join("store");
    fs::create_dir_all(&store)?;
    for name in ["open.img", "data.img", "root.img"] {
        disk::raw(&store.join(name), 16)?;
    }
    let mut server = NfsServer::serve(&scene.lab, &store, "open.img")?;
    let config = CONFIG.replace("[\"/srv/guests\"]", &format!("[\"/srv\", \"{}\"]", server.url));
    for host in [alpha, beta] {
        host.configure(&config)?;
        host.whimbrel(&["reload"])?.ok()?;
    }
    let mut cast = Cast::web1();
    cast.disks = format!("[[disk]]\nnfs = \"{}/data.img\"\nformat = \"raw\"\n", server.url);
    alpha.whimbrel(&["create", "--no-start", &scene.guest_file(&cast)?])?.ok()?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/disk-access") == Some("ok"), "{ran}");
    ensure!(ran.took < PLAN_MAX, "it took {:?}: {ran}", ran.took);

    let denied = |words: &[&str]| -> Result<()> {
        let (ran, findings) = plan(alpha, &[])?;
        ensure!(severity(&findings, "plan/disk-access") == Some("blocker"), "{ran}");
        for word in words {
            ensure!(ran.stdout.contains(word), "`{word}` is not in: {ran}");
        }
        Ok(())
    };
    drop(server);
    server = NfsServer::serve_as(&scene.lab, &store, "open.img", &Export::READ_ONLY)?;
    denied(&["says no to uid", "its export is read-only"])?;
    drop(server);
    std::os::unix::fs::chown(store.join("data.img"), Some(0), Some(0))?;
    fs::set_permissions(store.join("data.img"), fs::Permissions::from_mode(0o600))?;
    server = NfsServer::serve(&scene.lab, &store, "open.img")?;
    denied(&["says no to uid", "permission denied", "chown"])?;
    drop(server);
    // An engine that is root is nobody there.
    beta.stop_daemon()?;
    beta.configure(&format!("{config}\n[engine]\nuser = \"root\"\n"))?;
    beta.start_daemon()?;
    fs::set_permissions(store.join("open.img"), fs::Permissions::from_mode(0o666))?;
    server = NfsServer::serve_as(&scene.lab, &store, "open.img", &Export::ROOT_SQUASHED)?;
    denied(&["root_squash", "add `no_root_squash`"])?;
    drop(server);
    Ok(())
}

/// An image with more holes than its file system has room.
pub(super) fn a_disk_that_cannot_grow(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let alpha = scene.alpha();
    disk::raw(&scene.lab.shared.join("holes.img"), 8 << 20)?;
    let mut cast = Cast::web1();
    cast.disks = format!("[[disk]]\npath = \"{SHARED}/holes.img\"\nformat = \"raw\"\n");
    let file = scene.guest_file(&cast)?;
    alpha.whimbrel(&["create", &file])?.ok()?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/disk-space") == Some("warning"), "{ran}");
    ensure!(ran.stdout.contains("8 TiB"), "{ran}");
    Ok(())
}

/// Something that is not as it should be on the target, and what is said of it.
struct Flaw {
    code: &'static str,
    severity: &'static str,
    says: &'static str,
    make: &'static str,
    mend: &'static str,
}

/// What `sh` on the target can spoil and mend; the guest file `double.toml` is written before.
const FLAWS: &[Flaw] = &[
    Flaw {
        code: "plan/bridge",
        severity: "warning",
        says: "ip link set br0 mtu 1500",
        make: "ip link set br0 mtu 1400",
        mend: "ip link set br0 mtu 1500",
    },
    Flaw {
        code: "plan/boot-file",
        severity: "blocker",
        says: "rsync -a alpha:/srv/guests/vmlinuz",
        make: "mount --bind /etc/passwd /srv/guests/vmlinuz",
        mend: "umount /srv/guests/vmlinuz",
    },
    Flaw {
        code: "plan/disk-access",
        severity: "blocker",
        says: "setfacl -m u:whimbrel:rw /srv/guests/web1-root.img",
        make: "chmod 600 /srv/guests/web1-root.img && chown 0:0 /srv/guests/web1-root.img",
        mend: "chown whimbrel:whimbrel /srv/guests/web1-root.img",
    },
    Flaw {
        code: "plan/name",
        severity: "blocker",
        says: "whimbrel rm web1",
        make: "$WHIMBREL create --no-start /srv/guests/double.toml",
        mend: "$WHIMBREL rm web1",
    },
    Flaw {
        code: "plan/mac",
        severity: "blocker",
        says: "whimbrel edit web2",
        make: "sed s/web1/web2/g /srv/guests/double.toml > /srv/guests/web2.toml && \
               $WHIMBREL create /srv/guests/web2.toml && $WHIMBREL stop --now web2",
        mend: "$WHIMBREL rm web2",
    },
];

/// What is not as it is at the source, each thing with the command that mends it.
pub(super) fn small_things_that_differ(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let shown = json(alpha, &["show", "web1"])?;
    let mac = shown["networks"][0]["mac"].as_str().context("no address")?;
    let mut double = Cast::web1();
    double.networks = format!("[[network]]\nbridge = \"br0\"\nmac = \"{mac}\"\n");
    fs::write(scene.lab.shared.join("double.toml"), double.file())?;
    for name in ["web2-root.img", "web2-swap.qcow2"] {
        let made = scene.lab.shared.join(name);
        if name.ends_with("img") {
            disk::raw(&made, 16)?
        } else {
            disk::qcow2(&made, 8)?
        };
    }
    let program = beta.program().display().to_string();
    for flaw in FLAWS {
        sh(beta, &flaw.make.replace("$WHIMBREL", &program)).context(flaw.code)?;
        let (ran, findings) = plan(alpha, &[])?;
        sh(beta, &flaw.mend.replace("$WHIMBREL", &program)).context(flaw.code)?;
        ensure!(severity(&findings, flaw.code) == Some(flaw.severity), "{}: {ran}", flaw.code);
        ensure!(ran.stdout.contains(flaw.says), "`{}` is not in: {ran}", flaw.says);
        let is_refused = ran.status.code() == Some(1);
        ensure!(is_refused == (flaw.severity == "blocker"), "{}: {ran}", flaw.code);
    }
    let (ran, _) = plan(alpha, &[])?;
    ensure!(ran.status.code() == Some(0), "after all was mended: {ran}");
    witness.is_well().map(drop)
}

/// A target without room refuses; with a guest there that consented, it makes room, and gives it
/// back once there is some again.
pub(super) fn others_make_room(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let mut filler = Cast::named("filler", 52);
    filler.memory_mib = 1024;
    // Its kernel writes all of its memory once.
    filler.words = " init_on_free=1".to_owned();
    scene.create(beta, &filler)?;
    keep_all_but(beta, LEFT)?;
    let refused = alpha.whimbrel(&["migrate", "web1", "beta"])?.refused(1, "plan/memory")?;
    ensure!(refused.contains("host_min_memory is"), "{refused}");
    keep_all_but(beta, 4 << 30)?;
    beta.whimbrel(&["stop", "--now", "filler"])?.ok()?;
    beta.whimbrel(&["rm", "filler"])?.ok()?;

    let filler = scene.create(beta, &filler.with_keys("memory_min = \"192 MiB\""))?;
    let full = resident(beta, "filler")?;
    ensure!(full > 900 << 20, "the filler took only {full} bytes");
    keep_all_but(beta, LEFT)?;
    let (ran, findings) = plan(alpha, &[])?;
    ensure!(severity(&findings, "plan/memory") == Some("ok"), "{ran}");
    ensure!(ran.stdout.contains("can be taken from guests that allow it"), "{ran}");
    ensure!(resident(beta, "filler")? > 900 << 20, "a plan squeezes nobody");
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    let squeezed = resident(beta, "filler")?;
    println!("the filler went from {full} to {squeezed} bytes");
    ensure!(squeezed < full - (100 << 20), "nobody was squeezed");
    witness.is_well()?;
    filler.is_well()?;
    keep_all_but(beta, 4 << 30)?;
    until("the filler has its memory again", SOON, || {
        let log = beta.whimbrel(&["log"])?.ok()?;
        Ok(log.contains("`filler` has 1 GiB of 1 GiB now, as there is room again"))
    })
}

/// QEMU on a processor that lacks a feature, and so every model that has it.
const OLDER_QEMU: &str = r#"#!/bin/sh
case "$*" in
*none,accel=*)
    qemu-system-x86_64 "$@" | sed -u \
        -e 's/"ssse3": true/"ssse3": false/g' \
        -e 's/"name": "\([A-NP-Za-z][A-Za-z0-9-]*-v[0-9]*\)"/"name": "\1-lacking"/g' ;;
*) exec qemu-system-x86_64 "$@" ;;
esac
"#;

/// The lines that fit both hosts go into a guest file, and the guest moves to the lesser one.
pub(super) fn a_baseline_fits_both(setting: &Setting) -> Result<()> {
    let scene = with_other_qemu(setting, OLDER_QEMU, Where::Beta)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let lines = alpha.whimbrel(&["host", "list", "--baseline"])?.ok()?;
    println!("{lines}");
    ensure!(lines.contains("# alpha has more, which a guest is not given then: ssse3"), "{lines}");
    let found = json(alpha, &["host", "list", "--baseline"])?;
    ensure!(
        found == json(beta, &["host", "list", "--baseline"])? || found["cpu_model"].is_string()
    );
    let keys: Vec<_> = lines.lines().filter(|line| !line.starts_with('#')).collect();
    let witness = scene.create(alpha, &Cast::web1().with_keys(&keys.join("\n")))?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    witness.is_well().map(drop)
}

/// `doctor` names what is wrong with a host, with a remedy, and what is well, too.
pub(super) fn a_doctor_s_visit(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let visit = |code: &str| -> Result<String> {
        let checks = json(alpha, &["doctor"])?;
        let checks = checks.as_array().context("no checks")?.clone();
        for check in &checks {
            let is_ok = check["severity"] == "ok";
            ensure!(is_ok || !check["remedy"].is_null(), "no remedy: {check}");
        }
        let found = severity(&checks, code).with_context(|| format!("{code} in {checks:?}"))?;
        Ok(found.to_owned())
    };
    for code in ["doctor/engine", "doctor/bridge", "doctor/port", "doctor/pairs", "doctor/memory"] {
        ensure!(visit(code)? == "ok", "{code}");
    }
    beta.stop_daemon()?;
    ensure!(visit("doctor/pairs")? == "warning", "beta is down");
    alpha.whimbrel(&["relocation", "disable"])?.ok()?;
    ensure!(visit("doctor/port")? == "warning", "the port is closed");
    rename_bridge(alpha, "br0", "br9")?;
    ensure!(visit("doctor/bridge")? == "warning", "the bridge is gone");
    ensure!(state(alpha, "web1")?.is_none());
    Ok(())
}

/// Which host has a QEMU of its own.
#[derive(Clone, Copy, PartialEq)]
enum Where {
    Alpha,
    Beta,
}

fn with_other_qemu(setting: &Setting, script: &str, place: Where) -> Result<Scene> {
    let (lab, image) = setting.lab()?;
    let program = lab.shared.join("other-qemu");
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let engine = "[engine]\nqemu = \"/srv/guests/other-qemu\"";
    let more = if place == Where::Alpha { [engine, ""] } else { ["", engine] };
    let scene = Scene::configured(lab, image, more)?;
    scene.pair()?;
    Ok(scene)
}

/// Has a host keep all of its memory for itself but so much.
fn keep_all_but(host: &Host, left: u64) -> Result<()> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line.context("no MemAvailable")?.trim().trim_end_matches(" kB").parse()?;
    let kept = kib.saturating_sub(left >> 10);
    host.configure(&format!("[host]\nhost_min_memory = \"{kept} KiB\"\n{CONFIG}"))?;
    host.whimbrel(&["reload"])?.ok().map(drop)
}

/// What a guest's engine takes of the machine's memory, in bytes.
fn resident(host: &Host, guest: &str) -> Result<u64> {
    let found = engines(host, guest)?;
    let pid = found.first().with_context(|| format!("{guest} has no engine"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

fn sh(host: &Host, script: &str) -> Result<()> {
    host.command("/bin/sh".as_ref(), &["-c", script], "")?.ok().map(drop)
}
