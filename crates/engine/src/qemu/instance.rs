// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One guest in one QEMU.
//!
//! A task beside it listens to QEMU's events, tells them in the words of the contract, and does
//! the few things that must follow an event at once. It holds the guest only weakly: dropping the
//! last handle closes the monitor and ends the task, and the guest does not notice.

use super::QemuConfig;
use super::launch::{self, CONSOLE_LOG, CONSOLE_SOCKET, ENGINE_LOG, MONITOR_SOCKET};
use super::migration::{Moving, VERSION_URGENT_CHANNEL};
use super::probe::Version;
use super::process::Pinned;
use super::qmp::{Event, Monitor};
use super::record::Record;
use super::words;
use crate::contract::{
    ChannelEnd, EngineEvent, Instance, Launch, Migration, MigrationOptions, Process, Tuning,
};
use crate::error::EngineError;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use whimbrel_model::id::GuestId;
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

/// Events kept for a subscriber that is slow.
const EVENTS_KEPT_MAX: usize = 256;
/// How long QEMU may take to write back what it holds before it is killed.
const QUIT_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long the kernel may take to end a killed process; only dead storage is slower.
const KILL_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often the logs are looked at.
const LOG_PERIOD: Duration = Duration::from_secs(30);

pub(super) struct QemuInstance {
    pub(super) monitor: Monitor,
    pub(super) version: Version,
    pub(super) directory: PathBuf,
    pub(super) moving: Mutex<Moving>,
    /// Held while the guest is brought back to what it was before it was sent.
    pub(super) restoring: tokio::sync::Mutex<()>,
    record: Mutex<Record>,
    process: Arc<Pinned>,
    /// The task beside us holds the sender, so that the channel closes with it.
    events: broadcast::WeakSender<EngineEvent>,
}

/// What `query-status` says. Unknown words are kept: a newer QEMU may have more.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) status: String,
}

impl QemuInstance {
    pub(super) async fn launch(
        config: &QemuConfig,
        mut launch: Launch,
    ) -> Result<Arc<Self>, EngineError> {
        let taps = std::mem::take(&mut launch.taps);
        let started = launch::start(config, &launch, taps).await?;
        let binary = started.record.binary.clone();
        let process = Arc::clone(&started.process);
        let directory = launch.directory.clone();
        match Self::open(started.record, started.process, started.stream, &directory).await {
            Ok(instance) => Ok(instance),
            Err(error) => {
                // Killed first: only then has it said everything it will say.
                launch::abandon(&process, &directory).await;
                Err(launch::explain(&binary, &launch, error))
            }
        }
    }

    pub(super) async fn attach(
        id: GuestId,
        directory: &Path,
    ) -> Result<Option<Arc<Self>>, EngineError> {
        let Some(record) = Record::read(directory)? else { return Ok(None) };
        let path = directory.join(MONITOR_SOCKET);
        let failed = |action, source| EngineError::File { action, path: path.clone(), source };
        let process = Pinned::open(record.process.pid)
            .map_err(|error| failed("find the process behind", error))?;
        let Some(process) = process.filter(|found| found.process() == record.process) else {
            return Ok(None);
        };
        if record.id != id {
            let reason = format!("the record is of guest {}, not of {id}", record.id);
            return Err(refused(&record.name, "attach", reason));
        }
        let stream =
            UnixStream::connect(&path).await.map_err(|error| failed("connect to", error))?;
        Self::open(record, Arc::new(process), stream, directory).await.map(Some)
    }

    /// Ends an engine that never ran its guest, without a word.
    pub(super) async fn end_unused(id: GuestId, directory: &Path) -> Result<bool, EngineError> {
        let Some(record) = Record::read(directory)? else { return Ok(true) };
        if record.has_run || record.id != id {
            return Ok(false);
        }
        let path = directory.join(MONITOR_SOCKET);
        let process = Pinned::open(record.process.pid).map_err(|source| EngineError::File {
            action: "find the process behind",
            path,
            source,
        })?;
        if let Some(process) = process.filter(|found| found.process() == record.process) {
            kill(&process, &record.name).await?;
        }
        launch::clean(directory);
        Ok(true)
    }

    async fn quit(&self) -> Result<(), EngineError> {
        self.monitor.execute_within(QUIT_WAIT_MAX, "quit", json!({})).await.map(drop)
    }

    /// Opens the monitor, and makes sure that it is the guest's.
    async fn open(
        record: Record,
        process: Arc<Pinned>,
        stream: UnixStream,
        directory: &Path,
    ) -> Result<Arc<Self>, EngineError> {
        #[derive(Deserialize)]
        struct Identity {
            #[serde(rename = "UUID")]
            uuid: String,
        }
        #[derive(Deserialize)]
        struct Versions {
            qemu: Version,
        }
        let monitor = Monitor::open(&record.name, stream).await?;
        let identity: Identity = monitor.query("query-uuid", json!({})).await?;
        if identity.uuid.parse() != Ok(record.id) {
            let reason = format!("it is guest {}, not {}", identity.uuid, record.id);
            return Err(refused(&record.name, "query-uuid", reason));
        }
        let versions: Versions = monitor.query("query-version", json!({})).await?;
        let (events, _) = broadcast::channel(EVENTS_KEPT_MAX);
        let instance = Arc::new(QemuInstance {
            version: versions.qemu,
            directory: directory.to_owned(),
            moving: Mutex::new(Moving::default()),
            restoring: tokio::sync::Mutex::new(()),
            record: Mutex::new(record),
            process: Arc::clone(&process),
            events: events.downgrade(),
            monitor,
        });
        if let Some(said) = instance.monitor.events() {
            tokio::spawn(listen(Arc::downgrade(&instance), process, said, events));
        }
        tokio::spawn(keep_logs_short(Arc::downgrade(&instance)));
        Ok(instance)
    }

    pub(super) fn name(&self) -> String {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).name.clone()
    }

    /// Runs a command; an engine that is gone is quoted.
    pub(super) async fn execute(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, EngineError> {
        self.quoted(self.monitor.execute(command, arguments).await)
    }

    /// Runs a command that QEMU runs even while its main thread stands still.
    pub(super) async fn execute_urgently(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, EngineError> {
        self.quoted(self.monitor.execute_urgently(command, arguments).await)
    }

    fn quoted(&self, answer: Result<Value, EngineError>) -> Result<Value, EngineError> {
        match answer {
            Err(EngineError::Gone { guest, .. }) => {
                let last_words = words::last_words(&self.directory.join(ENGINE_LOG));
                Err(EngineError::Gone { guest, last_words })
            }
            answer => answer,
        }
    }

    pub(super) async fn status(&self) -> Result<String, EngineError> {
        let status: Status = self.monitor.query("query-status", json!({})).await?;
        Ok(status.status)
    }

    /// Starts the vCPUs. A disk that somebody else holds is an error of its own.
    pub(super) async fn cont(&self) -> Result<(), EngineError> {
        match self.execute("cont", json!({})).await {
            Ok(_) => Ok(()),
            Err(EngineError::Refused { guest, command, reason }) => {
                Err(words::lock_conflict(&guest, &reason).unwrap_or(EngineError::Refused {
                    guest,
                    command,
                    reason,
                }))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes down that the guest has run here, before it does: a later daemon must know.
    fn remember_run(&self) -> Result<(), EngineError> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.has_run {
            return Ok(());
        }
        let changed = Record { has_run: true, ..record.clone() };
        changed.write(&self.directory)?;
        *record = changed;
        Ok(())
    }
}

pub(super) fn refused(guest: &str, command: &str, reason: String) -> EngineError {
    EngineError::Refused { guest: guest.to_owned(), command: command.to_owned(), reason }
}

/// Translates QEMU's run states. What has not begun or has just arrived is paused.
fn run_state(status: &str) -> RunState {
    match status {
        "running" => RunState::Running,
        "suspended" => RunState::Suspended,
        "shutdown" => RunState::ShutDown,
        "guest-panicked" | "internal-error" => RunState::Panicked,
        "io-error" => RunState::IoError,
        _ => RunState::Paused,
    }
}

fn translate(event: &Event) -> Option<EngineEvent> {
    let disk = || event.data["node-name"].as_str().or(event.data["device"].as_str());
    match event.name.as_str() {
        "STOP" => Some(EngineEvent::Stopped),
        "RESUME" => Some(EngineEvent::Resumed),
        "RESET" => Some(EngineEvent::Reset),
        // A shutdown that we asked the engine for is its end, not the guest's wish.
        "SHUTDOWN" if event.data["guest"] == true => Some(EngineEvent::ShutDown),
        "GUEST_PANICKED" => Some(EngineEvent::Panicked),
        "BLOCK_IO_ERROR" => {
            let name = disk().unwrap_or("a disk");
            let disk = name.split_once('-').map_or(name, |(disk, _)| disk).to_owned();
            Some(EngineEvent::IoError { disk })
        }
        "SUSPEND" => Some(EngineEvent::Suspended),
        "MIGRATION" | "MIGRATION_PASS" => Some(EngineEvent::Migration),
        _ => None,
    }
}

/// The task beside an instance.
async fn listen(
    instance: Weak<QemuInstance>,
    process: Arc<Pinned>,
    mut said: broadcast::Receiver<Event>,
    told: broadcast::Sender<EngineEvent>,
) {
    loop {
        match said.recv().await {
            Ok(event) => {
                // First what must follow, then the news: who hears it may rely on it.
                if let Some(instance) = instance.upgrade() {
                    instance.follow(&event).await;
                }
                if let Some(event) = translate(&event) {
                    let _ = told.send(event);
                }
            }
            Err(broadcast::error::RecvError::Lagged(count)) => {
                tracing::warn!(count, "events of an engine were lost");
                if let Some(instance) = instance.upgrade() {
                    instance.ask_again();
                }
            }
            Err(broadcast::error::RecvError::Closed) => break,
        }
    }
    // The monitor ends with the engine, or because nobody holds the instance any more.
    if instance.strong_count() > 0 {
        process.gone().await;
        let _ = told.send(EngineEvent::Gone);
    }
}

async fn keep_logs_short(instance: Weak<QemuInstance>) {
    loop {
        let Some(directory) = instance.upgrade().map(|instance| instance.directory.clone()) else {
            return;
        };
        for name in [CONSOLE_LOG, ENGINE_LOG] {
            let log = directory.join(name);
            if let Err(error) = words::cut(&log) {
                tracing::warn!(%error, path = %log.display(), "failed to cut a log");
            }
        }
        tokio::time::sleep(LOG_PERIOD).await;
    }
}

async fn kill(process: &Pinned, name: &str) -> Result<(), EngineError> {
    let path = PathBuf::from(format!("/proc/{}", process.process().pid));
    process.kill().map_err(|source| EngineError::File { action: "kill", path, source })?;
    let killed = tokio::time::timeout(KILL_WAIT_MAX, process.gone()).await;
    killed.map_err(|_| EngineError::Silent {
        guest: name.to_owned(),
        command: "SIGKILL".to_owned(),
        seconds: KILL_WAIT_MAX.as_secs(),
    })
}

#[async_trait]
impl Instance for QemuInstance {
    fn process(&self) -> Process {
        self.process.process()
    }

    fn has_run(&self) -> bool {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).has_run
    }

    fn has_urgent_channel(&self) -> bool {
        self.version >= VERSION_URGENT_CHANNEL
    }

    async fn run_state(&self) -> Result<RunState, EngineError> {
        Ok(run_state(&self.status().await?))
    }

    async fn pause(&self) -> Result<(), EngineError> {
        self.execute("stop", json!({})).await.map(|_| ())
    }

    async fn resume(&self) -> Result<(), EngineError> {
        let status = self.status().await?;
        // QEMU would take `cont` as an order for later, when nobody has judged what arrived.
        if status == "inmigrate" {
            let reason = "its memory is still arriving".to_owned();
            return Err(refused(&self.name(), "cont", reason));
        }
        if status == "finish-migrate" {
            let reason = "it is stopped because it is moving; cancel that first".to_owned();
            return Err(refused(&self.name(), "cont", reason));
        }
        self.remember_run()?;
        if status == "running" { Ok(()) } else { self.cont().await }
    }

    async fn power_down(&self) -> Result<(), EngineError> {
        self.execute("system_powerdown", json!({})).await.map(|_| ())
    }

    async fn reset(&self) -> Result<(), EngineError> {
        self.execute("system_reset", json!({})).await.map(|_| ())
    }

    async fn destroy(&self) -> Result<(), EngineError> {
        // Asked first, so that what an image's format keeps in memory is written. The answer may
        // be lost with the engine. One that never ran its guest has nothing to write, and one
        // whose stream broke may never answer.
        let patience = match self.has_run() {
            true if self.quit().await.is_ok() => QUIT_WAIT_MAX,
            true | false => Duration::ZERO,
        };
        if tokio::time::timeout(patience, self.process.gone()).await.is_err() {
            kill(&self.process, &self.name()).await?;
        }
        launch::clean(&self.directory);
        Ok(())
    }

    fn events(&self) -> broadcast::Receiver<EngineEvent> {
        match self.events.upgrade() {
            Some(events) => events.subscribe(),
            // The engine is gone: a channel without a sender says just that.
            None => broadcast::channel(1).1,
        }
    }

    fn console(&self) -> Option<PathBuf> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.has_console.then(|| self.directory.join(CONSOLE_SOCKET))
    }

    async fn cpu_time(&self) -> Result<Duration, EngineError> {
        let path = PathBuf::from(format!("/proc/{}/stat", self.process().pid));
        let failed = |source| EngineError::File { action: "read", path, source };
        self.process
            .cpu_time()
            .map_err(failed)?
            .ok_or_else(|| EngineError::Gone { guest: self.name(), last_words: None })
    }

    async fn dirty_rate(&self) -> Result<Option<Bytes>, EngineError> {
        self.sample_dirty_rate().await
    }

    async fn hindrances(&self) -> Result<Vec<String>, EngineError> {
        self.query_hindrances().await
    }

    async fn set_memory_target(&self, target: Bytes) -> Result<(), EngineError> {
        self.execute("balloon", json!({ "value": target.0 })).await.map(|_| ())
    }

    async fn receive(&self, options: MigrationOptions) -> Result<ChannelEnd, EngineError> {
        self.begin_receive(options).await
    }

    async fn send(
        &self,
        options: MigrationOptions,
        channels: ChannelEnd,
    ) -> Result<(), EngineError> {
        self.begin_send(options, channels).await
    }

    async fn migration(&self) -> Result<Migration, EngineError> {
        self.query_migration().await
    }

    async fn retune(&self, tuning: Tuning) -> Result<(), EngineError> {
        self.set_tuning(tuning).await
    }

    async fn cancel(&self) -> Result<Migration, EngineError> {
        self.give_up_sending().await
    }

    async fn announce(&self) -> Result<(), EngineError> {
        self.announce_self().await
    }

    async fn enter_postcopy(&self) -> Result<(), EngineError> {
        self.start_postcopy().await
    }

    async fn receive_again(&self) -> Result<ChannelEnd, EngineError> {
        self.begin_receive_again().await
    }

    async fn send_again(&self, channels: ChannelEnd) -> Result<(), EngineError> {
        self.begin_send_again(channels).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn event(name: &str, data: Value) -> Event {
        Event { name: name.to_owned(), data, at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn events_are_told_in_our_words() {
        let check = |name, data, expected| assert_eq!(translate(&event(name, data)), expected);
        check("SHUTDOWN", json!({ "guest": true }), Some(EngineEvent::ShutDown));
        check("SHUTDOWN", json!({ "guest": false, "reason": "host-qmp-quit" }), None);
        check(
            "BLOCK_IO_ERROR",
            json!({ "device": "", "node-name": "disk1-image" }),
            Some(EngineEvent::IoError { disk: "disk1".to_owned() }),
        );
        check("BALLOON_CHANGE", json!({}), None);
    }

    /// Whatever a newer QEMU may add stands still: nothing unknown is taken for running.
    #[test]
    fn only_running_is_running() {
        assert_eq!(run_state("running"), RunState::Running);
        for stopped in ["prelaunch", "inmigrate", "postmigrate", "finish-migrate", "brand-new"] {
            assert_eq!(run_state(stopped), RunState::Paused);
        }
    }
}
