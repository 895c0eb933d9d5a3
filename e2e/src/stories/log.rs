// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What `whimbrel log` and `report` tell, on both hosts.

use crate::lab::{Host, Lines};
use crate::scene::{Cast, SOON, Scene, engines, json, lives_only_on, report, state, until};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use std::net::TcpStream;

/// Lines of both hosts, merged; followed as they come, from whichever host; since a time; and with
/// the daemon down those of this host.
pub(super) fn both_hosts_tell_one_story(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    let mut follower = alpha.spawn_whimbrel(&["log", "web1", "--follow"])?;
    let followed = Lines::of(follower.stdout.take().context("the output was asked for")?);
    followed.wait_for("alpha", SOON)?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    followed.wait_for("the guest has arrived from `alpha`", SOON).context("of the other host")?;
    beta.whimbrel(&["pause", "web1"])?.ok()?;
    followed.wait_for("pause", SOON).context("after the move")?;
    follower.kill()?;
    follower.wait()?;
    once_each(&followed.so_far())?;

    for host in [alpha, beta] {
        let lines = lines_of(host, &["log", "web1"])?;
        for teller in ["alpha", "beta"] {
            ensure!(lines.iter().any(|(_, host)| host == teller), "no line of {teller}: {lines:?}");
        }
        ensure!(lines.is_sorted_by_key(|(at, _)| *at), "not in the order of time: {lines:?}");
    }
    let all = lines_of(beta, &["log", "web1"])?;
    let (last, _) = all.last().context("no lines")?;
    let newest = lines_of(beta, &["log", "web1", "--lines", "1"])?;
    ensure!(newest.len() == 1 && newest[0].0 == *last, "`--lines 1` is not the newest: {newest:?}");
    ensure!(lines_of(beta, &["log", "web1", "--since", "2100-01-01"])?.is_empty(), "of the future");
    ensure!(lines_of(beta, &["log", "web1", "--since", "1h"])? == all, "not all of the last hour");

    beta.stop_daemon()?;
    let stored = beta.whimbrel(&["log", "web1"])?;
    ensure!(stored.stderr.contains("daemon does not run"), "nothing said of the daemon: {stored}");
    ensure!(stored.ok()?.contains("has arrived from"), "the stored lines are not shown");
    beta.start_daemon()
}

/// Each line once, although old and new ones overlap.
fn once_each(lines: &[String]) -> Result<()> {
    for (index, line) in lines.iter().enumerate() {
        ensure!(!lines[index + 1..].contains(line), "twice: {line}\n{}", lines.join("\n"));
    }
    Ok(())
}

/// When each line was written, and by whom.
fn lines_of(host: &Host, arguments: &[&str]) -> Result<Vec<(u64, String)>> {
    let page = json(host, arguments)?;
    let lines = page["lines"].as_array().with_context(|| format!("no lines in {page}"))?;
    let line = |line: &serde_json::Value| {
        Some((line["at_ms"].as_u64()?, line["host"].as_str()?.to_owned()))
    };
    lines.iter().map(|found| line(found).context("a line without time or host")).collect()
}

/// A stranger, a paired host that is not allowed, a forgotten one: each is refused with one line in
/// the log of the host that it knocked at.
pub(super) fn who_was_turned_away(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    let address = beta.address;
    let knock = || scene.lab.client.run(move || TcpStream::connect((address, 8002)).map(drop));
    told_once(beta, "10.77.0.9", || Ok(knock()?)).context("a stranger without TLS")?;

    let allow = "\nhosts_allow = [\"gamma\"]\n";
    beta.configure(&format!("{}{allow}", crate::scene::CONFIG))?;
    beta.whimbrel(&["reload"])?.ok()?;
    let try_to_move = || {
        let ran = alpha.whimbrel(&["migrate", "web1", "beta"])?;
        ensure!(ran.status.code() == Some(1), "not refused: {ran}");
        Ok(())
    };
    told(beta, "hosts_allow", try_to_move).context("a host that is not allowed")?;

    beta.configure(crate::scene::CONFIG)?;
    beta.whimbrel(&["reload"])?.ok()?;
    // A host that can be reached is told that it was forgotten, and forgets, too.
    beta.unplug()?;
    beta.whimbrel(&["host", "forget", "alpha"])?.ok()?;
    beta.plug_in()?;
    told(beta, "forgotten", try_to_move).context("a forgotten host")?;
    ensure!(state(beta, "web1")?.is_none() && engines(beta, "web1")?.is_empty());
    Ok(())
}

/// What a paired host is being told is cut off in the middle when that host is forgotten.
pub(super) fn a_forgotten_host_hears_no_more(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    let mut follower = alpha.spawn_whimbrel(&["log", "web1", "--follow"])?;
    let followed = Lines::of(follower.stdout.take().context("the output was asked for")?);
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    followed.wait_for("the guest has arrived from `alpha`", SOON).context("of the other host")?;
    ensure!(callers(beta)? > 0, "alpha follows, and there is no connection");
    // Alpha cannot be told that it was forgotten, and goes on asking.
    alpha.unplug()?;
    beta.whimbrel(&["host", "forget", "alpha"])?.ok()?;
    until("nobody is connected to beta", SOON, || Ok(callers(beta)? == 0))?;
    alpha.plug_in()?;
    beta.whimbrel(&["pause", "web1"])?.ok()?;
    told(beta, "forgotten", || Ok(())).context("alpha asks again, and is refused")?;
    follower.kill()?;
    follower.wait()?;
    let lines = followed.so_far();
    ensure!(!lines.iter().any(|line| line.contains("paused")), "{}", lines.join("\n"));
    Ok(())
}

/// How many connections there are to a host's port.
fn callers(host: &Host) -> Result<usize> {
    let open = ["-Htn", "state", "established", "sport = :8002"];
    Ok(host.command("ss".as_ref(), &open, "")?.ok()?.lines().count())
}

/// Does something that `host` refuses, and finds new lines about it in the log.
fn told(host: &Host, words: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let count = || -> Result<usize> {
        let log = host.whimbrel(&["log"])?.ok()?;
        let is_meant = |line: &&str| line.contains("refused a connection") && line.contains(words);
        Ok(log.lines().filter(is_meant).count())
    };
    let before = count()?;
    act()?;
    until(&format!("a line with `{words}`"), SOON, || Ok(count()? > before))
        .with_context(|| host.whimbrel(&["log"]).map(|ran| ran.stdout).unwrap_or_default())
}

fn told_once(host: &Host, words: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    told(host, words, act)?;
    let log = host.whimbrel(&["log"])?.ok()?;
    let count = log.lines().filter(|line| line.contains(words)).count();
    ensure!(count == 1, "{count} lines: {log}");
    Ok(())
}

/// The report is there on both hosts afterwards, also after the daemon was restarted, and says of
/// the pause, the bytes and the rounds.
pub(super) fn the_report_is_kept(setting: &Setting) -> Result<()> {
    let scene = Scene::paired(setting)?;
    let (alpha, beta) = (scene.alpha(), scene.beta());
    scene.create(alpha, &Cast::web1())?;
    alpha.whimbrel(&["migrate", "web1", "beta"])?.ok()?;
    lives_only_on(beta, alpha, "web1", "running")?;
    for host in [alpha, beta] {
        // The target asks the source, once all is done, for what only the source could see.
        until("the report is whole", SOON, || Ok(missing_in_report(host)?.is_empty()))
            .with_context(|| format!("{}: {:?}", host.name, missing_in_report(host)))?;
        host.stop_daemon()?;
        host.start_daemon()?;
        let missing = missing_in_report(host)?;
        ensure!(missing.is_empty(), "{} forgot {missing:?} by a restart", host.name);
        let shown = host.whimbrel(&["report", "web1"])?.ok()?;
        ensure!(shown.contains("alpha") && shown.contains("beta"), "{shown}");
    }
    Ok(())
}

/// Figures that the report of a live migration must have, and has not.
fn missing_in_report(host: &Host) -> Result<Vec<&'static str>> {
    let report = report(host, "web1")?;
    let figures = ["pause_ms", "transferred_bytes", "wire_bytes", "round_count", "total_ms"];
    Ok(figures.into_iter().filter(|name| report[*name].as_u64().unwrap_or_default() == 0).collect())
}
