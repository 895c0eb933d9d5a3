// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A migration, from plan to report.
//!
//! ```text
//!   source's task                         target's task
//!   order_migrate: plan (a helper)
//!   offer ─────────── Offer ───────────►  on_incoming: checks, papers, engine (paused), carrier
//!   transfer: carrier, engine sends ◄──── Accepted
//!   (watch: progress, stalls, cancel)     (watch: everything arrived, digests equal)
//!   confirm: engine stopped for good ◄─── Ready
//!   Ceded durable ─── Cede ────────────►  claim, Taken durable, tap, vCPUs
//!   copy destroyed, report ◄───────────── Started
//! ```
//!
//! Who decides is the machine in `handoff`; its effects are performed by [`effects`], one after the
//! other, in the guest's own task. A [`Journey`] is what the task must remember of one attempt; if
//! the daemon dies it is gone, and the ownership file alone says how to go on.

mod bargain;
mod carrier;
mod effects;
mod learned;
mod plan;
mod postcopy;
mod prove;
mod report;
mod source;
mod target;
mod watch;
mod wire;

pub(crate) use bargain::bargain_for;
pub(crate) use carrier::Wish;
pub(crate) use plan::{
    Asked, Asker, answer_facts, finding, forecast, host_facts, make_plan, make_plan_for_move,
    read_host_facts,
};
pub(crate) use postcopy::half_of;
pub(crate) use prove::end_forgotten as end_forgotten_proofs;
pub(crate) use report::{Progressing, report_for};
pub(crate) use watch::Figures;
pub(crate) use wire::{Call, Wire};

use crate::guests::GuestTask;
use crate::http::Caller;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::watch as watch_channel;
use tokio::task::AbortHandle;
use whimbrel_api::Problem;
use whimbrel_api::guest::GuestState;
use whimbrel_api::migration::{Mode, Phase};
use whimbrel_bargain::Terms;
use whimbrel_link::carrier::Control;
use whimbrel_link::wire::{CarrierKind, Offer};
use whimbrel_model::id::{HandoffId, HostId, HostName};
use whimbrel_model::plan::{Bargain, Plan};
use whimbrel_model::units::Bytes;
use whimbrel_page_store::HeldSummary;

/// How long an attempt may be without a link before it is given up, up to the commit point.
pub(crate) const LINK_LOST_MAX: Duration = Duration::from_secs(10);
/// The same while a running guest's memory travels as pages.
pub(crate) const PAGES_LINK_LOST_MAX: Duration = Duration::from_secs(120);
/// How long nothing may move while the guest stands still, before the attempt is given up.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(10);

/// How long a handoff stays in doubt before everything is tried again.
pub(crate) const DOUBT_RETRY: Duration = Duration::from_secs(2);

/// Somebody wants a guest moved.
#[derive(Clone, Debug)]
pub(crate) struct MoveOrder {
    pub(crate) caller: Caller,
    pub(crate) handoff: HandoffId,
    pub(crate) target: Target,
    pub(crate) is_stop_and_copy: bool,
    pub(crate) bargain: Bargain,
    /// It is tried also where the plan says that it will miss, and be cancelled.
    pub(crate) may_miss: bool,
    /// Converge, and cut over only when told to.
    pub(crate) is_held: bool,
    /// No frames are sent on the guest's bridges.
    pub(crate) is_unprobed: bool,
    /// Come as far as that, and go back.
    pub(crate) is_rehearsed: bool,
    pub(crate) wish: Wish,
}

/// The host a guest is to go to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: HostId,
    pub(crate) name: HostName,
    pub(crate) addresses: Vec<SocketAddr>,
}

/// A guest that a peer offers.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) handoff: HandoffId,
    pub(crate) offer: Offer,
    pub(crate) call: Call,
}

/// What a task remembers of one attempt.
#[derive(Debug)]
pub(crate) struct Journey {
    pub(crate) handoff: HandoffId,
    pub(crate) peer: HostId,
    pub(crate) peer_name: HostName,
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    /// What source and target have agreed on, once it is offered.
    pub(crate) offer: Option<Box<Offer>>,
    pub(crate) caller: Option<Caller>,
    /// What the way to the peer carries, in bytes a second; none: not measured.
    pub(crate) link_rate: Option<Bytes>,
    /// Bytes a second that the guest wrote before; none: not measured.
    pub(crate) dirty_before: Option<Bytes>,
    /// What switching over takes between these hosts; none: it never happened.
    pub(crate) switchover: Option<Duration>,
    /// What was agreed on, from when memory begins to travel.
    pub(crate) terms: Option<Terms>,
    /// The conversation with the peer, while there is one.
    pub(crate) wire: Option<Wire>,
    /// When the conversation broke.
    pub(crate) wire_lost_at: Option<Instant>,
    pub(crate) carrier: Option<Control>,
    /// Helpers that end with the attempt.
    pub(crate) helpers: Vec<AbortHandle>,
    /// One of them will ask the machine to try again.
    pub(crate) is_nudge_due: bool,
    pub(crate) progressing: Progressing,
    /// Why it will not succeed, as far as it is known: the first reason counts.
    pub(crate) problem: Option<Problem>,
    pub(crate) is_cancelled: bool,
    /// Whether the word to cut over has been given; whoever watches the engine hears of it.
    pub(crate) word: watch_channel::Sender<bool>,
    /// Everything else is done, and only the word is missing.
    pub(crate) waits_for_word: bool,
    /// It was only to be rehearsed, and that is done.
    pub(crate) has_rehearsed: bool,
    /// The engine's part is over: what it still says about this attempt does not count.
    pub(crate) has_given_up_engine: bool,
    /// The guest may run on the target before its memory is there.
    pub(crate) is_postcopy: bool,
}

/// Which end of the way this host is.
#[derive(Debug)]
pub(crate) enum Role {
    /// The plan is being made; nothing was promised to anybody.
    Planning(Box<MoveOrder>),
    Source(Box<MoveOrder>),
    Target,
    /// The daemon was restarted in the middle: only the handoff itself is known.
    Resumed {
        is_source: bool,
    },
}

impl Journey {
    pub(crate) fn new(
        handoff: HandoffId,
        peer: HostId,
        peer_name: HostName,
        role: Role,
        mode: Mode,
    ) -> Self {
        Self {
            handoff,
            peer,
            peer_name,
            role,
            mode,
            offer: None,
            link_rate: None,
            dirty_before: None,
            switchover: None,
            terms: None,
            caller: None,
            wire: None,
            wire_lost_at: None,
            carrier: None,
            helpers: Vec::new(),
            is_nudge_due: false,
            progressing: Progressing::begin(),
            problem: None,
            is_cancelled: false,
            word: watch_channel::Sender::new(false),
            waits_for_word: false,
            has_rehearsed: false,
            has_given_up_engine: false,
            is_postcopy: false,
        }
    }

    pub(crate) fn is_source(&self) -> bool {
        match &self.role {
            Role::Planning(_) | Role::Source(_) => true,
            Role::Target => false,
            Role::Resumed { is_source } => *is_source,
        }
    }

    /// Whether it is not to be cut over yet.
    pub(crate) fn is_held(&self) -> bool {
        self.order().is_some_and(|order| order.is_held) && !*self.word.borrow()
    }

    /// Whether it ends where it would be cut over.
    pub(crate) fn is_rehearsal(&self) -> bool {
        self.order().is_some_and(|order| order.is_rehearsed)
    }

    /// What a person asked for, where this host is the one that was asked.
    pub(crate) fn order(&self) -> Option<&MoveOrder> {
        match &self.role {
            Role::Planning(order) | Role::Source(order) => Some(order),
            Role::Target | Role::Resumed { .. } => None,
        }
    }

    /// What the guest is because of the journey; none: what its engine says.
    pub(crate) fn state(&self) -> Option<GuestState> {
        if !self.is_source() {
            return (!self.runs_here_in_postcopy()).then_some(GuestState::Arriving);
        }
        (self.progressing.phase() >= Phase::Switch).then_some(GuestState::Leaving)
    }

    /// The guest is ours and runs here, and the rest of its memory follows.
    pub(crate) fn runs_here_in_postcopy(&self) -> bool {
        !self.is_source() && self.is_half()
    }

    /// Part of the guest's memory is here, and part of it elsewhere.
    pub(crate) fn is_half(&self) -> bool {
        self.progressing.phase() == Phase::Postcopy
    }

    /// Returns how long the attempt may be without a link now. A stream of pages goes on behind a
    /// cut, and the guest does not mind while it runs.
    pub(crate) fn link_lost_max(&self) -> Duration {
        let is_pages = self.offer.as_ref().is_some_and(|offer| offer.carrier == CarrierKind::Pages);
        match self.progressing.phase() {
            Phase::Memory if is_pages => PAGES_LINK_LOST_MAX,
            _ => LINK_LOST_MAX,
        }
    }

    /// Notes why the attempt will fail; what came first is what went wrong.
    pub(crate) fn note_problem(&mut self, problem: Problem) {
        self.problem.get_or_insert(problem);
    }

    pub(crate) fn add_helper(&mut self, helper: AbortHandle) {
        self.helpers.retain(|helper| !helper.is_finished());
        self.helpers.push(helper);
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        self.helpers.iter().for_each(AbortHandle::abort);
    }
}

/// What the plan came to.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    /// Both engines can do it.
    pub(crate) has_multifd_zstd: bool,
    /// The same; see [`whimbrel_engine::MigrationOptions`].
    pub(crate) has_urgent_channel: bool,
    /// The engine's memory travels in one stream, which it does not compress.
    pub(crate) has_one_channel: bool,
    /// What the way to the target carries, in bytes a second; none: not measured.
    pub(crate) rate: Option<Bytes>,
    /// Bytes a second that the guest writes; none: not measured.
    pub(crate) dirty_rate: Option<Bytes>,
    /// What switching over takes between these hosts; none: it never happened.
    pub(crate) switchover: Option<Duration>,
    /// What the target holds of the guest's memory, as far as this host knows.
    pub(crate) held: Option<HeldSummary>,
    /// The target is still in the middle of a move of the same guest.
    pub(crate) is_target_busy: bool,
}

impl GuestTask {
    /// The journey, where there is one and it is this handoff's.
    pub(crate) fn journey_of(&mut self, handoff: HandoffId) -> Option<&mut Journey> {
        self.journey.as_mut().filter(|journey| journey.handoff == handoff)
    }
}

/// Returns how long ago, in milliseconds.
pub(crate) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
