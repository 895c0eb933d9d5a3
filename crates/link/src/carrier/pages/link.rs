// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One connection of a stream of pages: frames in, frames out.

use super::super::channel::CarryError;
use super::super::meter::Meter;
use super::super::process::{Connection, Link};
use super::super::throttle::Throttle;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use whimbrel_pages::frame::{Frame, FrameReader};

/// Frames between the stream and the connection, in either direction: what waits here has left the
/// stream, but not the host.
const FRAMES: usize = 2;
/// What is read from the connection at once.
const HEAR_BYTES: usize = 256 << 10;
/// How long the other side may be silent; it pings, too. The stream goes on over another
/// connection, so this need not be patient.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long the other side may take to close what both have finished.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// See the module. Dropping both closes the connection.
pub(super) fn open(
    (link, already): Connection,
    meter: Arc<Meter>,
    throttle: Arc<Throttle>,
) -> (Outgoing, Incoming) {
    let (read, write) = tokio::io::split(link);
    let (frames, to_speak) = mpsc::channel(FRAMES);
    let (heard, incoming) = mpsc::channel(FRAMES);
    let mut tasks = JoinSet::new();
    tasks.spawn(speak(write, to_speak, meter.clone(), throttle));
    tasks.spawn(hear(read, already, heard, meter));
    (Outgoing { frames }, Incoming { frames: incoming, tasks })
}

pub(super) struct Outgoing {
    frames: mpsc::Sender<Bytes>,
}

impl Outgoing {
    pub(super) fn takes_more(&self) -> bool {
        self.frames.capacity() > 0
    }

    /// Sends a frame; there is room for it.
    pub(super) fn say(&self, frame: Bytes) {
        // A link that is lost says so itself.
        let _ = self.frames.try_send(frame);
    }

    /// Returns once it takes more.
    pub(super) async fn room(&self) {
        if self.frames.reserve().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

pub(super) struct Incoming {
    frames: mpsc::Receiver<Frame>,
    tasks: JoinSet<Result<(), CarryError>>,
}

/// What came.
pub(super) enum Heard {
    Frame(Frame),
    /// Another connection may go on.
    Lost(CarryError),
    /// The other side said what no honest one says: another connection will not help.
    Wrong(CarryError),
}

impl Incoming {
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            tokio::select! {
                biased;
                frame = self.frames.recv() => match frame {
                    Some(frame) => return Heard::Frame(frame),
                    None => return self.end().await,
                },
                Some(ended) = self.tasks.join_next() => {
                    // After an end in order there may be frames left.
                    if let Err(error) = ended.expect("these tasks do not panic") {
                        return Heard::of(error);
                    }
                }
            }
        }
    }

    async fn end(&mut self) -> Heard {
        // The one that speaks may still wait for something to say.
        match self.tasks.join_next().await.map(|ended| ended.expect("these tasks do not panic")) {
            Some(Err(error)) => Heard::of(error),
            Some(Ok(())) | None => Heard::Lost(CarryError::Closed),
        }
    }

    /// Waits until the other side has closed, too: what it says meanwhile is of no use.
    pub(super) async fn close(mut self) {
        let closing = async { while let Heard::Frame(_) = self.next().await {} };
        // Whoever does not hear of it dials again.
        let _ = tokio::time::timeout(CLOSE_MAX, closing).await;
    }
}

impl Heard {
    fn of(error: CarryError) -> Self {
        if is_of_link(&error) { Heard::Lost(error) } else { Heard::Wrong(error) }
    }
}

fn is_of_link(error: &CarryError) -> bool {
    matches!(error, CarryError::Cut(_) | CarryError::Closed | CarryError::Silent { .. })
}

async fn speak(
    mut link: WriteHalf<Link>,
    mut outgoing: mpsc::Receiver<Bytes>,
    meter: Arc<Meter>,
    throttle: Arc<Throttle>,
) -> Result<(), CarryError> {
    while let Some(frame) = outgoing.recv().await {
        let wait = throttle.charge(frame.len() as u64, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        link.write_all(&frame).await.map_err(CarryError::Cut)?;
        if outgoing.is_empty() {
            link.flush().await.map_err(CarryError::Cut)?;
        }
        meter.wrote(frame.len());
    }
    link.shutdown().await.map_err(CarryError::Cut)
}

async fn hear(
    mut link: ReadHalf<Link>,
    already: BytesMut,
    heard: mpsc::Sender<Frame>,
    meter: Arc<Meter>,
) -> Result<(), CarryError> {
    let mut frames = FrameReader::default();
    frames.push(&already);
    loop {
        while let Some(frame) = frames.next_frame().map_err(CarryError::Pages)? {
            if heard.send(frame).await.is_err() {
                return Ok(());
            }
        }
        let buffer = frames.buffer();
        if buffer.capacity() - buffer.len() < HEAR_BYTES / 4 {
            buffer.reserve(HEAR_BYTES);
        }
        let read = tokio::time::timeout(SILENCE_MAX, link.read_buf(buffer)).await;
        match read.map_err(|_| CarryError::Silent { after: SILENCE_MAX })? {
            Ok(0) => return Err(CarryError::Closed),
            Ok(length) => meter.read(length),
            Err(error) => return Err(CarryError::Cut(error)),
        }
    }
}
