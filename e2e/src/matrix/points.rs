// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The points that one migration passes, numbered in the order in which each host passes them.
//!
//! A recorded migration is held against this list before every run: a point that is new, or gone,
//! fails the run, so the list cannot fall behind the program.

use super::stage::Side::{self, Source, Target};

/// How far a migration is when a daemon stands at a point (before what the point is named after).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is written down anywhere.
    Plan,
    /// The source has written that it offers; the target nothing.
    Offered,
    /// The target has written that it receives; its engine is being started.
    Prepare,
    /// The target waits for memory, or is getting it.
    Memory,
    /// The guest stands still, and everything is there or about to be. The source may still keep.
    Complete,
    /// The commit point lies behind; the target has not taken the guest.
    Ceded,
    /// The target has, and its engine has not run it.
    Taken,
    /// The target's engine may have run it.
    Runs,
    /// A helper stands at the point, and the guest's task goes on meanwhile: anything from
    /// `Complete` on.
    Racing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) side: Side,
    pub(super) name: &'static str,
    pub(super) phase: Phase,
}

impl Point {
    /// Returns the name by which a person asks for it.
    pub(super) fn key(&self) -> String {
        let side = match self.side {
            Source => "source",
            Target => "target",
        };
        format!("{side}:{}", self.name)
    }

    /// Something is written to a disk at this point.
    pub(super) fn is_durable_write(&self) -> bool {
        let begins = |word| self.name.starts_with(word);
        let is_beside_disk = matches!(self.name, "effect/TakeClaim" | "effect/WriteOwner");
        begins("persist/") || begins("store/") || begins("disk/") || is_beside_disk
    }

    /// A message passes here, and could pass twice.
    pub(super) fn is_message(&self) -> bool {
        let is_ours = matches!(
            self.name,
            "receive/order" | "receive/plan" | "receive/call" | "receive/papers" | "send/call"
        );
        (self.name.starts_with("send/") || self.name.starts_with("receive/")) && !is_ours
    }
}

const fn at(side: Side, name: &'static str, phase: Phase) -> Point {
    Point { side, name, phase }
}

/// Points that a migration may or may not pass: how often somebody looks depends on the moment.
pub(super) const SOMETIMES: &[&str] =
    &["engine/migration/Switching", "engine/migration/None", "engine/run_state"];

pub(super) const POINTS: &[Point] = &[
    at(Source, "receive/order", Phase::Plan),
    at(Source, "receive/plan", Phase::Plan),
    at(Source, "persist/Offering", Phase::Plan),
    at(Source, "send/Offer", Phase::Offered),
    at(Source, "send/call", Phase::Offered),
    at(Source, "receive/call", Phase::Offered),
    at(Source, "receive/Accepted", Phase::Memory),
    at(Source, "effect/Transfer", Phase::Memory),
    at(Source, "carrier/start", Phase::Memory),
    at(Source, "engine/send", Phase::Memory),
    at(Source, "event/Migration", Phase::Memory),
    at(Source, "engine/migration/Active", Phase::Memory),
    at(Source, "event/Stopped", Phase::Complete),
    at(Source, "engine/migration/Switching", Phase::Racing),
    at(Source, "engine/migration/Completed", Phase::Racing),
    at(Source, "receive/Ready", Phase::Complete),
    at(Source, "effect/ConfirmStopped", Phase::Complete),
    at(Source, "persist/Ceded", Phase::Complete),
    at(Source, "effect/WriteOwner", Phase::Ceded),
    at(Source, "send/Cede", Phase::Ceded),
    at(Source, "receive/Started", Phase::Runs),
    at(Source, "persist/Elsewhere", Phase::Runs),
    at(Source, "effect/DestroyCopy", Phase::Runs),
    at(Source, "engine/destroy", Phase::Runs),
    at(Source, "carrier/cut", Phase::Runs),
    at(Source, "report/Moved", Phase::Runs),
    at(Source, "store/put_report", Phase::Runs),
    at(Source, "store/remove_guest", Phase::Runs),
    at(Target, "receive/papers", Phase::Offered),
    at(Target, "receive/Offer", Phase::Offered),
    at(Target, "persist/Receiving", Phase::Offered),
    at(Target, "effect/StartEngine", Phase::Prepare),
    at(Target, "store/add_guest", Phase::Prepare),
    at(Target, "engine/launch", Phase::Prepare),
    at(Target, "engine/receive", Phase::Prepare),
    at(Target, "carrier/start", Phase::Prepare),
    at(Target, "send/Accepted", Phase::Memory),
    at(Target, "event/Migration", Phase::Memory),
    at(Target, "engine/migration/None", Phase::Memory),
    at(Target, "carrier/adopt", Phase::Memory),
    at(Target, "engine/migration/Active", Phase::Memory),
    at(Target, "engine/migration/Completed", Phase::Complete),
    at(Target, "send/Ready", Phase::Complete),
    at(Target, "receive/Cede", Phase::Ceded),
    at(Target, "effect/TakeClaim", Phase::Ceded),
    at(Target, "persist/Taken", Phase::Ceded),
    at(Target, "effect/StartGuest", Phase::Taken),
    at(Target, "network/join", Phase::Taken),
    at(Target, "engine/resume", Phase::Taken),
    at(Target, "effect/Announce", Phase::Runs),
    at(Target, "engine/announce", Phase::Runs),
    at(Target, "persist/Owned", Phase::Runs),
    at(Target, "send/Started", Phase::Runs),
    at(Target, "effect/WriteOwner", Phase::Runs),
    at(Target, "report/Arrived", Phase::Runs),
    at(Target, "carrier/cut", Phase::Runs),
    at(Target, "store/put_report", Phase::Runs),
    at(Target, "store/set_desired", Phase::Runs),
    at(Target, "disk/papers", Phase::Runs),
];
