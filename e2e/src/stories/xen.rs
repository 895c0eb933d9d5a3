// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests on real Xen.
//!
//! To boot two hosts takes as long as most of what happens on them, so each story tells several
//! things of one guest, one after the other. The bridges are not probed: a second is too short for
//! hosts that are emulated beside other work.

use crate::setting::Setting;
use crate::xen::{XenHost, XenLab};
use anyhow::{Context as _, Result, ensure};

const CONFIG: &str = r#"
[host]
host_min_memory = "32 MiB"
[relocation]
enabled = true
allow_paths = ["/dev"]
allow_bridges = ["xenbr0"]
"#;

const GUEST: &str = r#"
name = "web1"
memory = "128 MiB"
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

/// What is asked of the guest over the network, and must be answered.
const ANSWERS: &str =
    "for i in $(seq 50); do ping -c1 -W1 10.77.0.50 >/dev/null && exit 0; done; exit 1";
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

/// Runs a command that is to be refused, with this code.
fn refused(host: &XenHost, command: &str, code: &str) -> Result<String> {
    let said = host.run(&format!("{command}; rc=$?; echo; echo rc=$rc"))?;
    ensure!(said.contains(&format!("code: {code}")), "`{command}` is not {code}: {said}");
    ensure!(said.contains("rc=1"), "`{command}` is not refused: {said}");
    Ok(said)
}

/// A PVH guest with a disk and a network card moves while it runs, and comes back; nothing of it
/// stays behind, and it was never booted anew.
pub(super) fn live_there_and_back(setting: &Setting) -> Result<()> {
    let lab = scene(setting)?;
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    for (from, to) in [(one, two), (two, one)] {
        let said = from.run(&format!("whimbrel migrate web1 {} --no-probe", to.name))?;
        println!("{said}");
        is_only_on(to, from)?;
        ensure!(boot(to)? == before, "it was booted anew on {}", to.name);
    }
    Ok(())
}

/// What a guest is told on one host: its console, a pause, a reboot of its own, and the end.
pub(super) fn from_create_to_rm(setting: &Setting) -> Result<()> {
    let lab = scene(setting)?;
    let [one, _] = &lab.hosts;
    let typed = one.run(
        "(sleep 4; printf 'echo hello\\r'; sleep 6; printf '\\035') |
         timeout 60 script -qefc 'whimbrel console web1' /dev/null",
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
    one.run("whimbrel stop --now web1 && whimbrel rm web1 && ! xl list | grep web1")?;
    Ok(())
}

/// What can be known is known before anything is copied, and what comes is what was offered.
pub(super) fn refused_in_time(setting: &Setting) -> Result<()> {
    let lab = scene(setting)?;
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    let migrate = "whimbrel migrate web1 xen2 --no-probe";
    let set = |from: &str, to: &str| {
        let file = "/etc/whimbrel/whimbrel.toml";
        two.run(&format!("sed -i 's|{from}|{to}|' {file} && whimbrel reload"))
    };

    // Xen's free memory counts, not that of the control domain.
    set("32 MiB", "300 MiB")?;
    let said = refused(one, migrate, "plan/memory")?;
    ensure!(said.contains("307200 KiB"), "not the seed's arithmetic: {said}");
    set("300 MiB", "32 MiB")?;
    two.run("whimbrel relocation disable")?;
    refused(one, migrate, "plan/relocation")?;
    two.run("whimbrel relocation enable")?;

    // Somebody has changed the domain behind our back: its disk is another than was offered.
    one.run(
        "sed 's|/dev/vdb|/dev/vda|' /var/lib/whimbrel/guests/*/run/xl.cfg > /tmp/other.cfg
         xl config-update web1 /tmp/other.cfg",
    )?;
    let said = refused(one, migrate, "relocation/not-as-offered")?;
    ensure!(said.contains("`/dev/vda`"), "it does not say what: {said}");
    one.run("xl config-update web1 /var/lib/whimbrel/guests/*/run/xl.cfg")?;
    is_only_on(one, two)?;
    ensure!(boot(one)? == before, "it was booted anew");
    Ok(())
}

/// A PV guest is not moved while it runs, and the plan says how it can be.
pub(super) fn pv_by_stop_and_copy(setting: &Setting) -> Result<()> {
    let lab = scene(setting)?;
    let [one, two] = &lab.hosts;
    one.run(
        "whimbrel stop --now web1 && whimbrel rm web1
         sed -i 's|^name|machine = \"xenpv\"\\nname|' /etc/whimbrel/web1.toml
         whimbrel create /etc/whimbrel/web1.toml",
    )?;
    let before = boot(one)?;
    let said = refused(one, "whimbrel migrate web1 xen2 --no-probe", "plan/live")?;
    ensure!(said.contains("--stop-and-copy"), "no way out: {said}");
    println!("{}", one.run("whimbrel migrate web1 xen2 --no-probe --stop-and-copy")?);
    is_only_on(two, one)?;
    ensure!(boot(two)? == before, "it was booted anew");
    Ok(())
}

/// The link goes and comes back, a daemon dies: one copy, and the next attempt succeeds.
pub(super) fn cut_and_killed(setting: &Setting) -> Result<()> {
    let lab = scene(setting)?;
    let [one, two] = &lab.hosts;
    let before = boot(one)?;
    let begin = "rm -f /var/lib/whimbrel/guests/*/run/pipe.sock
                 setsid whimbrel migrate web1 xen2 --no-probe >/tmp/migrate 2>&1 </dev/null &
                 for i in $(seq 300); do
                     ls /var/lib/whimbrel/guests/*/run/pipe.sock >/dev/null 2>&1 && exit 0
                     sleep 0.1
                 done; cat /tmp/migrate; exit 1";

    // The link, while memory travels.
    one.run(begin)?;
    two.run(
        "nft add table inet cut
         nft 'add chain inet cut in { type filter hook input priority 0; }'
         nft add rule inet cut in tcp dport 8002 drop",
    )?;
    one.run(
        "for i in $(seq 100); do grep -q '^code' /tmp/migrate && exit 0; sleep 0.5; done
         cat /tmp/migrate; exit 1",
    )?;
    two.run("nft delete table inet cut")?;
    ensure!(boot(one)? == before, "it was booted anew");
    two.run("for i in $(seq 100); do xl list | grep -q web1 || exit 0; sleep 0.5; done; exit 1")?;

    // The source's daemon, while memory travels.
    one.run(begin)?;
    one.run("kill -9 $(cat /run/daemon.pid)")?;
    start_daemon(one)?;
    ensure!(boot(one)? == before, "it was booted anew");
    two.run("for i in $(seq 100); do xl list | grep -q web1 || exit 0; sleep 0.5; done; exit 1")?;

    println!("{}", one.run("whimbrel migrate web1 xen2 --no-probe")?);
    is_only_on(two, one)?;
    ensure!(boot(two)? == before, "it was booted anew");
    Ok(())
}
