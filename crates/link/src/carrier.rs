// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The process that holds the sockets of one migration, on either host.
//!
//! ```text
//!   engine -- unix -- carrier ===== TLS, one connection a channel ===== carrier -- unix -- engine
//!                        | carry.sock                                | carry.sock
//!                     daemon                                    daemon: hands connections over
//! ```
//!
//! It is a program of its own (`whimbrel carry DIR`) in a session of its own, so that a daemon may
//! be killed or upgraded while memory flows. It decides nothing: it carries bytes, counts and
//! digests them, and ends when its daemon says so, or when nobody has needed it for a while. If it
//! dies, both engines see closed sockets and the attempt ends safely.

mod channel;
mod config;
mod control;
mod frames;
mod meter;
mod pages;
mod process;
mod server;
mod spawn;
mod status;
#[cfg(test)]
mod tests;
mod throttle;

pub use config::{Config, ConfigError, Disks, Meet, PAGES_CONNECTIONS_MAX, Pages, Side, Way};
pub use control::{Control, ControlError};
pub use spawn::{SpawnError, spawn};
pub use status::{ChannelStatus, End, Flow, Status};

use crate::identity::{Identity, IdentityError};
use process::Carrier;
use std::io::{self, Write};
use std::path::Path;
use whimbrel_model::problem::{Kind, Remedy};

/// Why a carrying process could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("failed to carry")]
    Io(#[from] io::Error),
}

impl Remedy for RunError {
    fn code(&self) -> &'static str {
        "migration/carrier-failed"
    }

    fn kind(&self) -> Kind {
        Kind::Failed
    }

    fn remedy(&self) -> String {
        "this program is started by the daemon; move guests with `whimbrel migrate`".to_owned()
    }
}

/// Runs the carrying process described in `directory`, until it is done.
pub fn run(directory: &Path) -> Result<(), RunError> {
    // A process that is a group's leader already cannot leave, and need not.
    let _ = rustix::process::setsid();
    let config = Config::load(directory)?;
    let identity = Identity::load(&config.identity)?;
    let carrier = Carrier::new(config, identity, directory);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(carrier.run(|| {
        let mut stdout = io::stdout();
        stdout.write_all(spawn::READY)?;
        stdout.flush()
    }))?;
    Ok(())
}
