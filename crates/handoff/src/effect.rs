// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a decision asks of the world, and what the world answers.
//!
//! The driver performs effects **in order and finishes each before the next**. An effect whose
//! result matters to the decision stands last in its list and is answered by an [`Event`]; while
//! it is under way the driver may feed other events and messages. All others are repeated by the
//! driver until they are done, or do not matter to safety if they fail (`Send`, `Announce`,
//! `Report`, `WriteOwner`).

use crate::disk::OwnerRecord;
use crate::message::{Message, Reason};
use crate::record::Record;
use whimbrel_model::id::{Epoch, HostId};
use whimbrel_model::run_state::RunState;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write the record and sync it. If this fails the file is poisoned: drop the rest of the
    /// list and the state, perform nothing more for this guest, and `recover` from what is read
    /// back after a restart of the daemon.
    Persist(Record),
    /// Send to the peer, if it can be reached.
    Send { to: HostId, message: Message },
    /// Take the claim on every writable image that has a place for it (see [`crate::disk`]).
    /// Where no image has one, it is won, unless we are *acquiring*: then
    /// every peer that can be reached is asked once more, now that all can see that we want the
    /// guest, and one that owns or acquires it with this epoch or a newer holds the claim. (A peer
    /// that is reached and busy is waited for.) Answer, with [`Claims::epoch`]: `ClaimWon`,
    /// `ClaimLost` or `ClaimUnavailable`.
    TakeClaim(Claims),
    /// Replace the owner record, unless the one there is newer, or of the same epoch and written
    /// by its owner.
    WriteOwner(OwnerRecord),

    // At the source.
    /// Begin to send memory.
    Transfer,
    /// Ask the engine, over its live control socket and *now*: same process and same attempt as
    /// at the start, completed, stopped for good, nothing sent to it since, digests equal; for
    /// post-copy: stopped, the target waits in post-copy, a byte after the package was seen; for
    /// a stopped guest: no engine. Answer: `Confirmed` or `Unconfirmed`.
    ConfirmStopped,
    /// End any transfer and bring the engine back to this state, disks locked again: cancel if
    /// it was on its way, resume if it was finished, leave it if it is there already. Announce
    /// if it was stopped. A guest that has ended by itself meanwhile is not resumed, and an engine
    /// that is gone needs no mending: to both the policies of a guest that is ours apply.
    Mend { run: RunState },
    /// Wait until the engine has sent the last page of a post-copy, or is gone, or the target
    /// says that its engine needs nothing more or is gone. Answer: `Drained`.
    AwaitDrained,

    // At the target.
    /// Account the memory and start the engine, incoming and stopped. Nothing to do for a
    /// stopped guest. Answer: `EngineReady` or `EngineFailed`; then `Complete` or `EngineFailed`.
    StartEngine,
    /// Go on watching an engine that was already receiving when the daemon restarted. Answer:
    /// `Complete` (also if that was long ago) or `EngineFailed`.
    WatchEngine,
    /// Let the tap join its bridge and, if the guest is to run, start its vCPUs. Answer:
    /// `GuestStarted`; `StartRefused` only if the engine has said no and not one instruction ran;
    /// `StartLost` for everything else.
    StartGuest { run: Option<RunState> },
    /// Tell the network where the guest is now.
    Announce,

    // At either.
    /// End this host's engine of the guest, if there is one, and whatever goes with it: carrying
    /// process, accounted memory, tap, locks. Done only when all of it is gone. Whatever was
    /// asked of the engine and is not answered yet is over: its answer is dropped. (`Mend` drops
    /// such answers, too.)
    DestroyCopy,
    /// Stop the vCPUs and keep the engine.
    PauseGuest,
    /// The guest is ours and has ended: powered off, panicked, or its engine died (none). Apply
    /// the policy for that, once.
    ApplyPolicy { ended: Option<RunState> },
    /// Tell whoever is waiting, and the log.
    Report(Outcome),
}

/// The claim that makes a host the owner with `epoch`, after `after`: two hosts that succeed the
/// same epoch always contend, whichever they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claims {
    /// The epoch the guest was last held with.
    pub after: Epoch,
    pub epoch: Epoch,
    /// This host has said, durably, that it will never use the claims it may hold up to here.
    pub declined: Option<(HostId, Epoch)>,
}

/// What the driver reports to the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    // At the source.
    /// What [`Effect::ConfirmStopped`] asked for holds; the guest was this when it stopped.
    Confirmed {
        run: Option<RunState>,
    },
    /// It does not hold.
    Unconfirmed,
    /// The guest was paused or unpaused by a person while it moves.
    RunChanged {
        run: RunState,
    },
    /// The guest powered off or panicked while it moves.
    GuestEnded {
        run: RunState,
    },
    Drained,

    // At the target.
    EngineReady,
    /// The engine said completed and the digests are equal.
    Complete,
    GuestStarted,
    StartRefused,
    StartLost,
    /// The owner record beside the image, read while the source is silent.
    OwnerSeen(OwnerRecord),

    // At either.
    /// An engine, carrier or stall timer ended the attempt here.
    EngineFailed,
    /// A person cancelled.
    Cancelled,
    /// The peer has been silent for longer than the attempt may wait.
    PeerGone,
    ClaimWon {
        epoch: Epoch,
    },
    /// If the holder answers that it owns the guest, the driver tells that next (`Heard`).
    ClaimLost {
        epoch: Epoch,
        holder: HostId,
    },
    /// The storage did not answer.
    ClaimUnavailable {
        epoch: Epoch,
    },
    /// This host said itself, when it was asked who owns the guest, that it does.
    Heard {
        owner: HostId,
        epoch: Epoch,
    },
    /// The link is up again, or it is time to try again.
    Nudge,
    /// The door ([`crate::door`]) has decided that this host takes the guest with this epoch and
    /// boots it: a creation, or a recovery.
    Acquire {
        after: Epoch,
        epoch: Epoch,
    },
    /// An operator's word, already durable: the copy on this host is the newest there is and the
    /// peer of the open handoff will never run its own.
    Resume,
    /// A person has looked at a disputed copy and gives it up; or the driver has found that there
    /// is none, because the engine is gone.
    GiveUp,
}

/// What came of it, for people and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Source: the guest runs on the target and nothing of it is left here.
    Moved {
        to: HostId,
    },
    /// Source: the attempt is over and the guest is here.
    Kept {
        reason: Reason,
    },
    /// Target: the guest is ours and has started.
    Arrived {
        from: HostId,
    },
    /// Target: the attempt is over and nothing of it is left here.
    Declined {
        reason: Reason,
    },
    /// The guest is ours with this epoch; start it.
    Acquired {
        epoch: Epoch,
    },
    /// It is not: this host holds the claim.
    AcquireLost {
        holder: HostId,
    },
    /// Another host holds a newer epoch than the copy here, which is paused.
    Disputed {
        owner: HostId,
        epoch: Epoch,
    },
    InDoubt(Doubt),
}

/// Why it is not known who owns the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Ceded, and the target does not answer or has forgotten.
    TargetSilent,
    TargetForgot,
    /// Everything arrived, and the source does not answer or has forgotten.
    SourceSilent,
    SourceForgot,
    /// The claim belongs to this host, which has not said that it owns the guest.
    ClaimHeld {
        holder: HostId,
    },
    /// The storage with the claims does not answer.
    ClaimUnavailable,
    /// The peer says that we own the guest, and we do not remember.
    OwnMemoryLost,
    /// The ownership file of this host is damaged.
    Damaged,
    /// A post-copy that was ceded cannot be taken back.
    CannotResume,
}

impl Event {
    /// Returns the name of the event, for logs and coverage.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Confirmed { .. } => "Confirmed",
            Event::Unconfirmed => "Unconfirmed",
            Event::RunChanged { .. } => "RunChanged",
            Event::GuestEnded { .. } => "GuestEnded",
            Event::Drained => "Drained",
            Event::EngineReady => "EngineReady",
            Event::Complete => "Complete",
            Event::GuestStarted => "GuestStarted",
            Event::StartRefused => "StartRefused",
            Event::StartLost => "StartLost",
            Event::OwnerSeen(_) => "OwnerSeen",
            Event::EngineFailed => "EngineFailed",
            Event::Cancelled => "Cancelled",
            Event::PeerGone => "PeerGone",
            Event::ClaimWon { .. } => "ClaimWon",
            Event::ClaimLost { .. } => "ClaimLost",
            Event::ClaimUnavailable { .. } => "ClaimUnavailable",
            Event::Heard { .. } => "Heard",
            Event::Nudge => "Nudge",
            Event::Acquire { .. } => "Acquire",
            Event::Resume => "Resume",
            Event::GiveUp => "GiveUp",
        }
    }
}
