// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One fake guest: the contract's promises, kept by a few variables.

use super::wire::{self, Ended};
use super::{Call, Stage, console, lock};
use crate::contract::{
    ChannelEnd, EngineEvent, Instance, Launch, Migration, MigrationOptions, PauseSteps, Process,
    Progress, Start, Tuning,
};
use crate::error::EngineError;
use async_trait::async_trait;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use whimbrel_model::id::GuestId;
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

const EVENTS_KEPT_MAX: usize = 256;
const CONSOLE_SOCKET: &str = "console.sock";
const MIGRATION_SOCKET: &str = "migrate.sock";

/// What would be the process.
pub(super) struct Body {
    pub(super) id: GuestId,
    pub(super) process: Process,
    /// Where a migration stands still.
    pub(super) hang: watch::Sender<Option<Stage>>,
    name: String,
    directory: PathBuf,
    has_console: bool,
    state: Mutex<State>,
    /// Gone when the process is.
    events: Mutex<Option<broadcast::Sender<EngineEvent>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

pub(super) struct State {
    pub(super) memory: u64,
    pub(super) dirty_rate: Bytes,
    pub(super) failures: HashMap<Call, String>,
    pub(super) announced: u64,
    pub(super) tuning: Tuning,
    run: RunState,
    memory_size: Bytes,
    /// Launched to receive, and not everything is here yet.
    is_incoming: bool,
    migration: Migration,
    /// As with QEMU, a guest that boots here counts as having run.
    has_run: bool,
    /// Was sent away, and has not been resumed since.
    has_left: bool,
    /// Ends the task that sends.
    sending: Option<AbortHandle>,
    was_running: bool,
}

/// A handle on a body. The body outlives it.
pub(super) struct FakeInstance(pub(super) Arc<Body>);

impl Body {
    pub(super) fn new(launch: &Launch, process: Process) -> Result<Arc<Body>, EngineError> {
        let (events, _) = broadcast::channel(EVENTS_KEPT_MAX);
        let body = Arc::new(Body {
            id: launch.passport.guest,
            process,
            hang: watch::channel(None).0,
            name: launch.guest.name.to_string(),
            directory: launch.directory.clone(),
            has_console: launch.guest.devices.has_serial,
            state: Mutex::new(State {
                memory: 0,
                dirty_rate: Bytes(0),
                failures: HashMap::new(),
                announced: 0,
                tuning: Tuning::default(),
                run: RunState::Paused,
                memory_size: launch.passport.memory,
                is_incoming: launch.start == Start::Incoming,
                has_run: launch.start == Start::Boot,
                has_left: false,
                migration: Migration::None,
                sending: None,
                was_running: false,
            }),
            events: Mutex::new(Some(events)),
            tasks: Mutex::new(Vec::new()),
        });
        if body.has_console {
            let listener = body.listen(CONSOLE_SOCKET)?.1;
            body.spawn(console::serve(listener, body.name.clone()));
        }
        Ok(body)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn is_alive(&self) -> bool {
        lock(&self.events).is_some()
    }

    pub(super) fn die(&self) {
        let Some(events) = lock(&self.events).take() else { return };
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        for name in [CONSOLE_SOCKET, MIGRATION_SOCKET] {
            let _ = std::fs::remove_file(self.directory.join(name));
        }
        let _ = events.send(EngineEvent::Gone);
    }

    /// Changes what the guest is doing, and tells.
    pub(super) fn enter(&self, run: RunState) {
        {
            let mut state = self.state();
            state.has_run |= run == RunState::Running;
            state.has_left &= run != RunState::Running;
            if std::mem::replace(&mut state.run, run) == run {
                return;
            }
        }
        match run {
            RunState::Running => self.tell(EngineEvent::Resumed),
            RunState::Paused => self.tell(EngineEvent::Stopped),
            RunState::Suspended => self.tell(EngineEvent::Suspended),
            RunState::ShutDown => self.tell(EngineEvent::ShutDown),
            RunState::Panicked => self.tell(EngineEvent::Panicked),
            RunState::IoError => self.tell(EngineEvent::Stopped),
        }
    }

    pub(super) fn fail_disk(&self, index: usize) {
        self.tell(EngineEvent::IoError { disk: format!("disk{index}") });
        self.enter(RunState::IoError);
    }

    pub(super) fn refused(&self, command: &str, reason: &str) -> EngineError {
        EngineError::Refused {
            guest: self.name.clone(),
            command: command.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// Changes the figures of a running migration.
    pub(super) fn report(&self, is_switching: bool, change: impl FnOnce(&mut Progress)) {
        let mut state = self.state();
        let mut progress = progress_of(&state.migration);
        change(&mut progress);
        state.migration = match is_switching {
            true => Migration::Switching(progress),
            false => Migration::Active(progress),
        };
    }

    /// The guest stops here for good, unless the migration fails.
    pub(super) fn switch_over(&self) {
        self.enter(RunState::Paused);
        self.report(true, |progress| {
            progress.pause.stopped.get_or_insert_with(SystemTime::now);
            progress.pause.switching = Some(SystemTime::now());
        });
        self.tell(EngineEvent::Migration);
    }

    pub(super) fn tell(&self, event: EngineEvent) {
        if let Some(events) = lock(&self.events).as_ref() {
            let _ = events.send(event);
        }
    }

    fn gone(&self) -> EngineError {
        EngineError::Gone { guest: self.name.clone(), last_words: None }
    }

    /// Every call begins here: with the engine's death, or the failure that was ordered.
    fn begin(&self, call: Option<Call>) -> Result<MutexGuard<'_, State>, EngineError> {
        if !self.is_alive() {
            return Err(self.gone());
        }
        let mut state = self.state();
        match call.and_then(|call| state.failures.remove(&call).map(|reason| (call, reason))) {
            Some((call, reason)) => Err(self.refused(&format!("{call:?}"), &reason)),
            None => Ok(state),
        }
    }

    fn listen(&self, name: &str) -> Result<(PathBuf, UnixListener), EngineError> {
        let path = self.directory.join(name);
        let _ = std::fs::remove_file(&path);
        match UnixListener::bind(&path) {
            Ok(listener) => Ok((path, listener)),
            Err(source) => Err(EngineError::File { action: "listen on", path, source }),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let handle = tokio::spawn(task).abort_handle();
        lock(&self.tasks).push(handle.clone());
        handle
    }

    /// Brings a guest back whose migration has ended badly.
    fn end_sending(&self, ended: Migration) {
        let (was_running, has_moved) = {
            let mut state = self.state();
            if matches!(state.migration, Migration::Active(_) | Migration::Switching(_)) {
                state.migration = ended;
            }
            state.sending = None;
            let has_moved = matches!(state.migration, Migration::Completed(_));
            state.has_left = has_moved;
            (std::mem::take(&mut state.was_running), has_moved)
        };
        if was_running && !has_moved {
            self.enter(RunState::Running);
        }
        self.tell(EngineEvent::Migration);
    }

    /// The life of a migration out of here.
    async fn send_all(self: Arc<Self>, options: MigrationOptions, path: PathBuf) {
        match wire::send(&self, &options, &path).await {
            Ok(()) => {
                let mut progress = progress_of(&self.state().migration);
                let completed = SystemTime::now();
                progress.pause.completed = Some(completed);
                let stopped = progress.pause.stopped.unwrap_or(completed);
                progress.downtime = Some(completed.duration_since(stopped).unwrap_or_default());
                self.end_sending(Migration::Completed(progress));
            }
            Err(error) => self.end_sending(Migration::Failed { reason: error.to_string() }),
        }
    }

    /// The life of a migration into here: what ends too early ends the engine, as with QEMU.
    async fn receive_all(self: Arc<Self>, options: MigrationOptions, listener: UnixListener) {
        match wire::receive(&self, &options, listener).await {
            Ok(Ended { memory }) => {
                {
                    let mut state = self.state();
                    state.memory = memory;
                    state.is_incoming = false;
                    state.migration = Migration::Completed(progress_of(&state.migration));
                }
                self.tell(EngineEvent::Migration);
            }
            Err(error) => {
                tracing::info!(guest = self.name, %error, "a fake target gives up");
                self.die();
            }
        }
    }
}

fn progress_of(migration: &Migration) -> Progress {
    match migration {
        Migration::Active(progress)
        | Migration::Switching(progress)
        | Migration::Completed(progress) => *progress,
        &Migration::PostCopy(progress) | &Migration::Interrupted(progress) => progress,
        Migration::None
        | Migration::Failed { .. }
        | Migration::NotAsOffered { .. }
        | Migration::Cancelled => Progress::default(),
    }
}

impl State {
    pub(super) fn memory_size(&self) -> Bytes {
        self.memory_size
    }
}

#[async_trait]
impl Instance for FakeInstance {
    fn process(&self) -> Process {
        self.0.process
    }

    fn has_run(&self) -> bool {
        self.0.state().has_run
    }

    async fn run_state(&self) -> Result<RunState, EngineError> {
        Ok(self.0.begin(None)?.run)
    }

    async fn pause(&self) -> Result<(), EngineError> {
        let run = self.0.begin(Some(Call::Pause))?.run;
        if run == RunState::Running {
            self.0.enter(RunState::Paused);
        }
        Ok(())
    }

    async fn resume(&self) -> Result<(), EngineError> {
        {
            let state = self.0.begin(Some(Call::Resume))?;
            if state.is_incoming {
                return Err(self.0.refused("resume", "its memory is still arriving"));
            }
            if matches!(state.migration, Migration::Switching(_)) {
                return Err(self.0.refused("resume", "it is stopped because it is moving"));
            }
            if state.run == RunState::ShutDown {
                return Err(self.0.refused("resume", "it has powered itself off"));
            }
        }
        self.0.enter(RunState::Running);
        Ok(())
    }

    async fn power_down(&self) -> Result<(), EngineError> {
        self.0.begin(None).map(|_| ())
    }

    async fn reset(&self) -> Result<(), EngineError> {
        self.0.begin(Some(Call::Reset)).map(|_| ())?;
        self.0.tell(EngineEvent::Reset);
        Ok(())
    }

    async fn destroy(&self) -> Result<(), EngineError> {
        if self.0.is_alive() {
            self.0.begin(Some(Call::Destroy)).map(|_| ())?;
        }
        self.0.die();
        Ok(())
    }

    fn events(&self) -> broadcast::Receiver<EngineEvent> {
        match lock(&self.0.events).as_ref() {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    fn console(&self) -> Option<PathBuf> {
        self.0.has_console.then(|| self.0.directory.join(CONSOLE_SOCKET))
    }

    async fn cpu_time(&self) -> Result<Duration, EngineError> {
        self.0.begin(None).map(|_| Duration::ZERO)
    }

    async fn dirty_rate(&self) -> Result<Option<Bytes>, EngineError> {
        let state = self.0.begin(None)?;
        Ok(Some(if state.run == RunState::Running { state.dirty_rate } else { Bytes(0) }))
    }

    async fn set_memory_target(&self, _target: Bytes) -> Result<(), EngineError> {
        self.0.begin(None).map(|_| ())
    }

    async fn receive(&self, options: MigrationOptions) -> Result<ChannelEnd, EngineError> {
        if !self.0.begin(Some(Call::Receive))?.is_incoming {
            return Err(self.0.refused("receive", "it was not launched to receive"));
        }
        let (path, listener) = self.0.listen(MIGRATION_SOCKET)?;
        self.0.spawn(Arc::clone(&self.0).receive_all(options, listener));
        Ok(ChannelEnd::Listen(path))
    }

    async fn send(
        &self,
        options: MigrationOptions,
        channels: ChannelEnd,
    ) -> Result<(), EngineError> {
        let ChannelEnd::Connect(path) = channels else {
            return Err(self.0.refused("send", "it connects itself"));
        };
        {
            let mut state = self.0.begin(Some(Call::Send))?;
            match (&state.migration, state.run) {
                (Migration::Active(_) | Migration::Switching(_), _) => {
                    return Err(self.0.refused("send", "it is moving already"));
                }
                (Migration::Completed(_), _) if !state.has_run => {
                    return Err(self.0.refused("send", "it arrived paused and never ran here"));
                }
                (Migration::Completed(_), RunState::Paused) if state.has_left => {
                    return Err(self.0.refused("send", "it has already moved from here"));
                }
                _ => {}
            }
            state.was_running = state.run == RunState::Running;
            state.tuning = options.tuning;
            let total = state.memory_size;
            let progress = Progress { total, remaining: total, round: 1, ..Progress::default() };
            state.migration = Migration::Active(progress);
        }
        if options.is_stop_and_copy {
            self.0.enter(RunState::Paused);
            let pause = PauseSteps { stopped: Some(SystemTime::now()), ..PauseSteps::default() };
            self.0.report(false, |progress| progress.pause = pause);
        }
        self.0.tell(EngineEvent::Migration);
        let task = self.0.spawn(Arc::clone(&self.0).send_all(options, path));
        self.0.state().sending = Some(task);
        Ok(())
    }

    async fn migration(&self) -> Result<Migration, EngineError> {
        Ok(self.0.begin(None)?.migration.clone())
    }

    async fn retune(&self, tuning: Tuning) -> Result<(), EngineError> {
        self.0.begin(None)?.tuning = tuning;
        Ok(())
    }

    async fn cancel(&self) -> Result<Migration, EngineError> {
        let mut events = self.events();
        let is_stuck = {
            let state = self.0.begin(Some(Call::Cancel))?;
            matches!(state.migration, Migration::Switching(_))
                && *self.0.hang.borrow() == Some(Stage::Switching)
        };
        // Like the real one, it hears nothing while the last pages hang.
        while is_stuck && matches!(self.migration().await?, Migration::Switching(_)) {
            if events.recv().await.is_err() {
                return Err(self.0.gone());
            }
        }
        let sending = {
            let mut state = self.0.begin(None)?;
            let is_moving =
                matches!(state.migration, Migration::Active(_) | Migration::Switching(_));
            if is_moving { state.sending.take() } else { None }
        };
        if let Some(task) = sending {
            task.abort();
            self.0.end_sending(Migration::Cancelled);
        }
        self.migration().await
    }

    async fn announce(&self) -> Result<(), EngineError> {
        self.0.begin(Some(Call::Announce))?.announced += 1;
        Ok(())
    }
}
