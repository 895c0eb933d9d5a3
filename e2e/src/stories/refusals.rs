// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What cannot go well is said before anything moves: one clear error with the measured values and
//! a remedy, exit code 1, and the guest untouched.

use crate::disk;
use crate::lab::{Host, Share};
use crate::scene::{CONFIG, Cast, Scene, engines, lives_only_on, state};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// The port of the peer protocol.
const PORT: u16 = 8002;

/// A requirement of the seed's list, broken on purpose and mended again.
struct Refusal {
    what: &'static str,
    code: &'static str,
    /// Words of the error besides its code: measured values, the cure.
    says: &'static [&'static str],
    break_it: fn(&Scene) -> Result<()>,
    mend_it: fn(&Scene) -> Result<()>,
}

/// What the target lacks: the disk, the right to write it, the same disk, the bridge, memory.
const LACKS: &[Refusal] = &[
    Refusal {
        what: "the shared disk is not there",
        code: "plan/disk",
        says: &["web1-root.img", "beta"],
        break_it: |scene| scene.beta().see_shared(Share::Hidden),
        mend_it: |scene| scene.beta().see_shared(Share::Writable),
    },
    Refusal {
        what: "the shared disk cannot be written",
        code: "plan/disk-access",
        says: &["web1-root.img"],
        break_it: |scene| scene.beta().see_shared(Share::ReadOnly),
        mend_it: |scene| scene.beta().see_shared(Share::Writable),
    },
    Refusal {
        what: "another disk lies under the same path",
        code: "plan/disk-same",
        says: &["web1-root.img", "two different disks"],
        break_it: show_other_disks,
        mend_it: |scene| scene.beta().see_shared(Share::Writable),
    },
    Refusal {
        what: "the bridge is not there",
        code: "plan/bridge",
        says: &["br0"],
        break_it: |scene| rename_bridge(scene.beta(), "br0", "br9"),
        mend_it: |scene| rename_bridge(scene.beta(), "br9", "br0"),
    },
    Refusal {
        what: "there is too little memory",
        code: "plan/memory",
        // The seed's arithmetic, in the seed's unit.
        says: &["host_min_memory is 4294967296 KiB", "would leave only", "KiB are free"],
        break_it: |scene| configure(scene.beta(), "[host]\nhost_min_memory = \"4 TiB\"", ""),
        mend_it: |scene| configure(scene.beta(), "", ""),
    },
];

/// What stands in the way: a firewall, a closed port, a policy, a name.
const FORBIDS: &[Refusal] = &[
    Refusal {
        what: "a firewall closes the port",
        code: "plan/unreachable",
        says: &["8002", "No route to host", "let TCP port 8002 in"],
        break_it: |scene| scene.beta().set_blocked(Some(PORT)),
        mend_it: |scene| scene.beta().set_blocked(None),
    },
    Refusal {
        what: "relocation is disabled on the target",
        code: "plan/unreachable",
        says: &["relocation enable"],
        break_it: |scene| relocation(scene.beta(), "disable"),
        mend_it: |scene| relocation(scene.beta(), "enable"),
    },
    Refusal {
        what: "relocation is disabled on the source",
        code: "plan/relocation",
        says: &["relocation enable"],
        break_it: |scene| relocation(scene.alpha(), "disable"),
        mend_it: |scene| relocation(scene.alpha(), "enable"),
    },
    Refusal {
        what: "the target's daemon is down",
        code: "plan/unreachable",
        says: &["refused", "8002"],
        break_it: |scene| scene.beta().stop_daemon(),
        mend_it: |scene| scene.beta().start_daemon(),
    },
    Refusal {
        what: "the target allows other hosts only",
        code: "plan/allowed",
        says: &["hosts_allow"],
        break_it: |scene| configure(scene.beta(), "", "hosts_allow = [\"gamma\"]"),
        mend_it: |scene| configure(scene.beta(), "", ""),
    },
    Refusal {
        what: "the target does not let guests use that path",
        code: "plan/disk-allowed",
        says: &["allow_paths"],
        break_it: |scene| reconfigure(scene.beta(), "\"/srv/guests\"", "\"/srv/other\""),
        mend_it: |scene| configure(scene.beta(), "", ""),
    },
    Refusal {
        what: "the target does not let guests join that bridge",
        code: "plan/bridge",
        says: &["allow_bridges"],
        break_it: |scene| reconfigure(scene.beta(), "\"br0\"", "\"br7\""),
        mend_it: |scene| configure(scene.beta(), "", ""),
    },
];

pub(super) fn what_the_target_lacks(setting: &Setting) -> Result<()> {
    each_is_refused(setting, LACKS)
}

pub(super) fn what_the_target_forbids(setting: &Setting) -> Result<()> {
    each_is_refused(setting, FORBIDS)
}

/// Breaks each requirement in turn; after all were mended, the guest moves.
fn each_is_refused(setting: &Setting, refusals: &[Refusal]) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let engine = engines(alpha, "web1")?;
    let mut missed = Vec::new();
    for refusal in refusals {
        println!("-- {}", refusal.what);
        (refusal.break_it)(&scene).context(refusal.what)?;
        let ran = alpha.whimbrel(&["migrate", "web1", "beta"])?;
        (refusal.mend_it)(&scene).context(refusal.what)?;
        println!("{}", ran.stderr);
        let says = refusal.says.iter().all(|word| ran.stderr.contains(word));
        let is_clear = says && ran.stderr.contains(refusal.code) && ran.stderr.contains("help:");
        if ran.status.code() != Some(1) || !is_clear {
            missed.push(format!("{}: {ran}", refusal.what));
        }
        ensure!(engines(alpha, "web1")? == engine, "{}: the engine changed", refusal.what);
        ensure!(engines(beta, "web1")?.is_empty(), "{}: an engine on the target", refusal.what);
    }
    ensure!(missed.is_empty(), "not refused as they should be:\n{}", missed.join("\n"));
    witness.is_well()?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok().context("after all was mended")?;
    lives_only_on(beta, alpha, "web1", "running")
}

/// A host that was never paired, one that was forgotten, and a stranger: none gets a guest moved,
/// and the one that is asked says so in its log.
pub(super) fn hosts_that_are_not_paired(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.refused(1, "host/not-found")?;
    scene.pair()?;
    // A host that can be reached is told that it was forgotten, and forgets, too.
    beta.unplug()?;
    beta.whimbrel(&["host", "forget", "alpha"])?.ok()?;
    beta.plug_in()?;
    let refused = alpha.whimbrel(&["migrate", "web1", "beta"])?;
    ensure!(refused.status.code() == Some(1), "a forgotten host moved a guest: {refused}");
    let log = beta.daemon_said();
    ensure!(log.contains("10.77.0.1"), "`{refused}` is not in the log: {log}");
    ensure!(state(beta, "web1")?.is_none() && engines(beta, "web1")?.is_empty());
    Ok(())
}

/// QEMU, on a processor that lacks what the guests were given: asked what it can, it says less.
const LESSER_QEMU: &str = r#"#!/bin/sh
case "$*" in
*none,accel=*) qemu-system-x86_64 "$@" | sed -u 's/"ssse3": true/"ssse3": false/g' ;;
*) exec qemu-system-x86_64 "$@" ;;
esac
"#;

/// A target whose processor lacks what the guest was frozen with: the features are named, and so is
/// a model that both have.
pub(super) fn a_processor_that_lacks_something(setting: &Setting) -> Result<()> {
    let (lab, image) = setting.lab()?;
    let program = lab.shared.join("lesser-qemu");
    fs::write(&program, LESSER_QEMU)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let engine = "[engine]\nqemu = \"/srv/guests/lesser-qemu\"";
    let scene = Scene::configured(lab, image, ["", engine])?;
    scene.pair()?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let witness = scene.create(alpha, &Cast::web1())?;
    let shown = alpha.whimbrel(&["show", "web1"])?.ok()?;
    ensure!(shown.contains("ssse3"), "`show` does not say that beta cannot take it: {shown}");
    let refused = alpha.whimbrel(&["migrate", "web1", "beta"])?.refused(1, "plan/cpu")?;
    for word in ["`web1`", "`beta`", "ssse3", "help:", "whimbrel edit web1"] {
        ensure!(refused.contains(word), "`{word}` is not in: {refused}");
    }
    ensure!(engines(beta, "web1")?.is_empty(), "an engine on the target");
    ensure!(state(alpha, "web1")?.as_deref() == Some("running"), "the guest was touched");
    witness.is_well().map(drop)
}

/// A malformed guest file: the error names the file, the line and the key.
pub(super) fn files_with_mistakes(setting: &Setting) -> Result<()> {
    let scene = Scene::strangers(setting)?;
    let (alpha, shared) = (scene.alpha(), &scene.lab.shared);
    fs::write(shared.join("bad.toml"), "name = \"web1\"\nmemroy = \"64 MiB\"\n")?;
    let said = alpha.whimbrel(&["create", "/srv/guests/bad.toml"])?;
    ensure!(!said.status.success(), "a file with an unknown key was accepted");
    for word in ["bad.toml", "2", "memroy", "memory", "file/unknown-key"] {
        ensure!(said.stderr.contains(word), "`{word}` is not in: {said}");
    }
    fs::write(shared.join("bad.cfg"), "name = 'web1'\nmemory = [\n")?;
    let said = alpha.whimbrel(&["create", "/srv/guests/bad.cfg"])?;
    ensure!(!said.status.success() && said.stderr.contains("bad.cfg"), "{said}");
    Ok(())
}

fn configure(host: &Host, top: &str, relocation: &str) -> Result<()> {
    restart(host, &format!("{top}\n{CONFIG}{relocation}\n"))
}

fn reconfigure(host: &Host, old: &str, new: &str) -> Result<()> {
    restart(host, &CONFIG.replace(old, new))
}

fn restart(host: &Host, config: &str) -> Result<()> {
    host.stop_daemon()?;
    host.configure(config)?;
    host.start_daemon()
}

fn relocation(host: &Host, verb: &str) -> Result<()> {
    host.whimbrel(&["relocation", verb])?.ok().map(drop)
}

/// Shows the target a directory with other files of the same names.
fn show_other_disks(scene: &Scene) -> Result<()> {
    let other = scene.lab.directory().join("other");
    fs::create_dir_all(&other)?;
    for name in ["vmlinuz", "witness.cpio"] {
        fs::copy(scene.lab.shared.join(name), other.join(name))?;
    }
    disk::raw(&other.join("web1-root.img"), 16)?;
    disk::qcow2(&other.join("web1-swap.qcow2"), 8)?;
    scene.beta().see_shared(Share::Hidden)?;
    scene.beta().show(&other, crate::lab::SHARED)
}

pub(super) fn rename_bridge(host: &Host, from: &str, to: &str) -> Result<()> {
    let script =
        format!("ip link set {from} down && ip link set {from} name {to} && ip link set {to} up");
    host.command("/bin/sh".as_ref(), &["-c", &script], "")?.ok().map(drop)
}
