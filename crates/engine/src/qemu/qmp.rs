// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A small client of QEMU's monitor protocol (QMP): JSON objects, one a line.
//!
//! One task owns the stream. Callers send it commands and wait for the answer with their id;
//! events go to everyone who subscribed. When the stream ends, every waiting caller and every
//! later one is told that the engine is gone.
//!
//! QEMU answers commands in its main thread, one after the other. In post-copy that may stand
//! still: it has touched a page that is missing, for a device of the guest. The few commands that
//! help there are *urgent*: QEMU runs them in the thread that reads the monitor (it says *out of
//! band*), where it can. It stops reading once eight others wait, so we keep fewer than that
//! waiting there, and the rest here.
//!
//! The crate `qapi` was considered and not taken: its types are generated from one version of the
//! schema with every member required, while we speak to 7.2 and to the newest, which have dropped
//! members and added enum values. We use some thirty commands and read few members of each.

use crate::error::EngineError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Longest line we read; the largest known answer (the schema) has about 200 KiB.
const LINE_BYTES_MAX: usize = 4 << 20;
/// Commands waiting to be written.
const COMMANDS_WAITING_MAX: usize = 64;
/// Commands that QEMU has and did not answer; the urgent ones not counted.
const COMMANDS_ASKED_MAX: usize = 4;
/// What QEMU calls that it runs urgent commands at once.
const OUT_OF_BAND: &str = "oob";
/// Events kept for a subscriber that is slow.
const EVENTS_KEPT_MAX: usize = 1024;
/// A host under load answers late; only a hang is longer than this.
pub(super) const ANSWER_WAIT_MAX: Duration = Duration::from_secs(180);

/// An open monitor. Dropping the last clone closes the stream.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    guest: String,
    commands: mpsc::Sender<Command>,
    urgent: mpsc::Sender<Command>,
    events: broadcast::WeakSender<Event>,
}

/// What QEMU said without being asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Value,
    /// By QEMU's clock, which is this host's.
    pub(super) at: SystemTime,
}

#[derive(Debug)]
struct Command {
    name: &'static str,
    arguments: Value,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Value, String>>;

/// A line from QEMU: a greeting, an answer or an event.
#[derive(Debug, Deserialize)]
struct Line {
    id: Option<u64>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    timestamp: Option<Timestamp>,
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
}

#[derive(Debug, Deserialize)]
struct Greeting {
    #[serde(default)]
    capabilities: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Timestamp {
    /// -1 where QEMU could not read its clock.
    seconds: i64,
    microseconds: i64,
}

impl Monitor {
    /// Opens a monitor on a fresh stream: waits for the greeting and leaves negotiation mode.
    pub(super) async fn open<S>(guest: &str, stream: S) -> Result<Monitor, EngineError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let mut lines = Lines { reader: BufReader::new(reader), partial: Vec::new() };
        let greeting = tokio::time::timeout(ANSWER_WAIT_MAX, lines.next()).await;
        let greeting = match greeting {
            Ok(Some(Line { greeting: Some(greeting), .. })) => greeting,
            Ok(_) => return Err(gone(guest)),
            Err(_) => return Err(silent(guest, "greeting", ANSWER_WAIT_MAX)),
        };
        let (commands, receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (urgent, urgent_receiver) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (events, _) = broadcast::channel(EVENTS_KEPT_MAX);
        let weak = events.downgrade();
        let knows_urgent = greeting.capabilities.iter().any(|known| known == OUT_OF_BAND);
        let queues = Queues { commands: receiver, urgent: urgent_receiver, knows_urgent };
        tokio::spawn(serve(lines, writer, queues, events));
        let monitor = Monitor { guest: guest.to_owned(), commands, urgent, events: weak };
        let enabled = if knows_urgent { json!({ "enable": [OUT_OF_BAND] }) } else { json!({}) };
        monitor.execute("qmp_capabilities", enabled).await?;
        Ok(monitor)
    }

    /// Runs a command and returns what QEMU answered.
    pub(super) async fn execute(
        &self,
        name: &'static str,
        arguments: Value,
    ) -> Result<Value, EngineError> {
        self.execute_within(ANSWER_WAIT_MAX, name, arguments).await
    }

    /// Runs one of the commands that QEMU runs even while its main thread stands still.
    pub(super) async fn execute_urgently(
        &self,
        name: &'static str,
        arguments: Value,
    ) -> Result<Value, EngineError> {
        self.exchange(&self.urgent, ANSWER_WAIT_MAX, name, arguments).await
    }

    /// Runs a query and reads the answer as `T`.
    pub(super) async fn query<T: DeserializeOwned>(
        &self,
        name: &'static str,
        arguments: Value,
    ) -> Result<T, EngineError> {
        let value = self.execute(name, arguments).await?;
        serde_json::from_value(value)
            .map_err(|error| self.refused(name, format!("its answer cannot be read: {error}")))
    }

    pub(super) async fn execute_within(
        &self,
        wait_max: Duration,
        name: &'static str,
        arguments: Value,
    ) -> Result<Value, EngineError> {
        self.exchange(&self.commands, wait_max, name, arguments).await
    }

    async fn exchange(
        &self,
        queue: &mpsc::Sender<Command>,
        wait_max: Duration,
        name: &'static str,
        arguments: Value,
    ) -> Result<Value, EngineError> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            let command = Command { name, arguments, answer };
            queue.send(command).await.map_err(|_| gone(&self.guest))?;
            answered.await.map_err(|_| gone(&self.guest))
        };
        match tokio::time::timeout(wait_max, exchange).await {
            Ok(answer) => answer?.map_err(|reason| self.refused(name, reason)),
            Err(_) => Err(silent(&self.guest, name, wait_max)),
        }
    }

    /// Events from now on; none once the engine is gone.
    pub(super) fn events(&self) -> Option<broadcast::Receiver<Event>> {
        self.events.upgrade().map(|events| events.subscribe())
    }

    fn refused(&self, command: &str, reason: String) -> EngineError {
        EngineError::Refused { guest: self.guest.clone(), command: command.to_owned(), reason }
    }
}

fn gone(guest: &str) -> EngineError {
    EngineError::Gone { guest: guest.to_owned(), last_words: None }
}

fn silent(guest: &str, command: &str, wait: Duration) -> EngineError {
    EngineError::Silent {
        guest: guest.to_owned(),
        command: command.to_owned(),
        seconds: wait.as_secs(),
    }
}

/// What is to be written.
struct Queues {
    commands: mpsc::Receiver<Command>,
    urgent: mpsc::Receiver<Command>,
    /// QEMU runs urgent commands at once; otherwise they are like all others.
    knows_urgent: bool,
}

/// A command that QEMU has.
struct Asked {
    is_urgent: bool,
    answer: Answer,
}

type Waiting = HashMap<u64, Asked>;

/// The task that owns the stream. It ends when QEMU closes it, or when no one can ask any more.
async fn serve<R, W>(
    mut lines: Lines<R>,
    mut writer: W,
    mut queues: Queues,
    events: broadcast::Sender<Event>,
) where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut waiting = Waiting::new();
    let mut id_next: u64 = 0;
    loop {
        let asked = waiting.values().filter(|asked| !asked.is_urgent).count();
        let (command, is_urgent) = tokio::select! {
            biased;
            line = lines.next() => match line {
                Some(line) => {
                    deliver(line, &mut waiting, &events);
                    continue;
                }
                None => return,
            },
            command = queues.urgent.recv() => (command, queues.knows_urgent),
            command = queues.commands.recv(), if asked < COMMANDS_ASKED_MAX => (command, false),
        };
        let Some(Command { name, arguments, answer }) = command else { return };
        // Who asked may have given up meanwhile.
        if answer.is_closed() {
            continue;
        }
        let verb = if is_urgent { "exec-oob" } else { "execute" };
        let request = json!({ verb: name, "arguments": arguments, "id": id_next });
        waiting.insert(id_next, Asked { is_urgent, answer });
        id_next += 1;
        if writer.write_all(format!("{request}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Gives a line to whom it belongs. That nobody waits for it any more is not an error.
fn deliver(line: Line, waiting: &mut Waiting, events: &broadcast::Sender<Event>) {
    if let Some(name) = line.event {
        let at = line.timestamp.and_then(system_time).unwrap_or_else(SystemTime::now);
        let _ = events.send(Event { name, data: line.data, at });
        return;
    }
    let Some(asked) = line.id.and_then(|id| waiting.remove(&id)) else { return };
    let result = match line.error {
        Some(refusal) => Err(refusal.desc),
        None => Ok(line.value.unwrap_or(Value::Null)),
    };
    let _ = asked.answer.send(result);
}

fn system_time(timestamp: Timestamp) -> Option<SystemTime> {
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let micros = u64::try_from(timestamp.microseconds).ok()?;
    let since = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

/// Reads bounded lines, and loses nothing when its future is dropped half-way.
struct Lines<R> {
    reader: R,
    partial: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Returns the next line; none at the end of the stream, and for whatever is not QMP.
    async fn next(&mut self) -> Option<Line> {
        loop {
            let available = self.reader.fill_buf().await.ok()?;
            if available.is_empty() {
                return None;
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            if self.partial.len() + taken > LINE_BYTES_MAX {
                tracing::warn!(limit = LINE_BYTES_MAX, "a line from the engine is too long");
                return None;
            }
            self.partial.extend_from_slice(&available[..taken]);
            self.reader.consume(taken);
            if end.is_some() {
                let line = serde_json::from_slice(&self.partial);
                self.partial.clear();
                return line
                    .inspect_err(
                        |error| tracing::warn!(%error, "a line from the engine is not QMP"),
                    )
                    .ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n";

    /// Plays QEMU: greets, then gives each command it reads to `answer`, which writes lines.
    async fn open(answer: impl Fn(Value) -> String + Send + 'static) -> Monitor {
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(play(far, answer));
        Monitor::open("web1", near).await.unwrap()
    }

    async fn play(far: DuplexStream, answer: impl Fn(Value) -> String) {
        let (reader, mut writer) = tokio::io::split(far);
        writer.write_all(GREETING.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let text = answer(serde_json::from_str(&line).unwrap());
            if text == "bye" || writer.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn ok(request: &Value) -> String {
        format!("{{\"return\": {}, \"id\": {}}}\n", request["arguments"], request["id"])
    }

    /// An answer reaches the one who asked, although an event and a stray answer come before it.
    #[tokio::test]
    async fn answers_find_their_caller_and_events_their_subscribers() {
        let monitor = open(|request| {
            let event = "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 7, \
                         \"microseconds\": 5}}\n{\"return\": 1, \"id\": 99}\n";
            if request["execute"] == "stop" {
                format!("{event}{}", ok(&request))
            } else {
                ok(&request)
            }
        })
        .await;
        let mut events = monitor.events().unwrap();
        let answer = monitor.execute("stop", json!({"a": 1})).await.unwrap();
        assert_eq!(answer, json!({"a": 1}));
        let event = events.recv().await.unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(7_000_005);
        assert_eq!(event, Event { name: "STOP".into(), data: Value::Null, at });
    }

    /// QEMU's own words come back when it refuses, with the command and the guest.
    #[tokio::test]
    async fn refusals_carry_the_reason() {
        let monitor = open(|request| match request["execute"].as_str() {
            Some("cont") => format!(
                "{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"no\"}}, \"id\": {}}}\n",
                request["id"]
            ),
            _ => ok(&request),
        })
        .await;
        let error = monitor.execute("cont", json!({})).await.unwrap_err();
        assert_eq!(error.to_string(), "the engine of guest `web1` refused `cont`: no");
    }

    /// When the stream ends, the waiting caller and the next one are told, and events end.
    #[tokio::test]
    async fn the_end_of_the_stream_is_told_to_everyone() {
        let monitor =
            open(|request| if request["execute"] == "quit" { "bye".into() } else { ok(&request) })
                .await;
        let mut events = monitor.events().unwrap();
        for _ in 0..2 {
            let error = monitor.execute("quit", json!({})).await.unwrap_err();
            assert!(matches!(error, EngineError::Gone { .. }), "{error}");
        }
        assert!(events.recv().await.is_err());
        assert!(monitor.events().is_none());
    }

    /// A command that is never answered ends with the wait it was given (virtual time).
    #[tokio::test(start_paused = true)]
    async fn a_hang_ends_with_its_deadline() {
        let monitor = open(|r| if r["execute"] == "stop" { String::new() } else { ok(&r) }).await;
        let error = monitor.execute("stop", json!({})).await.unwrap_err();
        assert!(matches!(error, EngineError::Silent { seconds: 180, .. }), "{error}");
    }

    /// While QEMU answers nothing it has few commands, so that it goes on reading, and what is
    /// urgent passes the others.
    #[tokio::test]
    async fn an_urgent_command_passes_those_that_hang() {
        let (asked, mut seen) = mpsc::unbounded_channel();
        let monitor = open(move |request| {
            let is_urgent = request.get("exec-oob").is_some();
            asked.send(request.clone()).unwrap();
            match request["execute"] == "qmp_capabilities" || is_urgent {
                true => ok(&request),
                false => String::new(),
            }
        })
        .await;
        assert_eq!(seen.recv().await.unwrap()["arguments"], json!({"enable": ["oob"]}));
        for _ in 0..2 * COMMANDS_ASKED_MAX {
            let monitor = monitor.clone();
            tokio::spawn(async move { monitor.execute("query-migrate", json!({})).await });
        }
        for _ in 0..COMMANDS_ASKED_MAX {
            assert_eq!(seen.recv().await.unwrap()["execute"], "query-migrate");
        }
        monitor.execute_urgently("migrate-recover", json!({})).await.unwrap();
        assert_eq!(seen.recv().await.unwrap()["exec-oob"], "migrate-recover");
    }

    /// A line without end does not fill our memory.
    #[tokio::test]
    async fn endless_lines_are_cut_off() {
        let endless = vec![b'x'; LINE_BYTES_MAX + 1];
        let mut lines = Lines { reader: BufReader::new(endless.as_slice()), partial: Vec::new() };
        assert!(lines.next().await.is_none());
    }
}
