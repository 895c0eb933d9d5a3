// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests on real Xen.
//!
//! To boot two hosts takes as long as most of what happens on them, so each story lets one guest
//! live through many scenes. The bridges are not probed: a second may be too short for hosts
//! that are emulated beside other work.

mod adopted;
mod chapter;
mod firmware;
pub(crate) mod handover;
mod pause;

use crate::setting::Setting;
use crate::xen::scene::{
    ANSWERS, ARRIVED, BEGIN, CUT, UNCUT, boot, is_only_on, pair, refused, set_up, settled,
    start_daemon,
};
use crate::xen::{XenHost, XenLab};
use anyhow::{Context as _, Result, ensure};
use std::time::Instant;

const MIGRATE: &str = "whimbrel migrate web1 xen2 --no-probe";

/// A firewall before the migration port.
const WALL: &str = "nft 'table inet wall { chain in { type filter hook input priority 0; \
    tcp dport 8002 reject; }; }'";

type Scene = fn(&XenLab) -> Result<()>;

/// A guest's life, and what its hosts say to it.
pub(super) fn from_create_to_rm(setting: &Setting) -> Result<()> {
    tell(
        setting,
        &[
            ("what a guest is told", what_a_guest_is_told),
            ("refused in time", refused_in_time),
            ("live there and back", live_there_and_back),
            ("a guest that `xl` made is adopted", adopted::a_guest_of_xl),
            ("a PV guest by stop and copy", pv_by_stop_and_copy),
        ],
    )
}

/// A guest with firmware.
pub(super) fn a_whole_machine(setting: &Setting) -> Result<()> {
    tell(setting, &[("a guest with firmware", firmware::boots_and_moves)])
}

/// The pause: what is promised of it, and what it is made of.
pub(super) fn what_a_pause_is(setting: &Setting) -> Result<()> {
    tell(
        setting,
        &[
            ("a pause that was promised", pause::a_pause_that_was_promised),
            // Last: after it the guest does not move any more.
            ("plugged in without scripts", pause::plugged_in_without_scripts),
        ],
    )
}

/// Links, daemons and programs that end in the middle of a move.
pub(super) fn what_breaks_while_it_moves(setting: &Setting) -> Result<()> {
    tell(
        setting,
        &[
            ("link cut while memory travels", link_cut_while_memory_travels),
            ("daemon killed while memory travels", daemon_killed_while_memory_travels),
            ("daemons killed at the handing over", daemons_killed_at_the_handing_over),
            ("link cut after go", handover::link_cut_after_go),
            ("target's daemon killed after go", handover::target_daemon_killed_after_go),
            ("receiver fails late", handover::receiver_fails_late),
        ],
    )
}

/// The engine's own tests, and the chapter of 2008.
pub(super) fn the_chapter_and_the_contract(setting: &Setting) -> Result<()> {
    tell(
        setting,
        &[
            ("the chapter of 2008", chapter::as_printed),
            ("the engine keeps its contract", the_engine_keeps_its_contract),
        ],
    )
}

/// Has it all happen to one guest, in this order. Each scene begins with it running on the first
/// host, and leaves it there.
fn tell(setting: &Setting, scenes: &[(&str, Scene)]) -> Result<()> {
    let began = Instant::now();
    let lab = set_up(setting, &[setting.contract_on_xen()?])?;
    println!("two hosts and a guest: {:.0} s", began.elapsed().as_secs_f64());
    for (name, happens) in scenes {
        let began = Instant::now();
        happens(&lab).with_context(|| format!("in the scene `{name}`"))?;
        println!("{name}: {:.0} s", began.elapsed().as_secs_f64());
    }
    lab.hosts[0].run("whimbrel stop --now web1 && whimbrel rm web1 && ! xl list | grep web1")?;
    Ok(())
}

/// The tests that every engine passes, beside the guest.
fn the_engine_keeps_its_contract(lab: &XenLab) -> Result<()> {
    let said = lab.hosts[0].run(
        "WHIMBREL_TEST_KERNEL=/files/vmlinuz WHIMBREL_TEST_RAMDISK=/files/witness.cpio \
             /files/contract_on_xen xen:: --test-threads 1",
    )?;
    ensure!(said.contains("5 passed; 0 failed"), "{said}");
    ensure!(!said.contains("SKIPPED"), "{said}");
    Ok(())
}

/// Its console, a pause, a reboot of its own, the death of its daemon, and a cold start.
fn what_a_guest_is_told(lab: &XenLab) -> Result<()> {
    let one = &lab.hosts[0];
    let typed = one.run(
        "mkfifo /tmp/keys; (timeout 90 script -qefc 'whimbrel console web1' /dev/null \
             </tmp/keys >/tmp/typed 2>&1) & exec 3>/tmp/keys
         for i in $(seq 200); do grep -q . /tmp/typed && break; sleep 0.1; done
         printf 'echo hello\\r' >&3
         for i in $(seq 200); do grep -q 'ok hello' /tmp/typed && break; sleep 0.1; done
         printf '\\035' >&3; wait; cat /tmp/typed",
    )?;
    ensure!(typed.contains("ok hello"), "nobody answers on the console: {typed}");

    one.run("whimbrel pause web1")?;
    one.run("xl list web1 | grep -q -- '--p---' && ! ping -c2 -W1 10.77.0.50")?;
    let listed = one.run("whimbrel list")?;
    ensure!(listed.contains("paused"), "not shown as paused: {listed}");
    one.run("whimbrel unpause web1")?;
    let before = boot(one)?;

    one.run("printf 'reboot\\n' | socat -t 5 - TCP:10.77.0.50:7777")?;
    one.run(
        "for i in $(seq 100); do whimbrel log web1 | grep -q 'the guest rebooted' && exit 0
         sleep 0.3; done; whimbrel log web1; exit 1",
    )?;
    ensure!(boot(one)? != before, "it was not booted anew");

    // The daemon may be gone and come back: the guest is found again.
    one.run("kill -9 $(cat /run/daemon.pid)")?;
    start_daemon(one)?;
    let listed = one.run("whimbrel list")?;
    ensure!(listed.contains("running"), "it was not found again: {listed}");

    // Asked politely, its kernel hears of it, and obeys.
    one.run("whimbrel stop --timeout 60s web1 && ! xl list | grep web1")?;
    one.run("whimbrel start web1")?;
    one.run(ANSWERS)?;
    Ok(())
}

/// What can be known is known before anything is copied, and what comes is what was offered.
fn refused_in_time(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    let set = |from: &str, to: &str| {
        let file = "/etc/whimbrel/whimbrel.toml";
        two.run(&format!("sed -i 's|{from}|{to}|' {file} && whimbrel reload"))
    };

    // Xen's free memory counts, and what xl would take from the control domain for a guest.
    two.run("echo 'autoballoon=\"on\"' > /etc/xen/xl.conf")?;
    set("32 MiB", "960 MiB")?;
    let said = refused(one, MIGRATE, "plan/memory")?;
    ensure!(said.contains("host_min_memory is 983040 KiB"), "not the seed's arithmetic: {said}");
    // It has its own half, whatever the host keeps, where xl takes nothing.
    two.run("rm /etc/xen/xl.conf")?;
    set("960 MiB", "500 MiB")?;
    one.run("whimbrel plan web1 xen2 --no-probe")?;
    set("500 MiB", "32 MiB")?;
    // The kernel is needed when the guest reboots there.
    set("\"/files\", ", "")?;
    let said = refused(one, MIGRATE, "plan/disk-allowed")?;
    ensure!(said.contains("`/files/vmlinuz`"), "it does not say what: {said}");
    set("\"/dev\", ", "\"/dev\", \"/files\", ")?;
    two.run("whimbrel relocation disable")?;
    let said = refused(one, MIGRATE, "plan/unreachable")?;
    ensure!(said.contains("`whimbrel relocation enable`"), "no way out: {said}");
    two.run("whimbrel relocation enable")?;

    // The port is closed by a rule of the firewall; the disk is not there; they no longer know each
    // other.
    two.run(WALL)?;
    let said = refused(one, MIGRATE, "plan/unreachable")?;
    ensure!(said.contains("8002"), "the port is not named: {said}");
    two.run("nft delete table inet wall; mv /dev/vdb /dev/elsewhere")?;
    let said = refused(one, MIGRATE, "plan/disk")?;
    ensure!(said.contains("`/dev/vdb`"), "it does not say what: {said}");
    two.run("mv /dev/elsewhere /dev/vdb; whimbrel host forget xen1")?;
    refused(one, MIGRATE, "host/not-found")?;
    pair(one, two)?;

    // Somebody has given the domain another disk behind our back. `xl config-update` would not do:
    // what travels is what the domain has.
    one.run("xl block-attach web1 format=raw,vdev=xvdb,access=ro,target=/dev/vdc")?;
    let said = refused(one, MIGRATE, "relocation/not-as-offered")?;
    ensure!(said.contains("`/dev/vdc`"), "it does not say what: {said}");
    one.run("xl block-detach web1 xvdb")?;
    is_only_on(one, two)?;
    ensure!(boot(one)? == before, "it was booted anew");
    Ok(())
}

/// The link goes and comes back, and what had travelled does not travel again.
fn link_cut_while_memory_travels(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    one.run(BEGIN)?;
    two.run(CUT)?;
    two.run("ss -K sport = :8002; sleep 3")?;
    two.run(UNCUT)?;
    let said = one.run(
        "while pgrep -f 'whimbrel [m]igrate' >/dev/null; do sleep 0.2; done; cat /tmp/migrate",
    )?;
    println!("{said}");
    is_only_on(two, one)?;
    ensure!(boot(two)? == before, "it was booted anew on xen2: {said}");
    println!("{}", two.run("whimbrel migrate web1 xen1 --no-probe")?);
    is_only_on(one, two)?;
    ensure!(boot(one)? == before, "it was booted anew on the way back");
    Ok(())
}

/// The source's daemon dies: the guest stays, and nothing of it is left over there.
fn daemon_killed_while_memory_travels(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    one.run(BEGIN)?;
    one.run("kill -9 $(cat /run/daemon.pid)")?;
    start_daemon(one)?;
    ensure!(boot(one)? == before, "it was booted anew");
    two.run("for i in $(seq 100); do xl list | grep -q web1 || exit 0; sleep 0.5; done; exit 1")?;
    is_only_on(one, two)
}

/// A PVH guest with a disk and a network card moves while it runs, and comes back; nothing of it
/// stays behind, and it was never booted anew.
fn live_there_and_back(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    for (from, to) in [(one, two), (two, one)] {
        println!("{}", from.run(&format!("whimbrel migrate web1 {} --no-probe", to.name))?);
        is_only_on(to, from)?;
        ensure!(boot(to)? == before, "it was booted anew on {}", to.name);
    }
    Ok(())
}

/// All of the guest is at the target, and both daemons die before the handing over is done. When
/// they are back, it runs on one of the hosts, and nothing is left on the other.
fn daemons_killed_at_the_handing_over(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    one.run(BEGIN)?;
    one.run(ARRIVED)?;
    for host in [one, two] {
        host.run("kill -9 $(cat /run/daemon.pid)")?;
    }
    for host in [one, two] {
        start_daemon(host)?;
    }
    let here = settled(lab)?;
    ensure!(boot(here)? == before, "it was booted anew on {}", here.name);
    if here.name == two.name {
        two.run("whimbrel migrate web1 xen1 --no-probe")?;
        is_only_on(one, two)?;
        ensure!(boot(one)? == before, "it was booted anew on the way back");
    }
    Ok(())
}

/// A PV guest is not moved while it runs, and the plan says how it can be.
fn pv_by_stop_and_copy(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let reborn = |host: &XenHost, machine: &str| {
        host.run(&format!(
            "whimbrel stop --now web1 && whimbrel rm web1
             sed -i '/^machine/d; s|^name|machine = \"{machine}\"\\nname|' \
                 /etc/whimbrel/web1.toml
             whimbrel create /etc/whimbrel/web1.toml"
        ))
    };
    reborn(one, "xenpv")?;
    let before = boot(one)?;
    let said = refused(one, MIGRATE, "plan/live")?;
    ensure!(said.contains("--stop-and-copy"), "no way out: {said}");
    println!("{}", one.run(&format!("{MIGRATE} --stop-and-copy"))?);
    is_only_on(two, one)?;
    ensure!(boot(two)? == before, "it was booted anew");
    two.run("whimbrel migrate web1 xen1 --no-probe --stop-and-copy")?;
    ensure!(boot(one)? == before, "it was booted anew on the way back");
    Ok(())
}
