// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What two hosts say to each other about one handoff.
//!
//! These are the domain types; their bytes are protobuf and belong to the link. Every message
//! carries its handoff, so any of them may come twice, late or never.
//!
//! # Versions
//!
//! [`VERSION_MIN`]`..=`[`VERSION_MAX`] is the range this code speaks. Both ends say theirs when
//! they connect; the highest common one is used, and where there is none the peers do not talk.
//! A body may gain fields and the set may gain bodies only with a new version: a host never sends
//! to an older one what that one could not answer.

use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

/// Oldest version of these messages that this code speaks.
pub const VERSION_MIN: u32 = 1;
/// Newest version of these messages that this code speaks.
pub const VERSION_MAX: u32 = 1;

/// Newest epoch that is accepted from a peer or a file: far beyond any use, and far enough from
/// the end of the numbers that counting on never overflows.
pub const EPOCH_MAX: Epoch = Epoch(1 << 62);

/// One message about one handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    pub guest: GuestId,
    pub handoff: HandoffId,
    /// The epoch the handoff offers.
    pub epoch: Epoch,
    pub body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    // From the source.
    /// The guest may become yours. `owned` is the epoch the source holds it with.
    Offer { owned: Epoch, kind: Kind },
    /// The guest is yours, as what it was when it stopped; none: it has no engine.
    Cede { run: Option<RunState> },
    /// Forget it; the source never ceded this handoff and never will.
    Abort,

    // From the target.
    /// The offer is durable and the engine waits for memory.
    Accepted,
    /// Everything has arrived, complete and equal.
    Ready,
    /// The target owns the guest, durably, and has started it: drop your copy.
    Started,
    /// The target will never own this epoch, durably.
    Refused { reason: Reason },
    /// The target does not accept the offer. Nothing about that is durable, so it ends an offer
    /// and means nothing to a source that has ceded.
    Unwilling { reason: Reason },
    /// The target owned the epoch, its engine refused to start, and nothing ran: take it back.
    Returned,

    // From either.
    /// How does this handoff stand with you?
    WhoOwns,
    /// Never heard of this handoff. Not a refusal: who says so may have lost its memory.
    NoRecord,
    /// This handoff is history here: the newest owner known is this one.
    Owner { owner: HostId, epoch: Epoch },
}

/// How the guest travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Memory first, then the handoff.
    PreCopy,
    /// The handoff first, then the rest of the memory. Asked for, never implied.
    PostCopy,
    /// The guest has no engine; only its definition moves.
    Stopped,
}

/// Why an attempt ended. The whole story travels beside it as a problem, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An engine, a carrier or a timer ended the attempt.
    Failed,
    /// A person ended it.
    Cancelled,
    /// The peer was silent for too long, or said it had given up.
    PeerGone,
    /// A daemon restarted in the middle.
    Restarted,
    /// The guest powered off or panicked before it was ceded.
    GuestEnded,
    /// The other host would not: its own reason came with it.
    PeerRefused,
    /// The epoch offered is not newer than what is known here.
    Stale,
    /// The guest is owned, or being handed over, here.
    Busy,
    /// Another host holds the claim on the disk.
    ClaimLost,
}

impl Body {
    /// Returns the name of the message, for logs and coverage.
    pub fn name(&self) -> &'static str {
        match self {
            Body::Offer { .. } => "Offer",
            Body::Cede { .. } => "Cede",
            Body::Abort => "Abort",
            Body::Accepted => "Accepted",
            Body::Ready => "Ready",
            Body::Started => "Started",
            Body::Refused { .. } => "Refused",
            Body::Unwilling { .. } => "Unwilling",
            Body::Returned => "Returned",
            Body::WhoOwns => "WhoOwns",
            Body::NoRecord => "NoRecord",
            Body::Owner { .. } => "Owner",
        }
    }
}
