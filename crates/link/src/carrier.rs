// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The process that holds the sockets of one migration, on either host.
//!
//! ```text
//!   source engine -- unix --> carrier ===== TLS, one connection a channel ====> carrier -- unix --> target engine
//!                              |  carry.sock                                      |  carry.sock
//!                            daemon                                             daemon (adopts TCP connections)
//! ```
//!
//! It is a program of its own (`whimbrel carry DIR`) in a session of its own, so that a daemon may
//! be killed or upgraded while memory flows. It decides nothing: it carries bytes, counts and
//! digests them, and ends when its daemon says so, or when nobody has needed it for a while. If it
//! dies, both engines see closed sockets and the attempt ends safely.

mod config;
mod control;
mod spawn;
mod status;

pub use config::{Config, ConfigError, Meet, Side};
pub use control::{Control, ControlError};
pub use spawn::{SpawnError, spawn};
pub use status::{ChannelStatus, End, Flow, Status};

use std::path::Path;
use std::process::ExitCode;

/// Runs the carrying process described in `directory`, until it is done.
pub fn run(directory: &Path) -> ExitCode {
    match config::Config::load(directory) {
        Ok(config) => {
            tracing::info!(handoff = %config.handoff, "not carrying yet");
            ExitCode::FAILURE
        }
        Err(error) => {
            tracing::error!(error = whimbrel_model::problem::chain(&error), "cannot carry");
            ExitCode::FAILURE
        }
    }
}
