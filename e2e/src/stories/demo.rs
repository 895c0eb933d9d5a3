// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The demo, as somebody meets it who has just arrived.

use crate::lab::{Remains, finish};
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(170);
/// Nobody in particular.
const NOBODY: u32 = 65_534;

/// With `--keep` the hosts stay, and what it prints is how to talk to them; `--clean` leaves
/// nothing.
pub(super) fn kept_and_cleaned(_setting: &Setting) -> Result<()> {
    let name = format!("wldemo{}", std::process::id());
    let shown = demo(&["--keep"], &name, None)?;
    let enter = shown.lines().find_map(|line| line.trim().strip_prefix("on alpha:"));
    let program = shown.lines().find_map(|line| line.trim().strip_prefix("there:"));
    let (enter, there) = enter.zip(program).with_context(|| format!("no word of how: {shown}"))?;
    let typed = format!("{} {}", enter.trim(), there.trim());
    let listed = Command::new("/bin/sh").args(["-c", &typed]).output()?;
    let said = String::from_utf8_lossy(&listed.stdout);
    let is_listed = listed.status.success() && said.contains("web1");
    demo(&["--clean"], &name, None)?;
    ensure!(is_listed, "`{typed}` does not list the guest: {listed:?}");
    ensure!(!Remains::named(&name).exist(), "`--clean` left something behind");
    Ok(())
}

/// Whoever is not root sees a guest with user networking, and leaves nothing behind either.
pub(super) fn without_root(_setting: &Setting) -> Result<()> {
    let shown = demo(&["--without-root"], "alone", Some(NOBODY))?;
    ensure!(shown.contains("counter0="), "the guest did not answer: {shown}");
    for line in shown.lines().filter_map(|line| line.split_once("whimbrel-alone-")) {
        let number: String = line.1.chars().take_while(char::is_ascii_digit).collect();
        let left = format!("/tmp/whimbrel-alone-{number}");
        ensure!(!Path::new(&left).exists(), "{left} was left behind");
    }
    Ok(())
}

/// Runs the demo to its end, and returns what it showed.
fn demo(arguments: &[&str], name: &str, user: Option<u32>) -> Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("demo").args(arguments).env("E2E_DEMO_NAME", name).env("RUST_LIB_BACKTRACE", "0");
    if let Some(user) = user {
        command.uid(user).gid(user).env("HOME", "/tmp");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    finish(child, &format!("demo {}", arguments.join(" ")), "", PATIENCE)?.ok()
}
