// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Consoles: what travels after the upgrade.
//!
//! `GET /v1/guests/{guest}/console` with `Upgrade: whimbrel-console` turns the connection into two
//! streams of frames: a kind (one byte), the length of the payload (four bytes, big endian, at
//! most [`FRAME_BYTES_MAX`]), the payload. Raw bytes alone could not say why a console ended, nor
//! that the guest has moved and where it can be found.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use utoipa::ToSchema;

/// The protocol named in the `Upgrade` header.
pub const PROTOCOL: &str = "whimbrel-console";
/// Largest payload of a frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 << 10;

/// How to attach to a console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleQuery {
    /// Whether to watch only.
    #[serde(default)]
    pub read_only: bool,
    /// Whether to take over from whoever types now.
    #[serde(default)]
    pub force: bool,
    /// Whether this goes on with a console that moved: only what the guest has shown since it
    /// arrived is sent first.
    #[serde(default)]
    pub follows: bool,
    /// How much of what was shown before to send first, in bytes.
    pub scrollback_bytes: Option<u32>,
}

/// One frame, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of the console (from the daemon) or typed (to it).
    Data(Bytes),
    /// Something about the console (from the daemon only).
    Notice(Notice),
}

/// Something about the console, told beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Notice {
    /// The scrollback is over; what follows is live.
    Live {
        /// Whether this client may type.
        is_writer: bool,
    },
    /// Somebody else took over typing; this client only reads now.
    WriterLost {
        /// The user who took over.
        by_uid: u32,
    },
    /// The guest moved; attach again. The stream ends.
    Moved {
        /// The host it moved to.
        host: String,
    },
    /// The guest's engine is gone. The stream ends.
    Ended {
        /// Why, in words.
        reason: String,
    },
    /// This client did not read fast enough. The stream ends.
    TooSlow,
}

/// What is not a frame of this protocol.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is over the limit.
    #[error("a console frame of {bytes} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLarge {
        /// What the header said.
        bytes: usize,
    },
    /// Neither data nor a notice.
    #[error("a console frame of unknown kind {kind}")]
    UnknownKind {
        /// What the header said.
        kind: u8,
    },
    /// A notice that cannot be read.
    #[error("a console notice that cannot be read")]
    BadNotice(#[source] serde_json::Error),
    /// The stream ended inside a frame.
    #[error("the console stream ended in the middle of a frame")]
    Truncated,
    /// The stream could not be read or written.
    #[error("the console stream broke")]
    Io(#[from] std::io::Error),
}

const KIND_DATA: u8 = 1;
const KIND_NOTICE: u8 = 2;
const HEADER_BYTES: usize = 5;

impl Frame {
    /// Appends the frame, as it travels, to `out`. Data beyond [`FRAME_BYTES_MAX`] becomes several
    /// frames.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Data(data) => {
                data.chunks(FRAME_BYTES_MAX).for_each(|chunk| encode(KIND_DATA, chunk, out));
            }
            Self::Notice(notice) => {
                let json = serde_json::to_vec(notice).expect("a notice is plain data");
                encode(KIND_NOTICE, &json, out);
            }
        }
    }

    /// Returns the frame as it travels.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    /// Takes the first frame off `buffer`, or nothing while it is not complete.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [kind, length @ ..] = *header;
        let bytes = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes });
        }
        if !matches!(kind, KIND_DATA | KIND_NOTICE) {
            return Err(FrameError::UnknownKind { kind });
        }
        if buffer.len() < HEADER_BYTES + bytes {
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        let payload = buffer.split_to(bytes).freeze();
        Ok(Some(match kind {
            KIND_DATA => Self::Data(payload),
            _ => Self::Notice(serde_json::from_slice(&payload).map_err(FrameError::BadNotice)?),
        }))
    }
}

fn encode(kind: u8, payload: &[u8], out: &mut BytesMut) {
    let length = u32::try_from(payload.len()).expect("a frame is at most 64 KiB");
    out.reserve(HEADER_BYTES + payload.len());
    out.put_u8(kind);
    out.put_u32(length);
    out.put_slice(payload);
}

/// Reads frames off a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Returns a reader of the frames in `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: BytesMut::new() }
    }

    /// Returns the next frame, or nothing at the end. May be dropped at any time without losing a
    /// byte.
    pub async fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            if self.inner.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames survive any cut of the stream: they are fed one byte at a time, and what comes out
    /// is what went in.
    #[tokio::test]
    async fn frames_survive_any_cut() {
        let frames = [
            Frame::Data(Bytes::from_static(b"login: ")),
            Frame::Notice(Notice::Moved { host: "beta".into() }),
            Frame::Data(Bytes::from(vec![7; FRAME_BYTES_MAX])),
            Frame::Notice(Notice::Live { is_writer: true }),
        ];
        let mut wire = BytesMut::new();
        frames.iter().for_each(|frame| frame.encode(&mut wire));

        let (mut sender, receiver) = tokio::io::duplex(1);
        let writing = async move {
            tokio::io::AsyncWriteExt::write_all(&mut sender, &wire).await.unwrap();
        };
        let reading = async move {
            let mut reader = FrameReader::new(receiver);
            let mut seen = Vec::new();
            while let Some(frame) = reader.next().await.unwrap() {
                seen.push(frame);
            }
            seen
        };
        let ((), seen) = tokio::join!(writing, reading);
        assert_eq!(seen, frames);
    }

    /// More data than a frame may hold becomes several frames, none over the limit.
    #[test]
    fn large_data_is_split() {
        let data = vec![1; FRAME_BYTES_MAX * 2 + 1];
        let mut wire = BytesMut::from(&Frame::Data(data.clone().into()).to_bytes()[..]);
        let mut sizes = Vec::new();
        while let Some(Frame::Data(part)) = Frame::decode(&mut wire).unwrap() {
            sizes.push(part.len());
        }
        assert_eq!(sizes, [FRAME_BYTES_MAX, FRAME_BYTES_MAX, 1]);
    }

    /// Nothing is allocated for a length over the limit, and nothing is guessed.
    #[test]
    fn bad_frames_are_refused() {
        let check = |bytes: &[u8]| Frame::decode(&mut BytesMut::from(bytes));
        assert!(matches!(check(&[1, 0, 1, 0, 1]), Err(FrameError::TooLarge { bytes: 65_537 })));
        assert!(matches!(check(&[9, 0, 0, 0, 0]), Err(FrameError::UnknownKind { kind: 9 })));
        assert!(matches!(check(&[2, 0, 0, 0, 1, b'x']), Err(FrameError::BadNotice(_))));
        assert!(matches!(check(&[1, 0, 0, 0]), Ok(None)));
    }

    /// A stream that ends inside a frame is told apart from one that ends between two.
    #[tokio::test]
    async fn a_truncated_frame_is_an_error() {
        let mut reader = FrameReader::new(&[1, 0, 0, 0, 9, b'h'][..]);
        assert!(matches!(reader.next().await, Err(FrameError::Truncated)));
    }
}
