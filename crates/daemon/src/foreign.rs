// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests that others have started with the engine's own tool (Xen's `xl`): they are listed and
//! shown, and nothing is done to them until somebody says `adopt`.
//!
//! To adopt is to define the guest, to pass the door as every start does, and then to make an
//! instance of what runs already. The engine's own record of the guest comes last and decides: a
//! daemon that dies before it leaves a guest of others that has papers here, and `adopt` can be
//! said again; after it the guest is found like any other.

use crate::backend::{define, detail_of};
use crate::daemon::Daemon;
use crate::guests::{GuestError, GuestHandle, Order, Papers};
use crate::http::Caller;
use std::collections::BTreeSet;
use std::sync::Arc;
use whimbrel_api::guest::{Created, GuestDetail, GuestRef, GuestSummary, Note, NoteLevel};
use whimbrel_api::{Kind, Problem};
use whimbrel_engine::Foreign;
use whimbrel_host::store::{Desired, NewGuest};
use whimbrel_model::guest::{Guest, file};
use whimbrel_model::id::HostName;
use whimbrel_model::problem::{self, Remedy};
use whimbrel_model::run_state::RunState;

whimbrel_model::codes! {
    NOT_OURS = "guest/not-ours": "The guest was started with the engine's own tool, and has not been adopted.";
    NO_XEN = "adopt/no-xen": "The engine of this host runs no guests but those that Whimbrel has started.";
}

/// Why nothing was done to a guest of others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum ForeignError {
    #[error("guest `{guest}` was started with `{tool}`, and not by Whimbrel")]
    NotOurs { guest: String, tool: &'static str },
    #[error("guest `{guest}` cannot be adopted: this host's engine is {engine}, not Xen")]
    NoXen { guest: String, engine: &'static str },
}

impl Remedy for ForeignError {
    fn code(&self) -> &'static str {
        match self {
            ForeignError::NotOurs { .. } => NOT_OURS,
            ForeignError::NoXen { .. } => NO_XEN,
        }
    }

    fn kind(&self) -> problem::Kind {
        problem::Kind::Refused
    }

    fn remedy(&self) -> String {
        match self {
            ForeignError::NotOurs { guest, tool } => {
                format!("take it over with `whimbrel adopt {guest}`, or use `{tool}` for it")
            }
            ForeignError::NoXen { .. } => {
                "define it from its file: `whimbrel create FILE`".to_owned()
            }
        }
    }
}

/// Returns the guests of this host that no task of ours holds.
pub(crate) async fn list(daemon: &Daemon) -> Vec<Foreign> {
    let ours: BTreeSet<_> = daemon.guests.held().into_iter().collect();
    match daemon.engine.foreign(&ours).await {
        Ok(foreign) => foreign,
        Err(error) => {
            // Our own are shown all the same.
            tracing::warn!(%error, "guests that others have started cannot be listed");
            Vec::new()
        }
    }
}

async fn find(daemon: &Daemon, wanted: &GuestRef) -> Option<Foreign> {
    list(daemon).await.into_iter().find(|foreign| match wanted {
        GuestRef::Uuid(id) => foreign.id == *id,
        GuestRef::Name(name) => foreign.name == name.as_str(),
        // Numbers are those of our guests.
        GuestRef::Number(_) => false,
    })
}

/// Finds a guest of ours; of one of others it says how it becomes ours.
pub(crate) async fn ours(daemon: &Daemon, wanted: &GuestRef) -> Result<GuestHandle, Problem> {
    let missing = match daemon.guests.find(wanted) {
        Ok(handle) => return Ok(handle),
        Err(missing) => missing,
    };
    match find(daemon, wanted).await {
        Some(foreign) => Err(not_ours(daemon, &foreign)),
        None => Err(missing),
    }
}

fn not_ours(daemon: &Daemon, foreign: &Foreign) -> Problem {
    let tool = daemon.engine.foreign_tool().unwrap_or_default();
    Problem::of(&ForeignError::NotOurs { guest: foreign.name.clone(), tool })
}

pub(crate) fn summary(foreign: &Foreign, host: &HostName) -> GuestSummary {
    GuestSummary {
        uuid: foreign.id.to_string(),
        id: None,
        name: foreign.name.clone(),
        state: foreign.run.into(),
        host: host.to_string(),
        memory_bytes: foreign.memory.0,
        cpu_count: foreign.cpu_count,
        cpu_time_ms: u64::try_from(foreign.cpu_time.as_millis()).unwrap_or(u64::MAX),
        is_transient: false,
        is_autostarted: false,
        is_foreign: true,
        moving_with: None,
    }
}

/// Shows a guest of others as it would be defined, and what keeps it from that.
pub(crate) async fn detail(daemon: &Daemon, wanted: &GuestRef) -> Option<GuestDetail> {
    let foreign = find(daemon, wanted).await?;
    let problem = not_ours(daemon, &foreign);
    let (guest, remark) = match daemon.engine.describe(&foreign).await {
        Ok(described) => (Some(described.guest), format!("{}: {}", problem.text, problem.remedy)),
        Err(error) => (None, format!("{}, and cannot be adopted: {error}", problem.text)),
    };
    Some(detail_of(summary(&foreign, &daemon.name), guest.as_ref(), remark))
}

/// Makes a guest of others ours, while it runs.
pub(crate) async fn adopt(
    daemon: Arc<Daemon>,
    caller: Caller,
    wanted: GuestRef,
) -> Result<Created, Problem> {
    let name = wanted.to_string();
    if daemon.engine.foreign_tool().is_none() {
        let engine = crate::backend::engine_name(daemon.engine.kind());
        return Err(Problem::of(&ForeignError::NoXen { guest: name, engine }));
    }
    let Some(foreign) = find(&daemon, &wanted).await else {
        let state = daemon.guests.find(&wanted)?.view().state;
        let instead = format!("it is a guest of Whimbrel already: `whimbrel show {name}`");
        return Err(GuestError::NotNow { guest: name, state, action: "adopted", instead }.into());
    };
    must_be_alive(&foreign)?;
    let described = daemon.engine.describe(&foreign).await;
    let described = described.map_err(|error| Problem::of(&error))?;
    disks_must_be_free(&daemon, &described.guest)?;
    let passport = daemon.engine.freeze(foreign.id, &described.guest).await;
    let passport = passport.map_err(|error| Problem::of(&error))?;

    let known = daemon.guests.get(foreign.id).filter(|known| known.view().papers.is_some());
    let is_new = known.is_none();
    let handle = match known {
        Some(handle) => handle,
        None => define(&daemon, &described.guest.name, row(&foreign, &described.guest)).await?,
    };
    let view = handle.view();
    let known = view.papers.as_ref().ok_or_else(|| Problem::guest_not_found(&name))?;
    let papers =
        Papers { guest: described.guest, passport: Some(passport), ..Papers::clone(known) };
    if let Err(problem) = handle.order(Order::Adopt { caller, papers: Box::new(papers) }).await {
        if is_new && problem.kind != Kind::InDoubt {
            handle.order(Order::Remove { caller }).await?;
        }
        return Err(problem);
    }
    let guest = handle.view().summary(&daemon.name).await;
    let guest = guest.ok_or_else(|| Problem::guest_not_found(&name))?;
    let notes = described.notes.into_iter().map(|text| Note { level: NoteLevel::Note, text });
    Ok(Created { guest, notes: notes.collect() })
}

fn must_be_alive(foreign: &Foreign) -> Result<(), Problem> {
    match foreign.run {
        RunState::Running | RunState::Paused => Ok(()),
        RunState::Suspended | RunState::ShutDown | RunState::Panicked | RunState::IoError => {
            let guest = foreign.name.clone();
            let instead = "only a guest that runs or is paused can be taken over".to_owned();
            let state = foreign.run.into();
            Err(GuestError::NotNow { guest, state, action: "adopted", instead }.into())
        }
    }
}

/// Refuses a guest that writes to a disk of one of ours. What lies beside the disks is asked at the
/// door; a block device has nothing beside it.
fn disks_must_be_free(daemon: &Daemon, guest: &Guest) -> Result<(), Problem> {
    let wanted: Vec<_> = crate::guests::writable_disks(guest).collect();
    for other in daemon.guests.list() {
        let view = other.view();
        let Some(papers) = view.papers.as_ref().filter(|_| guest.id != Some(other.id)) else {
            continue;
        };
        if papers.writable_disks().any(|disk| wanted.contains(&disk)) {
            return Err(GuestError::DiskOfOther {
                guest: guest.name.to_string(),
                other: papers.guest.name.to_string(),
                hosts: daemon.name.to_string(),
            }
            .into());
        }
    }
    Ok(())
}

/// What the store keeps of it until it is ours. It runs, and that is not our wish yet.
fn row(foreign: &Foreign, guest: &Guest) -> NewGuest {
    NewGuest {
        guest: foreign.id,
        name: guest.name.to_string(),
        definition: file::render(guest),
        passport: None,
        autostart: guest.autostart,
        transient: false,
        desired: Desired::Stopped,
    }
}
