// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The messages of a handoff on the wire.

use super::WireError;
use super::convert::{Wire, guest, handoff, host, missing};
use crate::proto;
use whimbrel_handoff::message::{Body, EPOCH_MAX, Kind, Message, Reason};
use whimbrel_model::id::Epoch;
use whimbrel_model::problem::Problem;
use whimbrel_model::run_state::RunState;

/// What comes over the connection of a handoff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoffFrame {
    Message(Message),
    /// The peer explains why it will end the conversation, or the attempt.
    Problem(Problem),
}

impl Wire for Message {
    type Proto = proto::HandoffMessage;

    fn to_proto(&self) -> proto::HandoffMessage {
        use proto::handoff_message as p;
        let bare = p::Bare {};
        let body = match self.body {
            Body::Offer { owned, kind } => {
                p::Body::Offer(p::Offer { owned: owned.0, kind: kind_to_proto(kind).into() })
            }
            Body::Cede { run } => {
                p::Body::Cede(p::Cede { run: run.map(|run| run_to_proto(run).into()) })
            }
            Body::Abort => p::Body::Abort(bare),
            Body::Accepted => p::Body::Accepted(bare),
            Body::Ready => p::Body::Ready(bare),
            Body::Started => p::Body::Started(bare),
            Body::Refused { reason } => {
                p::Body::Refused(p::Refused { reason: reason_to_proto(reason).into() })
            }
            Body::Unwilling { reason } => {
                p::Body::Unwilling(p::Refused { reason: reason_to_proto(reason).into() })
            }
            Body::Returned => p::Body::Returned(bare),
            Body::WhoOwns => p::Body::WhoOwns(bare),
            Body::NoRecord => p::Body::NoRecord(bare),
            Body::Owner { owner, epoch } => {
                p::Body::Owner(p::Owner { owner: owner.0.to_vec(), epoch: epoch.0 })
            }
        };
        proto::HandoffMessage {
            guest: self.guest.0.as_bytes().to_vec(),
            handoff: self.handoff.0.as_bytes().to_vec(),
            epoch: self.epoch.0,
            body: Some(body),
        }
    }

    fn from_proto(proto: proto::HandoffMessage) -> Result<Self, WireError> {
        use proto::handoff_message::Body as P;
        let body = match proto.body.ok_or(missing("body"))? {
            P::Offer(offer) => {
                Body::Offer { owned: epoch(offer.owned)?, kind: kind_from_proto(offer.kind)? }
            }
            P::Cede(cede) => Body::Cede { run: cede.run.map(run_from_proto).transpose()? },
            P::Abort(_) => Body::Abort,
            P::Accepted(_) => Body::Accepted,
            P::Ready(_) => Body::Ready,
            P::Started(_) => Body::Started,
            P::Refused(refused) => Body::Refused { reason: reason_from_proto(refused.reason)? },
            P::Unwilling(unwilling) => {
                Body::Unwilling { reason: reason_from_proto(unwilling.reason)? }
            }
            P::Returned(_) => Body::Returned,
            P::WhoOwns(_) => Body::WhoOwns,
            P::NoRecord(_) => Body::NoRecord,
            P::Owner(known) => {
                Body::Owner { owner: host(&known.owner)?, epoch: epoch(known.epoch)? }
            }
        };
        Ok(Message {
            guest: guest(&proto.guest)?,
            handoff: handoff(&proto.handoff)?,
            epoch: epoch(proto.epoch)?,
            body,
        })
    }
}

/// Reads an epoch that leaves room to count on.
pub(super) fn epoch(number: u64) -> Result<Epoch, WireError> {
    if number > EPOCH_MAX.0 {
        return Err(WireError::Value { field: "epoch", found: number.to_string() });
    }
    Ok(Epoch(number))
}

/// Both directions of an enum, so that neither can be forgotten.
macro_rules! twins {
    ($to:ident, $from:ident, $ours:ident, $field:literal, [$($name:ident),*]) => {
        fn $to(ours: $ours) -> proto_twins::$ours {
            match ours { $($ours::$name => proto_twins::$ours::$name),* }
        }

        fn $from(number: i32) -> Result<$ours, WireError> {
            match proto_twins::$ours::try_from(number) {
                $(Ok(proto_twins::$ours::$name) => Ok($ours::$name),)*
                Ok(proto_twins::$ours::Unspecified) | Err(_) => {
                    Err(WireError::Value { field: $field, found: number.to_string() })
                }
            }
        }
    };
}

/// The generated enums under the names of ours.
mod proto_twins {
    pub(super) use crate::proto::{HandoffKind as Kind, HandoffReason as Reason, RunState};
}

twins!(kind_to_proto, kind_from_proto, Kind, "kind", [PreCopy, PostCopy, Stopped]);
twins!(
    reason_to_proto,
    reason_from_proto,
    Reason,
    "reason",
    [Failed, Cancelled, PeerGone, Restarted, GuestEnded, PeerRefused, Stale, Busy, ClaimLost]
);
twins!(
    run_to_proto,
    run_from_proto,
    RunState,
    "run",
    [Running, Paused, Suspended, ShutDown, Panicked, IoError]
);

impl Wire for HandoffFrame {
    type Proto = proto::HandoffFrame;

    fn to_proto(&self) -> proto::HandoffFrame {
        use proto::handoff_frame::Frame as P;
        let frame = match self {
            HandoffFrame::Message(message) => P::Message(message.to_proto()),
            HandoffFrame::Problem(problem) => P::Problem(problem.to_proto()),
        };
        proto::HandoffFrame { frame: Some(frame) }
    }

    /// Must not be given `Alive`: that is the connection's own business.
    fn from_proto(proto: proto::HandoffFrame) -> Result<Self, WireError> {
        use proto::handoff_frame::Frame as P;
        Ok(match proto.frame {
            Some(P::Message(message)) => HandoffFrame::Message(Message::from_proto(message)?),
            Some(P::Problem(problem)) => HandoffFrame::Problem(Problem::from_proto(problem)?),
            Some(P::Alive(_)) | None => return Err(missing("frame")),
        })
    }
}
