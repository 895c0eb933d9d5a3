// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why somebody was turned away, in one line each.

use super::peek::CLIENT_HELLO_BYTES_MAX;
use crate::tls::{HANDSHAKE_MAX, HandshakeError};
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use whimbrel_model::problem::chain;

/// Why a connection was refused. The peer is told nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("too many connections: at most {max} are served")]
    TooMany { max: usize },
    #[error("too many connections from one address: at most {max} are served")]
    TooManyFromAddress { max: usize },
    #[error("it did not say what it wants within {} s", HANDSHAKE_MAX.as_secs())]
    Late,
    #[error("it closed the connection before it said what it wants")]
    Ended,
    #[error("it does not speak TLS")]
    NotTls,
    #[error(
        "its hello has {length} bytes in its first record; at most {CLIENT_HELLO_BYTES_MAX} in one \
         record are read"
    )]
    HelloLength { length: usize },
    #[error("its hello is malformed")]
    Hello(#[source] rustls::Error),
    #[error("it asks for another protocol")]
    OtherProtocol,
    #[error("it names no handoff")]
    NoHandoff,
    #[error("relocation is disabled on this host")]
    RelocationDisabled,
    #[error("no invitation is open on this host")]
    NoInvitation,
    #[error(transparent)]
    Handshake(HandshakeError),
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// So many lines a minute are written; the rest are counted. Lines are kept, and strangers must not
/// be able to push everything else out of the log.
const LINES_PER_MINUTE_MAX: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// The log of refusals. A flood must not fill the disk.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    count: u64,
    minute: Option<Instant>,
    lines: u32,
    untold: u64,
}

impl Refusals {
    /// Returns what to write in the log, unless too much was written just now.
    pub(super) fn line(&self, from: SocketAddr, refusal: &Refusal) -> Option<String> {
        let untold = self.note(Instant::now())?;
        let line = format!("refused a connection from {from}: {}", chain(refusal));
        Some(match untold {
            0 => line,
            untold => format!("{line} (and {untold} others since the last line)"),
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Returns whether this one gets a line, with the number that got none before it.
    fn note(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        let is_new_minute = state.minute.is_none_or(|minute| now - minute >= MINUTE);
        if is_new_minute {
            state.minute = Some(now);
            state.lines = 0;
        }
        if state.lines == LINES_PER_MINUTE_MAX {
            state.untold += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every refusal has its line, until there are too many a minute; then they are counted.
    #[test]
    fn a_flood_is_counted_instead_of_logged() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for _ in 0..LINES_PER_MINUTE_MAX {
            assert_eq!(refusals.note(start), Some(0));
        }
        assert_eq!(refusals.note(start), None);
        assert_eq!(refusals.note(start), None);
        assert_eq!(refusals.note(start + MINUTE), Some(2));
        assert_eq!(refusals.count(), u64::from(LINES_PER_MINUTE_MAX) + 3);
    }
}
