// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Moments of `virsh migrate` that can be known from outside, in the order in which they come.

use crate::matrix::stage::Side::{self, Source, Target};

const FINISH_LINE: &str = "qemuMigrationDstFinish:";
const RESUME_LINE: &str = "\"event\": \"RESUME\"";
const CONFIRM_LINE: &str = "qemuMigrationSrcConfirmPhase:";

/// By what a moment is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The daemon of a side writes this into its log.
    Line(Side, &'static str),
    /// `virsh domjobinfo` says that this much memory was carried.
    CarriedMib(u32),
    /// The command has ended.
    Over,
}

/// A moment; the daemon of its side is held there until the deed is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) key: &'static str,
    pub(super) sign: Sign,
    /// What has just happened then.
    pub(super) what: &'static str,
    /// Our own point that comes nearest, if there is one.
    pub(super) ours: Option<&'static str>,
    /// Once this can be read, it is too late.
    pub(super) end: Option<(Side, &'static str)>,
}

impl Moment {
    /// Whose daemon is to be held.
    pub(super) fn side(&self) -> Side {
        match self.sign {
            Sign::Line(side, _) => side,
            Sign::CarriedMib(_) | Sign::Over => Source,
        }
    }
}

const fn moment(
    key: &'static str,
    sign: Sign,
    ours: Option<&'static str>,
    what: &'static str,
) -> Moment {
    Moment { key, sign, what, ours, end: None }
}

impl Moment {
    const fn until(self, side: Side, text: &'static str) -> Moment {
        Moment { end: Some((side, text)), ..self }
    }
}

pub(super) const BEGIN: Moment = moment(
    "begin",
    Sign::Line(Source, "qemuMigrationSrcBeginPhase:"),
    Some("source:send/Offer"),
    "the source begins, the target knows nothing",
);
pub(super) const PREPARE: Moment = moment(
    "prepare",
    Sign::Line(Target, "\"execute\":\"migrate-incoming\""),
    Some("target:engine/receive"),
    "the target's QEMU was started and is told to listen",
);
pub(super) const EARLY: Moment = moment(
    "early",
    Sign::Line(Source, "\"status\": \"active\""),
    Some("source:engine/migration/Active"),
    "the source's QEMU says that memory is moving",
);
pub(super) const MID: Moment = moment(
    "mid",
    Sign::CarriedMib(25),
    Some("source:engine/migration/Active"),
    "`virsh domjobinfo` says that 25 MiB of memory were carried",
);
pub(super) const LATE: Moment = moment(
    "late",
    Sign::Line(Source, "\"pass\": 2"),
    Some("source:engine/migration/Active"),
    "the source's QEMU says that the second pass over memory begins",
);
pub(super) const SWITCHOVER: Moment = moment(
    "switchover",
    Sign::Line(Source, "\"event\": \"STOP\""),
    Some("source:event/Stopped"),
    "the source's QEMU has stopped the guest, its state is not sent yet",
)
.until(Source, "\"execute\":\"migrate-continue\"");
pub(super) const CARRIED: Moment = moment(
    "carried",
    Sign::Line(Source, "\"status\": \"completed\""),
    Some("source:persist/Ceded"),
    "the source's QEMU says that all is carried, Finish is not sent yet",
)
.until(Target, FINISH_LINE);
pub(super) const FINISH: Moment = moment(
    "finish",
    Sign::Line(Target, FINISH_LINE),
    Some("target:engine/resume"),
    "Finish has come to the target, the guest does not run there yet",
)
.until(Target, RESUME_LINE);
pub(super) const RESUMED: Moment = moment(
    "resumed",
    Sign::Line(Target, RESUME_LINE),
    Some("target:persist/Owned"),
    "the guest runs on the target, the source has no reply yet",
)
.until(Source, CONFIRM_LINE);
pub(super) const CONFIRM: Moment = moment(
    "confirm",
    Sign::Line(Source, CONFIRM_LINE),
    Some("source:effect/DestroyCopy"),
    "the source knows, its QEMU is not ended yet",
);
pub(super) const AFTER: Moment = moment("after", Sign::Over, None, "`virsh migrate` has ended");

pub(super) const MOMENTS: [Moment; 11] =
    [BEGIN, PREPARE, EARLY, MID, LATE, SWITCHOVER, CARRIED, FINISH, RESUMED, CONFIRM, AFTER];
