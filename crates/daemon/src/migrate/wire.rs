// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The conversation with the peer about one handoff: made, read, made again.
//!
//! Either side may dial. Up to the commit point the source does at once and gives up after
//! [`LINK_LOST_MAX`](super::LINK_LOST_MAX); past it both go on for as long as the handoff is open.

use crate::daemon::Daemon;
use crate::guests::{GuestEvent, GuestHandle, GuestTask, MigrationEvent};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use whimbrel_api::Problem;
use whimbrel_handoff::effect::Event;
use whimbrel_link::conn::{HandoffSender, HandoffStream};
use whimbrel_link::wire::{HandoffFrame, Offer, Opening};
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};

/// The first wait before dialling again, doubled each time up to the longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Numbers conversations, so that the end of an old one is not taken for the end of a new one.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A conversation that nobody reads yet. It is read once the guest's task has taken note of it, so
/// that no message comes before what it is about.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) peer: HostId,
    /// What it is about.
    pub(crate) handoff: HandoffId,
    pub(crate) stream: HandoffStream,
}

/// One conversation. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) id: u64,
    pub(crate) peer: HostId,
    sender: HandoffSender,
    reader: AbortHandle,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Wire {
    /// Begins to read: what arrives becomes events of the guest's task.
    pub(crate) fn begin(guest: GuestHandle, call: Call) -> Self {
        let Call { peer, stream, .. } = call;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let sender = stream.sender();
        let reader = tokio::spawn(read(guest, peer, id, stream)).abort_handle();
        Self { id, peer, sender, reader }
    }

    pub(crate) fn sender(&self) -> HandoffSender {
        self.sender.clone()
    }
}

async fn read(guest: GuestHandle, peer: HostId, id: u64, mut stream: HandoffStream) {
    let mut problem = None;
    loop {
        let event = match stream.recv().await {
            // The reason comes before the message that ends the attempt.
            Ok(Some(HandoffFrame::Problem(told))) => {
                problem = Some(Box::new(Problem::from(told)));
                continue;
            }
            Ok(Some(HandoffFrame::Message(message))) => {
                GuestEvent::Message { from: peer, message, problem: problem.take() }
            }
            Ok(None) | Err(_) => GuestEvent::WireLost { peer, wire: id, problem: problem.take() },
        };
        let is_over = matches!(event, GuestEvent::WireLost { .. });
        if guest.send(event).await.is_err() || is_over {
            return;
        }
    }
}

/// Whom to call about what.
#[derive(Clone, Debug)]
struct Wanted {
    peer: HostId,
    guest: GuestId,
    handoff: HandoffId,
    epoch: Epoch,
    /// With the first call of a source.
    offer: Option<Offer>,
}

/// Dials until somebody answers, and reports every failure.
async fn dial(daemon: Arc<Daemon>, guest: GuestHandle, call: Wanted, first_wait: Duration) {
    let mut wait = first_wait;
    loop {
        tokio::time::sleep(wait).await;
        let opening = Opening {
            handoff: call.handoff,
            guest: call.guest,
            epoch: call.epoch,
            offer: call.offer.clone(),
        };
        fault_point!("send/call");
        let dialled = match daemon.peers.connect(call.peer).await {
            Ok(connection) => {
                let opened = connection.handoff(opening).await;
                opened.map_err(|error| Problem::from(error.problem()))
            }
            Err(problem) => Err(problem),
        };
        let (event, is_done) = match dialled {
            Ok(stream) => {
                let call = Call { peer: call.peer, handoff: call.handoff, stream };
                (MigrationEvent::Dialled(Ok(call)), true)
            }
            Err(problem) => (MigrationEvent::Dialled(Err(Box::new(problem))), false),
        };
        let event = GuestEvent::Migration { handoff: call.handoff, event };
        if guest.send(event).await.is_err() || is_done {
            return;
        }
        wait = (wait * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
    }
}

impl GuestTask {
    /// Calls the peer of the open handoff, now or after a while.
    pub(crate) fn call_peer(&mut self, first_wait: Duration, offer: Option<Offer>) {
        let Some(handoff) = self.ownership.machine().handoff().copied() else { return };
        let call = Wanted {
            peer: handoff.peer,
            guest: self.id,
            handoff: handoff.id,
            epoch: handoff.epoch,
            offer,
        };
        let dialling = dial(self.daemon.clone(), self.handle.clone(), call, first_wait);
        let helper = tokio::spawn(dialling).abort_handle();
        if let Some(journey) = &mut self.journey {
            journey.add_helper(helper);
        }
    }

    /// A conversation about a handoff was begun by the peer, or by us.
    pub(crate) async fn on_wire(&mut self, call: Call) {
        fault_point!("receive/call");
        let handoff = call.handoff;
        let wire = Wire::begin(self.handle.clone(), call);
        match &mut self.journey {
            Some(journey) if journey.peer == wire.peer && journey.handoff == handoff => {
                journey.wire = Some(wire);
                journey.wire_lost_at = None;
                self.tell_machine(Event::Nudge).await;
            }
            // About something that is over here: the history answers.
            Some(_) | None => self.visitors.push(wire),
        }
    }

    pub(crate) async fn on_wire_lost(
        &mut self,
        peer: HostId,
        wire: u64,
        problem: Option<Box<Problem>>,
    ) {
        self.visitors.retain(|visitor| visitor.id != wire);
        let Some(journey) = &mut self.journey else { return };
        if journey.peer != peer || journey.wire.as_ref().is_none_or(|ours| ours.id != wire) {
            return;
        }
        if self.ownership.machine().handoff().is_none()
            && matches!(journey.role, crate::migrate::Role::Target)
            && !journey.runs_here_in_postcopy()
        {
            // The source went away between its papers and its offer: there is nothing to wait for.
            self.journey = None;
            return;
        }
        journey.wire = None;
        journey.wire_lost_at = Some(Instant::now());
        if let Some(problem) = problem {
            journey.note_problem(*problem);
        }
        // The target leaves the first word to the source, which knows where it can be reached.
        let first_wait = if journey.is_source() { BACKOFF_FIRST } else { BACKOFF_MAX };
        self.call_peer(first_wait, None);
    }
}
