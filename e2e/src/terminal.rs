// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A command in a terminal, and somebody who types: for consoles.

use crate::lab::{Host, Lines};
use crate::scene::{SOON, until};
use anyhow::{Context as _, Result};
use std::io::Write as _;
use std::process::{Child, ChildStdin, Command};

/// What leaves a console.
const CTRL_RIGHT_BRACKET: &[u8] = b"\x1d";

/// A terminal on a host, with a command in it.
pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    pub shown: Lines,
}

impl Terminal {
    /// Types a command of the shell; script(1) gives it a terminal.
    pub fn open(host: &Host, typed: &str) -> Result<Terminal> {
        let mut command = Command::new("script");
        command.args(["-qefc", typed, "/dev/null"]).env("NO_COLOR", "1");
        let mut child = host.spawn(command)?;
        let shown = Lines::of(child.stdout.take().context("the output was asked for")?);
        let keyboard = child.stdin.take().context("the input was asked for")?;
        Ok(Terminal { child, keyboard, shown })
    }

    /// Types a command of ours.
    pub fn whimbrel(host: &Host, arguments: &str) -> Result<Terminal> {
        Terminal::open(host, &format!("{} {arguments}", host.program().display()))
    }

    /// Types a line, and waits for what it makes appear.
    pub fn ask(&mut self, line: &str, answer: &str) -> Result<()> {
        self.type_line(line)?;
        self.shown.wait_for(answer, SOON).map(drop)
    }

    pub fn type_line(&mut self, line: &str) -> Result<()> {
        self.keyboard.write_all(format!("{line}\r").as_bytes())?;
        Ok(())
    }

    /// Leaves the console with Ctrl+].
    pub fn leave(mut self) -> Result<()> {
        self.keyboard.write_all(CTRL_RIGHT_BRACKET)?;
        until("Ctrl+] ends the console", SOON, || Ok(self.child.try_wait()?.is_some()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // After `leave` it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
