// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `./x bench xen`: one guest on two emulated Xen hosts, moved by us and by `xl migrate`, in turn.
//!
//! It is the same domain all the time: while `xl` moves it, no daemon of ours runs. What each does
//! when the link goes after the word that the guest is the target's ends the run, because `xl`
//! does not get over it.

use super::Options;
use super::table::Table;
use crate::setting::Setting;
use crate::stories::xen::handover;
use crate::xen::XenHost;
use crate::xen::scene::{ANSWERS, boot, is_only_on, set_up, start_daemon, stop_daemon};
use anyhow::{Context as _, Result, ensure};

/// There and back, each way.
const ROUNDS: usize = 2;
const OURS: &str = "whimbrel";
const TUNNEL: &str = "tunnel";
const SOCAT: &str = "socat";
const SSH: &str = "ssh";
/// What `xl migrate` says before its receiver has heard that it may start the guest.
const BEFORE_GO: usize = "xl migration receiver ready, send binary domain data.\n".len()
    + "domain received, ready to unpause\0".len();

pub(super) fn xen(setting: &Setting, options: &Options) -> Result<()> {
    let lab = set_up(setting, &[])?;
    let [one, two] = &lab.hosts;
    trust_by_ssh(one, two)?;
    let mut table = Table::default();
    let meant = |way: &&str| options.only.is_empty() || options.only.iter().any(|only| only == way);
    for _ in 0..if options.quick { 1 } else { ROUNDS } {
        there_and_back(&mut table, [OURS, TUNNEL].into_iter().filter(meant), [one, two])?;
        stop_daemon(one)?;
        stop_daemon(two)?;
        there_and_back(&mut table, [SOCAT, SSH].into_iter().filter(meant), [one, two])?;
        start_daemon(one)?;
        start_daemon(two)?;
    }
    table.print();
    for rival in [SOCAT, SSH].iter().filter(|way| meant(way)) {
        let ratio = |what: &str| table.ratio(OURS, rival, what);
        println!(
            "in parts of xl over {rival}: {:.2} of the time, {:.2} of the silence",
            ratio("whole"),
            ratio("silence")
        );
    }
    let raw = setting.figures().join("xen.csv");
    table.write(&raw)?;
    println!("every figure: {}", raw.display());
    handover::link_cut_after_go(&lab)?;
    println!("link cut after go, whimbrel: it runs on xen2 alone, and both know");
    println!("link closed after go, xl:\n{}", xl_cut_after_go(one, two)?);
    Ok(())
}

fn there_and_back(
    table: &mut Table,
    ways: impl Iterator<Item = &'static str>,
    [one, two]: [&XenHost; 2],
) -> Result<()> {
    for way in ways {
        measure(table, way, [one, two])?;
        measure(table, way, [two, one])?;
    }
    Ok(())
}

fn trust_by_ssh(one: &XenHost, two: &XenHost) -> Result<()> {
    for host in [one, two] {
        host.run(
            "mkdir -p -m 700 ~/.ssh /run/sshd; ssh-keygen -A >/dev/null
             cd ~/.ssh; ssh-keygen -q -t ed25519 -N '' -f id_ed25519
             printf 'StrictHostKeyChecking no\\nLogLevel ERROR\\n' > config
             /usr/sbin/sshd </dev/null >/dev/null 2>&1",
        )?;
    }
    for (host, other) in [(one, two), (two, one)] {
        let key = host.run("cat ~/.ssh/id_ed25519.pub")?;
        other.run(&format!("echo '{}' >> ~/.ssh/authorized_keys", key.trim()))?;
    }
    Ok(())
}

/// Moves the guest once, and notes how long that took, what passed between the hosts, and the
/// longest between two answers to a ping that the source sends five times a second.
fn measure(table: &mut Table, way: &'static str, [from, to]: [&XenHost; 2]) -> Result<()> {
    let before = boot(from)?;
    let command = match way {
        OURS => format!("whimbrel migrate web1 {} --no-probe", to.name),
        TUNNEL => format!("whimbrel migrate web1 {} --no-probe --carrier tunnel", to.name),
        SOCAT => {
            to.run(&listen("xl migrate-receive"))?;
            format!("xl migrate -s '' web1 'socat - TCP:{}:9000'", to.address())
        }
        _ => format!("xl migrate web1 {}", to.address()),
    };
    from.run(ANSWERS)?;
    let said = from.run(&format!(
        "lan=$(basename $(dirname /sys/class/net/e*/brport))
         bytes() {{ echo $(( $(cat /sys/class/net/$lan/statistics/[rt]x_bytes | paste -sd+) )); }}
         (exec ping -D -i 0.2 10.77.0.50 >/tmp/pings 2>&1) & pinger=$!
         sleep 1; sent=$(bytes); began=$(date +%s%3N)
         {command} >/tmp/said 2>&1 </dev/null || {{ cat /tmp/said; exit 1; }}
         echo figures $(( $(date +%s%3N) - began )) $(( $(bytes) - sent ))
         for i in $(seq 100); do
             tail -n 1 /tmp/pings | grep -q \"^.$(date +%s)\" && break; sleep 0.1; done
         kill $pinger
         awk -F'[][]' '/bytes from/ {{ if (last && $2 - last > most) most = $2 - last; last = $2 }}
             END {{ print \"silence\", int(most * 1000) }}' /tmp/pings"
    ))?;
    let figure = |name: &str, nth: usize| {
        let line = said.lines().find(|line| line.starts_with(name));
        let word = line.and_then(|line| line.split_whitespace().nth(nth));
        word.and_then(|word| word.parse::<f64>().ok()).with_context(|| said.clone())
    };
    println!("{way}: {}", said.replace('\n', " "));
    table.note(way, "whole (ms)", figure("figures", 1)?);
    table.note(way, "sent (MB)", figure("figures", 2)? / 1e6);
    table.note(way, "silence (ms)", figure("silence", 1)?);
    is_only_on(to, from)?;
    ensure!(boot(to)? == before, "{way}: it was booted anew on {}", to.name);
    Ok(())
}

/// Has a program serve the next connection.
fn listen(program: &str) -> String {
    format!(
        "setsid socat TCP-LISTEN:9000,reuseaddr EXEC:'{program}' >/tmp/received 2>&1 </dev/null &
         until ss -ltn | grep -q ':9000 '; do sleep 0.1; done"
    )
}

/// The connection is closed when the target's `xl` has been told to start the guest. (`head` would
/// keep the first words to itself until it has the last.)
fn xl_cut_after_go(one: &XenHost, two: &XenHost) -> Result<String> {
    for host in [one, two] {
        stop_daemon(host)?;
    }
    two.run(&format!(
        "printf '#!/bin/sh\\nxl migrate-receive | dd bs=1 count={BEFORE_GO} status=none\\n' > /tmp/half
         chmod +x /tmp/half"
    ))?;
    two.run(&listen("/tmp/half"))?;
    let said = one.run(&format!(
        "xl migrate -s '' web1 'socat - TCP:{}:9000' 2>&1 </dev/null | tail -n 12
         echo; echo on xen1:; xl list",
        two.address()
    ))?;
    Ok(format!("{said}\non xen2:\n{}", two.run("xl list")?))
}
