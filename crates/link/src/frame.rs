// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Messages in frames: a length in four bytes, big-endian, then the message.

use bytes::{Buf, BytesMut};
use prost::Message;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame between paired hosts. The longest thing in one is a definition, a passport or a
/// list of guests.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;

/// Longest frame of a host that is not paired yet.
pub(crate) const PAIR_FRAME_BYTES_MAX: usize = 4 << 10;

const PREFIX: usize = 4;

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {length} bytes was announced, and at most {max} are allowed")]
    TooLong { length: usize, max: usize },
    #[error("the connection ended in the middle of a frame")]
    CutShort,
    #[error("a message is malformed")]
    Malformed(#[source] prost::DecodeError),
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// Takes frames out of a stream. Dropping [`next`](Self::next) halfway loses nothing.
#[derive(Debug)]
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(stream: R, max: usize) -> Self {
        Self::resume(stream, BytesMut::new(), max)
    }

    /// Goes on behind what was `already` read from the stream.
    pub(crate) fn resume(stream: R, already: BytesMut, max: usize) -> Self {
        Self { stream, buffer: already, max }
    }

    /// Returns the next message, or nothing at a clean end.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(FrameError::CutShort),
                Ok(_) => {}
                Err(e) if is_missing_goodbye(&e) && self.buffer.is_empty() => return Ok(None),
                Err(e) => return Err(FrameError::Io(e)),
            }
        }
    }

    fn take<M: Message + Default>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).expect("usize has 32 bits");
        if length > self.max {
            return Err(FrameError::TooLong { length, max: self.max });
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let frame = self.buffer.split_to(length);
        M::decode(frame).map(Some).map_err(FrameError::Malformed)
    }

    /// Returns the stream, and what was already read from it.
    pub(crate) fn into_parts(self) -> (R, BytesMut) {
        (self.stream, self.buffer)
    }

    pub(crate) fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }
}

/// A peer that just closes its socket ends a frame stream as well as one that says goodbye first:
/// every frame knows its own length.
fn is_missing_goodbye(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof
}

/// Returns the message in its frame.
pub(crate) fn encode(message: &impl Message, max: usize) -> Result<Vec<u8>, FrameError> {
    let length = message.encoded_len();
    let too_long = FrameError::TooLong { length, max };
    let Ok(prefix) = u32::try_from(length) else { return Err(too_long) };
    if length > max {
        return Err(too_long);
    }
    let mut frame = Vec::with_capacity(PREFIX + length);
    frame.extend_from_slice(&prefix.to_be_bytes());
    message.encode(&mut frame).expect("a vector grows");
    Ok(frame)
}

/// Sends one message and flushes it.
pub(crate) async fn send<W: AsyncWrite + Unpin>(
    stream: &mut W,
    message: &impl Message,
    max: usize,
) -> Result<(), FrameError> {
    let frame = encode(message, max)?;
    stream.write_all(&frame).await.map_err(FrameError::Io)?;
    stream.flush().await.map_err(FrameError::Io)
}
