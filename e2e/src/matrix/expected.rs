// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What must come of each fault, as the rules say it: written down before anything is run.
//!
//! Where two ends stand beside each other both are right: before the commit point an attempt may
//! be given up or go on, and a fault that hits a moving target hits it here or there.

use super::faults::Fault;
use super::points::{Phase, Point};
use super::stage::Side::{Source, Target};

/// How it may end. The guest runs in all of them, on one host, and nothing is left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// On the source, as it was. The next attempt works.
    Stays,
    /// On the target, as it was.
    Moves,
    /// Its engine was killed while it was the source's: booted anew, there.
    BootsAtSource,
    /// Its engine was killed when it was the target's (or it moved right after): booted anew.
    BootsAtTarget,
}

use End::{BootsAtSource, BootsAtTarget, Moves, Stays};

impl End {
    pub(super) fn word(self) -> &'static str {
        match self {
            Stays => "source",
            Moves => "target",
            BootsAtSource => "source, booted",
            BootsAtTarget => "target, booted",
        }
    }
}

/// Returns the ends that are right.
pub(super) fn expected(point: &Point, fault: Fault) -> Vec<End> {
    match fault {
        Fault::Repeated | Fault::Lost => vec![Moves],
        Fault::DiskFull | Fault::FailingSync => vec![of_disk(point, fault)],
        _ if point.phase == Phase::Racing => {
            let mut ends = Vec::new();
            for phase in [Phase::Complete, Phase::Ceded, Phase::Taken, Phase::Runs] {
                let more = of_phase(phase, fault);
                ends.extend(more.iter().filter(|end| !ends.contains(*end)).collect::<Vec<_>>());
            }
            ends
        }
        // Its engine has been asked, and what it said is written down next.
        Fault::SourceEngine if (point.side, point.name) == (Source, "persist/Ceded") => vec![Moves],
        _ => of_phase(point.phase, fault).to_vec(),
    }
}

/// | phase | source daemon | target daemon | source engine | target engine | carrier | link |
fn of_phase(phase: Phase, fault: Fault) -> &'static [End] {
    use Fault::{BothDaemons, SourceDaemon, SourceEngine, TargetDaemon, TargetEngine};
    use Fault::{HalfOpen, LinkCut, SourceCarrier, TargetCarrier};
    match (phase, fault) {
        (Phase::Racing, _) => unreachable!("it is taken apart before"),
        // A source that forgets what it saw keeps; a source that has ceded does not.
        (
            Phase::Plan | Phase::Offered | Phase::Prepare | Phase::Memory | Phase::Complete,
            SourceDaemon | BothDaemons,
        ) => &[Stays],
        (Phase::Ceded | Phase::Taken | Phase::Runs, SourceDaemon | BothDaemons) => &[Moves],
        // Up to the commit point a target may take it up again, or not.
        (Phase::Plan | Phase::Offered | Phase::Memory | Phase::Complete, TargetDaemon) => {
            &[Stays, Moves]
        }
        // One engine for one attempt, and it was not ready.
        (Phase::Prepare, TargetDaemon) => &[Stays],
        (Phase::Ceded | Phase::Taken | Phase::Runs, TargetDaemon) => &[Moves],
        // It crashed where it was: what is only planned may go on with the new one.
        (Phase::Plan, SourceEngine) => &[BootsAtSource, BootsAtTarget],
        (Phase::Offered | Phase::Prepare | Phase::Memory | Phase::Complete, SourceEngine) => {
            &[BootsAtSource]
        }
        (Phase::Ceded | Phase::Taken | Phase::Runs, SourceEngine) => &[Moves],
        // A twin that never ran is no loss: refused, or returned.
        (Phase::Runs, TargetEngine) => &[BootsAtTarget],
        (_, TargetEngine) => &[Stays],
        (
            Phase::Plan | Phase::Offered | Phase::Prepare | Phase::Memory,
            SourceCarrier | TargetCarrier,
        ) => &[Stays],
        // All bytes may have been carried, or not have been counted.
        (Phase::Complete, SourceCarrier | TargetCarrier) => &[Stays, Moves],
        (Phase::Ceded | Phase::Taken | Phase::Runs, SourceCarrier | TargetCarrier) => &[Moves],
        // A plan is made at once or not at all; everything after it waits for the link.
        (Phase::Plan, LinkCut | HalfOpen) => &[Stays, Moves],
        (_, LinkCut | HalfOpen) => &[Moves],
        (_, Fault::Repeated | Fault::Lost | Fault::DiskFull | Fault::FailingSync) => &[Moves],
    }
}

/// A full disk leaves what was; after a failing sync what was written may be read again. The file
/// of ownership is read again by a restarted daemon; of the rest nothing depends on one write.
fn of_disk(point: &Point, fault: Fault) -> End {
    match (point.side, point.name) {
        (Source, "persist/Offering") => Stays,
        (Source, "persist/Ceded") if fault == Fault::DiskFull => Stays,
        (Target, "persist/Receiving" | "store/add_guest") => Stays,
        (Source | Target, _) => Moves,
    }
}
