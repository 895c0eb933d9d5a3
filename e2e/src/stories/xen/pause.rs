// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a pause on Xen is promised to be, and what plugs the guest's devices in meanwhile.

use super::MIGRATE;
use crate::xen::scene::{boot, is_only_on, refused, start_daemon};
use crate::xen::{XenHost, XenLab};
use anyhow::{Result, ensure};

/// A pause that was never seen is refused; tried all the same, the guest stands still for no longer
/// than was promised, and goes on where it was.
pub(super) fn a_pause_that_was_promised(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    let promised = format!("{MIGRATE} --max-pause 30ms");
    let said = refused(one, &promised, "plan/pause")?;
    ensure!(said.contains("at most 30 ms was promised"), "it does not say what: {said}");
    let said = one.run(&format!("{promised} --yes; rc=$?; echo; echo rc=$rc"))?;
    ensure!(said.contains("code: migration/bargain-missed"), "it was not given up: {said}");
    ensure!(said.contains("rc=3") && said.contains("stood still for"), "not in words: {said}");
    println!("{said}");
    ensure!(boot(one)? == before, "it was booted anew");
    two.run("for i in $(seq 100); do xl list | grep -q web1 || exit 0; sleep 0.5; done; exit 1")?;
    is_only_on(one, two)
}

/// Has this host plug devices in by itself, or by Xen's scripts, from the next guest on.
fn plug_in(host: &XenHost, by: &str) -> Result<()> {
    let file = "/etc/whimbrel/whimbrel.toml";
    host.run(&format!(
        "sed -i '/^.engine./d; /^xen_hotplug/d' {file}
         printf '[engine]\nxen_hotplug = \"{by}\"\n' >> {file}
         kill -9 $(cat /run/daemon.pid)"
    ))?;
    start_daemon(host)
}

/// What plugs the guest's devices in on this host, by xenstore.
fn scripts(host: &XenHost) -> Result<String> {
    host.run("xenstore-ls -f /local/domain/0/backend | grep '/script = ' | sed 's/.* = //'")
}

/// Each host chooses for itself, and the guest moves between them; a disk that this host has
/// mounted is not given away.
pub(super) fn plugged_in_without_scripts(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    plug_in(one, "whimbrel")?;
    one.run("whimbrel stop --now web1 && whimbrel start web1")?;
    let before = boot(one)?;
    let ours = "\"/run/whimbrel/xen-hotplug\"\n".repeat(2);
    ensure!(scripts(one)?.trim() == ours.trim(), "Xen's scripts: {}", scripts(one)?);
    println!("{}", one.run(ATTACHED)?);
    for (by, ours) in [("scripts", false), ("whimbrel", true)] {
        plug_in(two, by)?;
        one.run(MIGRATE)?;
        is_only_on(two, one)?;
        let found = scripts(two)?;
        ensure!(found.contains("whimbrel") == ours, "with `{by}` at the target: {found}");
        ensure!(boot(two)? == before, "it was booted anew");
        println!("to {by}: {}", one.run("whimbrel report web1 | grep -E 'pause|took'")?);
        println!("{}", two.run("whimbrel migrate web1 xen1 --no-probe")?);
        ensure!(boot(one)? == before, "it was booted anew on the way back");
    }
    // Last: libxl keeps it among the guest's disks all the same, and such a guest does not move.
    let taken = "format=raw,vdev=xvdc,access=rw,script=/run/whimbrel/xen-hotplug,target=/dev/vdc";
    let said = one.run(&format!("xl block-attach web1 {taken} 2>&1; echo rc=$?"))?;
    ensure!(said.contains("this host has mounted it at `/files`"), "it was given away: {said}");
    plug_in(one, "scripts")?;
    plug_in(two, "scripts")
}

/// Plugs a disk and a card in and out, by Xen's scripts and without, and says how long each took.
const ATTACHED: &str = "
    took() { what=$1; shift; began=$(date +%s%N); \"$@\" || exit 1
             echo \"  a $what: $(( ($(date +%s%N) - began) / 1000000 )) ms\"; }
    for script in '' script=/run/whimbrel/xen-hotplug; do
        echo \"with ${script:-scripts of Xen}\"
        disk=format=raw,vdev=xvdb,access=ro,${script:+$script,}target=/dev/vdc
        took disk xl block-attach web1 $disk
        xl block-detach web1 xvdb
        took card xl network-attach web1 $script bridge=xenbr0
        xl network-detach web1 1
    done";
