// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The host the guest comes to.
//!
//! ```text
//!             EngineReady          Complete          Cede           ClaimWon     GuestStarted
//!   Starting -----------> Receiving ------> Prepared ----> Claiming -------> Taken ------> Owned
//!      |                      |                |              |  lost          | StartRefused
//!      | failed, cancelled,   |                |              |                |
//!      v Abort, newer owner   v                v              v                v
//!    Elsewhere (Refused, for ever)                                       Elsewhere (Returned)
//! ```
//!
//! Until `Taken` we may refuse, alone and at any moment, and the source will come back. In
//! `Prepared` we do so only for a reason: ours may be the last copy. From `Taken` on the guest is
//! ours, and only an engine that says no before the first instruction can give it back.
//!
//! `Prepared` is not written down: it would cost a sync while the guest stands still, and says
//! nothing that the engine and the carrying process cannot say again after a restart.

use crate::disk::By;
use crate::effect::{Claims, Doubt, Effect, Event, Outcome};
use crate::message::{Body, Kind, Reason};
use crate::ownership::{EngineView, Ledger, State};
use crate::record::{Decline, Declined, Handoff, Standing};
use whimbrel_model::id::{Epoch, HostId};
use whimbrel_model::run_state::RunState;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The offer is durable, the engine is being started.
    Starting { owned: Epoch, handoff: Handoff },
    /// The engine waits for memory, or is getting it.
    Receiving { owned: Epoch, handoff: Handoff },
    /// Everything is here. Whose it is, the source knows.
    Prepared { owned: Epoch, handoff: Handoff },
    /// Ceded to us; taking the claim.
    Claiming { owned: Epoch, handoff: Handoff, run: Option<RunState> },
    /// Ours, durably; starting.
    Taken { owned: Epoch, handoff: Handoff, run: Option<RunState> },
}

type Step = (State, Vec<Effect>);

impl Target {
    /// Accepts an offer: the epoch is consumed here, too.
    pub(crate) fn begin(ledger: &mut Ledger, owned: Epoch, handoff: Handoff) -> Step {
        ledger.consume(handoff.epoch);
        let effects =
            vec![ledger.persist(Standing::Receiving { owned, handoff }), Effect::StartEngine];
        (State::Target(Target::Starting { owned, handoff }), effects)
    }

    pub(crate) fn recover(ledger: &mut Ledger, standing: Standing, engine: EngineView) -> Step {
        match standing {
            Standing::Receiving { owned, handoff } => {
                let receiving = Target::Receiving { owned, handoff };
                match (handoff.kind, engine) {
                    (Kind::Stopped, _) | (_, EngineView::NeverRan) => {
                        let ask = ledger.send(&handoff, Body::WhoOwns);
                        (State::Target(receiving), vec![ask, Effect::WatchEngine])
                    }
                    // One engine for one attempt: its stream cannot be sent again. And an
                    // engine that ran before it was told to is not one to give a guest to.
                    (Kind::PreCopy | Kind::PostCopy, EngineView::Gone | EngineView::HasRun) => {
                        receiving.decline(ledger, Decline::Refused, Reason::Restarted)
                    }
                }
            }
            Standing::Taken { owned, handoff, run } => {
                let taken = Target::Taken { owned, handoff, run };
                match (handoff.kind, engine) {
                    (Kind::Stopped, _) | (_, EngineView::HasRun) => arrive(ledger, &handoff),
                    (_, EngineView::NeverRan) => {
                        (State::Target(taken), vec![Effect::StartGuest { run }])
                    }
                    // Nobody can say whether it ran: it has crashed, and here.
                    (_, EngineView::Gone) => crash(ledger, &handoff),
                }
            }
            Standing::Owned { .. }
            | Standing::Elsewhere { .. }
            | Standing::Offering { .. }
            | Standing::Ceded { .. }
            | Standing::Draining { .. }
            | Standing::Disputed { .. } => unreachable!("only a target's records come here"),
        }
    }

    pub(crate) fn on_message(self, ledger: &mut Ledger, body: Body) -> Step {
        let (owned, handoff) = self.parts();
        match (self, body) {
            // Moves.
            (Target::Prepared { .. }, Body::Cede { run }) => {
                let claiming = Target::Claiming { owned, handoff, run };
                (State::Target(claiming), vec![target_claims(owned, &handoff)])
            }
            (
                Target::Starting { .. }
                | Target::Receiving { .. }
                | Target::Prepared { .. }
                | Target::Claiming { .. },
                Body::Abort,
            ) => self.decline(ledger, Decline::Refused, Reason::PeerGone),
            (
                Target::Receiving { .. } | Target::Prepared { .. } | Target::Claiming { .. },
                Body::Owner { owner, .. },
            ) if owner == ledger.identity.host => self.doubt(Doubt::OwnMemoryLost),
            (
                Target::Starting { .. }
                | Target::Receiving { .. }
                | Target::Prepared { .. }
                | Target::Claiming { .. },
                Body::Owner { owner, epoch },
            ) => crate::history::heard(ledger, State::Target(self), owner, epoch),
            (Target::Receiving { .. } | Target::Prepared { .. }, Body::NoRecord) => {
                self.doubt(Doubt::SourceForgot)
            }
            // Repeats, answered again.
            (Target::Receiving { .. }, Body::Offer { .. }) => {
                (State::Target(self), vec![ledger.send(&handoff, Body::Accepted)])
            }
            (Target::Prepared { .. }, Body::Offer { .. }) => {
                (State::Target(self), vec![ledger.send(&handoff, Body::Ready)])
            }
            // Too early to answer: what is under way will. A restarted target is told `Cede`
            // again as soon as it has seen for itself that it is prepared.
            (Target::Starting { .. } | Target::Receiving { .. }, Body::Cede { .. })
            | (Target::Claiming { .. } | Target::Taken { .. }, Body::Cede { .. })
            | (
                Target::Starting { .. } | Target::Claiming { .. } | Target::Taken { .. },
                Body::Offer { .. } | Body::NoRecord,
            ) => self.stay(),
            // Ours now, whatever is said about it.
            (Target::Taken { .. }, Body::Abort | Body::Owner { .. }) => self.stay(),
            // A source does not ask, it cedes; and only a source receives the rest.
            (_, Body::WhoOwns) => self.stay(),
            (
                _,
                Body::Accepted
                | Body::Ready
                | Body::Started
                | Body::Refused { .. }
                | Body::Unwilling { .. }
                | Body::Returned,
            ) => self.stay(),
        }
    }

    pub(crate) fn on_event(self, ledger: &mut Ledger, event: Event) -> Step {
        let (owned, handoff) = self.parts();
        let refuse = |reason, ledger: &mut Ledger| self.refuse(ledger, reason);
        match (self, event) {
            (Target::Starting { .. }, Event::EngineReady) => {
                let receiving = State::Target(Target::Receiving { owned, handoff });
                (receiving, vec![ledger.send(&handoff, Body::Accepted)])
            }
            (Target::Receiving { .. }, Event::Complete) => {
                let prepared = State::Target(Target::Prepared { owned, handoff });
                (prepared, vec![ledger.send(&handoff, Body::Ready)])
            }
            (Target::Receiving { .. }, Event::Nudge) => {
                (State::Target(self), vec![ledger.send(&handoff, Body::WhoOwns)])
            }
            (Target::Prepared { .. }, Event::Nudge) => {
                (State::Target(self), vec![ledger.send(&handoff, Body::Ready)])
            }
            (Target::Taken { .. }, _) => taken_event(ledger, self, event),
            (Target::Claiming { run, .. }, _) => self.claiming_event(ledger, run, event),
            (_, Event::EngineFailed) => refuse(Reason::Failed, ledger),
            (_, Event::Cancelled) => refuse(Reason::Cancelled, ledger),
            (Target::Starting { .. } | Target::Receiving { .. }, Event::PeerGone) => {
                refuse(Reason::PeerGone, ledger)
            }
            (Target::Prepared { .. }, Event::PeerGone) => self.doubt(Doubt::SourceSilent),
            (Target::Prepared { .. }, Event::OwnerSeen(seen))
                if seen.guest == ledger.identity.guest =>
            {
                match seen.by {
                    By::Source { handoff: id, run }
                        if id == handoff.id
                            && seen.owner == ledger.identity.host
                            && seen.epoch == handoff.epoch =>
                    {
                        self.on_message(ledger, Body::Cede { run })
                    }
                    By::Source { .. } => self.stay(),
                    By::Owner => {
                        let state = State::Target(self);
                        crate::history::heard(ledger, state, seen.owner, seen.epoch)
                    }
                }
            }
            (Target::Prepared { .. }, Event::Resume) => {
                let run = match handoff.kind {
                    Kind::PreCopy | Kind::PostCopy => Some(RunState::Running),
                    Kind::Stopped => None,
                };
                self.on_message(ledger, Body::Cede { run })
            }
            _ => self.stay(),
        }
    }

    fn claiming_event(self, ledger: &mut Ledger, run: Option<RunState>, event: Event) -> Step {
        let (owned, handoff) = self.parts();
        match event {
            Event::ClaimWon { epoch } if epoch == handoff.epoch => {
                ledger.boot = ledger.now;
                let effects = vec![
                    ledger.persist(Standing::Taken { owned, handoff, run }),
                    Effect::StartGuest { run },
                ];
                (State::Target(Target::Taken { owned, handoff, run }), effects)
            }
            Event::ClaimLost { epoch, .. } if epoch == handoff.epoch => {
                self.refuse(ledger, Reason::ClaimLost)
            }
            Event::ClaimUnavailable { epoch } if epoch == handoff.epoch => {
                self.doubt(Doubt::ClaimUnavailable)
            }
            Event::EngineFailed => self.refuse(ledger, Reason::Failed),
            Event::Nudge => (State::Target(self), vec![target_claims(owned, &handoff)]),
            _ => self.stay(),
        }
    }

    /// Gives up our copy and says so.
    fn refuse(self, ledger: &mut Ledger, reason: Reason) -> Step {
        self.decline(ledger, Decline::Refused, reason)
    }

    /// Gives up our copy: durably first, then really, and only then aloud.
    pub(crate) fn decline(self, ledger: &mut Ledger, how: Decline, reason: Reason) -> Step {
        let (owned, handoff) = self.parts();
        let declined = Some(Declined { handoff: handoff.id, how });
        let (owner, epoch) = (handoff.peer, owned);
        let body = match how {
            Decline::Refused => Body::Refused { reason },
            Decline::Returned => Body::Returned,
        };
        let effects = vec![
            ledger.persist(Standing::Elsewhere { owner, epoch, declined }),
            Effect::DestroyCopy,
            ledger.send(&handoff, body),
            Effect::Report(Outcome::Declined { reason }),
        ];
        (State::Elsewhere { owner, epoch, declined }, effects)
    }

    /// The handoff this is about.
    pub fn handoff(&self) -> &Handoff {
        match self {
            Target::Starting { handoff, .. }
            | Target::Receiving { handoff, .. }
            | Target::Prepared { handoff, .. }
            | Target::Claiming { handoff, .. }
            | Target::Taken { handoff, .. } => handoff,
        }
    }

    /// The epoch the source holds the guest with, and the handoff.
    pub(crate) fn parts(&self) -> (Epoch, Handoff) {
        match *self {
            Target::Starting { owned, handoff }
            | Target::Receiving { owned, handoff }
            | Target::Prepared { owned, handoff }
            | Target::Claiming { owned, handoff, .. }
            | Target::Taken { owned, handoff, .. } => (owned, handoff),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Target::Starting { .. } => "Starting",
            Target::Receiving { .. } => "Receiving",
            Target::Prepared { .. } => "Prepared",
            Target::Claiming { .. } => "Claiming",
            Target::Taken { .. } => "Taken",
        }
    }

    fn stay(self) -> Step {
        (State::Target(self), vec![])
    }

    fn doubt(self, doubt: Doubt) -> Step {
        (State::Target(self), vec![Effect::Report(Outcome::InDoubt(doubt))])
    }
}

fn target_claims(owned: Epoch, handoff: &Handoff) -> Effect {
    Effect::TakeClaim(Claims { after: owned, epoch: handoff.epoch, declined: None })
}

fn taken_event(ledger: &mut Ledger, taken: Target, event: Event) -> Step {
    let (_, handoff) = taken.parts();
    match event {
        Event::GuestStarted => arrive(ledger, &handoff),
        // In post-copy the source has nothing left to take back.
        Event::StartRefused if handoff.kind != Kind::PostCopy => {
            taken.decline(ledger, Decline::Returned, Reason::Failed)
        }
        Event::StartRefused | Event::StartLost | Event::EngineFailed => crash(ledger, &handoff),
        _ => taken.stay(),
    }
}

/// The guest runs here.
fn arrive(ledger: &mut Ledger, handoff: &Handoff) -> Step {
    let mut effects = own(ledger, handoff);
    effects.insert(0, Effect::Announce);
    (State::Owned { epoch: handoff.epoch }, effects)
}

/// The guest was ours and died before it was known to run.
fn crash(ledger: &mut Ledger, handoff: &Handoff) -> Step {
    let mut effects = own(ledger, handoff);
    effects.insert(0, Effect::DestroyCopy);
    effects.push(Effect::ApplyPolicy { ended: None });
    (State::Owned { epoch: handoff.epoch }, effects)
}

/// The right was established when the claim was won, and in that boot: who finds the record after
/// a reboot still has to ask.
fn own(ledger: &mut Ledger, handoff: &Handoff) -> Vec<Effect> {
    let me: HostId = ledger.identity.host;
    let epoch = handoff.epoch;
    vec![
        ledger.persist(Standing::Owned { epoch, mending: None }),
        ledger.send(handoff, Body::Started),
        ledger.write_owner(me, epoch, By::Owner),
        Effect::Report(Outcome::Arrived { from: handoff.peer }),
    ]
}
