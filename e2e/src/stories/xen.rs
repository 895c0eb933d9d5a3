// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests on real Xen.
//!
//! To boot two hosts takes as long as most of what happens on them, so all of it happens to one
//! guest, scene after scene. The bridges are not probed: a second is too short for hosts that are
//! emulated beside other work.

use crate::setting::Setting;
use crate::xen::{XenHost, XenLab};
use anyhow::{Context as _, Result, ensure};
use std::time::Instant;

const CONFIG: &str = r#"
[host]
host_min_memory = "32 MiB"
[relocation]
enabled = true
allow_paths = ["/dev", "/files"]
allow_bridges = ["xenbr0"]
"#;

const GUEST: &str = r#"
name = "web1"
memory = "96 MiB"
[boot]
kernel = "/files/vmlinuz"
ramdisk = "/files/witness.cpio"
command_line = "console=hvc0 quiet witness.ip=10.77.0.50/24 witness.memory=8 witness.seed=50 witness.disk_ms=1000"
[[disk]]
path = "/dev/vdb"
format = "raw"
[[network]]
bridge = "xenbr0"
"#;

const MIGRATE: &str = "whimbrel migrate web1 xen2 --no-probe";
/// Nothing of the migration port passes this host, in either direction.
const CUT: &str = "nft -f - <<'END'
    table inet cut {
        chain in { type filter hook input priority 0; tcp dport 8002 drop; tcp sport 8002 drop; }
        chain out { type filter hook output priority 0; tcp dport 8002 drop; tcp sport 8002 drop; }
    }\nEND";
const UNCUT: &str = "nft delete table inet cut";

/// What is asked of the guest over the network, and must be answered.
const ANSWERS: &str =
    "for i in $(seq 200); do ping -c1 -W1 10.77.0.50 >/dev/null && exit 0; done; exit 1";
/// Asks the witness, until it answers and has counted on its disk.
const STATUS: &str = "for i in $(seq 50); do
    printf 'status\\n' | socat -t 5 - TCP:10.77.0.50:7777,connect-timeout=2 2>/dev/null |
        grep -v ' boot0=0 ' && exit 0
    sleep 0.2; done; exit 1";

/// Two hosts that trust each other, and a guest on the first.
fn scene(setting: &Setting) -> Result<XenLab> {
    let lab = XenLab::boot(setting)?;
    let [one, two] = &lab.hosts;
    furnish(one)?;
    furnish(two)?;
    let token = one.run("whimbrel host invite --address 10.77.0.1:8002 2>/dev/null")?;
    two.run(&format!("echo '{}' | whimbrel host join", token.trim()))?;
    one.run("whimbrel create /etc/whimbrel/web1.toml")?;
    one.run(ANSWERS)?;
    Ok(lab)
}

fn furnish(host: &XenHost) -> Result<()> {
    host.run(&format!(
        "mkdir -p /etc/whimbrel; cp /files/whimbrel /usr/bin/
         cat > /etc/whimbrel/whimbrel.toml <<'END'\n{CONFIG}END
         cat > /etc/whimbrel/web1.toml <<'END'\n{GUEST}END"
    ))?;
    start_daemon(host)
}

fn start_daemon(host: &XenHost) -> Result<()> {
    host.run(
        "setsid whimbrel daemon >>/var/log/whimbrel.log 2>&1 </dev/null & echo $! > /run/daemon.pid
         for i in $(seq 100); do whimbrel list >/dev/null 2>&1 && exit 0; sleep 0.1; done
         cat /var/log/whimbrel.log; exit 1",
    )?;
    Ok(())
}

/// Which boot of the guest answers, and that it has nothing to complain of.
fn boot(host: &XenHost) -> Result<String> {
    let status = host.run(STATUS)?;
    let word = |name: &str| {
        let words = status.split_whitespace();
        words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name)
    };
    let (_, problems) = word("problems").with_context(|| status.clone())?;
    ensure!(problems == "0", "the guest complains: {status}");
    Ok(word("boot0").with_context(|| status.clone())?.1.to_owned())
}

/// It is on one host and not on the other, by Xen's own word.
fn is_only_on(here: &XenHost, other: &XenHost) -> Result<()> {
    let (listed, left) = (here.run("xl list")?, other.run("xl list")?);
    ensure!(listed.contains("web1 "), "it is not on {}: {listed}", here.name);
    ensure!(!left.contains("web1"), "a copy is on {}: {left}", other.name);
    other.run("! ls /var/lib/whimbrel/carry/* 2>/dev/null")?;
    Ok(())
}

/// Begins to move the guest to the second host, and returns when its memory travels.
const BEGIN: &str = "cd /var/lib/whimbrel/guests/*/run; rm -f pipe.sock
    setsid whimbrel migrate web1 xen2 --no-probe >/tmp/migrate 2>&1 </dev/null &
    while kill -0 $! && sleep 0.1; do [ -S pipe.sock ] && exit 0; done; cat /tmp/migrate; exit 1";
/// Returns when all of the guest is there. The process beside xl says so by itself.
const ARRIVED: &str = "cd /var/lib/whimbrel/guests/*/run
    echo wait | timeout 230 socat -t 230 - UNIX:pipe.sock | grep '^arrived'";

/// Runs a command that is to be refused, with this code.
fn refused(host: &XenHost, command: &str, code: &str) -> Result<String> {
    let said = host.run(&format!("{command}; rc=$?; echo; echo rc=$rc"))?;
    ensure!(said.contains(&format!("code: {code}")), "`{command}` is not {code}: {said}");
    ensure!(said.contains("rc=1"), "`{command}` is not refused: {said}");
    Ok(said)
}

type Scene = fn(&XenLab) -> Result<()>;

/// What happens to the guest, in this order. Each begins with it running on the first host, and
/// leaves it there.
const SCENES: &[(&str, Scene)] = &[
    ("what a guest is told", what_a_guest_is_told),
    ("refused in time", refused_in_time),
    ("cut while memory travels", cut_while_memory_travels),
    ("live there and back", live_there_and_back),
    ("daemons killed at the handing over", daemons_killed_at_the_handing_over),
    ("a PV guest by stop and copy", pv_by_stop_and_copy),
];

pub(super) fn from_create_to_rm(setting: &Setting) -> Result<()> {
    let began = Instant::now();
    let lab = scene(setting)?;
    println!("two hosts and a guest: {:.0} s", began.elapsed().as_secs_f64());
    for (name, happens) in SCENES {
        let began = Instant::now();
        happens(&lab).with_context(|| format!("in the scene `{name}`"))?;
        println!("{name}: {:.0} s", began.elapsed().as_secs_f64());
    }
    lab.hosts[0].run("whimbrel stop --now web1 && whimbrel rm web1 && ! xl list | grep web1")?;
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

    // `stop` asks politely, and the witness has nobody who would hear that on Xen.
    one.run("whimbrel stop --now web1 && ! xl list | grep web1")?;
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

    // Xen's free memory counts, not that of the control domain.
    set("32 MiB", "400 MiB")?;
    let said = refused(one, MIGRATE, "plan/memory")?;
    ensure!(said.contains("409600 KiB"), "not the seed's arithmetic: {said}");
    set("400 MiB", "32 MiB")?;
    // The kernel is needed when the guest reboots there.
    set(", \"/files\"", "")?;
    let said = refused(one, MIGRATE, "plan/disk-allowed")?;
    ensure!(said.contains("`/files/vmlinuz`"), "it does not say what: {said}");
    set("\"/dev\"", "\"/dev\", \"/files\"")?;
    two.run("whimbrel relocation disable")?;
    let said = refused(one, MIGRATE, "plan/unreachable")?;
    ensure!(said.contains("`whimbrel relocation enable`"), "no way out: {said}");
    two.run("whimbrel relocation enable")?;

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

/// The link goes, and then a daemon dies: the guest stays, and nothing of it is left over there.
fn cut_while_memory_travels(lab: &XenLab) -> Result<()> {
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    let nothing_there =
        "for i in $(seq 100); do xl list | grep -q web1 || exit 0; sleep 0.5; done; exit 1";

    one.run(BEGIN)?;
    two.run(CUT)?;
    one.run(
        "for i in $(seq 100); do grep -q '^code' /tmp/migrate && exit 0; sleep 0.5; done
         cat /tmp/migrate; exit 1",
    )?;
    two.run(UNCUT)?;
    ensure!(boot(one)? == before, "it was booted anew");
    two.run(nothing_there)?;

    one.run(BEGIN)?;
    one.run("kill -9 $(cat /run/daemon.pid)")?;
    start_daemon(one)?;
    ensure!(boot(one)? == before, "it was booted anew");
    two.run(nothing_there)?;
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

/// Waits until the handing over is decided on both hosts, and returns where the guest is.
fn settled(lab: &XenLab) -> Result<&XenHost> {
    let [one, two] = &lab.hosts;
    for host in [one, two] {
        host.run(
            "for i in $(seq 200); do
                 ls /var/lib/whimbrel/carry/* >/dev/null 2>&1 || exit 0; sleep 0.5; done
             whimbrel log web1; exit 1",
        )?;
    }
    let is_here = |host: &XenHost| Ok::<_, anyhow::Error>(host.run("xl list")?.contains("web1 "));
    let (here, there) = if is_here(two)? { (two, one) } else { (one, two) };
    is_only_on(here, there)?;
    Ok(here)
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
