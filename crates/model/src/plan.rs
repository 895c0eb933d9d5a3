// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a migration would meet, and what it would cost: findings and a forecast.
//!
//! One small function a check, each over the facts of both hosts; a check says everything it
//! found, good or bad, with the values it was judged by. A plan with a blocker is refused before
//! anything moves; a warning is printed and does not stand in the way.

pub mod baseline;
mod boot_files;
pub mod disks;
mod emulated;
pub mod engine;
pub mod firewall;
mod forecast;
mod guest;
mod hindrance;
pub mod memory;
mod network;
mod pause;
mod peer;
pub mod postcopy;
mod proof;
pub mod reach;
mod segment;
mod uefi;
mod way_back;

use crate::facts::{EngineFacts, GuestFacts, HostFacts, LinkFacts, LoadFacts};
use crate::guest::Guest;
use crate::id::GuestId;
use crate::passport::Passport;
use crate::problem::{Kind, Problem};
use crate::run_state::RunState;
use crate::units::Bytes;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Ok,
    Warning,
    Blocker,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// From [`codes::CODES`](crate::codes::CODES): the same code whatever the severity.
    pub code: &'static str,
    /// What was found, with the measured values.
    pub text: String,
    /// The next thing to do; empty where nothing needs to be done.
    pub remedy: String,
}

/// What a migration would meet and cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In the order a person would check: can they talk, may they, does it fit, will it run.
    pub findings: Vec<Finding>,
    /// None where a blocker other than a predicted miss makes it pointless.
    pub forecast: Option<Forecast>,
}

/// What a migration would cost, in ranges as wide as our ignorance.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    pub total: Span<Duration>,
    pub pause: Span<Duration>,
    pub bytes: Span<Bytes>,
    pub convergence: Convergence,
    /// What the figures rest on, in sentences.
    pub reasons: Vec<String>,
}

/// From the least to the most that is likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<T> {
    pub low: T,
    pub high: T,
}

/// Whether the guest writes slowly enough to be caught up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convergence {
    Certain,
    Likely,
    Unlikely,
    /// The dirty rate or the link's rate is not known.
    Unknown,
}

/// Everything a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub id: GuestId,
    pub guest: &'a Guest,
    /// None for a guest that was never started: only its definition moves.
    pub passport: Option<&'a Passport>,
    /// None for a stopped guest.
    pub run_state: Option<RunState>,
    pub source: Side<'a>,
    pub target: Side<'a>,
    pub link: &'a LinkFacts,
    pub load: LoadFacts,
    pub bargain: Bargain,
    /// A predicted miss does not stand in the way, though it will be cancelled for it.
    pub may_miss: bool,
    /// The guest is stopped first, and copied then.
    pub is_stop_and_copy: bool,
}

/// One end of the way.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    pub host: &'a HostFacts,
    pub guest: &'a GuestFacts,
}

/// The outcome the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bargain {
    pub pause_max: Duration,
    pub deadline: Duration,
    /// How much the guest may be slowed down, in percent.
    pub slowdown_percent_max: u8,
    pub on_miss: OnMiss,
}

/// What to do when the bargain cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    /// Give up; the guest stays.
    Cancel,
    /// Stop the guest and send the rest, however long the pause.
    Pause,
    /// Slow the guest down as far as it takes.
    Throttle,
    /// Let it run on the target before all of its memory is there.
    Postcopy,
}

impl OnMiss {
    /// The words for it, in files and on the command line.
    pub const WORDS: [(&str, OnMiss); 4] = [
        ("cancel", OnMiss::Cancel),
        ("pause", OnMiss::Pause),
        ("throttle", OnMiss::Throttle),
        ("postcopy", OnMiss::Postcopy),
    ];
}

impl Default for Bargain {
    fn default() -> Self {
        Self {
            pause_max: Duration::from_millis(300),
            deadline: Duration::from_secs(30 * 60),
            slowdown_percent_max: 0,
            on_miss: OnMiss::Cancel,
        }
    }
}

/// Checks everything that can be known before the first byte moves.
pub fn plan(question: &Question<'_>) -> Plan {
    let checks: [fn(&Question<'_>) -> Vec<Finding>; 26] = [
        peer::protocol,
        peer::relocation,
        peer::allowed,
        peer::maintenance,
        way_back::way_back,
        peer::link,
        peer::clock,
        guest::busy,
        guest::name,
        hindrance::hindrances,
        memory::memory,
        engine::engine,
        engine::live,
        engine::machine,
        engine::cpu,
        engine::roms,
        emulated::emulated,
        disks::disks,
        boot_files::boot_files,
        uefi::variables,
        network::bridges,
        network::macs,
        network::user_networks,
        segment::segments,
        proof::proof,
        postcopy::postcopy,
    ];
    let mut findings: Vec<_> = checks.iter().flat_map(|check| check(question)).collect();
    let is_blocked = findings.iter().any(|finding| finding.severity == Severity::Blocker);
    let forecast = (!is_blocked).then(|| forecast::forecast(question));
    if let Some(forecast) = &forecast {
        findings.extend(forecast::findings(question, forecast));
        findings.extend(pause::pause(question, forecast));
    }
    Plan { findings, forecast }
}

impl Question<'_> {
    fn guest_name(&self) -> &str {
        self.guest.name.as_str()
    }

    fn source_name(&self) -> &str {
        self.source.host.name.as_str()
    }

    fn target_name(&self) -> &str {
        self.target.host.name.as_str()
    }

    /// The target's engine of the guest's kind.
    fn target_engine(&self) -> Option<&EngineFacts> {
        let kind = self.passport?.engine;
        self.target.host.engines.iter().find(|engine| engine.kind == kind)
    }
}

impl Finding {
    pub(crate) fn ok(code: &'static str, text: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, code, text: text.into(), remedy: String::new() }
    }

    pub(crate) fn warning(
        code: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, code, text: text.into(), remedy: remedy.into() }
    }

    pub(crate) fn blocker(
        code: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Blocker, code, text: text.into(), remedy: remedy.into() }
    }
}

impl Plan {
    /// A plan that ends before there are facts, such as of a host that cannot be reached.
    pub fn blocked_by(finding: Finding) -> Self {
        Self { findings: vec![finding], forecast: None }
    }

    pub fn is_blocked(&self) -> bool {
        self.blockers().next().is_some()
    }

    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Blocker)
    }

    /// Returns the first blocker as the problem a refused command ends with.
    pub fn problem(&self) -> Option<Problem> {
        self.blockers().next().map(Finding::to_problem)
    }
}

impl Finding {
    /// Returns the problem that a command refused for this finding ends with.
    pub fn to_problem(&self) -> Problem {
        Problem {
            kind: Kind::Refused,
            code: self.code.to_owned(),
            text: self.text.clone(),
            remedy: self.remedy.clone(),
        }
    }
}

#[cfg(test)]
mod tests;

pub use forecast::compression_pays;
