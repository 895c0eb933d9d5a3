// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One guest in one domain.
//!
//! The domain is found by the guest's own uuid, whatever its number and name are just now: while a
//! guest moves, xl calls it `NAME--incoming` and `NAME--migratedaway`.

use super::header::{OFFERED, Offered};
use super::hotplug::{self, Plugged};
use super::pipe::{self, BACK, CANCEL, GO, GONE, STATUS, Travelled, WAIT};
use super::record::{Moving, Record};
use super::store::Store;
use super::xl::{self, Domain, Reason};
use super::{config, console, hindrances, loops, monitor};
use crate::contract::{
    Adopt, ChannelEnd, EngineEvent, Instance, Launch, Migration, MigrationOptions, PauseSteps,
    Process, Progress, Start, Tuning,
};
use crate::error::EngineError;
use crate::qemu::process::Pinned;
use async_trait::async_trait;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use whimbrel_model::guest::Guest;
use whimbrel_model::id::GuestId;
use whimbrel_model::passport::Passport;
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

/// Events kept for a subscriber that is slow.
const EVENTS_KEPT_MAX: usize = 256;
/// How long a domain may take to be gone, or to run again, once xl was told.
const DOMAIN_WAIT_MAX: Duration = Duration::from_secs(90);
/// Longest answer of the pipe.
const ANSWER_BYTES_MAX: u64 = 4096;
const LOG: &str = "xl.log";
const CONFIG: &str = "xl.cfg";

pub(super) struct XenInstance {
    id: GuestId,
    directory: PathBuf,
    memory: Mutex<Bytes>,
    record: Mutex<Record>,
    /// The task beside us holds the sender, so that the channel closes with it.
    events: broadcast::WeakSender<EngineEvent>,
    /// Somebody waits for the word that the guest has arrived.
    is_awaited: Arc<AtomicBool>,
    /// One domain is ended and another made for the same guest: that there is none is no news.
    is_between: AtomicBool,
    /// When a guest that is leaving has stopped.
    stopped: Mutex<Option<SystemTime>>,
}

/// How the process that moves the guest answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Travelling(Travelled),
    Arrived(Travelled),
    Settled(Travelled),
    Failed(String),
    /// What came is not what was offered.
    Foreign(String),
    /// There is none to answer.
    Silent,
}

impl XenInstance {
    pub(super) async fn launch(launch: Launch, plugs_in: bool) -> Result<Arc<Self>, EngineError> {
        let name = launch.guest.name.to_string();
        let plugged = plugged(&launch.guest, plugs_in)?;
        let Launch { guest, passport, directory, .. } = &launch;
        let path = write_config(guest, passport, &plugged, directory)?;
        let has_run = launch.start == Start::Boot;
        let mut record =
            Record { id: launch.passport.guest, name: name.clone(), has_run, moving: None };
        record.write(&launch.directory)?;
        let begun = match launch.start {
            Start::Boot => create(&name, record.id, &path).await,
            Start::Incoming => {
                let (guest, passport) = (&launch.guest, &launch.passport);
                Offered::write(guest, passport, &plugged, &launch.directory)?;
                let receiving = receive(&launch).await;
                receiving.map(|process| {
                    record.moving = Some(Moving { process, is_leaving: false });
                })
            }
        };
        if let Err(error) = begun.and_then(|()| record.write(&launch.directory)) {
            Record::remove(&launch.directory)?;
            return Err(error);
        }
        Self::open(record, &launch.directory, launch.passport.memory).await
    }

    /// Makes a guest of a domain that others have started, and does not touch the domain.
    pub(super) async fn adopt(adopt: Adopt) -> Result<Arc<Self>, EngineError> {
        let Adopt { guest, passport, directory } = adopt;
        let name = guest.name.to_string();
        if xl::find(&name, passport.guest).await?.is_none() {
            return Err(EngineError::Gone { guest: name, last_words: None });
        }
        write_config(&guest, &passport, &Plugged::default(), &directory)?;
        let record = Record { id: passport.guest, name: name.clone(), has_run: true, moving: None };
        // Once this is written it is ours, whoever dies.
        record.write(&directory)?;
        let opened = async {
            let opened = Self::open(record, &directory, passport.memory).await?;
            // Last: without it nobody but us sees to what follows the guest's end.
            monitor::end(&name).await.map(|()| opened)
        };
        let opened = opened.await;
        if opened.is_err() {
            Record::remove(&directory)?;
        }
        opened
    }

    pub(super) async fn attach(
        id: GuestId,
        directory: &Path,
    ) -> Result<Option<Arc<Self>>, EngineError> {
        let Some(record) = Record::read(directory)? else { return Ok(None) };
        if record.id != id {
            let reason = format!("the record is of guest {}, not of {id}", record.id);
            return Err(refused(&record.name, "attach", reason));
        }
        let is_moving = record.moving.is_some_and(|moving| held(moving.process).is_some());
        if !is_moving && xl::find(&record.name, id).await?.is_none() {
            return Ok(None);
        }
        // The daemon may have died just when it had adopted the guest.
        monitor::end(&record.name).await?;
        Self::open(record, directory, Bytes(0)).await.map(Some)
    }

    async fn open(
        record: Record,
        directory: &Path,
        memory: Bytes,
    ) -> Result<Arc<Self>, EngineError> {
        let store = Store::open().await.map_err(store_failed)?;
        let ends = store.watch_ends().await.map_err(store_failed)?;
        let (events, _) = broadcast::channel(EVENTS_KEPT_MAX);
        let instance = Arc::new(XenInstance {
            id: record.id,
            directory: directory.to_owned(),
            memory: Mutex::new(memory),
            record: Mutex::new(record),
            events: events.downgrade(),
            is_awaited: Arc::default(),
            is_between: AtomicBool::new(false),
            stopped: Mutex::default(),
        });
        console::serve(Arc::downgrade(&instance), &directory.join(console::SOCKET))?;
        tokio::spawn(listen(Arc::downgrade(&instance), ends, events));
        Ok(instance)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        self.record().name.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), EngineError> {
        let mut record = self.record();
        let mut changed = record.clone();
        change(&mut changed);
        changed.write(&self.directory)?;
        *record = changed;
        Ok(())
    }

    async fn find(&self) -> Result<Option<Domain>, EngineError> {
        xl::find(&self.name(), self.id).await
    }

    async fn domain(&self) -> Result<Domain, EngineError> {
        let gone = || EngineError::Gone { guest: self.name(), last_words: None };
        self.find().await?.ok_or_else(gone)
    }

    /// The number that this guest's domain has now.
    pub(super) async fn number(&self) -> Result<u32, EngineError> {
        Ok(self.domain().await?.number)
    }

    async fn xl(&self, word: &str) -> Result<(), EngineError> {
        let number = self.number().await?.to_string();
        xl::run(&self.name(), &[word, &number]).await.map(drop)
    }

    /// Says a word to the process that moves the guest.
    async fn tell(&self, word: &str) -> Answer {
        tell(&self.directory, word).await
    }

    /// Has it told to whoever listens when what travels has arrived, or will not: a daemon that
    /// looks more often than that takes the processor from what it looks at.
    fn await_arrival(&self) {
        if self.is_awaited.swap(true, Ordering::Relaxed) {
            return;
        }
        let (directory, events) = (self.directory.clone(), self.events.clone());
        let is_awaited = Arc::clone(&self.is_awaited);
        tokio::spawn(async move {
            tell(&directory, WAIT).await;
            is_awaited.store(false, Ordering::Relaxed);
            if let Some(events) = events.upgrade() {
                let _ = events.send(EngineEvent::Migration);
            }
        });
    }

    fn moving(&self) -> Option<Moving> {
        self.record().moving
    }

    /// Waits until the process that moved the guest is gone, and forgets it.
    async fn moved(&self) -> Result<(), EngineError> {
        if let Some(moving) = self.moving() {
            if let Some(pinned) = held(moving.process) {
                let waited = tokio::time::timeout(DOMAIN_WAIT_MAX, pinned.gone()).await;
                waited.map_err(|_| EngineError::Silent {
                    guest: self.name(),
                    command: "xl migrate".to_owned(),
                    seconds: DOMAIN_WAIT_MAX.as_secs(),
                })?;
            }
            self.change(|record| record.moving = None)?;
        }
        *self.stopped() = None;
        Ok(())
    }

    /// The guest stands still, to be moved.
    fn note_stopped(&self, at: SystemTime) {
        if self.moving().is_some_and(|moving| moving.is_leaving) {
            self.stopped().get_or_insert(at);
            self.say(EngineEvent::Migration);
        }
    }

    fn stopped(&self) -> MutexGuard<'_, Option<SystemTime>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, it: Travelled) -> Progress {
        let total = *self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        // Of later passes libxc does not say what they begin with.
        let expected = if it.round <= 1 { total.0 } else { it.round_expected };
        Progress {
            transferred: Bytes(it.bytes),
            remaining: Bytes(expected.saturating_sub(it.round_bytes)),
            total,
            round: it.round.max(1),
            rate: Bytes(it.rate),
            dirty_rate: Bytes(it.dirty_rate),
            pause: PauseSteps { stopped: *self.stopped(), ..PauseSteps::default() },
            ..Progress::default()
        }
    }

    fn completed(&self, it: Travelled) -> Migration {
        Migration::Completed(Progress { remaining: Bytes(0), ..self.progress(it) })
    }

    /// The guest is here, and stands still: it may be had, if its disks are what they were there.
    async fn arrived(&self, it: Travelled) -> Migration {
        match loops::go_past_cache(self.id).await {
            Ok(()) => self.completed(it),
            Err(reason) => Migration::Failed { reason },
        }
    }

    /// Lets a guest run that has arrived here.
    async fn go(&self) -> Result<(), EngineError> {
        match self.tell(GO).await {
            Answer::Settled(_) => self.moved().await,
            // It has started the guest, and a daemon before us has not heard it.
            Answer::Silent => match self.domain().await? {
                Domain { is_paused: false, ended: None, .. } => Ok(()),
                _ => Err(refused(&self.name(), "xl migrate-receive", "it is gone".to_owned())),
            },
            Answer::Failed(reason) => Err(refused(&self.name(), "xl migrate-receive", reason)),
            other => {
                let reason = format!("the guest is not there yet: {other:?}");
                Err(refused(&self.name(), "xl migrate-receive", reason))
            }
        }
    }

    /// Starts the guest anew in another domain, as it wished.
    async fn start_again(&self) -> Result<(), EngineError> {
        self.is_between.store(true, Ordering::Relaxed);
        let made = async {
            self.end_domain().await?;
            create(&self.name(), self.id, &self.directory.join(CONFIG)).await?;
            self.xl("unpause").await
        };
        let made = made.await;
        self.is_between.store(false, Ordering::Relaxed);
        made
    }

    async fn end_domain(&self) -> Result<(), EngineError> {
        let deadline = Instant::now() + DOMAIN_WAIT_MAX;
        while let Some(domain) = self.find().await? {
            let ended = xl::run(&self.name(), &["destroy", &domain.number.to_string()]).await;
            if let Err(error) = ended
                && Instant::now() > deadline
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

pub(super) fn store_failed(source: std::io::Error) -> EngineError {
    let path = PathBuf::from("/run/xenstored/socket");
    EngineError::File { action: "watch domains over", path, source }
}

/// Says a word to the process that moves the guest of a directory.
async fn tell(directory: &Path, word: &str) -> Answer {
    let asked = async {
        let mut stream = UnixStream::connect(directory.join(pipe::CONTROL)).await?;
        stream.write_all(format!("{word}\n").as_bytes()).await?;
        let mut text = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let Ok(text) = asked.await else { return Answer::Silent };
    let (kind, rest) = text.trim_end().split_once(' ').unwrap_or((text.trim_end(), ""));
    let figures = || Travelled::parse(rest);
    match kind {
        "travelling" => Answer::Travelling(figures()),
        "arrived" => Answer::Arrived(figures()),
        "settled" => Answer::Settled(figures()),
        "failed" => Answer::Failed(rest.to_owned()),
        "foreign" => Answer::Foreign(rest.to_owned()),
        _ => Answer::Silent,
    }
}

/// Writes the file that the guest is started from, and returns its path.
fn write_config(
    guest: &Guest,
    passport: &Passport,
    plugged: &Plugged,
    directory: &Path,
) -> Result<PathBuf, EngineError> {
    let text = config::text(guest, passport, plugged)?;
    let path = directory.join(CONFIG);
    match std::fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(EngineError::File { action: "write", path, source }),
    }
}

/// Says which devices this program plugs in, and sees to it that it is found.
fn plugged(guest: &Guest, plugs_in: bool) -> Result<Plugged, EngineError> {
    if !plugs_in {
        return Ok(Plugged::default());
    }
    hotplug::make_link()?;
    Ok(Plugged::of(guest))
}

/// Creates a domain, paused.
async fn create(name: &str, id: GuestId, config: &Path) -> Result<(), EngineError> {
    let path = config.to_string_lossy();
    let made = xl::run(name, &["create", "-q", "-p", "-e", &path]).await;
    made.map_err(|error| with_words_of_qemu(error, name))?;
    if let Err(reason) = loops::go_past_cache(id).await {
        tracing::warn!(name, reason, "it will not move");
    }
    Ok(())
}

/// Of a whole machine whose QEMU has not started xl only says that; why is in QEMU's own log.
fn with_words_of_qemu(mut error: EngineError, name: &str) -> EngineError {
    if let EngineError::Refused { reason, .. } = &mut error
        && reason.contains("device model")
        && let Ok(said) = std::fs::read_to_string(format!("/var/log/xen/qemu-dm-{name}.log"))
    {
        reason.push_str("; QEMU says: ");
        reason.push_str(said.trim_end().lines().next_back().unwrap_or("nothing"));
    }
    error
}

fn refused(guest: &str, command: &str, reason: String) -> EngineError {
    EngineError::Refused { guest: guest.to_owned(), command: command.to_owned(), reason }
}

/// Takes hold of a process, if it still is that one.
fn held(process: Process) -> Option<Pinned> {
    Pinned::open(process.pid).ok().flatten().filter(|found| found.process() == process)
}

fn own_program() -> OsString {
    // Not by its name: an upgrade may have put another version there, or nothing yet.
    std::fs::read_link("/proc/self/exe").map_or("whimbrel".into(), PathBuf::into_os_string)
}

fn log(directory: &Path) -> Result<std::fs::File, EngineError> {
    let path = directory.join(LOG);
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    opened.map_err(|source| EngineError::File { action: "write", path, source })
}

/// Starts what receives a guest; returns once it listens.
async fn receive(launch: &Launch) -> Result<Process, EngineError> {
    let program = own_program();
    let words = launch.wrapper.iter().cloned().chain(["setsid".into(), program.clone()]);
    let mut words = words;
    let failed =
        |source| EngineError::File { action: "run", path: PathBuf::from(&program), source };
    let mut command = tokio::process::Command::new(words.next().expect("`setsid` is there"));
    command.args(words).args(["xl-pipe", "receive"]).arg(&launch.directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log(&launch.directory)?);
    let mut child = command.spawn().map_err(failed)?;
    let output = child.stdout.take().expect("it was asked for");
    let mut line = String::new();
    let _ = BufReader::new(output).read_line(&mut line).await;
    let pinned = child.id().and_then(|pid| Pinned::open(pid).ok().flatten());
    match pinned {
        Some(pinned) if line.starts_with("listening") => {
            tokio::spawn(async move { child.wait().await });
            Ok(pinned.process())
        }
        _ => {
            let _ = child.kill().await;
            let guest = launch.guest.name.to_string();
            let reason = format!("read `{}`", launch.directory.join(LOG).display());
            Err(EngineError::Start { program: "xl migrate-receive".to_owned(), guest, reason })
        }
    }
}

/// The task beside an instance: looks whenever a domain ends.
async fn listen(
    instance: Weak<XenInstance>,
    mut ends: super::store::Changes,
    told: broadcast::Sender<EngineEvent>,
) {
    let mut said = None;
    let mut has_been = false;
    while ends.next().await.is_ok() {
        let Some(instance) = instance.upgrade() else { return };
        let heard = SystemTime::now();
        let was_between = instance.is_between.load(Ordering::Relaxed);
        let found = match instance.find().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a domain cannot be looked at");
                continue;
            }
        };
        let is_moving = instance.moving().is_some_and(|moving| held(moving.process).is_some());
        let Some(domain) = found else {
            let is_between = was_between || instance.is_between.load(Ordering::Relaxed);
            // It is still on its way here, or made anew.
            if is_between || (is_moving && !has_been) {
                continue;
            }
            let _ = told.send(EngineEvent::Gone);
            return;
        };
        has_been = true;
        if domain.ended == Some(Reason::Suspend) {
            // It may go on, of which nothing is heard, and stop again.
            instance.note_stopped(heard);
            said = None;
            continue;
        }
        if std::mem::replace(&mut said, domain.ended) == domain.ended {
            continue;
        }
        match domain.ended {
            Some(Reason::PowerOff) => drop(told.send(EngineEvent::ShutDown)),
            Some(Reason::Crash) => drop(told.send(EngineEvent::Panicked)),
            Some(Reason::Reboot) => match instance.start_again().await {
                Ok(()) => {
                    said = None;
                    let _ = told.send(EngineEvent::Reset);
                }
                Err(error) => {
                    tracing::warn!(%error, "a guest could not be started again");
                    let _ = told.send(EngineEvent::Gone);
                    return;
                }
            },
            Some(Reason::Suspend) | None => {}
        }
    }
}

#[async_trait]
impl Instance for XenInstance {
    fn process(&self) -> Process {
        // A domain is no process; no process has this pid.
        Process { pid: 0, start_ticks: 0 }
    }

    fn has_run(&self) -> bool {
        self.record().has_run
    }

    async fn run_state(&self) -> Result<RunState, EngineError> {
        // While its memory travels it is asked often, and `xl` is slow.
        if self.moving().is_some_and(|moving| moving.is_leaving)
            && let Answer::Travelling(_) = self.tell(STATUS).await
        {
            let has_stopped = self.stopped().is_some();
            return Ok(if has_stopped { RunState::Paused } else { RunState::Running });
        }
        let domain = match self.find().await? {
            Some(domain) => domain,
            None if self.moving().is_some() => return Ok(RunState::Paused),
            None => return Err(EngineError::Gone { guest: self.name(), last_words: None }),
        };
        Ok(domain.run())
    }

    async fn pause(&self) -> Result<(), EngineError> {
        if !self.domain().await?.is_paused {
            self.xl("pause").await?;
            self.say(EngineEvent::Stopped);
        }
        Ok(())
    }

    async fn resume(&self) -> Result<(), EngineError> {
        if !self.has_run() {
            self.change(|record| record.has_run = true)?;
        }
        match self.moving() {
            Some(Moving { is_leaving: false, .. }) => self.go().await?,
            Some(Moving { is_leaving: true, .. }) => {
                self.tell(BACK).await;
                self.moved().await?;
                if self.domain().await?.ended.is_some() {
                    let reason = last_words(&self.directory);
                    return Err(refused(&self.name(), "xl migrate", reason));
                }
            }
            None if self.domain().await?.is_paused => self.xl("unpause").await?,
            // It runs already, which is no news.
            None => return Ok(()),
        }
        self.say(EngineEvent::Resumed);
        Ok(())
    }

    async fn power_down(&self) -> Result<(), EngineError> {
        self.xl("shutdown").await
    }

    async fn reset(&self) -> Result<(), EngineError> {
        let made = self.start_again().await;
        self.say(if made.is_ok() { EngineEvent::Reset } else { EngineEvent::Gone });
        made
    }

    async fn destroy(&self) -> Result<(), EngineError> {
        match self.moving() {
            // The source's copy ends because the guest is elsewhere; else xl would let it run on.
            Some(Moving { is_leaving: true, .. }) => drop(self.tell(GONE).await),
            Some(Moving { is_leaving: false, .. }) => drop(self.tell(CANCEL).await),
            None => {}
        }
        self.moved().await?;
        self.end_domain().await?;
        Record::remove(&self.directory)?;
        for file in [console::SOCKET, CONFIG, OFFERED, pipe::CONTROL, pipe::CHANNEL] {
            let _ = std::fs::remove_file(self.directory.join(file));
        }
        Ok(())
    }

    fn events(&self) -> broadcast::Receiver<EngineEvent> {
        match self.events.upgrade() {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    fn console(&self) -> Option<PathBuf> {
        Some(self.directory.join(console::SOCKET))
    }

    async fn cpu_time(&self) -> Result<Duration, EngineError> {
        Ok(self.domain().await?.cpu_time)
    }

    async fn dirty_rate(&self) -> Result<Option<Bytes>, EngineError> {
        Ok(None)
    }

    async fn hindrances(&self) -> Result<Vec<String>, EngineError> {
        let number = self.number().await?;
        let asked = tokio::task::spawn_blocking(move || hindrances::of(number)).await;
        asked.expect("asking does not panic").map_err(|source| EngineError::File {
            action: "ask",
            path: PathBuf::from("/run/xenstored/socket"),
            source,
        })
    }

    async fn set_memory_target(&self, target: Bytes) -> Result<(), EngineError> {
        let number = self.number().await?.to_string();
        let size = format!("{}k", target.0 >> 10);
        xl::run(&self.name(), &["mem-set", &number, &size]).await.map(drop)
    }

    async fn receive(&self, _options: MigrationOptions) -> Result<ChannelEnd, EngineError> {
        // It has listened since the launch.
        Ok(ChannelEnd::Listen(self.directory.join(pipe::CHANNEL)))
    }

    async fn send(
        &self,
        options: MigrationOptions,
        channels: ChannelEnd,
    ) -> Result<(), EngineError> {
        let ChannelEnd::Connect(_) = channels else {
            let what = "sending to whoever connects".to_owned();
            return Err(EngineError::Unsupported { what });
        };
        let domain = self.domain().await?;
        *self.stopped() = None;
        if domain.is_paused {
            // It makes itself ready to be moved, and cannot while it stands still.
            let what =
                "moving a paused guest on Xen: let it run first (`whimbrel unpause`)".to_owned();
            return Err(EngineError::Unsupported { what });
        }
        let _ = std::fs::remove_file(self.directory.join(pipe::CONTROL));
        // What an earlier attempt ended with is no reason of this one.
        let _ = std::fs::remove_file(self.directory.join(LOG));
        let program = own_program();
        let mut command = std::process::Command::new("setsid");
        if options.is_stop_and_copy {
            command.arg(program).args(["xl-pipe", "save"]).arg(&self.directory);
        } else {
            let directory = self.directory.display();
            let line = format!("exec '{}' xl-pipe send '{directory}'", program.to_string_lossy());
            command.args(["xl", "migrate", "-s", "", &domain.number.to_string(), &line]);
        }
        let (said, complained) = (log(&self.directory)?, log(&self.directory)?);
        command.stdin(Stdio::null()).stdout(said).stderr(complained);
        let failed = |source| EngineError::File { action: "run", path: "xl".into(), source };
        let pinned = Pinned::adopt(command.spawn().map_err(failed)?).map_err(failed)?;
        let process = pinned.process();
        tokio::spawn(async move { pinned.gone().await });
        self.change(|record| record.moving = Some(Moving { process, is_leaving: true }))
    }

    async fn migration(&self) -> Result<Migration, EngineError> {
        let Some(moving) = self.moving() else { return Ok(Migration::None) };
        // Asked first: what ends between the two questions has answered the second.
        let is_alive = held(moving.process).is_some();
        Ok(match self.tell(STATUS).await {
            Answer::Travelling(it) => {
                self.await_arrival();
                let progress = self.progress(it);
                match progress.pause.stopped {
                    Some(_) => Migration::Switching(progress),
                    None => Migration::Active(progress),
                }
            }
            Answer::Arrived(it) if !moving.is_leaving => self.arrived(it).await,
            Answer::Arrived(it) | Answer::Settled(it) => self.completed(it),
            Answer::Failed(reason) => Migration::Failed { reason },
            Answer::Foreign(what) => Migration::NotAsOffered { what },
            Answer::Silent if is_alive => Migration::Active(self.progress(Travelled::default())),
            Answer::Silent => Migration::Failed { reason: last_words(&self.directory) },
        })
    }

    async fn retune(&self, _tuning: Tuning) -> Result<(), EngineError> {
        // What a round is and when the guest is stopped is fixed in libxl.
        Ok(())
    }

    async fn cancel(&self) -> Result<Migration, EngineError> {
        match self.tell(CANCEL).await {
            Answer::Arrived(it) | Answer::Settled(it) => return Ok(self.completed(it)),
            Answer::Travelling(_) | Answer::Failed(_) | Answer::Foreign(_) | Answer::Silent => {}
        }
        // xl lets the guest run on, and ends.
        self.moved().await?;
        Ok(Migration::Cancelled)
    }

    async fn announce(&self) -> Result<(), EngineError> {
        // The guest's own driver does, when it is connected again.
        Ok(())
    }
}

impl XenInstance {
    fn say(&self, event: EngineEvent) {
        if let Some(events) = self.events.upgrade() {
            let _ = events.send(event);
        }
    }
}

fn last_words(directory: &Path) -> String {
    let said = std::fs::read_to_string(directory.join(LOG)).unwrap_or_default();
    xl::reason(&said).to_owned()
}
