// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Processes that are not only our children.

use std::io;

/// A process, and none that later got its pid: pid and start time from `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_ticks: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("failed to {action} process {pid}")]
    Io {
        action: &'static str,
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("failed to start `{program}`")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("there is no user `{name}`")]
    NoUser { name: String },
}
