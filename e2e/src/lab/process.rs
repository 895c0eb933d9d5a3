// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Commands: run to their end with a deadline, or watched while they run.

use anyhow::{Result, ensure};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Something did not end within the time it was given.
#[derive(Clone, Copy, Debug)]
pub struct TooLong(pub Duration);

impl std::fmt::Display for TooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it took longer than {:?}", self.0)
    }
}

impl std::error::Error for TooLong {}

/// What a command did.
#[derive(Clone, Debug)]
pub struct Ran {
    pub command: String,
    pub stdout: String,
    pub stderr: String,
    pub status: ExitStatus,
    pub took: Duration,
}

impl Ran {
    /// Expects success and returns what was printed.
    pub fn ok(self) -> Result<String> {
        ensure!(self.status.success(), "expected success of {self}");
        Ok(self.stdout)
    }

    /// Expects a refusal or failure with this exit code and this problem code.
    pub fn refused(self, exit: i32, code: &str) -> Result<String> {
        let is_it = self.status.code() == Some(exit) && self.stderr.contains(code);
        ensure!(is_it, "expected exit code {exit} and `{code}` from {self}");
        Ok(self.stderr)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ran { command, stdout, stderr, status, .. } = self;
        write!(f, "`{command}` ({status})\n{stdout}{stderr}")
    }
}

/// Waits for a started command; one that takes longer than `patience` is killed and is an error.
pub fn finish(mut child: Child, command: &str, input: &str, patience: Duration) -> Result<Ran> {
    let started = Instant::now();
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is free not to.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = read_in_background(child.stdout.take());
    let stderr = read_in_background(child.stderr.take());
    let status = wait_with_deadline(&mut child, patience)?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    let took = started.elapsed();
    let [stdout, stderr] = [stdout, stderr].map(|text| text.recv().unwrap_or_default());
    match status {
        Some(status) => Ok(Ran { command: command.to_owned(), stdout, stderr, status, took }),
        None => {
            let said = format!("`{command}` did not end\n{stdout}{stderr}");
            Err(anyhow::Error::new(TooLong(patience)).context(said))
        }
    }
}

fn read_in_background(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is shown all the same.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

pub(super) fn wait_with_deadline(
    child: &mut Child,
    patience: Duration,
) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Output of a command that is still running, line by line as it comes.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Collects lines of a pipe from now on.
    pub fn of(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let collected = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                collected.0.lock().expect("nothing panics with this lock").push(line);
            }
        });
        lines
    }

    pub fn so_far(&self) -> Vec<String> {
        self.0.lock().expect("nothing panics with this lock").clone()
    }

    /// Waits for a line that contains `text`.
    pub fn wait_for(&self, text: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(line) = self.so_far().into_iter().find(|line| line.contains(text)) {
                return Ok(line);
            }
            ensure!(
                Instant::now() < deadline,
                "no line with `{text}` within {patience:?}, only:\n{}",
                self.so_far().join("\n")
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
