// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The cases: which fault, at which moment, in which setup.

use super::faults::Fault;
use super::moments::{self as at, Moment};
use crate::matrix::stage::Side::{Source, Target};

/// What is so before the migration begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    /// A running guest, its disks files of one file system, `--p2p`.
    Usual,
    /// Its disks are block devices, each host has its own.
    Devices,
    /// The guest is paused.
    Paused,
    /// Without `--p2p`: the client leads.
    Direct,
}

impl Setup {
    pub(super) fn key(self) -> &'static str {
        match self {
            Setup::Usual => "usual",
            Setup::Devices => "devices",
            Setup::Paused => "paused",
            Setup::Direct => "direct",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) setup: Setup,
    pub(super) moment: Moment,
    pub(super) fault: Fault,
}

impl Case {
    pub(super) fn key(&self) -> String {
        format!("{}/{}/{}", self.setup.key(), self.moment.key, self.fault.key())
    }

    /// Our own point and fault that come nearest, by the names of our own matrix.
    pub(super) fn ours(&self) -> Option<(&'static str, &'static str)> {
        // Ours know neither; what they would say is of a running guest, and of daemons that lead.
        if matches!(self.setup, Setup::Paused | Setup::Direct) {
            return None;
        }
        let point = match self.fault {
            // Ours makes the host deaf whose daemon stands at the point.
            Fault::SourceDeaf | Fault::SourceDeafLong if self.moment == at::FINISH => {
                "source:receive/Started"
            }
            Fault::TargetDeafLong if self.moment == at::MID => "target:engine/migration/Active",
            _ => self.moment.ours?,
        };
        Some((point, self.fault.ours()?))
    }

    /// The fault kills the engine that owns the guest then: whoever leads, its memory is lost.
    pub(super) fn takes_the_guest(&self) -> bool {
        let has_come = [at::RESUMED, at::CONFIRM, at::AFTER].contains(&self.moment);
        let owner = if has_come { Target } else { Source };
        let is_between = [at::CARRIED, at::FINISH].contains(&self.moment);
        !is_between && self.fault.kills_engine_of() == Some(owner)
    }
}

/// All cases, in the order of the page.
pub(super) fn all() -> Vec<Case> {
    use Fault::{BothDaemons, Client, DiskFull, LinkCut, LinkCutLong, Nothing, SourceDaemon};
    use Fault::{SourceDeaf, SourceDeafLong, SourceEngine, SourceHost, TargetDaemon};
    use Fault::{TargetDeafLong, TargetEngine, TargetHost, TargetHostLate};
    // A table: one line each.
    let rows: &[(Setup, Moment, &[Fault])] = &[
        (Setup::Usual, at::AFTER, &[Nothing]),
        (Setup::Usual, at::BEGIN, &[SourceDaemon, TargetDaemon, LinkCut, DiskFull]),
        (Setup::Usual, at::PREPARE, &[SourceDaemon, TargetDaemon, TargetEngine, DiskFull]),
        (Setup::Usual, at::EARLY, &[SourceDaemon, TargetDaemon, LinkCut]),
        (Setup::Usual, at::MID, &[SourceDaemon, TargetDaemon, BothDaemons]),
        (Setup::Usual, at::MID, &[SourceEngine, TargetEngine, Client]),
        (Setup::Usual, at::MID, &[LinkCut, LinkCutLong, SourceDeaf, TargetDeafLong]),
        (Setup::Usual, at::MID, &[DiskFull, SourceHost, TargetHost]),
        (Setup::Usual, at::LATE, &[SourceDaemon, TargetDaemon]),
        (Setup::Usual, at::SWITCHOVER, &[SourceDaemon, TargetDaemon, BothDaemons]),
        (Setup::Usual, at::SWITCHOVER, &[TargetEngine, LinkCut, LinkCutLong, TargetHost]),
        (Setup::Usual, at::CARRIED, &[SourceDaemon, TargetDaemon, TargetEngine, LinkCutLong]),
        (Setup::Usual, at::FINISH, &[SourceDaemon, TargetDaemon, BothDaemons, SourceEngine]),
        (Setup::Usual, at::FINISH, &[TargetEngine, LinkCut, LinkCutLong, SourceDeaf]),
        (Setup::Usual, at::FINISH, &[SourceDeafLong, TargetDeafLong, DiskFull, SourceHost]),
        (Setup::Usual, at::RESUMED, &[SourceDaemon, TargetDaemon, BothDaemons, LinkCut]),
        (Setup::Usual, at::RESUMED, &[LinkCutLong, TargetEngine, SourceHost]),
        (Setup::Usual, at::RESUMED, &[TargetHost, TargetHostLate]),
        (Setup::Usual, at::CONFIRM, &[SourceDaemon, TargetDaemon, SourceHost]),
        (Setup::Usual, at::AFTER, &[SourceHost]),
        (Setup::Devices, at::AFTER, &[Nothing]),
        (Setup::Devices, at::FINISH, &[LinkCutLong, SourceDeafLong, TargetDaemon]),
        (Setup::Devices, at::RESUMED, &[SourceDaemon, TargetDaemon, BothDaemons, LinkCutLong]),
        (Setup::Devices, at::CONFIRM, &[SourceDaemon]),
        (Setup::Paused, at::AFTER, &[Nothing]),
        (Setup::Paused, at::FINISH, &[TargetDaemon, LinkCutLong]),
        (Setup::Direct, at::AFTER, &[Nothing]),
        (Setup::Direct, at::MID, &[Client]),
        (Setup::Direct, at::SWITCHOVER, &[Client]),
        (Setup::Direct, at::FINISH, &[Client, LinkCutLong]),
        (Setup::Direct, at::RESUMED, &[Client]),
    ];
    let of_row = |(setup, moment, faults): &(Setup, Moment, &'static [Fault])| {
        let (setup, moment) = (*setup, *moment);
        faults.iter().map(move |fault| Case { setup, moment, fault: *fault })
    };
    rows.iter().flat_map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// There are enough of them, no two are the same, and every moment is met.
    #[test]
    fn there_are_enough_cases() {
        let cases = all();
        let keys: BTreeSet<_> = cases.iter().map(Case::key).collect();
        assert_eq!(keys.len(), cases.len());
        assert!(cases.len() >= 30, "{}", cases.len());
        for moment in at::MOMENTS {
            assert!(cases.iter().any(|case| case.moment == moment), "{}", moment.key);
        }
    }

    /// Whoever kills the engine that owns the guest takes it; in between nobody does.
    #[test]
    fn what_cannot_be_survived_is_known() {
        let takes = |moment, fault| Case { setup: Setup::Usual, moment, fault }.takes_the_guest();
        assert!(takes(at::MID, Fault::SourceEngine) && !takes(at::MID, Fault::TargetEngine));
        assert!(takes(at::RESUMED, Fault::TargetHost) && !takes(at::RESUMED, Fault::SourceHost));
        assert!(!takes(at::FINISH, Fault::SourceEngine) && !takes(at::FINISH, Fault::TargetEngine));
    }
}
