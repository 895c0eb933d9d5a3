// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Migrations: begun, watched, and reported.

use crate::plan::{Finding, Forecast, Range};
use crate::problem::Problem;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Begins to move a guest. The answer comes as soon as the migration has an id; its events tell
/// the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrateRequest {
    /// The name of a paired host.
    pub target: String,
    /// Whether to stop the guest first and copy then.
    #[serde(default)]
    pub is_stop_and_copy: bool,
    /// The most the migration may send, in bytes a second.
    pub bandwidth_bytes_per_second: Option<u64>,
    /// What it shall be, where that is not as configured.
    #[serde(flatten)]
    pub bargain: BargainRequest,
    /// Whether to try it also where the plan says that the bargain will not be kept, and the miss
    /// is to cancel it.
    #[serde(default)]
    pub may_miss: bool,
    /// Whether to converge, stay so, and cut over only when told to.
    #[serde(default)]
    pub is_held: bool,
    /// Whether to send no frames on the guest's bridges to see whether they reach the target.
    #[serde(default)]
    pub is_unprobed: bool,
    /// Whether to do everything but the handing over, clean up, and report.
    #[serde(default)]
    pub is_rehearsed: bool,
    /// `tunnel` or `pages`. Absent: the planner chooses.
    pub carrier: Option<String>,
    /// How many data channels. Absent: the planner chooses.
    pub channels: Option<u32>,
}

/// What is wanted of a migration, where that is not as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BargainRequest {
    /// The longest pause the guest may see, in milliseconds. Absent: as configured.
    pub pause_ms_max: Option<u64>,
    /// The longest it may take in all, in milliseconds. Absent: as configured.
    pub deadline_ms: Option<u64>,
    /// How much the guest may be slowed down, in percent from 0 to 99. Absent: as configured.
    pub slowdown_percent_max: Option<u8>,
    /// What happens where that cannot be kept. Absent: as configured.
    pub on_miss: Option<OnMiss>,
}

/// What a migration was promised to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bargain {
    /// The longest pause the guest may see, in milliseconds.
    pub pause_ms_max: u64,
    /// The longest it may take in all, in milliseconds; of one that is held, until it can be cut
    /// over, and again from the word on.
    pub deadline_ms: u64,
    /// How much the guest may be slowed down, in percent.
    pub slowdown_percent_max: u8,
    /// What happens where that cannot be kept.
    pub on_miss: OnMiss,
    /// Whether it waits for the word to cut over.
    pub is_held: bool,
}

/// What happens where a bargain cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnMiss {
    /// The guest stays where it is.
    Cancel,
    /// It stands still for longer than was promised.
    Pause,
    /// It is slowed down more than was promised.
    Throttle,
    /// It runs on the target before all of its memory is there.
    Postcopy,
}

impl fmt::Display for OnMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Throttle => "throttle",
            Self::Postcopy => "postcopy",
        })
    }
}

/// A migration as it stands, or as it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Migration {
    /// The attempt's uuid; never used twice, and the same on both hosts.
    pub id: String,
    /// The guest's name.
    pub guest: String,
    /// The guest's uuid.
    pub guest_uuid: String,
    /// The host it leaves.
    pub source: String,
    /// The host it goes to.
    pub target: String,
    /// How it travels.
    pub mode: Mode,
    /// What is going on now.
    pub phase: Phase,
    /// When it began.
    pub started_at_ms: u64,
    /// How long it has taken so far, in milliseconds.
    pub elapsed_ms: u64,
    /// The phases that are over, in their order.
    pub phases: Vec<PhaseTime>,
    /// Findings that are not ok, from the plan.
    pub findings: Vec<Finding>,
    /// How many checks passed in the plan.
    pub checks_passed: u32,
    /// What the plan expected.
    pub forecast: Option<Forecast>,
    /// What was promised; absent where only a definition moves, and on the target.
    #[serde(default)]
    pub bargain: Option<Bargain>,
    /// Why that cannot be kept, in figures, once it is known.
    #[serde(default)]
    pub miss: Option<String>,
    /// How memory gets on; absent before the first byte.
    pub progress: Option<Progress>,
    /// How it ended; absent while it goes on.
    pub outcome: Option<Outcome>,
}

/// How a guest travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// While it runs.
    Live,
    /// Stopped first.
    StopAndCopy,
    /// It does not run: only its definition moves.
    Definition,
}

/// The phases of a migration, in their order.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Checks and forecast.
    Plan,
    /// The target engine is started, paused.
    Prepare,
    /// Memory travels.
    Memory,
    /// The guest stands still: last pages and device state.
    Switch,
    /// Ownership changes hands, and the guest starts on the target.
    Handoff,
    /// The guest runs on the target, and the rest of its memory follows.
    Postcopy,
    /// The source's copy is destroyed.
    Release,
    /// It has ended, well or not.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plan => "plan",
            Self::Prepare => "prepare",
            Self::Memory => "memory",
            Self::Switch => "switch",
            Self::Handoff => "handoff",
            Self::Postcopy => "postcopy",
            Self::Release => "release",
            Self::Ended => "ended",
        })
    }
}

/// How long a phase took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PhaseTime {
    /// Which one.
    pub phase: Phase,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// How memory gets on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Passes over the guest's memory so far; the first is 1.
    pub round: u64,
    /// How much is done, in thousandths; never runs backwards.
    pub done_permille: u32,
    /// The guest's memory, in bytes.
    pub total_bytes: u64,
    /// What still has to be sent, in bytes of guest memory.
    pub remaining_bytes: u64,
    /// What the engine has sent, in bytes.
    pub transferred_bytes: u64,
    /// What has crossed the network, in bytes.
    pub wire_bytes: u64,
    /// How fast it goes, in bytes of guest memory a second.
    pub rate_bytes_per_second: u64,
    /// How fast the guest writes to its memory, in bytes a second.
    pub dirty_bytes_per_second: u64,
    /// How much the guest is slowed down, in percent.
    #[serde(default)]
    pub throttle_percent: u8,
    /// The pause if the guest were stopped now, in milliseconds.
    #[serde(default)]
    pub pause_now_ms: Option<u64>,
    /// Whether it can be cut over, and waits for the word.
    #[serde(default)]
    pub is_holding: bool,
    /// How long it will still take, in milliseconds.
    pub remaining_ms: Option<Range>,
    /// Why it is still running.
    pub reason: Option<String>,
}

/// How a migration ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// In one word.
    pub result: MigrationResult,
    /// Why, where it did not succeed.
    pub problem: Option<Problem>,
    /// What it cost.
    pub report: Report,
}

/// The end of a migration in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MigrationResult {
    /// The guest is on the target.
    Done,
    /// It came as far as the handing over, and no further, as was asked for; nothing of it stays.
    Rehearsed,
    /// Nothing was begun: a finding of the plan, or the target, said no.
    Refused,
    /// A person cancelled; the guest is where and as it was.
    Cancelled,
    /// Something broke; the guest is where and as it was.
    Failed,
    /// Which host owns the guest is not known: `whimbrel recover` explains.
    InDoubt,
}

impl fmt::Display for MigrationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Done => "done",
            Self::Rehearsed => "rehearsed",
            Self::Refused => "refused",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::InDoubt => "in doubt",
        })
    }
}

/// What a migration cost. Kept on both hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// The attempt's uuid.
    pub migration: String,
    /// The guest's name.
    pub guest: String,
    /// The guest's uuid.
    pub guest_uuid: String,
    /// The host it left.
    pub source: String,
    /// The host it went to.
    pub target: String,
    /// How it travelled.
    pub mode: Mode,
    /// How it ended.
    pub result: MigrationResult,
    /// Why, where it did not succeed.
    pub problem: Option<Problem>,
    /// The user of the source host who asked.
    pub caller_uid: u32,
    /// When it began.
    pub started_at_ms: u64,
    /// From the command to the end, in milliseconds.
    pub total_ms: u64,
    /// How long the guest stood still, in milliseconds; absent where it did not stop.
    pub pause_ms: Option<u64>,
    /// Where the pause went.
    pub pause: PauseParts,
    /// The guest's memory, in bytes.
    pub memory_bytes: u64,
    /// What the engine sent, in bytes.
    pub transferred_bytes: u64,
    /// What crossed the network, in bytes.
    pub wire_bytes: u64,
    /// Passes over the guest's memory.
    pub round_count: u64,
    /// `tunnel` or `pages`.
    pub carrier: Option<String>,
    /// Data channels.
    pub channel_count: u32,
    /// How the pages of memory travelled, where the carrier was `pages`.
    #[serde(default)]
    pub pages: Option<PageCounts>,
    /// How long each phase took.
    pub phases: Vec<PhaseTime>,
    /// What had been expected.
    pub forecast: Option<Forecast>,
    /// What had been promised.
    #[serde(default)]
    pub bargain: Option<Bargain>,
    /// Whether that was kept; absent where the guest did not move.
    #[serde(default)]
    pub is_kept: Option<bool>,
    /// Why it could not be, where that was known before the end.
    #[serde(default)]
    pub miss: Option<String>,
    /// The most that the guest was slowed down, in percent.
    #[serde(default)]
    pub throttle_percent_max: u8,
    /// The pause that a rehearsal would have had, in milliseconds.
    #[serde(default)]
    pub rehearsed_pause_ms: Option<u64>,
    /// Why it was still running when memory was last looked at.
    #[serde(default)]
    pub reason: Option<String>,
    /// How it got on over time: at most `SAMPLES_MAX`, in their order, evenly spread. Absent from
    /// lists.
    #[serde(default)]
    pub samples: Vec<Sample>,
}

/// How memory stood at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Since the command, in milliseconds.
    pub at_ms: u64,
    /// What still had to be sent, in bytes of guest memory.
    pub remaining_bytes: u64,
    /// How fast it went, in bytes of guest memory a second.
    pub rate_bytes_per_second: u64,
    /// How fast the guest wrote, in bytes a second.
    pub dirty_bytes_per_second: u64,
    /// What had crossed the network, in bytes.
    pub wire_bytes: u64,
    /// How much the guest was slowed down, in percent.
    pub throttle_percent: u8,
}

/// How pages of 4 KiB travelled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PageCounts {
    /// Sent whole, compressed.
    pub new_count: u64,
    /// Not sent: the target held them.
    pub held_count: u64,
    /// Sent as the difference to what the target held.
    pub changed_count: u64,
    /// Not sent: the target read them from the guest's disks.
    #[serde(default)]
    pub disk_count: u64,
    /// Of one byte repeated.
    pub uniform_count: u64,
    /// What the target held from an earlier visit when the migration began.
    pub visited_count: u64,
    /// How often the link was lost and made again.
    pub resumed_count: u64,
    /// Bytes that were sent again because of that.
    pub repeated_bytes: u64,
}

/// Where the pause went, in milliseconds; absent parts were not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PauseParts {
    /// The last dirty pages.
    pub last_pages_ms: Option<u64>,
    /// The state of the devices.
    pub device_state_ms: Option<u64>,
    /// Writing down on both hosts who owns the guest.
    pub commit_ms: Option<u64>,
    /// Starting the guest on the target.
    pub start_ms: Option<u64>,
    /// Until its first packet on the target's network.
    pub first_packet_ms: Option<u64>,
}

/// Old reports, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReportList {
    /// At most `REPORTS_MAX`.
    pub reports: Vec<Report>,
}

/// Migrations that go on now, in or out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MigrationList {
    /// Ordered by when they began.
    pub migrations: Vec<Migration>,
}

/// Which old reports to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReportQuery {
    /// Only about this guest.
    pub guest: Option<String>,
    /// At most this many.
    pub limit: Option<u32>,
}
