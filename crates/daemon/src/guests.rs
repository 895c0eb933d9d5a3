// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The guests of this host: one task each, found by name, number or uuid.
//!
//! A guest that has moved away keeps its task, without papers: its ownership file answers what a
//! peer may still ask about the handoff, for ever.

mod denied;
mod door;
mod error;
mod lifecycle;
mod order;
mod papers;
mod task;
mod view;

pub(crate) use error::{GuestError, NOTHING_TO_RECOVER};
pub(crate) use lifecycle::{End, Held, tap_name};
pub(crate) use order::{GuestEvent, MigrationEvent, Order, Reply, Statement, Stop};
pub(crate) use papers::{Draft, Papers, parse_passport, parse_stored, writable_disks};
pub(crate) use task::GuestTask;
pub(crate) use view::{GuestView, Moving};

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot, watch};
use whimbrel_api::Problem;
use whimbrel_api::guest::GuestRef;
use whimbrel_handoff::ownership::Answer;
use whimbrel_model::id::{GuestId, GuestName, HostId};

/// Events that wait for a guest's task; more than this and who sends waits, too.
const EVENTS_WAITING_MAX: usize = 64;
/// How long the tasks of a daemon that has just started may take to say who owns their guests.
const SETTLED_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// What others hold of a guest: a way to send it events, and its last word about itself.
#[derive(Clone, Debug)]
pub(crate) struct GuestHandle {
    pub(crate) id: GuestId,
    events: mpsc::Sender<GuestEvent>,
    view: watch::Receiver<Arc<GuestView>>,
}

impl GuestHandle {
    pub(crate) fn view(&self) -> Arc<GuestView> {
        self.view.borrow().clone()
    }

    /// Gives an order and waits for what came of it.
    pub(crate) async fn order(&self, order: Order) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.send(GuestEvent::Order { order, reply: Reply::new(reply) }).await?;
        answer.await.map_err(|_| ended(self.id))?
    }

    pub(crate) async fn send(&self, event: GuestEvent) -> Result<(), Problem> {
        self.events.send(event).await.map_err(|_| ended(self.id))
    }
}

fn ended(id: GuestId) -> Problem {
    Problem::new(
        whimbrel_api::Kind::Failed,
        "guest/task-ended",
        format!("the daemon no longer looks after guest {id}"),
        "restart the daemon; the guest itself is not touched by that",
    )
}

/// All guests of this host.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    guests: Mutex<BTreeMap<GuestId, GuestHandle>>,
}

/// The two ends that a new task works with.
pub(crate) struct TaskEnds {
    pub(crate) events: mpsc::Receiver<GuestEvent>,
    pub(crate) view: watch::Sender<Arc<GuestView>>,
}

impl Registry {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<GuestId, GuestHandle>> {
        self.guests.lock().expect("nothing panics while it holds the registry")
    }

    /// Returns the guest's handle; for a guest that is new here, also the ends its task needs.
    /// Only one caller ever gets the ends.
    pub(crate) fn enter(&self, id: GuestId) -> (GuestHandle, Option<TaskEnds>) {
        let mut guests = self.lock();
        if let Some(known) = guests.get(&id) {
            return (known.clone(), None);
        }
        let (sender, events) = mpsc::channel(EVENTS_WAITING_MAX);
        let (view, watch) = watch::channel(Arc::new(GuestView::unknown(id)));
        let handle = GuestHandle { id, events: sender, view: watch };
        guests.insert(id, handle.clone());
        (handle, Some(TaskEnds { events, view }))
    }

    /// Forgets a guest whose task ends.
    pub(crate) fn leave(&self, id: GuestId) {
        self.lock().remove(&id);
    }

    pub(crate) fn get(&self, id: GuestId) -> Option<GuestHandle> {
        self.lock().get(&id).cloned()
    }

    /// Returns the guests that have papers here, by their number.
    pub(crate) fn list(&self) -> Vec<GuestHandle> {
        let mut known: Vec<_> = self
            .lock()
            .values()
            .filter_map(|guest| Some((guest.view().papers.as_ref()?.local_id, guest.clone())))
            .collect();
        known.sort_by_key(|(local_id, _)| *local_id);
        known.into_iter().map(|(_, guest)| guest).collect()
    }

    /// Returns the guests whose engines are this daemon's affair.
    pub(crate) fn held(&self) -> Vec<GuestId> {
        let guests = self.lock();
        guests.iter().filter(|(_, guest)| guest.view().is_held()).map(|(id, _)| *id).collect()
    }

    /// Waits until every guest's task has said who owns it, but not for ever: one in which nothing
    /// is certain says nothing.
    pub(crate) async fn settled(&self) {
        let guests: Vec<_> = self.lock().values().cloned().collect();
        let all = guests.into_iter().map(|mut guest| async move {
            // A task that has ended has nothing to say.
            let _ = guest.view.wait_for(|view| view.ownership.is_some()).await;
        });
        let _ = tokio::time::timeout(SETTLED_MAX, futures::future::join_all(all)).await;
    }

    /// Returns the guests that `host`, this one, believes to own.
    pub(crate) fn owned_by(&self, host: HostId) -> Vec<(GuestId, GuestHandle)> {
        let is_owned = |guest: &GuestHandle| {
            let answer = guest.view().ownership;
            matches!(answer, Some(Answer::Owner { owner, .. }) if owner == host)
        };
        let guests = self.lock();
        guests.iter().filter(|(_, g)| is_owned(g)).map(|(id, g)| (*id, g.clone())).collect()
    }

    /// Finds a guest as a person named it.
    pub(crate) fn find(&self, wanted: &GuestRef) -> Result<GuestHandle, Problem> {
        let matches = |view: &GuestView| match (wanted, &view.papers) {
            (GuestRef::Uuid(id), Some(_)) => view.id == *id,
            (GuestRef::Number(number), Some(papers)) => papers.local_id == *number,
            (GuestRef::Name(name), Some(papers)) => papers.guest.name == *name,
            (_, None) => false,
        };
        let found = self.list().into_iter().find(|guest| matches(&guest.view()));
        found.ok_or_else(|| Problem::guest_not_found(&wanted.to_string()))
    }

    pub(crate) fn named(&self, name: &GuestName) -> Option<GuestHandle> {
        self.find(&GuestRef::Name(name.clone())).ok()
    }
}
