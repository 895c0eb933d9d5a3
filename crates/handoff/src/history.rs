// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Messages about handoffs that are not, or not any more, under way here.
//!
//! They are answered from what is known for good. Three rules make the answers right whatever
//! happened in between:
//!
//! - A host that holds a guest with the very epoch it is asked about has taken that handoff.
//! - A host that holds it, or knows a holder, with a *newer* epoch knows that the handoff is over.
//! - A host that holds the guest and has consumed the epoch it is asked about, without the handoff
//!   being under way, has given that handoff up before it was ceded.
//!
//! Anything else is `NoRecord`, which nobody acts on.

use crate::effect::{Effect, Outcome};
use crate::message::{Body, EPOCH_MAX, Kind, Message, Reason};
use crate::ownership::{Ledger, State};
use crate::record::{Decline, Handoff, Standing};
use crate::source::{self, Source};
use crate::target::Target;
use whimbrel_model::id::{Epoch, HostId};

type Step = (State, Vec<Effect>);

pub(crate) fn on_message(
    ledger: &mut Ledger,
    state: State,
    from: HostId,
    message: Message,
) -> Step {
    let me = ledger.identity.host;
    let reply = |body| Effect::Send { to: from, message: Message { body, ..message } };
    match message.body {
        Body::Offer { owned, kind } => {
            let handoff = Handoff { id: message.handoff, peer: from, epoch: message.epoch, kind };
            if message.epoch <= ledger.consumed {
                // We may have accepted it once, and whatever came of that must not be denied: a
                // source that has ceded would believe us.
                let body = match answer_cede(&state, me, &message) {
                    Body::NoRecord => Body::Unwilling { reason: Reason::Stale },
                    body => body,
                };
                return (state, vec![reply(body)]);
            }
            consider(ledger, state, owned, handoff)
        }
        Body::Cede { .. } => {
            let body = answer_cede(&state, me, &message);
            (state, vec![reply(body)])
        }
        Body::Accepted | Body::Ready | Body::WhoOwns => {
            let body = answer_target(ledger, &state, &message);
            (state, vec![reply(body)])
        }
        Body::Started => heard(ledger, state, from, message.epoch),
        Body::Owner { owner, epoch } if owner == from => heard(ledger, state, owner, epoch),
        // Hearsay, and echoes of what was acted on.
        Body::Owner { .. }
        | Body::Abort
        | Body::Refused { .. }
        | Body::Unwilling { .. }
        | Body::Returned
        | Body::NoRecord => (state, vec![]),
    }
}

/// Returns who owns the guest, as far as `state` knows for good.
pub(crate) fn owner(state: &State, me: HostId) -> Option<(HostId, Epoch)> {
    match *state {
        State::Unknown | State::Damaged => None,
        State::Acquiring { ref from, .. } => owner(from, me),
        State::Owned { epoch } => Some((me, epoch)),
        State::Elsewhere { owner, epoch, .. } => Some((owner, epoch)),
        State::Disputed { owner, newer, .. } => Some((owner, newer)),
        State::Source(
            Source::Offering { epoch, .. }
            | Source::Confirming { epoch, .. }
            | Source::Ceded { epoch, .. }
            | Source::Burning { epoch, .. }
            | Source::Returning { epoch, .. },
        ) => Some((me, epoch)),
        State::Source(Source::Draining { handoff }) => Some((handoff.peer, handoff.epoch)),
        // What is taken may still be returned.
        State::Target(
            Target::Starting { owned, handoff }
            | Target::Receiving { owned, handoff }
            | Target::Prepared { owned, handoff }
            | Target::Claiming { owned, handoff, .. }
            | Target::Taken { owned, handoff, .. },
        ) => Some((handoff.peer, owned)),
    }
}

/// A source cedes to us a handoff that is not under way here.
fn answer_cede(state: &State, me: HostId, message: &Message) -> Body {
    if let State::Elsewhere { declined: Some(declined), .. } = state
        && declined.handoff == message.handoff
    {
        return match declined.how {
            Decline::Refused => Body::Refused { reason: Reason::Failed },
            Decline::Returned => Body::Returned,
        };
    }
    match owner(state, me) {
        Some((owner, epoch)) if owner == me && epoch == message.epoch => Body::Started,
        Some((owner, epoch)) if epoch >= message.epoch => Body::Owner { owner, epoch },
        Some(_) | None => Body::NoRecord,
    }
}

/// A target asks us about a handoff that is not under way here.
fn answer_target(ledger: &Ledger, state: &State, message: &Message) -> Body {
    if message.epoch > ledger.consumed {
        // We have never offered it, or have forgotten that we did.
        return Body::NoRecord;
    }
    let me = ledger.identity.host;
    match owner(state, me) {
        Some((owner, epoch)) if epoch >= message.epoch && owner != me => {
            Body::Owner { owner, epoch }
        }
        Some((owner, _)) if owner == me => Body::Abort,
        Some(_) | None => Body::NoRecord,
    }
}

/// A host has said that it holds the guest with `epoch`.
pub(crate) fn heard(ledger: &mut Ledger, state: State, owner: HostId, epoch: Epoch) -> Step {
    let me = ledger.identity.host;
    if owner == me || epoch > EPOCH_MAX {
        return (state, vec![]);
    }
    match state {
        State::Owned { epoch: ours } if (epoch, owner) > (ours, me) => {
            dispute(ledger, ours, owner, epoch)
        }
        State::Source(
            Source::Offering { epoch: ours, handoff, .. }
            | Source::Confirming { epoch: ours, handoff, .. },
        ) if (epoch, owner) > (ours, me) => {
            let (state, mut effects) = dispute(ledger, ours, owner, epoch);
            effects.push(ledger.send(&handoff, Body::Abort));
            (state, effects)
        }
        // Whoever holds it with a newer epoch than we did has succeeded us, ceded to or not.
        State::Source(
            Source::Ceded { epoch: ours, handoff, .. }
            | Source::Burning { epoch: ours, handoff, .. }
            | Source::Returning { epoch: ours, handoff, .. },
        ) if epoch > ours => {
            if owner == handoff.peer && epoch == handoff.epoch {
                source::release(ledger, &handoff)
            } else {
                source::leave(ledger, owner, epoch)
            }
        }
        State::Target(
            Target::Starting { owned, .. }
            | Target::Receiving { owned, .. }
            | Target::Prepared { owned, .. }
            | Target::Claiming { owned, .. },
        ) if epoch > owned => {
            ledger.consume(epoch);
            let effects = vec![
                ledger.persist(Standing::Elsewhere { owner, epoch, declined: None }),
                Effect::DestroyCopy,
                Effect::Report(Outcome::Declined { reason: Reason::Stale }),
            ];
            (State::Elsewhere { owner, epoch, declined: None }, effects)
        }
        State::Elsewhere { epoch: known, .. } if epoch > known => {
            ledger.consume(epoch);
            let effects =
                vec![ledger.persist(Standing::Elsewhere { owner, epoch, declined: None })];
            (State::Elsewhere { owner, epoch, declined: None }, effects)
        }
        // Old news, or none of our business yet.
        State::Unknown
        | State::Damaged
        | State::Acquiring { .. }
        | State::Owned { .. }
        | State::Elsewhere { .. }
        | State::Disputed { .. }
        | State::Source(_)
        | State::Target(_) => (state, vec![]),
    }
}

/// Somebody holds the guest with a newer epoch than ours: an operator's word has overtaken us, or
/// was false. Stop at once, keep everything, and let a person look.
fn dispute(ledger: &mut Ledger, ours: Epoch, owner: HostId, newer: Epoch) -> Step {
    ledger.consume(newer);
    let effects = vec![
        Effect::PauseGuest,
        ledger.persist(Standing::Disputed { epoch: ours, owner, newer }),
        Effect::Report(Outcome::Disputed { owner, epoch: newer }),
    ];
    (State::Disputed { epoch: ours, owner, newer }, effects)
}

/// A source offers us the guest, with an epoch we have never seen.
fn consider(ledger: &mut Ledger, state: State, owned: Epoch, handoff: Handoff) -> Step {
    let from = handoff.peer;
    let refuse = |ledger: &Ledger, state, reason| {
        (state, vec![ledger.send(&handoff, Body::Unwilling { reason })])
    };
    if handoff.epoch > EPOCH_MAX || owned >= handoff.epoch {
        return refuse(ledger, state, Reason::Stale);
    }
    match state {
        State::Unknown => Target::begin(ledger, owned, handoff),
        State::Elsewhere { owner, epoch, .. } => {
            let is_newer = owned > epoch || (owned == epoch && owner == from);
            if is_newer {
                Target::begin(ledger, owned, handoff)
            } else {
                refuse(ledger, state, Reason::Stale)
            }
        }
        // Who offers the guest with a newer epoch than ours has taken it: its `Started` was lost,
        // and this says the same.
        State::Source(Source::Ceded { epoch, handoff: ceded, .. })
            if owned > epoch && ceded.kind != Kind::PostCopy =>
        {
            let (_, mut effects) = source::leave(ledger, from, owned);
            let (state, begin) = Target::begin(ledger, owned, handoff);
            effects.extend(begin);
            (state, effects)
        }
        // Who offers it again has given up the attempt we still hold.
        State::Target(
            Target::Starting { owned: known, handoff: old }
            | Target::Receiving { owned: known, handoff: old }
            | Target::Prepared { owned: known, handoff: old },
        ) if (from == old.peer && handoff.epoch > old.epoch && owned >= known) || owned > known => {
            let (state, begin) = Target::begin(ledger, owned, handoff);
            let mut effects = vec![Effect::DestroyCopy];
            effects.extend(begin);
            (state, effects)
        }
        State::Owned { epoch } if owned > epoch => {
            let (state, mut effects) = heard(ledger, state, from, owned);
            effects.push(ledger.send(&handoff, Body::Unwilling { reason: Reason::Busy }));
            (state, effects)
        }
        // A former owner that does not know: tell it.
        State::Owned { epoch } => {
            let (state, mut effects) = refuse(ledger, state, Reason::Busy);
            let owner = ledger.identity.host;
            effects.push(ledger.send(&handoff, Body::Owner { owner, epoch }));
            (state, effects)
        }
        State::Damaged
        | State::Acquiring { .. }
        | State::Disputed { .. }
        | State::Source(_)
        | State::Target(_) => refuse(ledger, state, Reason::Busy),
    }
}
