// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How fast the way to a peer is: found out by sending bytes for a moment.
//!
//! ```text
//!   length (u32, big-endian), so many bytes  ------>
//!                                           <------  one byte: all are here
//!   ... a few times, then the connection closes
//! ```
//!
//! Each batch begins with nothing on its way, so that nothing which waited in a buffer can look
//! fast. The best row of a few batches counts: a host that is busy for a moment is not a slow link,
//! and a limit that lets a burst through after every pause is one. What is measured is one
//! encrypted stream, which is what memory travels in.

use super::{ByteStream, Connection, FrameError, RequestError, Responder};
use crate::wire::Request;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use whimbrel_model::units::Bytes;

const BATCH_BYTES: usize = 512 << 10;
/// A row: a burst that passes is a small part of it.
const ROW: usize = 8;
/// As many as anybody may send. They stop earlier ...
const BATCHES_MAX: usize = 16;
/// ... when it takes so long. A slow link is known after one.
const ENOUGH: Duration = Duration::from_millis(150);
/// Longest that a measurement may take, on either side.
const MEASURE_MAX: Duration = Duration::from_secs(3);
/// The most a peer may announce at once.
const BATCH_BYTES_MAX: usize = 4 << 20;
const CHUNK_BYTES: usize = 64 << 10;

impl Connection {
    /// Measures how much this way carries, in bytes a second, and sends no more than `most` for it,
    /// but half a mebibyte in any case.
    pub async fn measure(self, most: Bytes) -> Result<Bytes, RequestError> {
        let host = self.host().clone();
        let stream = self.bytes(&Request::Measure).await?;
        let measured = tokio::time::timeout(MEASURE_MAX, send_batches(stream, most)).await;
        let silent =
            |_| RequestError::Silent { host: host.clone(), seconds: MEASURE_MAX.as_secs() };
        let lost = |error| RequestError::Lost { host: host.clone(), source: FrameError::Io(error) };
        measured.map_err(silent)?.map_err(lost)
    }
}

impl Responder {
    /// Takes what a peer sends to find out how fast it arrives, and throws it away.
    pub async fn measure(self) -> Result<(), FrameError> {
        let stream = self.bytes().await?;
        let late = |_| FrameError::Io(io::ErrorKind::TimedOut.into());
        let ended = tokio::time::timeout(MEASURE_MAX, take_batches(stream)).await;
        ended.map_err(late)?.map_err(FrameError::Io)
    }
}

async fn send_batches(mut stream: ByteStream, most: Bytes) -> io::Result<Bytes> {
    let batches = usize::try_from(most.0).unwrap_or(usize::MAX) / BATCH_BYTES;
    let chunk = vec![0; CHUNK_BYTES];
    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < batches.clamp(1, BATCHES_MAX) {
        let batch_began = Instant::now();
        stream.write_u32(u32::try_from(BATCH_BYTES).expect("a batch is small")).await?;
        for _ in 0..BATCH_BYTES / CHUNK_BYTES {
            stream.write_all(&chunk).await?;
        }
        stream.flush().await?;
        stream.read_u8().await?;
        times.push(batch_began.elapsed());
        if began.elapsed() > ENOUGH {
            break;
        }
    }
    stream.shutdown().await?;
    Ok(Bytes(best_row(&times)))
}

/// Returns the bytes a second of the row that took the least time.
fn best_row(times: &[Duration]) -> u64 {
    let row = ROW.min(times.len());
    let took = times.windows(row.max(1)).map(|row| row.iter().sum::<Duration>()).min();
    let bytes = (BATCH_BYTES * row) as u128;
    let micros = took.unwrap_or_default().as_micros().max(1);
    u64::try_from(bytes * 1_000_000 / micros).unwrap_or(u64::MAX)
}

async fn take_batches(mut stream: ByteStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    for _ in 0..BATCHES_MAX {
        // A peer that knows enough closes the connection.
        let Ok(length) = stream.read_u32().await else { return Ok(()) };
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        if left > BATCH_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        while left > 0 {
            let most = left.min(CHUNK_BYTES);
            let read = stream.read(&mut chunk[..most]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read;
        }
        stream.write_u8(1).await?;
        stream.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(millis: &[u64]) -> u64 {
        let times: Vec<_> = millis.iter().copied().map(Duration::from_millis).collect();
        // Batches in a second.
        best_row(&times) / BATCH_BYTES as u64
    }

    /// A busy moment does not make a link slow, a burst does not make it fast, and one batch is
    /// enough for a guess.
    #[test]
    fn the_best_row_counts() {
        assert_eq!(rate(&[4; 16]), 250);
        assert_eq!(rate(&[4, 90, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 60, 4]), 250, "a busy host");
        let bursts = rate(&[1, 4, 4, 4, 20, 1, 4, 4, 4, 4, 4, 20, 1, 4, 4, 4]);
        assert!((150..300).contains(&bursts), "a limit that lets bursts through: {bursts}");
        assert_eq!(rate(&[50]), 20);
        assert_eq!(rate(&[10, 30]), 50);
    }
}
