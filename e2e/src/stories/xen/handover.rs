// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What goes wrong when all of the guest has arrived, at the moment at which it must not.
//!
//! The target's daemon is one with fault points, and stands still where the guest is its own, which
//! is written down, and has not run there: behind the commit point, before the last word.

use crate::xen::scene::{
    BEGIN, CUT, UNCUT, boot, is_only_on, settled, start_daemon, start_program, stop_daemon,
};
use crate::xen::{XenHost, XenLab};
use anyhow::{Context as _, Result, ensure};

/// Before the engine lets the guest run: it was ceded, and taken.
const STANDS: &str = "for i in $(seq 600); do [ -s /faults/stands ] && exit 0; sleep 0.2; done
    uniq /faults/trace; exit 1";
const LET_GO: &str = "echo > /faults/go";

/// The link is cut after the word that the guest is the target's: it runs there, the source keeps
/// its copy still for as long as it hears nothing, and both know when the link is back.
pub(crate) fn link_cut_after_go(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    begin(one, two)?;
    two.run(CUT)?;
    two.run(LET_GO)?;
    two.run(
        "for i in $(seq 300); do xl list web1 | grep -Eq ' [r-][b-]---- ' && exit 0; sleep 0.2
         done; xl list; exit 1",
    )?;
    ensure!(boot(two)? == before, "it was booted anew on xen2");
    let kept = one.run("xl list -v | grep web1; whimbrel show web1")?;
    ensure!(kept.contains(" ---s"), "the source's copy does not stand still: {kept}");
    two.run(UNCUT)?;
    ends(lab, two, &before)
}

/// The target's daemon alone dies there, and its successor goes on.
pub(super) fn target_daemon_killed_after_go(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    begin(one, two)?;
    two.run("kill -9 $(cat /run/daemon.pid)")?;
    start_daemon(two)?;
    ends(lab, two, &before)
}

/// The target's xl dies with the guest in its hands: it never ran there, and goes on at the source.
pub(super) fn receiver_fails_late(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    begin(one, two)?;
    two.run("kill -9 $(pgrep -f 'xl migrate-receive')")?;
    two.run(LET_GO)?;
    ends(lab, one, &before)
}

/// Moves the guest to where the target's daemon, one with fault points, stands still.
fn begin(one: &XenHost, two: &XenHost) -> Result<()> {
    stop_daemon(two)?;
    two.run(
        "rm -rf /faults; mkdir /faults; cd /faults
         touch trace; mkfifo go; echo 'engine/resume 1 stop' > plan
         setsid socat UNIX-LISTEN:harness.sock \
             SYSTEM:'read point; echo $point > stands; read word < go' </dev/null >/dev/null 2>&1 &
         until [ -S harness.sock ]; do sleep 0.1; done",
    )?;
    start_program(two, "env WHIMBREL_FAULTS=/faults whimbrel-with-faults")?;
    one.run(BEGIN)?;
    two.run(STANDS).with_context(|| one.run("cat /tmp/migrate").unwrap_or_default())?;
    Ok(())
}

/// All is decided, and the guest runs where it should, and nowhere else; it is brought home.
fn ends(lab: &XenLab, wanted: &XenHost, before: &str) -> Result<()> {
    let [one, two] = &lab.hosts;
    let here = settled(lab)?;
    let told = || one.run("cat /tmp/migrate; whimbrel log web1").unwrap_or_default();
    ensure!(here.name == wanted.name, "it runs on {}: {}", here.name, told());
    ensure!(boot(here)? == before, "it was booted anew on {}", here.name);
    stop_daemon(two)?;
    start_daemon(two)?;
    if here.name == two.name {
        two.run("whimbrel migrate web1 xen1 --no-probe")?;
        is_only_on(one, two)?;
        ensure!(boot(one)? == before, "it was booted anew on the way back");
    }
    Ok(())
}
