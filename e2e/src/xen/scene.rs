// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two Xen hosts that trust each other, and a guest on the first.

use super::{XenHost, XenLab};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const CONFIG: &str = r#"
[host]
host_min_memory = "32 MiB"
[relocation]
enabled = true
allow_paths = ["/dev", "/files", "/srv/xen"]
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

/// Nothing of the migration port passes this host, in either direction.
pub(crate) const CUT: &str = "nft -f - <<'END'
    table inet cut {
        chain in { type filter hook input priority 0; tcp dport 8002 drop; tcp sport 8002 drop; }
        chain out { type filter hook output priority 0; tcp dport 8002 drop; tcp sport 8002 drop; }
    }\nEND";
/// How long xl may take to let a guest go on.
const BACK_PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const UNCUT: &str = "nft delete table inet cut";

/// What is asked of the guest over the network, and must be answered.
pub(crate) const ANSWERS: &str =
    "for i in $(seq 200); do ping -c1 -W1 10.77.0.50 >/dev/null && exit 0; done; exit 1";
/// Asks the witness, until it answers and has counted on its disk.
const STATUS: &str = "for i in $(seq 50); do
    said=$(printf 'status\\n' | socat -t 5 - TCP:10.77.0.50:7777,connect-timeout=2 2>&1)
    echo \"$said\" | grep ' boot0=' | grep -v ' boot0=0 ' && exit 0
    sleep 0.2; done; echo \"$said\"; xl list; exit 1";

/// Two hosts that trust each other, and a guest on the first. More programs lie in `/files`.
pub(crate) fn set_up(setting: &Setting, more: &[PathBuf]) -> Result<XenLab> {
    let ours = [setting.program()?, setting.program_with_faults()?];
    let lab = XenLab::boot(setting, &[&ours, more].concat())?;
    let [one, two] = &lab.hosts;
    furnish(one)?;
    furnish(two)?;
    pair(one, two)?;
    one.run("whimbrel create /etc/whimbrel/web1.toml")?;
    one.run(ANSWERS)?;
    Ok(lab)
}

pub(crate) fn pair(one: &XenHost, two: &XenHost) -> Result<()> {
    let token = one.run("whimbrel host invite --address 10.77.0.1:8002 2>/dev/null")?;
    two.run(&format!("echo '{}' | whimbrel host join", token.trim()))?;
    Ok(())
}

fn furnish(host: &XenHost) -> Result<()> {
    host.run(&format!(
        "mkdir -p /etc/whimbrel; cp /files/whimbrel /files/whimbrel-with-faults /usr/bin/
         cat > /etc/whimbrel/whimbrel.toml <<'END'\n{CONFIG}END
         cat > /etc/whimbrel/web1.toml <<'END'\n{GUEST}END"
    ))?;
    start_daemon(host)
}

pub(crate) fn start_daemon(host: &XenHost) -> Result<()> {
    start_program(host, "whimbrel")
}

/// Starts the daemon of a program, with what goes before its name.
pub(crate) fn start_program(host: &XenHost, program: &str) -> Result<()> {
    host.run(&format!(
        "setsid {program} daemon >>/var/log/whimbrel.log 2>&1 </dev/null & echo $! > /run/daemon.pid
         for i in $(seq 100); do whimbrel list >/dev/null 2>&1 && exit 0; sleep 0.1; done
         cat /var/log/whimbrel.log; exit 1"
    ))?;
    Ok(())
}

pub(crate) fn stop_daemon(host: &XenHost) -> Result<()> {
    host.run(
        "kill $(cat /run/daemon.pid)
         while kill -0 $(cat /run/daemon.pid) 2>/dev/null; do sleep 0.1; done",
    )?;
    Ok(())
}

/// Which boot of the guest answers, and that it has nothing to complain of.
pub(crate) fn boot(host: &XenHost) -> Result<String> {
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
pub(crate) fn is_only_on(here: &XenHost, other: &XenHost) -> Result<()> {
    let (listed, left) = (here.run("xl list")?, other.run("xl list")?);
    ensure!(listed.contains("web1 "), "it is not on {}: {listed}", here.name);
    ensure!(!left.contains("web1"), "a copy is on {}: {left}", other.name);
    // What keeps the guest's memory there takes its time.
    other.run(
        "for i in $(seq 200); do ls /var/lib/whimbrel/carry/* 2>/dev/null || exit 0; sleep 0.2; done
         exit 1",
    )?;
    Ok(())
}

/// Begins to move the guest to the second host, and returns when its memory travels.
pub(crate) const BEGIN: &str = "cd /var/lib/whimbrel/guests/*/run; rm -f pipe.sock
    setsid whimbrel migrate web1 xen2 --no-probe >/tmp/migrate 2>&1 </dev/null &
    while kill -0 $! && sleep 0.1; do [ -S pipe.sock ] && exit 0; done; cat /tmp/migrate; exit 1";
/// Returns when all of the guest is there. The process beside xl says so by itself.
pub(crate) const ARRIVED: &str = "cd /var/lib/whimbrel/guests/*/run
    echo wait | timeout 230 socat -t 230 - UNIX:pipe.sock | grep '^arrived'";

/// Runs a command that is to be refused, with this code.
pub(crate) fn refused(host: &XenHost, command: &str, code: &str) -> Result<String> {
    let said = host.run(&format!("{command}; rc=$?; echo; echo rc=$rc"))?;
    ensure!(said.contains(&format!("code: {code}")), "`{command}` is not {code}: {said}");
    ensure!(said.contains("rc=1"), "`{command}` is not refused: {said}");
    Ok(said)
}

/// Whether Xen has it there, under its own name.
pub(crate) fn is_here(host: &XenHost, name: &str) -> Result<bool> {
    Ok(host.run("xl list")?.contains(&format!("{name} ")))
}

/// Waits until the handing over is decided on both hosts, and returns where the guest is.
pub(crate) fn settled(lab: &XenLab) -> Result<&XenHost> {
    let [one, two] = &lab.hosts;
    for host in [one, two] {
        host.run(
            "for i in $(seq 200); do
                 ls /var/lib/whimbrel/carry/* >/dev/null 2>&1 || exit 0; sleep 0.5; done
             whimbrel log web1; exit 1",
        )?;
    }
    // It goes on, or back, after that.
    let deadline = Instant::now() + BACK_PATIENCE;
    let (here, there) = loop {
        if is_here(two, "web1")? {
            break (two, one);
        }
        if is_here(one, "web1")? || Instant::now() > deadline {
            break (one, two);
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    is_only_on(here, there)?;
    Ok(here)
}
