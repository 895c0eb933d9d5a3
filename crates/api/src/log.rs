// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The log: what happened on this host and, for moves, on the other one.

use crate::guest::HostSilent;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// Which lines of the log to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogQuery {
    /// Only lines about this guest, with those of the hosts it came from or went to.
    pub guest: Option<String>,
    /// Only lines at or after this time.
    pub since_at_ms: Option<u64>,
    /// The newest this many lines; at most `LOG_LINES_MAX`.
    pub limit: Option<u32>,
    /// Whether to go on with new lines, as a stream of `log` events.
    #[serde(default)]
    pub follow: bool,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it happened, by the clock of the host that wrote it.
    pub at_ms: u64,
    /// The host that wrote it.
    pub host: String,
    /// How much it matters.
    pub level: Level,
    /// The guest it is about.
    pub guest: Option<String>,
    /// That guest's uuid: a name may be another guest's by now.
    pub guest_uuid: Option<String>,
    /// The migration it is about.
    pub migration: Option<String>,
    /// The code of the problem it tells, if it tells one.
    pub code: Option<String>,
    /// The user who caused it, if one did.
    pub caller_uid: Option<u32>,
    /// What happened.
    pub text: String,
}

/// How much a line of the log matters.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// For people who look for a bug.
    Debug,
    /// As it should be.
    Info,
    /// Probably not what was wanted.
    Warning,
    /// Something did not work.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Lines of the log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    /// The lines of all hosts, merged by time.
    pub lines: Vec<LogLine>,
    /// Hosts whose lines are missing.
    pub hosts_silent: Vec<HostSilent>,
}
