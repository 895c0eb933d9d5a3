// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The connections of a stream of pages: frames in, frames out.

use super::super::channel::CarryError;
use super::super::meter::Meter;
use super::super::process::{Connection, Link};
use super::super::throttle::Toll;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
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

/// See the module. Dropping both closes the connections.
pub(super) fn open(connection: Connection, meter: Arc<Meter>, toll: Toll) -> (Outgoing, Incoming) {
    let (heard, frames) = mpsc::channel(FRAMES);
    let outgoing = Outgoing { links: Vec::new(), freed: Arc::new(Notify::new()) };
    let incoming = Incoming { frames, heard, tasks: JoinSet::new(), meter, toll };
    let mut both = (outgoing, incoming);
    both.1.join(&mut both.0, connection);
    both
}

/// What is said to the other side. On the first connection everything may travel, and in order; on
/// those that joined it only what may be overtaken.
pub(super) struct Outgoing {
    links: Vec<mpsc::Sender<Bytes>>,
    /// A link has taken a frame.
    freed: Arc<Notify>,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn takes_more(&self) -> bool {
        self.links[0].capacity() > 0
    }

    /// Returns whether no connection takes more.
    pub(super) fn is_full(&self) -> bool {
        self.links.iter().all(|link| link.capacity() == 0)
    }

    /// Sends a frame; there is room for it.
    pub(super) fn say(&self, frame: Bytes) {
        // A link that is lost says so itself.
        let _ = self.links[0].try_send(frame);
    }

    /// Sends frames on the connections that joined, as far as they take them.
    pub(super) fn deal(&self, mut next: impl FnMut() -> Option<Bytes>) {
        for link in &self.links[1..] {
            while let Ok(place) = link.try_reserve() {
                let Some(frame) = next() else { return };
                place.send(frame);
            }
        }
    }

    /// Sends a frame on each of the connections that joined. One that has no room is not silent.
    pub(super) fn say_on_others(&self, frame: &Bytes) {
        for link in &self.links[1..] {
            let _ = link.try_send(frame.clone());
        }
    }

    /// Says the first word on the connection that joined last.
    pub(super) fn say_on_last(&self, word: Bytes) {
        let _ = self.links.last().expect("there is one at least").try_send(word);
    }

    /// Returns once one takes more.
    pub(super) async fn room(&self) {
        self.freed.notified().await;
    }
}

/// What comes, on whichever connection. Each of them is lost with any other: what cuts one cuts
/// most often all, and there is one rule for how a stream goes on.
pub(super) struct Incoming {
    frames: mpsc::Receiver<Frame>,
    heard: mpsc::Sender<Frame>,
    tasks: JoinSet<Result<(), CarryError>>,
    meter: Arc<Meter>,
    toll: Toll,
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
    /// Adds a connection.
    pub(super) fn join(&mut self, outgoing: &mut Outgoing, (link, already): Connection) {
        let (read, write) = tokio::io::split(link);
        let (frames, to_speak) = mpsc::channel(FRAMES);
        let (freed, meter) = (outgoing.freed.clone(), self.meter.clone());
        self.tasks.spawn(speak(write, to_speak, freed, meter, self.toll.clone()));
        // The others close when there is nothing left to deal, which is before the end.
        let may_close = !outgoing.links.is_empty();
        self.tasks.spawn(hear(read, already, self.heard.clone(), may_close, self.meter.clone()));
        outgoing.links.push(frames);
        self.meter.set_connections(outgoing.len());
    }

    pub(super) async fn next(&mut self) -> Heard {
        loop {
            tokio::select! {
                biased;
                Some(frame) = self.frames.recv() => return Heard::Frame(frame),
                Some(ended) = self.tasks.join_next() => {
                    // After an end in order there may be frames left.
                    if let Err(error) = ended.expect("these tasks do not panic") {
                        return Heard::of(error);
                    }
                }
            }
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
    freed: Arc<Notify>,
    meter: Arc<Meter>,
    toll: Toll,
) -> Result<(), CarryError> {
    while let Some(frame) = outgoing.recv().await {
        freed.notify_one();
        let wait = toll.charge(frame.len() as u64, Instant::now());
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
    may_close: bool,
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
            Ok(0) if may_close => return Ok(()),
            Ok(0) => return Err(CarryError::Closed),
            Ok(length) => meter.read(length),
            Err(error) => return Err(CarryError::Cut(error)),
        }
    }
}
