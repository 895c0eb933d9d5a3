// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Plans: what is known before the first byte moves.

use crate::migration::BargainRequest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks what a migration would do. Nothing is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanRequest {
    /// The name of a paired host.
    pub target: String,
    /// Whether to stop the guest first and copy then.
    #[serde(default)]
    pub is_stop_and_copy: bool,
    /// Whether to start the target engine, paused, as the best proof, and end it again.
    #[serde(default)]
    pub is_proved: bool,
    /// Whether to send no frames on the guest's bridges to see whether they reach the target.
    #[serde(default)]
    pub is_unprobed: bool,
    /// What it shall be, where that is not as configured.
    #[serde(flatten)]
    pub bargain: BargainRequest,
}

/// What a migration would meet and cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The guest's name.
    pub guest: String,
    /// The host it is on.
    pub source: String,
    /// The host it would go to.
    pub target: String,
    /// Everything that was checked, blockers first.
    pub findings: Vec<Finding>,
    /// What it would cost; absent where a blocker makes the question idle.
    pub forecast: Option<Forecast>,
    /// How memory would travel and why, in one line.
    pub carrier: Option<String>,
}

impl Plan {
    /// Returns whether something stands in the way.
    pub fn is_blocked(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Blocker)
    }
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Whether it stands in the way.
    pub severity: Severity,
    /// Stable and documented, `area/words-with-dashes`.
    pub code: String,
    /// What was found, with what was measured on both sides.
    pub text: String,
    /// The next thing to try; absent where all is well. Backticks mark commands.
    pub remedy: Option<String>,
}

/// What a finding means.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// The migration would work; something will not be as one might expect.
    Warning,
    /// The migration would fail, so it is not begun.
    Blocker,
}

/// What a migration will probably cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// From the command to the end, in milliseconds.
    pub total_ms: Range,
    /// How long the guest will stand still, in milliseconds.
    pub pause_ms: Range,
    /// What will cross the network, in bytes.
    pub wire_bytes: Range,
    /// Whether it will end under the bargain.
    #[serde(default)]
    pub convergence: Convergence,
    /// What the forecast rests on, a line each.
    pub reasons: Vec<String>,
}

/// Whether a guest writes slowly enough to be caught up with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Convergence {
    /// Also if it writes much more while it moves.
    Certain,
    /// If it goes on as it does.
    Likely,
    /// It writes about as fast as the link carries, or faster.
    Unlikely,
    /// One of the two is not known.
    #[default]
    Unknown,
}

/// A range that the truth should fall into nine times of ten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Range {
    /// The lower end.
    pub min: u64,
    /// The upper end.
    pub max: u64,
}
