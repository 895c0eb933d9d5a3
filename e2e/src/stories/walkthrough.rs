// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The chapter of 2008, typed as it was printed.

use crate::disk;
use crate::scene::{SOON, Scene, until};
use crate::setting::Setting;
use crate::terminal::Terminal;
use crate::witness::Witness;
use anyhow::{Context as _, Result, ensure};

/// `XenGuest1.cfg`, as its owner wrote it: two whole devices, root on the first.
const GUEST: &str = r#"# A guest of the chapter.
name = "centos.5-1"
memory = 127
vcpus = 1
kernel = "/srv/guests/vmlinuz"
ramdisk = "/srv/guests/witness.cpio"
root = "/dev/xvda1"
extra = "console=ttyS0 quiet witness.ip=10.77.0.50/24 witness.memory=8"
disk = [ 'tap:aio:/srv/guests/xenguest.img,xvda1,w', 'tap:aio:/srv/guests/xenguest.swap,xvda2,w' ]
vif = [ 'bridge=br0' ]
on_reboot = 'restart'
on_crash = 'restart'
"#;

/// `xm create -c`, Ctrl+], `xm list`, `xm migrate 1 beta -l`, `xm list` here and there, `xm log`.
pub(super) fn the_chapter_as_printed(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    let shared = &scene.lab.shared;
    disk::raw(&shared.join("xenguest.img"), 16)?;
    disk::raw(&shared.join("xenguest.swap"), 8)?;
    std::fs::write(shared.join("XenGuest1.cfg"), GUEST)?;

    // script(1) gives `-c` a terminal.
    alpha.xm(&["list"])?.ok()?;
    let typed = format!("cd /srv/guests && {} create XenGuest1.cfg -c", alpha.xm_link().display());
    let console = Terminal::open(alpha, &typed)?;
    console.shown.wait_for("witness: ready", SOON * 3)?;
    console.leave()?;

    let listed = alpha.xm(&["list"])?.ok()?;
    let mut rows = listed.lines();
    let header = rows.next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
    ensure!(header == ["Name", "ID", "Mem(MiB)", "VCPUs", "State", "Time(s)"], "{listed}");
    ensure!(listed.contains("Domain-0"), "no Domain-0: {listed}");
    let row = rows.find(|row| row.starts_with("centos.5-1")).context(listed.clone())?;
    let columns: Vec<_> = row.split_whitespace().collect();
    ensure!(columns[1..4] == ["1", "127", "1"], "not the chapter's columns: {row}");

    let witness = Witness::new(&scene.lab.client);
    let before = witness.wait()?;
    alpha.xm(&["migrate", "1", "beta", "-l"])?.ok()?;
    // "After a short period of time the guest domain will no longer appear."
    until("the source no longer lists it", SOON, || {
        Ok(!alpha.xm(&["list"])?.ok()?.contains("centos.5-1"))
    })?;
    let there = beta.xm(&["list"])?.ok()?;
    ensure!(there.contains("centos.5-1"), "not on the target: {there}");
    let after = witness.is_well()?;
    ensure!(after.boot(0)? == before.boot(0)?, "it was booted anew: {after:?}");
    let log = beta.xm(&["log"])?.ok()?;
    ensure!(log.contains("centos.5-1"), "the log does not tell of it: {log}");

    // Made by `xm create`, the guest is transient: shut down, it is forgotten.
    beta.xm(&["shutdown", "centos.5-1", "-w"])?.ok()?;
    until("it is forgotten", SOON, || Ok(!beta.xm(&["list"])?.ok()?.contains("centos.5-1")))
}
