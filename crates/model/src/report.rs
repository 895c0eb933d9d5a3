// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a migration was: kept by both hosts, shown by `whimbrel report`.

use crate::id::{GuestId, GuestName, HandoffId, HostName};
use crate::json::{Format, JsonError, raw_enum, raw_struct};
use crate::problem::Problem;
use crate::units::Bytes;
use std::time::Duration;

/// The version this Whimbrel writes.
pub const VERSION: u32 = 1;
/// Longest text that is looked at, in bytes.
pub const REPORT_BYTES_MAX: usize = 256 * 1024;
/// Most phases that a report keeps.
pub const PHASES_MAX: usize = 64;

/// One migration, from the command to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub handoff: HandoffId,
    pub guest: GuestId,
    pub guest_name: GuestName,
    pub source: HostName,
    pub target: HostName,
    /// Milliseconds since 1970, by the source's clock.
    pub started_unix_ms: u64,
    pub total: Duration,
    pub outcome: Outcome,
    /// None where the guest was never stopped.
    pub pause: Option<Pause>,
    pub transfer: Transfer,
    /// Each phase and how long it took, in their order.
    pub phases: Vec<Phase>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest is on the target.
    Moved,
    Cancelled,
    /// The guest is where it was.
    Failed(Problem),
    /// Who owns the guest was not known when the report was written.
    InDoubt(Problem),
}

/// How long the guest stood still, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    pub last_pages: Duration,
    pub device_state: Duration,
    /// Making the change of owner durable on both hosts.
    pub commit: Duration,
    /// From owning to running on the target.
    pub start: Duration,
}

/// What travelled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// `tunnel`, `pages`.
    pub carrier: String,
    /// One sentence on why this one.
    pub carrier_reason: String,
    pub channel_count: u32,
    pub memory: Bytes,
    /// What the engine gave to the carrier, and what went over the wire.
    pub engine_bytes: Bytes,
    pub wire_bytes: Bytes,
    pub round_count: u64,
    /// Bytes a second: the mean, and what the guest dirtied at the end.
    pub rate: Bytes,
    pub dirty_rate: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    pub name: String,
    pub duration: Duration,
}

impl Pause {
    pub fn total(&self) -> Duration {
        self.last_pages + self.device_state + self.commit + self.start
    }
}

const FORMAT: Format =
    Format { what: "migration report", version: VERSION, bytes_max: REPORT_BYTES_MAX };

/// Returns the report as JSON.
pub fn to_json(report: &Report) -> String {
    FORMAT.write(report)
}

/// Reads what [`to_json`] wrote, here or on the other host.
pub fn from_json(text: &str) -> Result<Report, JsonError> {
    let report = FORMAT.read::<Report>(text)?;
    match report.phases.len() {
        0..=PHASES_MAX => Ok(report),
        count => Err(JsonError::Malformed {
            what: FORMAT.what,
            reason: format!("{count} phases are too many; at most {PHASES_MAX} are kept"),
        }),
    }
}

raw_struct! {
    Report as RawReport {
        handoff: HandoffId,
        guest: GuestId,
        guest_name: GuestName,
        source: HostName,
        target: HostName,
        started_unix_ms: u64,
        total: Duration,
        outcome: Outcome,
        pause: Option<Pause>,
        transfer: Transfer,
        phases: Vec<Phase>,
    }
}

raw_enum! {
    Outcome as RawOutcome {
        Moved,
        Cancelled,
        Failed(problem: Problem),
        InDoubt(problem: Problem),
    }
}

raw_struct! {
    Pause as RawPause {
        last_pages: Duration,
        device_state: Duration,
        commit: Duration,
        start: Duration,
    }
}

raw_struct! {
    Transfer as RawTransfer {
        carrier: String,
        carrier_reason: String,
        channel_count: u32,
        memory: Bytes,
        engine_bytes: Bytes,
        wire_bytes: Bytes,
        round_count: u64,
        rate: Bytes,
        dirty_rate: Bytes,
    }
}

raw_struct! { Phase as RawPhase { name: String, duration: Duration, } }

#[cfg(test)]
mod tests {
    //! A report comes back as it was, however the migration ended.

    use super::*;
    use crate::problem::Kind;

    fn sample(outcome: Outcome) -> Report {
        let ms = Duration::from_millis;
        Report {
            handoff: HandoffId(uuid::Uuid::from_u128(1)),
            guest: GuestId(uuid::Uuid::from_u128(2)),
            guest_name: GuestName::new("web1").unwrap(),
            source: HostName::new("alpha").unwrap(),
            target: HostName::new("beta").unwrap(),
            started_unix_ms: 1_700_000_000_000,
            total: ms(2_345),
            outcome,
            pause: Some(Pause {
                last_pages: ms(41),
                device_state: ms(22),
                commit: ms(6),
                start: ms(15),
            }),
            transfer: Transfer {
                carrier: "tunnel".to_owned(),
                carrier_reason: "the link is fast".to_owned(),
                channel_count: 2,
                memory: Bytes::mib(512),
                engine_bytes: Bytes::mib(200),
                wire_bytes: Bytes::mib(80),
                round_count: 3,
                rate: Bytes::mib(110),
                dirty_rate: Bytes::mib(1),
            },
            phases: vec![Phase { name: "memory".to_owned(), duration: ms(2_000) }],
        }
    }

    #[test]
    fn a_report_comes_back_as_it_was() {
        let problem = Problem {
            kind: Kind::Failed,
            code: "migration/target-lost".to_owned(),
            text: "the target is gone".to_owned(),
            remedy: "try again".to_owned(),
        };
        let outcomes = [
            Outcome::Moved,
            Outcome::Cancelled,
            Outcome::Failed(problem.clone()),
            Outcome::InDoubt(problem),
        ];
        for outcome in outcomes {
            let report = sample(outcome);
            assert_eq!(from_json(&to_json(&report)), Ok(report));
        }
    }

    #[test]
    fn a_report_is_bounded_and_versioned() {
        let mut report = sample(Outcome::Moved);
        assert_eq!(report.pause.unwrap().total(), Duration::from_millis(84));
        let newer = to_json(&report).replace("\"version\":1", "\"version\":2");
        assert!(matches!(from_json(&newer), Err(JsonError::Version { found: 2, .. })));
        report.phases = vec![report.phases[0].clone(); PHASES_MAX + 1];
        assert!(from_json(&to_json(&report)).is_err());
        assert!(from_json(&" ".repeat(REPORT_BYTES_MAX + 1)).is_err());
    }
}
