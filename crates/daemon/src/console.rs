// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The consoles of guests: one hub a guest, many clients.
//!
//! The engine offers the console as a unix stream socket with exactly one client: the hub. It
//! keeps a bounded scrollback, hands every byte to all attached clients, and lets one of them
//! type.
//!
//! ```text
//!   engine ---- console.sock ----> line ----> scrollback
//!     |                             |-------> queue ----> client (types)
//!     '---> console.log             '-------> queue ----> client (reads)
//! ```
//!
//! The line reads as fast as the engine writes: a client that does not keep up loses its place,
//! the guest never waits for one. The engine's own log file fills the scrollback after a restart
//! of the daemon, and is kept below a limit here.

mod client;
mod line;
mod log;
mod shared;

use crate::http::Caller;
use shared::Shared;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::task::AbortHandle;
use whimbrel_api::Problem;
use whimbrel_api::console::{ConsoleQuery, FRAME_BYTES_MAX, Notice};
use whimbrel_model::id::{GuestName, HostName};

/// Most clients attached to one console.
pub const CLIENTS_MAX: usize = 16;

/// Where the console of a guest is.
#[derive(Clone, Debug)]
pub struct HubOptions {
    pub guest: GuestName,
    /// The engine's socket, as [`whimbrel_engine::Instance::console`] names it.
    pub socket: PathBuf,
    /// The file the engine logs the console to (opened by it in append mode). Read once for the
    /// scrollback, and kept below a limit by copying it away and truncating it.
    pub log: PathBuf,
}

/// The console of one guest. Cheap to clone; the hub ends with its last handle, or when it is told
/// that the guest has moved or its engine is gone.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    line: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.line.abort();
        // Without a farewell: the daemon is ending, not the console, and clients come back.
        self.shared.let_go();
    }
}

impl Hub {
    /// Begins to hold the console: connects to the engine, and again whenever the connection ends
    /// while the hub lives. Must be called inside a runtime.
    pub fn start(options: HubOptions) -> Self {
        let (shared, typed) = Shared::new(options.guest.clone());
        let shared = Arc::new(shared);
        let line = tokio::spawn(line::run(options, Arc::clone(&shared), typed)).abort_handle();
        Self(Arc::new(Handle { shared, line }))
    }

    /// Attaches a client and returns its end, in the frames of [`whimbrel_api::console`].
    pub fn open(&self, caller: Caller, query: ConsoleQuery) -> Result<DuplexStream, Problem> {
        let place = Shared::attach(&self.0.shared, caller, query)?;
        let (ours, theirs) = tokio::io::duplex(FRAME_BYTES_MAX);
        tokio::spawn(client::serve(place, ours));
        Ok(theirs)
    }

    /// Serves a client on `stream`, such as a peer's connection, until one of both ends. May be
    /// dropped at any time.
    pub async fn attach(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin,
        caller: Caller,
        query: ConsoleQuery,
    ) -> Result<(), Problem> {
        let place = Shared::attach(&self.0.shared, caller, query)?;
        client::serve(place, stream).await;
        Ok(())
    }

    /// Tells all clients where the guest is now, and ends the hub. What the engine has written
    /// until now is still delivered.
    pub fn moved(&self, host: &HostName) {
        self.0.shared.end(Notice::Moved { host: host.to_string() });
    }

    /// Tells all clients why there is nothing more to see, and ends the hub. What the engine has
    /// written until now is still delivered.
    pub fn end(&self, reason: &str) {
        self.0.shared.end(Notice::Ended { reason: reason.to_owned() });
    }
}

#[cfg(test)]
mod tests;
