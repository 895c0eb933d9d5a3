// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One connection, one request, from either side.
//!
//! ```text
//!   Dialer::connect -> Connection -> ping | facts | who_owns | guests | unpair | measure
//!                                    log -> Lines, console -> ByteStream, handoff -> HandoffStream
//!   PeerStream -> Incoming::receive -> (Request, Responder) -> one answer, or one of the streams
//! ```
//!
//! There is no multiplexing: a handshake between pinned hosts costs a millisecond, and a request
//! that has a connection of its own cannot hold up another one.

mod client;
mod error;
mod handoff;
mod measure;
mod server;
mod socket;
#[cfg(test)]
mod tests;

pub use crate::frame::FrameError;
pub use client::{Connection, Dialer, Lines, PeerAddress};
pub use error::{ConnectError, RequestError};
pub use handoff::{HandoffSender, HandoffStream};
pub use server::{Incoming, IncomingError, LineSink, Responder};
pub(crate) use socket::{connect_first, tune};

use crate::tls::PeerStream;
use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a peer may take for an answer that does not follow anything.
pub const ANSWER_MAX: Duration = Duration::from_secs(20);

/// How long a peer may take to say who it is and what it wants.
pub const REQUEST_MAX: Duration = Duration::from_secs(5);

/// The bytes behind an answer, in both directions: of a console, or of a measurement.
#[derive(Debug)]
pub struct ByteStream {
    /// What came right behind the last frame.
    first: BytesMut,
    stream: PeerStream,
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
