// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! From nothing to a daemon that serves, and back. Guests are not touched by either.

use crate::backend::Front;
use crate::balloon;
use crate::blocks;
use crate::daemon::{ConfigFile, Daemon};
use crate::error::StartError;
use crate::guests::{GuestTask, Held, Papers};
use crate::http::{self, BindError, Caller, Socket};
use crate::migrate;
use crate::neighbours;
use crate::ownership::Ownership;
use crate::pages;
use crate::serve;
use crate::story::{About, from_unix_ms, line};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use whimbrel_api::Problem;
use whimbrel_api::log::{LogLine, LogPage, LogQuery};
use whimbrel_engine::Instance;
use whimbrel_handoff::ownership::{EngineView, State};
use whimbrel_handoff::record::Standing;
use whimbrel_host::dirs::Layout;
use whimbrel_host::store::{EventFilter, GuestRow, Tables};
use whimbrel_link::carrier::Control;
use whimbrel_model::config::PATH_DEFAULT;
use whimbrel_model::id::{GuestId, HandoffId};

whimbrel_model::codes! {
    ENGINE_SILENT = "engine/silent-at-start": "A daemon that was restarted found an engine that does not answer.";
}

/// The setting that remembers in which boot of the host guests were last started.
const BOOT_SETTING: &str = "boot";
/// How long an engine may take to answer a daemon that finds it, and how often it is asked.
const ATTACH_MAX: Duration = Duration::from_secs(5);
/// The same for one whose guest has not arrived: it may be ended, for the guest is elsewhere.
const RECEIVING_ATTACH_MAX: Duration = Duration::from_secs(2);
const ATTACH_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Runs the daemon until it is told to end. Guests go on.
///
/// A configuration that is named must be there; the one at the usual place need not be.
pub fn run(config: Option<&Path>) -> Result<(), Problem> {
    let config = match config {
        Some(path) => ConfigFile { path: path.to_owned(), is_required: true },
        None => ConfigFile { path: PATH_DEFAULT.into(), is_required: false },
    };
    let levels = tracing_subscriber::EnvFilter::try_from_env("WHIMBREL_LOG");
    tracing_subscriber::fmt()
        .with_env_filter(levels.unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|source| Problem::of(&StartError::Runtime { source }))?;
    runtime.block_on(live(&config))
}

/// Reads the log of a daemon that does not run.
pub fn stored_log(state_directory: &Path, query: &LogQuery) -> Result<LogPage, Problem> {
    let path = Layout::new(state_directory).store();
    let tables = Tables::open_read_only(&path).map_err(|error| Problem::of(&error))?;
    let filter = EventFilter {
        since: query.since_at_ms.map(from_unix_ms),
        limit: query.limit.and_then(|limit| usize::try_from(limit).ok()),
        ..EventFilter::default()
    };
    let rows = tables.events(&filter).map_err(|error| Problem::of(&error))?;
    let lines = rows.iter().map(line);
    let is_wanted = |found: &LogLine| query.guest.is_none() || found.guest == query.guest;
    Ok(LogPage { lines: lines.filter(is_wanted).collect(), hosts_silent: Vec::new() })
}

async fn live(config: &ConfigFile) -> Result<(), Problem> {
    let (daemon, arrivals) = Daemon::start(config).await?;
    let daemon = Arc::new(daemon);
    daemon.set_new_boot(note_boot(&daemon).await?);
    migrate::end_forgotten_proofs(&daemon).await?;
    daemon.open_port().await?;
    let (guests_are_known, are_known) = oneshot::channel();
    tokio::spawn(serve::serve(daemon.clone(), arrivals, are_known));
    take_up_guests(&daemon).await?;
    let _ = guests_are_known.send(());
    tokio::spawn(neighbours::watch(daemon.clone()));
    tokio::spawn(pages::watch(daemon.clone()));
    tokio::spawn(blocks::watch(daemon.clone()));
    tokio::spawn(balloon::watch(daemon.clone()));
    let path = daemon.api_socket();
    let socket = bind(&daemon, &path).map_err(|error| Problem::of(&error))?;
    daemon.story.info(&About::default(), "the daemon has started");
    notify("READY=1");
    let front = Arc::new(Front(daemon.clone()));
    http::serve(socket, front, told_to_end(daemon.clone())).await;
    daemon.story.info(&About::default(), "the daemon ends; guests go on");
    Ok(())
}

/// Opens the API's socket, for root alone where there is no group for it.
fn bind(daemon: &Daemon, path: &Path) -> Result<Socket, BindError> {
    // Only root can give the socket to a group; anybody else's daemon is for that user alone.
    let group = daemon.run_as().map(|_| daemon.config().api.group.clone());
    let socket = match Socket::bind(path, group.as_deref()) {
        Err(BindError::NoSuchGroup { group }) => {
            let text = format!("there is no group `{group}`, so only root may use the commands");
            daemon.story.warn(&About::default(), text);
            Socket::bind(path, None)
        }
        bound => bound,
    }?;
    Ok(socket.refusing(daemon.run_as().map(|user| user.uid)))
}

/// Returns when the daemon is told to end. Reads the configuration again whenever it is told to.
async fn told_to_end(daemon: Arc<Daemon>) {
    let signals = (SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt());
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) =
        (signal(signals.0), signal(signals.1), signal(signals.2))
    else {
        tracing::error!("signals cannot be heard, so only a kill ends the daemon");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(&daemon).await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    notify("STOPPING=1");
}

async fn reload(daemon: &Arc<Daemon>) {
    let root = Caller { uid: 0 };
    match crate::backend::reload(daemon.clone(), root).await {
        Ok(_) => {}
        Err(problem) => daemon.story.problem(&About::default(), &problem.into()),
    }
}

/// Tells the init system, if it listens.
fn notify(text: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| {
        match path.to_str().and_then(|path| path.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                socket.send_to_addr(text.as_bytes(), &address)
            }
            None => socket.send_to(text.as_bytes(), &path),
        }
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "the init system could not be told");
    }
}

/// Returns whether the host was booted since guests were last started by a daemon.
async fn note_boot(daemon: &Daemon) -> Result<bool, Problem> {
    let boot = uuid::Uuid::from_bytes(daemon.boot().0).to_string();
    let now = boot.clone();
    let noted = daemon.store.call(move |tables| {
        let before = tables.setting(BOOT_SETTING)?;
        tables.put_setting(BOOT_SETTING, &now)?;
        Ok(before)
    });
    let before = noted.await.map_err(|error| Problem::of(&error))?;
    Ok(before.as_ref() != Some(&boot))
}

/// Gives every guest that this host knows or remembers its task, and its engine back.
async fn take_up_guests(daemon: &Arc<Daemon>) -> Result<(), Problem> {
    let rows = daemon.store.call(|tables| tables.guests()).await;
    let rows = rows.map_err(|error| Problem::of(&error))?;
    let mut known: BTreeMap<GuestId, Option<GuestRow>> =
        rows.into_iter().map(|row| (row.guest, Some(row))).collect();
    for id in daemon.layout().guest_ids().map_err(|error| Problem::of(&error))? {
        known.entry(id).or_default();
    }
    let taking = known.into_iter().map(|(id, row)| take_up(daemon.clone(), id, row));
    let taken: Vec<_> = futures::future::join_all(taking).await.into_iter().flatten().collect();
    if taken.iter().all(|taken| !taken.is_mute) {
        let open = taken.iter().filter_map(|taken| taken.handoff).collect();
        end_forgotten_carriers(daemon.layout(), &open).await?;
    }
    Ok(())
}

/// Finds the engine that an earlier daemon left. One that lives and does not answer is asked again
/// for a while: to take it for dead could make two of it.
async fn find_engine(daemon: &Daemon, id: GuestId) -> Result<Option<Arc<dyn Instance>>, Problem> {
    let run = daemon.layout().guest(id).run();
    let standing = Ownership::peek(daemon, id);
    if let Some(Standing::Offering { handoff, .. }) = &standing {
        // It will be kept, and an engine that sends its last pages hears nothing until it is cut.
        let carrier = Control::new(&daemon.layout().carry(handoff.id));
        if let Err(error) = carrier.cut().await {
            tracing::warn!(%error, "a carrying process does not end");
        }
    }
    let is_receiving = matches!(standing, Some(Standing::Receiving { .. }));
    let patience = if is_receiving { RECEIVING_ATTACH_MAX } else { ATTACH_MAX };
    let mut problem = None;
    let found = tokio::time::timeout(patience, async {
        loop {
            match daemon.engine.attach(id, &run).await {
                Ok(found) => return found,
                Err(error) => problem = Some(Problem::of(&error)),
            }
            tokio::time::sleep(ATTACH_AGAIN_AFTER).await;
        }
    });
    if let Ok(found) = found.await {
        return Ok(found);
    }
    // QEMU waits for ever for the rest of a stream that broke in its last moments.
    let is_ended = is_receiving && daemon.engine.end_unused(id, &run).await.unwrap_or(false);
    if is_ended { Ok(None) } else { Err(problem.unwrap_or_else(silent)) }
}

fn silent() -> Problem {
    Problem::new(
        whimbrel_api::Kind::InDoubt,
        ENGINE_SILENT,
        "the engine lives, and does not answer",
        "look at the engine's process; once it answers or is gone, restart the daemon",
    )
}

/// A guest that has its task.
struct Taken {
    /// The handoff that is open.
    handoff: Option<HandoffId>,
    /// Its engine does not answer, so nothing was decided, and a handoff may be open.
    is_mute: bool,
}

/// Ends what carries a handoff that is over: its daemon died before it could.
async fn end_forgotten_carriers(
    layout: &Layout,
    open: &BTreeSet<HandoffId>,
) -> Result<(), Problem> {
    let places = layout.carry_ids().map_err(|error| Problem::of(&error))?;
    for handoff in places.into_iter().filter(|handoff| !open.contains(handoff)) {
        if let Err(error) = Control::new(&layout.carry(handoff)).cut().await {
            tracing::warn!(%error, "a carrying process does not end");
        }
        if let Err(error) = layout.remove_carry(handoff) {
            tracing::warn!(%error, "its place stays behind");
        }
    }
    Ok(())
}

async fn take_up(daemon: Arc<Daemon>, id: GuestId, row: Option<GuestRow>) -> Option<Taken> {
    let papers = match row.as_ref().map(Papers::from_row) {
        Some(Ok(papers)) => Some(papers),
        Some(Err(problem)) => {
            // Its ownership still answers for it.
            daemon.story.problem(&About::default(), &problem.into());
            None
        }
        None => None,
    };
    let (found, why) = match find_engine(&daemon, id).await {
        Ok(found) => (found, None),
        Err(problem) => {
            daemon.story.problem(&About::default(), &problem.clone().into());
            (None, Some(format!("it has an engine that cannot be spoken to: {}", problem.text)))
        }
    };
    let engine = match &found {
        None => EngineView::Gone,
        Some(instance) if instance.has_run() => EngineView::HasRun,
        Some(_) => EngineView::NeverRan,
    };
    let is_mute = why.is_some();
    let (ownership, effects) = match why {
        None => Ownership::open(&daemon, id, engine),
        Some(why) => (Ownership::open_mute(&daemon, id, why), Vec::new()),
    };
    let mut handoff = ownership.machine().handoff().map(|handoff| handoff.id);
    if let (None, Some(instance)) = (handoff, &found) {
        let half = crate::migrate::half_of(&daemon, id, &**instance).await;
        handoff = half.map(|config| config.handoff);
    }
    let is_elsewhere = matches!(ownership.machine().state, State::Elsewhere { .. });
    let (handle, ends) = daemon.guests.enter(id);
    let has_host_booted = daemon.is_new_boot();
    let mut task = GuestTask::new(daemon, handle, ends?, papers, ownership);
    task.has_host_booted = has_host_booted;
    if let Some(instance) = found {
        task.engine = Some(Held::found(&task, instance).await);
        task.has_held_engine = true;
    }
    if is_elsewhere && task.papers.is_some() {
        task.forget_papers().await;
    }
    tokio::spawn(task.begin(effects));
    Some(Taken { handoff, is_mute })
}
