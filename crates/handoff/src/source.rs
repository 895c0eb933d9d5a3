// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The host the guest leaves.
//!
//! ```text
//!              Accepted/Ready            Confirmed            Started
//!   Offering ------------------> Confirming ------> Ceded --------------> Elsewhere
//!      |                            |             |   ^ |    (post-copy: Draining first)
//!      | failed, cancelled, refused | Unconfirmed |   | | Refused, Returned,
//!      v                            v             |   | v or Burning (an operator's word)
//!    Owned (same epoch, engine mended)            | Returning --ClaimWon--> Owned (next epoch)
//! ```
//!
//! Everything left of `Ceded` is ours to break off, at any moment and alone. Everything right of
//! it waits for the target. Who comes back after `Ceded` comes back with a *new* epoch, so that
//! whatever was said or written about the old one can no longer be believed.

use crate::disk::By;
use crate::effect::{Claims, Doubt, Effect, Event, Outcome};
use crate::message::{Body, Kind, Reason};
use crate::ownership::{Ledger, State};
use crate::record::{Handoff, Standing};
use whimbrel_model::id::{Epoch, HostId};
use whimbrel_model::run_state::RunState;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Ours. The target has been offered the next epoch and may have promised to receive.
    Offering { epoch: Epoch, handoff: Handoff, run: Option<RunState>, is_accepted: bool },
    /// Ours. The target has everything, and our engine is asked whether that is all there is.
    Confirming { epoch: Epoch, handoff: Handoff, run: Option<RunState> },
    /// No longer ours to run. `Cede` is repeated until the target answers.
    Ceded { epoch: Epoch, handoff: Handoff, run: Option<RunState> },
    /// On an operator's word: claiming the epoch that was ceded, so that the target cannot.
    Burning { epoch: Epoch, handoff: Handoff, run: Option<RunState> },
    /// The target will never own it: claiming the epoch to go on with.
    Returning { epoch: Epoch, handoff: Handoff, run: Option<RunState>, take: Epoch },
    /// The target runs it and draws the last pages from our engine.
    Draining { handoff: Handoff },
}

type Step = (State, Vec<Effect>);

impl Source {
    pub(crate) fn begin(
        ledger: &Ledger,
        epoch: Epoch,
        handoff: Handoff,
        run: Option<RunState>,
    ) -> Step {
        let effects = vec![
            ledger.persist(Standing::Offering { epoch, handoff, run }),
            ledger.send(&handoff, Body::Offer { owned: epoch, kind: handoff.kind }),
        ];
        let source = Source::Offering { epoch, handoff, run, is_accepted: false };
        (State::Source(source), effects)
    }

    pub(crate) fn recover(ledger: &mut Ledger, standing: Standing) -> Step {
        match standing {
            // We no longer know what the engine went through: never cede now.
            Standing::Offering { epoch, handoff, run } => {
                keep(ledger, epoch, &handoff, run, Reason::Restarted)
            }
            Standing::Ceded { epoch, handoff, run } => {
                let effects = announce_cession(ledger, &handoff, run);
                (State::Source(Source::Ceded { epoch, handoff, run }), effects)
            }
            Standing::Draining { handoff } => {
                (State::Source(Source::Draining { handoff }), vec![Effect::AwaitDrained])
            }
            Standing::Owned { .. }
            | Standing::Elsewhere { .. }
            | Standing::Receiving { .. }
            | Standing::Taken { .. }
            | Standing::Disputed { .. } => unreachable!("only a source's records come here"),
        }
    }

    pub(crate) fn on_message(self, ledger: &mut Ledger, body: Body) -> Step {
        match self {
            Source::Offering { .. } | Source::Confirming { .. } => self.uncommitted(ledger, body),
            Source::Ceded { .. } | Source::Burning { .. } | Source::Returning { .. } => {
                self.committed(ledger, body)
            }
            // The target has said all it had to say.
            Source::Draining { .. } => match body {
                Body::Started | Body::Ready | Body::WhoOwns | Body::Accepted => self.stay(),
                Body::Refused { .. } | Body::Unwilling { .. } | Body::Returned => self.stay(),
                Body::NoRecord | Body::Owner { .. } => self.stay(),
                Body::Offer { .. } | Body::Cede { .. } | Body::Abort => self.stay(),
            },
        }
    }

    /// Messages before the commit point.
    fn uncommitted(self, ledger: &mut Ledger, body: Body) -> Step {
        let (epoch, handoff, run) = self.parts().expect("an uncommitted source has an epoch");
        let is_confirming = matches!(self, Source::Confirming { .. });
        let has_accepted =
            is_confirming || matches!(self, Source::Offering { is_accepted: true, .. });
        match body {
            // Moves.
            Body::Accepted if !has_accepted => {
                let source = Source::Offering { epoch, handoff, run, is_accepted: true };
                (State::Source(source), vec![Effect::Transfer])
            }
            Body::Ready if !is_confirming => {
                let source = Source::Confirming { epoch, handoff, run };
                (State::Source(source), vec![Effect::ConfirmStopped])
            }
            Body::Refused { .. } | Body::Unwilling { .. } | Body::NoRecord => {
                keep(ledger, epoch, &handoff, run, Reason::PeerRefused)
            }
            Body::WhoOwns => {
                let offer = Body::Offer { owned: epoch, kind: handoff.kind };
                (State::Source(self), vec![ledger.send(&handoff, offer)])
            }
            Body::Owner { owner, epoch: newer } if owner == handoff.peer => {
                crate::history::heard(ledger, State::Source(self), owner, newer)
            }
            // Repeats, and news that is none.
            Body::Accepted | Body::Ready | Body::Owner { .. } => self.stay(),
            // Impossible: nothing was ceded, so nothing was owned.
            Body::Started | Body::Returned => self.stay(),
            // Only a target receives these.
            Body::Offer { .. } | Body::Cede { .. } | Body::Abort => self.stay(),
        }
    }

    /// Messages after the commit point.
    fn committed(self, ledger: &mut Ledger, body: Body) -> Step {
        let (epoch, handoff, run) = self.parts().expect("a committed source has an epoch");
        let is_waiting = matches!(self, Source::Ceded { .. });
        match body {
            // Moves.
            Body::Started => release(ledger, &handoff),
            Body::Refused { .. } | Body::Returned if is_waiting => {
                come_back(ledger, epoch, handoff, run)
            }
            Body::Owner { owner, epoch: newer } if owner == ledger.identity.host => {
                let is_news = newer >= handoff.epoch;
                let report = Effect::Report(Outcome::InDoubt(Doubt::OwnMemoryLost));
                (State::Source(self), if is_news { vec![report] } else { vec![] })
            }
            Body::Owner { owner, epoch: newer } => {
                crate::history::heard(ledger, State::Source(self), owner, newer)
            }
            Body::NoRecord => {
                let report = Effect::Report(Outcome::InDoubt(Doubt::TargetForgot));
                (State::Source(self), vec![report])
            }
            // The target may have missed it.
            Body::Ready | Body::WhoOwns if is_waiting => {
                (State::Source(self), vec![ledger.send(&handoff, Body::Cede { run })])
            }
            // Repeats, and questions that a claim under way will answer. An `Unwilling` is about
            // an offer long accepted: it was sent before that, or to a repeat of it.
            Body::Accepted | Body::Unwilling { .. } | Body::Ready | Body::WhoOwns => self.stay(),
            Body::Refused { .. } | Body::Returned => self.stay(),
            // Only a target receives these.
            Body::Offer { .. } | Body::Cede { .. } | Body::Abort => self.stay(),
        }
    }

    pub(crate) fn on_event(self, ledger: &mut Ledger, event: Event) -> Step {
        match self {
            Source::Offering { .. } | Source::Confirming { .. } => {
                self.uncommitted_event(ledger, event)
            }
            Source::Ceded { epoch, handoff, run } => {
                ceded_event(ledger, epoch, handoff, run, event)
            }
            Source::Burning { epoch, handoff, run } => {
                let ceded = Source::Ceded { epoch, handoff, run };
                match event {
                    Event::ClaimWon { epoch: won } if won == handoff.epoch => {
                        come_back(ledger, epoch, handoff, run)
                    }
                    Event::ClaimLost { epoch: lost, holder } if lost == handoff.epoch => {
                        ceded.doubt(Doubt::ClaimHeld { holder })
                    }
                    Event::ClaimUnavailable { epoch: asked } if asked == handoff.epoch => {
                        ceded.doubt(Doubt::ClaimUnavailable)
                    }
                    _ => self.stay(),
                }
            }
            Source::Returning { epoch, handoff, run, take } => match event {
                Event::ClaimWon { epoch: won } if won == take => {
                    own_again(ledger, &handoff, run, take)
                }
                Event::ClaimLost { epoch: lost, holder } if lost == take => {
                    // Somebody has used it; try another the next time.
                    ledger.consume(take);
                    Source::Ceded { epoch, handoff, run }.doubt(Doubt::ClaimHeld { holder })
                }
                Event::ClaimUnavailable { epoch: asked } if asked == take => {
                    self.doubt(Doubt::ClaimUnavailable)
                }
                Event::Nudge => (State::Source(self), vec![return_claims(epoch, &handoff, take)]),
                _ => self.stay(),
            },
            Source::Draining { handoff } => match event {
                Event::Drained => leave(ledger, handoff.peer, handoff.epoch),
                _ => self.stay(),
            },
        }
    }

    fn uncommitted_event(self, ledger: &mut Ledger, event: Event) -> Step {
        let (epoch, handoff, run) = self.parts().expect("an uncommitted source has an epoch");
        let is_confirming = matches!(self, Source::Confirming { .. });
        match event {
            Event::Confirmed { run: stopped } if is_confirming => {
                match (handoff.kind, stopped) {
                    (_, Some(ended @ (RunState::ShutDown | RunState::Panicked))) => {
                        end(ledger, epoch, &handoff, ended)
                    }
                    (Kind::Stopped, None) | (Kind::PreCopy | Kind::PostCopy, Some(_)) => {
                        cede(ledger, epoch, handoff, stopped)
                    }
                    // An engine where none should be, or none where one should be.
                    (Kind::Stopped, Some(_)) | (Kind::PreCopy | Kind::PostCopy, None) => {
                        keep(ledger, epoch, &handoff, run, Reason::Failed)
                    }
                }
            }
            Event::Unconfirmed if is_confirming => {
                keep(ledger, epoch, &handoff, run, Reason::Failed)
            }
            Event::EngineFailed => keep(ledger, epoch, &handoff, run, Reason::Failed),
            Event::Cancelled => keep(ledger, epoch, &handoff, run, Reason::Cancelled),
            Event::PeerGone => keep(ledger, epoch, &handoff, run, Reason::PeerGone),
            Event::GuestEnded { run: ended } => end(ledger, epoch, &handoff, ended),
            Event::RunChanged { run: now } if !is_confirming && run.is_some() => {
                let Source::Offering { is_accepted, .. } = self else { return self.stay() };
                let run = Some(now);
                let standing = Standing::Offering { epoch, handoff, run };
                let source = Source::Offering { epoch, handoff, run, is_accepted };
                (State::Source(source), vec![ledger.persist(standing)])
            }
            Event::Nudge if matches!(self, Source::Offering { is_accepted: false, .. }) => {
                let offer = Body::Offer { owned: epoch, kind: handoff.kind };
                (State::Source(self), vec![ledger.send(&handoff, offer)])
            }
            _ => self.stay(),
        }
    }

    /// The handoff this is about.
    pub fn handoff(&self) -> &Handoff {
        match self {
            Source::Offering { handoff, .. }
            | Source::Confirming { handoff, .. }
            | Source::Ceded { handoff, .. }
            | Source::Burning { handoff, .. }
            | Source::Returning { handoff, .. }
            | Source::Draining { handoff } => handoff,
        }
    }

    /// Returns whether the commit point lies behind us.
    pub fn has_ceded(&self) -> bool {
        match self {
            Source::Offering { .. } | Source::Confirming { .. } => false,
            Source::Ceded { .. } | Source::Burning { .. } => true,
            Source::Returning { .. } | Source::Draining { .. } => true,
        }
    }

    pub(crate) fn may_run(&self) -> bool {
        !self.has_ceded()
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Source::Offering { is_accepted: false, .. } => "Offering",
            Source::Offering { is_accepted: true, .. } => "Sending",
            Source::Confirming { .. } => "Confirming",
            Source::Ceded { .. } => "Ceded",
            Source::Burning { .. } => "Burning",
            Source::Returning { .. } => "Returning",
            Source::Draining { .. } => "Draining",
        }
    }

    fn parts(&self) -> Option<(Epoch, Handoff, Option<RunState>)> {
        match *self {
            Source::Offering { epoch, handoff, run, .. }
            | Source::Confirming { epoch, handoff, run }
            | Source::Ceded { epoch, handoff, run }
            | Source::Burning { epoch, handoff, run }
            | Source::Returning { epoch, handoff, run, .. } => Some((epoch, handoff, run)),
            Source::Draining { .. } => None,
        }
    }

    fn stay(self) -> Step {
        (State::Source(self), vec![])
    }

    fn doubt(self, doubt: Doubt) -> Step {
        (State::Source(self), vec![Effect::Report(Outcome::InDoubt(doubt))])
    }
}

fn ceded_event(
    ledger: &mut Ledger,
    epoch: Epoch,
    handoff: Handoff,
    run: Option<RunState>,
    event: Event,
) -> Step {
    let ceded = Source::Ceded { epoch, handoff, run };
    match event {
        Event::Nudge => (State::Source(ceded), vec![ledger.send(&handoff, Body::Cede { run })]),
        Event::PeerGone => ceded.doubt(Doubt::TargetSilent),
        Event::OwnerSeen(record)
            if record.guest == ledger.identity.guest
                && record.by == By::Owner
                && record.owner != ledger.identity.host =>
        {
            crate::history::heard(ledger, State::Source(ceded), record.owner, record.epoch)
        }
        // After a post-copy began our engine no longer has a guest to give back.
        Event::Resume if handoff.kind == Kind::PostCopy => ceded.doubt(Doubt::CannotResume),
        Event::Resume => {
            let burning = Source::Burning { epoch, handoff, run };
            let claims = Claims { after: epoch, epoch: handoff.epoch, declined: None };
            (State::Source(burning), vec![Effect::TakeClaim(claims)])
        }
        _ => ceded.stay(),
    }
}

/// The commit point.
fn cede(ledger: &Ledger, epoch: Epoch, handoff: Handoff, run: Option<RunState>) -> Step {
    let mut effects = vec![ledger.persist(Standing::Ceded { epoch, handoff, run })];
    effects.extend(announce_cession(ledger, &handoff, run));
    (State::Source(Source::Ceded { epoch, handoff, run }), effects)
}

fn announce_cession(ledger: &Ledger, handoff: &Handoff, run: Option<RunState>) -> Vec<Effect> {
    let by = By::Source { handoff: handoff.id, run };
    vec![
        ledger.write_owner(handoff.peer, handoff.epoch, by),
        ledger.send(handoff, Body::Cede { run }),
    ]
}

/// Breaks off before the commit point: the guest stays as it was, with the epoch it had.
fn keep(
    ledger: &Ledger,
    epoch: Epoch,
    handoff: &Handoff,
    run: Option<RunState>,
    reason: Reason,
) -> Step {
    let mut effects = mend(ledger, epoch, run);
    effects.insert(1, ledger.send(handoff, Body::Abort));
    effects.push(Effect::Report(Outcome::Kept { reason }));
    (State::Owned { epoch }, effects)
}

/// The guest ended by itself before it was ceded: the attempt is over and its policy speaks here.
fn end(ledger: &Ledger, epoch: Epoch, handoff: &Handoff, ended: RunState) -> Step {
    let (state, mut effects) = keep(ledger, epoch, handoff, Some(ended), Reason::GuestEnded);
    effects.push(Effect::ApplyPolicy { ended: Some(ended) });
    (state, effects)
}

/// Makes `epoch` ours durably, and brings the engine back to `run`.
fn mend(ledger: &Ledger, epoch: Epoch, run: Option<RunState>) -> Vec<Effect> {
    let mut effects = vec![ledger.persist(Standing::Owned { epoch, mending: run })];
    if let Some(run) = run {
        effects.push(Effect::Mend { run });
        effects.push(ledger.persist(Standing::Owned { epoch, mending: None }));
    }
    effects
}

/// The epoch ceded will never be owned: claim the next one.
fn come_back(ledger: &Ledger, epoch: Epoch, handoff: Handoff, run: Option<RunState>) -> Step {
    let take = ledger.consumed.next();
    let source = Source::Returning { epoch, handoff, run, take };
    (State::Source(source), vec![return_claims(epoch, &handoff, take)])
}

/// The claims to come back with. What the target may have claimed before it declined is void.
fn return_claims(after: Epoch, handoff: &Handoff, take: Epoch) -> Effect {
    let declined = Some((handoff.peer, handoff.epoch));
    Effect::TakeClaim(Claims { after, epoch: take, declined })
}

/// Goes on with the guest after it was ceded in vain.
fn own_again(ledger: &mut Ledger, handoff: &Handoff, run: Option<RunState>, take: Epoch) -> Step {
    ledger.consume(take);
    let owner = ledger.write_owner(ledger.identity.host, take, By::Owner);
    let mut effects = match handoff.kind {
        Kind::PreCopy | Kind::Stopped => {
            let mut effects = mend(ledger, take, run);
            // Before the engine runs: what the disk says must not be older than what it does.
            effects.insert(1, owner);
            effects
        }
        // Half of the guest is gone with the target: here it has crashed.
        Kind::PostCopy => vec![
            Effect::DestroyCopy,
            ledger.persist(Standing::Owned { epoch: take, mending: None }),
            owner,
            Effect::ApplyPolicy { ended: None },
        ],
    };
    effects.push(Effect::Report(Outcome::Kept { reason: Reason::PeerRefused }));
    (State::Owned { epoch: take }, effects)
}

/// The target has started the guest.
pub(crate) fn release(ledger: &mut Ledger, handoff: &Handoff) -> Step {
    match handoff.kind {
        Kind::PreCopy | Kind::Stopped => leave(ledger, handoff.peer, handoff.epoch),
        Kind::PostCopy => {
            let handoff = *handoff;
            let effects =
                vec![ledger.persist(Standing::Draining { handoff }), Effect::AwaitDrained];
            (State::Source(Source::Draining { handoff }), effects)
        }
    }
}

/// Lets go of the guest: it is elsewhere, and our copy is of no use to anybody.
pub(crate) fn leave(ledger: &mut Ledger, owner: HostId, epoch: Epoch) -> Step {
    ledger.consume(epoch);
    let effects = vec![
        ledger.persist(Standing::Elsewhere { owner, epoch, declined: None }),
        Effect::DestroyCopy,
        Effect::Report(Outcome::Moved { to: owner }),
    ];
    (State::Elsewhere { owner, epoch, declined: None }, effects)
}
