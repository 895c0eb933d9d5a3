// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A small client of QEMU's monitor (QMP), for engines that are started here and not by a daemon.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an engine may take to listen, or to answer.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A conversation with one engine.
pub struct Monitor {
    stream: BufReader<UnixStream>,
    /// Events that came while an answer was awaited.
    events: VecDeque<Value>,
    /// What was read of a line that has not ended.
    line: String,
}

impl Monitor {
    /// Connects as soon as the engine listens.
    pub fn connect(socket: &Path) -> Result<Monitor> {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| format!("{}", socket.display()));
                }
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        };
        let stream = BufReader::new(stream);
        let mut monitor = Monitor { stream, events: VecDeque::new(), line: String::new() };
        let greeting = monitor.read(deadline)?.context("the engine says nothing")?;
        ensure!(greeting.get("QMP").is_some(), "not a greeting: {greeting}");
        monitor.ask("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Asks something and returns the answer.
    pub fn ask(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        self.stream.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.read(deadline)?;
            let said = said.with_context(|| format!("no answer to `{command}`"))?;
            match (said.get("return"), said.get("error")) {
                (Some(answer), _) => return Ok(answer.clone()),
                (None, Some(error)) => bail!("`{command}` was answered with {error}"),
                (None, None) => self.events.push_back(said),
            }
        }
    }

    /// Forgets all events that came before now: those of an earlier move are not of the next one.
    pub fn forget_events(&mut self) -> Result<()> {
        // What came before the answer has been read with it.
        self.ask("query-status", json!({}))?;
        self.events.clear();
        Ok(())
    }

    /// Waits for the next event for which `pick` has an answer; others are forgotten. `None` if
    /// there is none until `deadline`.
    pub fn event<T>(
        &mut self,
        deadline: Instant,
        mut pick: impl FnMut(&str, &Value) -> Option<T>,
    ) -> Result<Option<T>> {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => match self.read(deadline)? {
                    Some(event) => event,
                    None => return Ok(None),
                },
            };
            let name = event["event"].as_str().unwrap_or_default();
            if let Some(picked) = pick(name, &event["data"]) {
                return Ok(Some(picked));
            }
        }
    }

    /// Reads one line; `None` if none is complete until `deadline`.
    fn read(&mut self, deadline: Instant) -> Result<Option<Value>> {
        let rest = deadline.saturating_duration_since(Instant::now());
        // No time left is not the same as no limit.
        self.stream.get_ref().set_read_timeout(Some(rest.max(Duration::from_millis(1))))?;
        match self.stream.read_line(&mut self.line) {
            Ok(0) => bail!("the engine has hung up"),
            Ok(_) if !self.line.ends_with('\n') => Ok(None),
            Ok(_) => {
                let said = serde_json::from_str(&std::mem::take(&mut self.line))?;
                Ok(Some(said))
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
