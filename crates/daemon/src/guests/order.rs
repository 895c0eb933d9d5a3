// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Everything that can happen to a guest, as one closed enum.

use crate::guests::Papers;
use crate::http::Caller;
use crate::migrate::{Call, Figures, Incoming, MoveOrder, Planned};
use std::time::Duration;
use tokio::sync::oneshot;
use whimbrel_api::Problem;
use whimbrel_handoff::message::Message;
use whimbrel_model::id::{Epoch, HandoffId, HostId};

/// What a guest's task is told. Whoever wants something of a guest adds a variant here.
#[derive(Debug)]
pub(crate) enum GuestEvent {
    /// A person wants something.
    Order { order: Order, reply: Reply },
    /// A peer opened the conversation about a handoff, or took it up again.
    Wire(Call),
    /// A peer offers the guest to this host.
    Incoming(Box<Incoming>),
    /// A message about a handoff arrived.
    Message { from: HostId, message: Message, problem: Option<Box<Problem>> },
    /// The conversation with the peer broke; it may have said why.
    WireLost { peer: HostId, wire: u64, problem: Option<Box<Problem>> },
    /// A host has said that it owns this guest.
    Heard { owner: HostId, epoch: Epoch },
    /// Something that a migration under way waits for.
    Migration { handoff: HandoffId, event: MigrationEvent },
}

/// What the helpers of a migration report to the guest's task.
#[derive(Debug)]
pub(crate) enum MigrationEvent {
    /// The plan is made, or could not be made.
    Planned(Box<Result<Planned, Problem>>),
    /// The machine is told.
    Machine(whimbrel_handoff::effect::Event),
    /// An attempt to reach the peer ended.
    Dialled(Result<Call, Box<Problem>>),
    /// The attempt must end here, for this reason.
    Failed(Box<Problem>),
    /// It has come as far as a rehearsal goes.
    Rehearsed,
    /// New figures from engine and carrier.
    Progress(Box<Figures>),
    /// Nothing is missing any more in post-copy.
    Whole,
    /// The other host has lost its half of the guest.
    HalfLost(Box<Problem>),
}

/// What a person can want of a guest.
#[derive(Debug)]
pub(crate) enum Order {
    /// Papers for a guest that this host remembers without them.
    Define {
        papers: Box<Papers>,
    },
    Start {
        caller: Caller,
    },
    /// Takes over a guest that others have started and that runs.
    Adopt {
        caller: Caller,
        papers: Box<Papers>,
    },
    Stop {
        caller: Caller,
        how: Stop,
    },
    Reboot {
        caller: Caller,
    },
    Pause {
        caller: Caller,
    },
    Unpause {
        caller: Caller,
    },
    /// Replaces the papers; what runs keeps the old ones until the next start.
    Edit {
        caller: Caller,
        papers: Box<Papers>,
    },
    Remove {
        caller: Caller,
    },
    Migrate(Box<MoveOrder>),
    Cancel {
        caller: Caller,
    },
    /// A migration that is held goes on.
    CutOver {
        caller: Caller,
    },
    /// An operator has stated what no message can tell any more.
    Recover {
        caller: Caller,
        statement: Statement,
    },
}

/// What an operator states about a guest in doubt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statement {
    /// This host is off for good, so the one that is asked may take the guest.
    pub(crate) off: Option<HostId>,
    /// Damaged records say nothing newer than those that can be read.
    pub(crate) despite_damage: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Now,
    /// Asks the guest, and waits this long.
    Within(Duration),
}

/// Where the result of an order goes. The one who gave it may be gone by then.
#[derive(Debug)]
pub(crate) struct Reply(oneshot::Sender<Result<(), Problem>>);

impl Reply {
    pub(crate) fn new(sender: oneshot::Sender<Result<(), Problem>>) -> Self {
        Self(sender)
    }

    pub(crate) fn send(self, result: Result<(), Problem>) {
        let _ = self.0.send(result);
    }
}
