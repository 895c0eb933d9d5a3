// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Carries one channel, in both directions.
//!
//! ```text
//!   engine -> take -> queue (2) -> speak -> TLS          DATA, FIN, and every small frame
//!   engine <- give <- queue (window) <- hear <- TLS      never waits for the engine
//! ```
//!
//! `hear` never waits for the engine here: what the engine does not read yet is kept, and the other
//! side never sends more than [`WINDOW_BYTES_MAX`] that is not acknowledged. So acknowledgements,
//! pings and the other direction cannot get stuck behind data, whatever the engines do. `take` does
//! not wait for more input than there is: what an engine has written leaves at once.

use super::frames::{self, Frame, FrameError, HEADER_BYTES, Parser};
use super::meter::{Meter, Room};
use super::status::End;
use super::throttle::Throttle;
use bytes::{BufMut, Bytes, BytesMut};
use rustix::net::Shutdown;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use whimbrel_pages::receiver::ReceiveError;
use whimbrel_pages::sender::SendError;
use whimbrel_pages::window::WINDOW_BYTES_MAX;

/// What is read from an engine at once: with its header, eight full TLS records.
const READ_BYTES: usize = (128 << 10) - HEADER_BYTES;
/// What is read from the connection at once.
const HEAR_BYTES: usize = 128 << 10;
/// Buffers between the engine and the connection.
const BUFFERS: usize = 2;
/// The other side hears of accepted bytes at least this often.
const ACCEPT_EVERY: u64 = 64 << 10;
/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_millis(500);
/// How long the other side may be silent; it pings, too.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How long a stream of pages waits for a new link.
pub(super) const RESUME_MAX: Duration = Duration::from_secs(120);

/// Why a channel was lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum CarryError {
    #[error("the link was cut")]
    Cut(#[source] io::Error),
    #[error("the other side closed the link too early")]
    Closed,
    #[error("the other side was silent for {} s", .after.as_secs())]
    Silent { after: Duration },
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the other side sent {what}")]
    Nonsense { what: &'static str },
    #[error("the other side sent no pages")]
    Pages(#[source] whimbrel_pages::frame::FrameError),
    #[error("the stream of pages was refused")]
    Send(#[from] SendError),
    #[error("the stream of pages was given up")]
    Receive(#[from] ReceiveError),
    #[error("the other side does not go on: {reason}")]
    Refused { reason: String },
    #[error("the link could not be made again within {} s", RESUME_MAX.as_secs())]
    NotResumed,
    #[error("{arrived} bytes with BLAKE3 {found} arrived, and {sent} with {expected} were sent")]
    Unequal { arrived: u64, sent: u64, found: blake3::Hash, expected: blake3::Hash },
}

/// What goes to `speak` in order.
#[derive(Debug)]
enum Outgoing {
    /// With its header in front.
    Data(BytesMut),
    Fin {
        total: u64,
        digest: [u8; 32],
    },
}

/// What goes to `give` in order.
#[derive(Debug)]
enum Incoming {
    Data(Bytes),
    Fin { total: u64, digest: [u8; 32] },
}

/// Carries a channel until both directions have ended. `already` was read from the link before.
///
/// However it ends, the engine's socket is shut down afterwards.
pub(super) async fn carry<S>(
    link: S,
    already: BytesMut,
    engine: UnixStream,
    meter: Arc<Meter>,
    throttle: Arc<Throttle>,
) -> Result<(), CarryError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let engine = Arc::new(Guard(engine));
    let (read, write) = tokio::io::split(link);
    let (taken, to_speak) = mpsc::channel(BUFFERS);
    let (spent, buffers) = mpsc::channel(BUFFERS);
    // Bounded by the window, which `hear` enforces.
    let (heard, to_give) = mpsc::unbounded_channel();
    for _ in 0..BUFFERS {
        let buffer = BytesMut::with_capacity(HEADER_BYTES + READ_BYTES);
        spent.try_send(buffer).expect("there is room");
    }
    meter.set_connected(true);
    let mut tasks = JoinSet::new();
    tasks.spawn(take(engine.clone(), meter.clone(), throttle, buffers, taken));
    tasks.spawn(speak(write, meter.clone(), to_speak, spent));
    tasks.spawn(hear(read, already, engine.clone(), meter.clone(), heard));
    tasks.spawn(give(engine.clone(), meter.clone(), to_give));
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        outcome = ended.expect("these tasks do not panic");
        if outcome.is_err() {
            break;
        }
    }
    tasks.shutdown().await;
    meter.set_connected(false);
    outcome
}

/// The engine's socket. Whoever drops it last, also by being cancelled, leaves the engine with a
/// closed socket.
#[derive(Debug)]
pub(super) struct Guard(pub(super) UnixStream);

impl Drop for Guard {
    fn drop(&mut self) {
        // Already closed is closed as well.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

/// Reads what the engine sends.
async fn take(
    engine: Arc<Guard>,
    meter: Arc<Meter>,
    throttle: Arc<Throttle>,
    mut buffers: mpsc::Receiver<BytesMut>,
    taken: mpsc::Sender<Outgoing>,
) -> Result<(), CarryError> {
    let mut hasher = blake3::Hasher::new();
    // `None` from either queue means that the channel is being taken down for another reason.
    while let Some(mut buffer) = buffers.recv().await {
        let Some(room) = wait_for_room(&meter).await else { return Ok(()) };
        let most = READ_BYTES.min(usize::try_from(room).unwrap_or(READ_BYTES));
        buffer.clear();
        buffer.put_bytes(0, HEADER_BYTES);
        let length = tokio::select! {
            length = read_engine(&engine.0, &mut buffer, most) => length,
            () = stopped(&meter) => return Ok(()),
        };
        let now = Instant::now();
        if length == 0 {
            let total = hasher.count();
            let digest = *hasher.finalize().as_bytes();
            meter.took_everything(digest);
            let _ = taken.send(Outgoing::Fin { total, digest }).await;
            return Ok(());
        }
        let bytes = u64::try_from(length).expect("it is small");
        meter.took(bytes, now);
        buffer[..HEADER_BYTES].copy_from_slice(&frames::data_header(length));
        hasher.update(&buffer[HEADER_BYTES..]);
        let wait = throttle.charge(bytes, now);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if taken.send(Outgoing::Data(buffer)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn wait_for_room(meter: &Meter) -> Option<u64> {
    loop {
        match meter.room() {
            Room::Bytes(room) => return Some(room),
            Room::Stopped => return None,
            Room::None => meter.room.notified().await,
        }
    }
}

async fn stopped(meter: &Meter) {
    while meter.room() != Room::Stopped {
        meter.room.notified().await;
    }
}

/// Reads once; nothing at the end. An engine that is gone has ended, too.
pub(super) async fn read_engine(engine: &UnixStream, buffer: &mut BytesMut, most: usize) -> usize {
    loop {
        if engine.readable().await.is_err() {
            return 0;
        }
        match engine.try_read_buf(&mut (&mut *buffer).limit(most)) {
            Ok(length) => return length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return 0,
        }
    }
}

/// Writes everything that goes to the other side.
async fn speak<W: AsyncWrite + Unpin>(
    mut link: W,
    meter: Arc<Meter>,
    mut taken: mpsc::Receiver<Outgoing>,
    spent: mpsc::Sender<BytesMut>,
) -> Result<(), CarryError> {
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut small = Vec::new();
    let mut has_more = true;
    loop {
        small.clear();
        // Asked first: what ends a direction leaves its last word in `pending` at the same instant.
        let is_over = meter.has_ended();
        let pending = meter.take_pending();
        if !pending.is_empty() {
            if let Some(total) = pending.accepted {
                Frame::Ack { total }.write(&mut small);
            }
            if let Some(number) = pending.pong {
                Frame::Pong(number).write(&mut small);
            }
            if pending.end {
                Frame::End.write(&mut small);
            }
            if pending.stop {
                Frame::Stop.write(&mut small);
            }
            send(&mut link, &meter, &small).await?;
        } else if is_over {
            // Both directions are through, and everything was said.
            return link.shutdown().await.map_err(CarryError::Cut);
        }
        tokio::select! {
            biased;
            () = meter.speak.notified() => {}
            _ = ping.tick() => {
                small.clear();
                Frame::Ping(meter.age_us()).write(&mut small);
                send(&mut link, &meter, &small).await?;
            }
            outgoing = taken.recv(), if has_more => match outgoing {
                Some(Outgoing::Data(buffer)) => {
                    send(&mut link, &meter, &buffer).await?;
                    // `take` may have ended.
                    let _ = spent.try_send(buffer);
                }
                Some(Outgoing::Fin { total, digest }) => {
                    small.clear();
                    Frame::Fin { total, digest }.write(&mut small);
                    send(&mut link, &meter, &small).await?;
                }
                None => has_more = false,
            }
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(
    link: &mut W,
    meter: &Meter,
    bytes: &[u8],
) -> Result<(), CarryError> {
    link.write_all(bytes).await.map_err(CarryError::Cut)?;
    link.flush().await.map_err(CarryError::Cut)?;
    meter.wrote(bytes.len());
    Ok(())
}

/// Reads everything that comes from the other side.
async fn hear<R: AsyncRead + Unpin>(
    mut link: R,
    mut buffer: BytesMut,
    engine: Arc<Guard>,
    meter: Arc<Meter>,
    heard: mpsc::UnboundedSender<Incoming>,
) -> Result<(), CarryError> {
    let mut parser = Parser::default();
    let mut has_fin = false;
    loop {
        while let Some(frame) = parser.next(&mut buffer)? {
            match frame {
                Frame::Data(_) | Frame::Fin { .. } if has_fin => {
                    return Err(CarryError::Nonsense { what: "data after its end" });
                }
                Frame::Data(bytes) => {
                    let length = u64::try_from(bytes.len()).expect("it is small");
                    if meter.came(length, Instant::now()) > WINDOW_BYTES_MAX {
                        return Err(CarryError::Nonsense { what: "more than the window" });
                    }
                    // `give` ends early only together with the channel.
                    let _ = heard.send(Incoming::Data(bytes));
                }
                Frame::Fin { total, digest } => {
                    has_fin = true;
                    let _ = heard.send(Incoming::Fin { total, digest });
                }
                Frame::Ack { total } => {
                    if !meter.accepted_there(total, Instant::now()) {
                        return Err(CarryError::Nonsense { what: "a wrong acknowledgement" });
                    }
                }
                Frame::End => end(&meter)?,
                Frame::Stop => {
                    meter.end_outgoing(End::Stopped);
                    // The engine here learns it the way it would from the other one.
                    let _ = rustix::net::shutdown(&engine.0, Shutdown::Read);
                }
                Frame::Ping(number) => meter.answer_ping(number),
                Frame::Pong(number) => {
                    let micros = meter.age_us().saturating_sub(number);
                    meter.round_trip(Duration::from_micros(micros));
                }
                Frame::Open(_) | Frame::Ready | Frame::Shelf(_) | Frame::Refused { .. } => {
                    return Err(CarryError::Nonsense { what: "a greeting in the middle" });
                }
            }
        }
        if buffer.capacity() - buffer.len() < HEAR_BYTES / 4 {
            buffer.reserve(HEAR_BYTES);
        }
        let read = tokio::time::timeout(SILENCE_MAX, link.read_buf(&mut buffer)).await;
        match read.map_err(|_| CarryError::Silent { after: SILENCE_MAX })? {
            Ok(0) if meter.has_ended() => return Ok(()),
            Ok(0) => return Err(CarryError::Closed),
            Ok(length) => meter.read(length),
            Err(_) if meter.has_ended() => return Ok(()),
            Err(error) => return Err(CarryError::Cut(error)),
        }
    }
}

/// The other side says that everything has arrived, complete and equal.
fn end(meter: &Meter) -> Result<(), CarryError> {
    match meter.sent_digest() {
        Some(digest) => {
            meter.end_outgoing(End::Complete { digest });
            Ok(())
        }
        None => Err(CarryError::Nonsense { what: "an end that was not asked for" }),
    }
}

/// Writes to the engine what came for it.
async fn give(
    engine: Arc<Guard>,
    meter: Arc<Meter>,
    mut heard: mpsc::UnboundedReceiver<Incoming>,
) -> Result<(), CarryError> {
    let mut hasher = blake3::Hasher::new();
    let mut unsaid = 0;
    let mut is_stopped = false;
    while let Some(incoming) = heard.recv().await {
        match incoming {
            Incoming::Data(bytes) => {
                if !is_stopped {
                    is_stopped = write_engine(&engine.0, &bytes).await.is_err();
                    if is_stopped {
                        meter.end_incoming(End::Stopped);
                    } else {
                        hasher.update(&bytes);
                    }
                }
                let length = u64::try_from(bytes.len()).expect("it is small");
                unsaid += length;
                let is_due = unsaid >= ACCEPT_EVERY || heard.is_empty();
                meter.accepted_here(length, is_due);
                if is_due {
                    unsaid = 0;
                }
            }
            Incoming::Fin { .. } if is_stopped => return Ok(()),
            Incoming::Fin { total, digest } => {
                let (found, arrived) = (hasher.finalize(), hasher.count());
                let expected = blake3::Hash::from_bytes(digest);
                if found != expected || arrived != total {
                    return Err(CarryError::Unequal { arrived, sent: total, found, expected });
                }
                meter.accepted_here(0, true);
                // An engine that is gone needs no end.
                let _ = rustix::net::shutdown(&engine.0, Shutdown::Write);
                meter.end_incoming(End::Complete { digest });
                return Ok(());
            }
        }
    }
    Ok(())
}

pub(super) async fn write_engine(engine: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        engine.writable().await?;
        match engine.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
