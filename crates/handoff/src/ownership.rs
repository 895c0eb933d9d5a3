// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Everything one host decides about who owns one guest.
//!
//! [`Ownership`] is the whole of it: settled, source or target. The driver keeps one for each
//! guest, feeds it messages and events, and performs the effects it returns. States that look
//! alike on disk (*offering* and *confirming*, *receiving* and *prepared*) differ only in what
//! this life of the daemon has seen, which is exactly what a restart forgets.

use crate::disk::{By, OwnerRecord};
use crate::effect::{Claims, Doubt, Effect, Event, Outcome};
use crate::message::{Body, EPOCH_MAX, Kind, Message, Reason};
use crate::record::{BootId, Decline, Declined, Handoff, Identity, Record, Standing};
use crate::source::Source;
use crate::target::Target;
use whimbrel_model::id::{Epoch, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

/// What a decision comes to: the state after it, and what to do, in order.
pub type Step = (Ownership, Vec<Effect>);

/// Who owns one guest, as one host knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ownership {
    pub ledger: Ledger,
    pub state: State,
}

/// What every state shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    pub identity: Identity,
    /// The boot this host is in now.
    pub now: BootId,
    /// See [`Record::boot`].
    pub boot: BootId,
    /// See [`Record::consumed`].
    pub consumed: Epoch,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// This host has no record of the guest.
    Unknown,
    /// This host has a record that cannot be read: it could be anything.
    Damaged,
    /// Claiming an epoch, to boot the guest here. On disk still what it was.
    Acquiring {
        after: Epoch,
        epoch: Epoch,
        from: Box<State>,
    },
    Owned {
        epoch: Epoch,
    },
    Elsewhere {
        owner: HostId,
        epoch: Epoch,
        declined: Option<Declined>,
    },
    Disputed {
        epoch: Epoch,
        owner: HostId,
        newer: Epoch,
    },
    Source(Source),
    Target(Target),
}

/// What was found in the ownership file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no file, or one that was never written.
    Nothing,
    /// There is one, and at least one slot fails its check.
    Damaged,
    Record(Record),
}

/// What was found of the guest's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EngineView {
    Gone,
    /// It holds the guest, or receives it, and has not run it since it came in.
    NeverRan,
    /// It has run the guest, whatever it does now.
    HasRun,
}

/// A guest cannot be offered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    #[error("the guest is not owned by this host")]
    NotOwned,
    #[error("the guest is being handed over already")]
    Busy,
    #[error("a guest cannot be handed over to the host it is on")]
    ToItself,
}

/// What a host answers when another asks who owns the guest, outside any handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    NoRecord,
    Damaged,
    /// As far as is known here. Whoever names itself is sure.
    Owner {
        owner: HostId,
        epoch: Epoch,
        consumed: Epoch,
    },
    /// The host asked is about to take it with this epoch, if it wins the claim.
    Acquiring {
        epoch: Epoch,
    },
    /// On its way, and not arrived.
    Moving {
        from: HostId,
        to: HostId,
        epoch: Epoch,
    },
}

impl Ledger {
    /// Returns the effect that makes `standing` durable.
    pub(crate) fn persist(&self, standing: Standing) -> Effect {
        Effect::Persist(Record {
            identity: self.identity,
            boot: self.boot,
            consumed: self.consumed,
            standing,
        })
    }

    pub(crate) fn consume(&mut self, epoch: Epoch) {
        self.consumed = self.consumed.max(epoch);
    }

    pub(crate) fn send(&self, handoff: &Handoff, body: Body) -> Effect {
        let message =
            Message { guest: self.identity.guest, handoff: handoff.id, epoch: handoff.epoch, body };
        Effect::Send { to: handoff.peer, message }
    }

    pub(crate) fn write_owner(&self, owner: HostId, epoch: Epoch, by: By) -> Effect {
        Effect::WriteOwner(OwnerRecord { guest: self.identity.guest, owner, epoch, by })
    }
}

impl Ownership {
    /// Returns the ownership of a guest this host has never heard of.
    pub fn unknown(identity: Identity, now: BootId) -> Self {
        let ledger = Ledger { identity, now, boot: now, consumed: Epoch(0) };
        Self { ledger, state: State::Unknown }
    }

    /// Takes up what an earlier daemon left: the record, and what there is of the engine.
    pub fn recover(identity: Identity, now: BootId, found: Found, engine: EngineView) -> Step {
        let record = match found {
            Found::Record(record) if record.identity == identity => record,
            Found::Nothing if engine == EngineView::Gone => {
                return (Self::unknown(identity, now), vec![]);
            }
            // A file of another guest or host, or an engine nobody wrote down: no better than a
            // damaged one.
            Found::Record(_) | Found::Nothing | Found::Damaged => {
                let ledger = Ledger { identity, now, boot: now, consumed: Epoch(0) };
                let effects = vec![Effect::Report(Outcome::InDoubt(Doubt::Damaged))];
                return (Self { ledger, state: State::Damaged }, effects);
            }
        };
        let mut ledger = Ledger { identity, now, boot: record.boot, consumed: record.consumed };
        let (state, effects) = recover_standing(&mut ledger, record.standing, engine);
        (Self { ledger, state }, effects)
    }

    /// Begins to move the guest. The epoch on offer is consumed by the first effect.
    pub fn offer(
        &self,
        id: HandoffId,
        to: HostId,
        kind: Kind,
        run: Option<RunState>,
    ) -> Result<Step, OfferError> {
        let mut ledger = self.ledger;
        Err(match &self.state {
            State::Owned { .. } if to == ledger.identity.host => OfferError::ToItself,
            State::Owned { epoch } => {
                let handoff = Handoff { id, peer: to, epoch: ledger.consumed.next(), kind };
                ledger.consume(handoff.epoch);
                let (state, effects) = Source::begin(&ledger, *epoch, handoff, run);
                return Ok((Self { ledger, state }, effects));
            }
            State::Source(_) | State::Target(_) | State::Acquiring { .. } => OfferError::Busy,
            State::Unknown | State::Damaged | State::Elsewhere { .. } | State::Disputed { .. } => {
                OfferError::NotOwned
            }
        })
    }

    /// Decides on a message. `from` is who really sent it, as its connection has proven.
    pub fn on_message(self, from: HostId, message: Message) -> Step {
        let Self { mut ledger, state } = self;
        if message.guest != ledger.identity.guest || from == ledger.identity.host {
            return (Self { ledger, state }, vec![]);
        }
        let active = |handoff: &Handoff| handoff.id == message.handoff && handoff.peer == from;
        let (state, effects) = match state {
            State::Source(source) if active(source.handoff()) => {
                source.on_message(&mut ledger, message.body)
            }
            State::Target(target) if active(target.handoff()) => {
                target.on_message(&mut ledger, message.body)
            }
            State::Acquiring { after, epoch, from: before } => {
                while_acquiring(&mut ledger, (after, epoch), *before, from, message)
            }
            state => crate::history::on_message(&mut ledger, state, from, message),
        };
        (Self { ledger, state }, effects)
    }

    /// Decides on an event.
    pub fn on_event(self, event: Event) -> Step {
        let Self { mut ledger, state } = self;
        let (state, effects) = match (state, event) {
            (state, Event::Heard { owner, epoch }) => {
                crate::history::heard(&mut ledger, state, owner, epoch)
            }
            (state, Event::Acquire { after, epoch }) => acquire(&mut ledger, state, after, epoch),
            (State::Source(source), event) => source.on_event(&mut ledger, event),
            (State::Target(target), event) => target.on_event(&mut ledger, event),
            (State::Acquiring { after, epoch, from }, event) => {
                on_claim(&mut ledger, (after, epoch), *from, event)
            }
            (State::Disputed { owner, newer, .. }, Event::GiveUp) => {
                let standing = Standing::Elsewhere { owner, epoch: newer, declined: None };
                let state = State::Elsewhere { owner, epoch: newer, declined: None };
                (state, vec![ledger.persist(standing), Effect::DestroyCopy])
            }
            (state, _) => (state, vec![]),
        };
        (Self { ledger, state }, effects)
    }

    /// Returns the effect that records that a start was asked for and granted in this boot.
    /// `None` unless the guest is ours.
    pub fn affirm(mut self) -> Step {
        let State::Owned { epoch } = self.state else { return (self, vec![]) };
        self.ledger.boot = self.ledger.now;
        let effects = vec![
            self.ledger.persist(Standing::Owned { epoch, mending: None }),
            self.ledger.write_owner(self.ledger.identity.host, epoch, By::Owner),
        ];
        (self, effects)
    }

    /// Returns whether the guest may execute instructions on this host now.
    pub fn may_run(&self) -> bool {
        match &self.state {
            State::Owned { .. } => true,
            State::Source(source) => source.may_run(),
            State::Target(Target::Taken { .. }) => true,
            State::Target(_)
            | State::Unknown
            | State::Damaged
            | State::Acquiring { .. }
            | State::Elsewhere { .. }
            | State::Disputed { .. } => false,
        }
    }

    /// Returns whether nothing is open: no handoff, no claim, no doubt.
    pub fn is_settled(&self) -> bool {
        matches!(self.state, State::Unknown | State::Owned { .. } | State::Elsewhere { .. })
    }

    /// Returns the handoff that is open, if one is.
    pub fn handoff(&self) -> Option<&Handoff> {
        match &self.state {
            State::Source(source) => Some(source.handoff()),
            State::Target(target) => Some(target.handoff()),
            State::Unknown
            | State::Damaged
            | State::Acquiring { .. }
            | State::Owned { .. }
            | State::Elsewhere { .. }
            | State::Disputed { .. } => None,
        }
    }

    /// Answers a host that asks who owns the guest, outside any handoff.
    ///
    /// The driver answers only when it has performed every effect it was given: what is not
    /// durable yet must not be told.
    pub fn answer(&self) -> Answer {
        let me = self.ledger.identity.host;
        let consumed = self.ledger.consumed;
        let moving = |from, to, epoch| Answer::Moving { from, to, epoch };
        match &self.state {
            State::Unknown => Answer::NoRecord,
            State::Damaged => Answer::Damaged,
            State::Acquiring { epoch, .. } => Answer::Acquiring { epoch: *epoch },
            // On an operator's word we are about to take back what was ceded.
            State::Source(Source::Burning { handoff, .. }) => {
                Answer::Acquiring { epoch: handoff.epoch }
            }
            State::Source(Source::Returning { take, .. }) => Answer::Acquiring { epoch: *take },
            State::Source(source) if source.has_ceded() => {
                moving(me, source.handoff().peer, source.handoff().epoch)
            }
            // Not even `Taken` is the last word: the engine may still refuse to start.
            State::Target(target) => moving(target.handoff().peer, me, target.handoff().epoch),
            state => match crate::history::owner(state, me) {
                Some((owner, epoch)) => Answer::Owner { owner, epoch, consumed },
                None => Answer::NoRecord,
            },
        }
    }

    /// Returns whether this host is about to take a guest that another may want, too. Where that
    /// cannot be claimed, it asks around once more before it does.
    pub fn is_taking(&self) -> bool {
        matches!(self.state, State::Acquiring { .. } | State::Source(Source::Burning { .. }))
    }

    /// Returns the name of the state, for logs and coverage.
    pub fn name(&self) -> &'static str {
        match &self.state {
            State::Unknown => "Unknown",
            State::Damaged => "Damaged",
            State::Acquiring { .. } => "Acquiring",
            State::Owned { .. } => "Owned",
            State::Elsewhere { .. } => "Elsewhere",
            State::Disputed { .. } => "Disputed",
            State::Source(source) => source.name(),
            State::Target(target) => target.name(),
        }
    }
}

fn recover_standing(
    ledger: &mut Ledger,
    standing: Standing,
    engine: EngineView,
) -> (State, Vec<Effect>) {
    match standing {
        Standing::Owned { epoch, mending } => {
            let effects = match mending {
                Some(run) => {
                    vec![
                        Effect::Mend { run },
                        ledger.persist(Standing::Owned { epoch, mending: None }),
                    ]
                }
                None => vec![],
            };
            (State::Owned { epoch }, effects)
        }
        Standing::Elsewhere { owner, epoch, declined } => {
            (State::Elsewhere { owner, epoch, declined }, vec![Effect::DestroyCopy])
        }
        Standing::Disputed { epoch, owner, newer } => {
            (State::Disputed { epoch, owner, newer }, vec![Effect::PauseGuest])
        }
        Standing::Offering { .. } | Standing::Ceded { .. } | Standing::Draining { .. } => {
            Source::recover(ledger, standing)
        }
        Standing::Receiving { .. } | Standing::Taken { .. } => {
            Target::recover(ledger, standing, engine)
        }
    }
}

/// The door has let us through: claim the epoch, from wherever we stand.
fn acquire(ledger: &mut Ledger, state: State, after: Epoch, epoch: Epoch) -> (State, Vec<Effect>) {
    let epoch = epoch.max(ledger.consumed.next());
    if epoch > EPOCH_MAX {
        return (state, vec![]);
    }
    let take = Effect::TakeClaim(Claims { after, epoch, declined: None });
    match state {
        State::Unknown
        | State::Damaged
        | State::Owned { .. }
        | State::Elsewhere { .. }
        | State::Disputed { .. }
        | State::Source(Source::Ceded { .. }) => {
            (State::Acquiring { after, epoch, from: Box::new(state) }, vec![take])
        }
        // The incomplete or doubtful copy goes first; it must never run beside a fresh boot.
        State::Target(
            target @ (Target::Starting { .. } | Target::Receiving { .. } | Target::Prepared { .. }),
        ) => {
            let (from, mut effects) = target.decline(ledger, Decline::Refused, Reason::Cancelled);
            effects.push(take);
            (State::Acquiring { after, epoch, from: Box::new(from) }, effects)
        }
        State::Acquiring { .. }
        | State::Source(_)
        | State::Target(Target::Claiming { .. } | Target::Taken { .. }) => (state, vec![]),
    }
}

/// Messages while a claim is under way are left for later, except the news that somebody else
/// has the guest.
fn while_acquiring(
    ledger: &mut Ledger,
    (after, epoch): (Epoch, Epoch),
    before: State,
    from: HostId,
    message: Message,
) -> (State, Vec<Effect>) {
    let stay = |before| (State::Acquiring { after, epoch, from: Box::new(before) }, vec![]);
    match (before, message.body) {
        (State::Source(source), Body::Started | Body::Owner { .. })
            if source.handoff().id == message.handoff && source.handoff().peer == from =>
        {
            match source.on_message(ledger, message.body) {
                (State::Source(Source::Ceded { epoch: owned, handoff, run }), _) => {
                    let ceded = Source::Ceded { epoch: owned, handoff, run };
                    stay(State::Source(ceded))
                }
                step => step,
            }
        }
        (before, _) => stay(before),
    }
}

fn on_claim(
    ledger: &mut Ledger,
    (after, epoch): (Epoch, Epoch),
    from: State,
    event: Event,
) -> (State, Vec<Effect>) {
    let me = ledger.identity.host;
    match event {
        Event::ClaimWon { epoch: won } if won == epoch => {
            ledger.consume(epoch);
            ledger.boot = ledger.now;
            let effects = vec![
                // First, so that no crash can find an old copy under a new right to run.
                Effect::DestroyCopy,
                ledger.persist(Standing::Owned { epoch, mending: None }),
                ledger.write_owner(me, epoch, By::Owner),
                Effect::Report(Outcome::Acquired { epoch }),
            ];
            (State::Owned { epoch }, effects)
        }
        Event::ClaimLost { epoch: lost, holder } if lost == epoch => {
            ledger.consume(epoch);
            (from, vec![Effect::Report(Outcome::AcquireLost { holder })])
        }
        Event::ClaimUnavailable { epoch: asked } if asked == epoch => {
            (from, vec![Effect::Report(Outcome::InDoubt(Doubt::ClaimUnavailable))])
        }
        Event::Nudge => {
            let state = State::Acquiring { after, epoch, from: Box::new(from) };
            (state, vec![Effect::TakeClaim(Claims { after, epoch, declined: None })])
        }
        _ => (State::Acquiring { after, epoch, from: Box::new(from) }, vec![]),
    }
}
