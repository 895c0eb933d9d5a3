// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Carries one engine's stream as pages, over as many connections as it takes.
//!
//! ```text
//!   engine -> sender -> packers -> frames -> speak -> TLS     pages, END, and every small frame
//!   engine <- giver  <- receiver <- frames <- hear  <- TLS
//! ```
//!
//! One task has the [`Stream`]: both directions of it, what is not acknowledged, what the target
//! holds. A connection is two more tasks, and when it is lost they end and others take their place:
//! the engines do not notice, because their sockets are this process's. The source dials again; the
//! target waits for it. What each side needs to go on is in the first frame of a new connection.
//!
//! The return path of the engine travels the same way, as a stream without pages.

pub(super) mod begin;
mod giver;
pub(super) mod keeper;
mod link;
mod packers;

use super::channel::{CarryError, Guard, RESUME_MAX, read_engine};
use super::meter::Meter;
use super::process::{Carrier, Connection, NoLink};
use super::status::End;
use super::throttle::Throttle;
use begin::Begin;
use bytes::{Bytes, BytesMut};
use giver::Giver;
use keeper::Feed;
use link::{Heard, Outgoing};
use packers::Packers;
use rustix::net::Shutdown;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use whimbrel_pages::frame::Frame;
use whimbrel_pages::receiver::Receiver;
use whimbrel_pages::sender::{Kept, Sender};
use whimbrel_pages::window::Window;

/// What is read from an engine at once.
const READ_BYTES: usize = 256 << 10;
/// A read from the engine waits for this much room, so that no dribs and drabs are sent.
const ROOM_MIN: usize = 32 << 10;
/// What an engine has written leaves this soon, also if it could be packed better with more.
const IDLE: Duration = Duration::from_millis(1);
/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_millis(500);
/// The first wait before dialling again, doubled each time up to the longest.
const REDIAL_FIRST: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);

/// Where the next connection comes from.
pub(super) enum Links {
    Dial(Arc<Carrier>),
    Wait(mpsc::Receiver<Connection>),
}

/// How a connection ended.
enum Over {
    /// Both directions are through.
    Finished,
    Lost(CarryError),
    Replaced(Box<Connection>),
}

/// Both directions of an engine's stream. See the module.
pub(super) struct Stream {
    engine: Arc<Guard>,
    sender: Sender,
    receiver: Receiver,
    giver: Giver,
    packers: Packers,
    /// What goes into the image at the source, and what is counted of it at the target.
    image: Option<Feed<Kept>>,
    census: Option<Feed<Bytes>>,
    meter: Arc<Meter>,
    throttle: Arc<Throttle>,
    born: Instant,
    /// The packed bytes on their way.
    wire: Window,
    buffer: BytesMut,
    /// When what the engine has written must leave.
    flush_at: Option<Instant>,
    is_input_over: bool,
    /// Since when there is more to say than the link takes.
    link_full: Option<Instant>,
    /// Pings, and what begins a connection; before everything else.
    small: VecDeque<Bytes>,
}

impl Stream {
    pub(super) fn new(begin: Begin) -> Self {
        let Begin { engine, sender, receiver, image, census, .. } = begin;
        let Begin { meter, throttle, link_bytes_per_s, .. } = begin;
        let engine = Arc::new(Guard(engine));
        Self {
            giver: Giver::new(engine.clone()),
            engine,
            sender,
            receiver,
            packers: Packers::new(link_bytes_per_s),
            image,
            census,
            meter,
            throttle,
            born: Instant::now(),
            wire: Window::new(Duration::ZERO),
            buffer: BytesMut::with_capacity(READ_BYTES),
            flush_at: None,
            is_input_over: false,
            link_full: None,
            small: VecDeque::new(),
        }
    }

    /// Carries until both directions have ended, and then for whoever has not heard of it.
    pub(super) async fn run(
        mut self,
        first: Connection,
        mut links: Links,
    ) -> Result<(), CarryError> {
        let mut connection = first;
        loop {
            self.meter.set_connected(true);
            let over = self.over(connection, &mut links).await?;
            self.meter.set_connected(false);
            connection = match over {
                Over::Replaced(connection) => *connection,
                Over::Finished => match &mut links {
                    Links::Dial(_) => return Ok(()),
                    Links::Wait(connections) => match connections.recv().await {
                        Some(connection) => connection,
                        None => return Ok(()),
                    },
                },
                Over::Lost(error) => {
                    tracing::warn!(%error, "the link was lost, and is made again");
                    links.next().await?
                }
            };
            self.begin_again();
        }
    }

    fn begin_again(&mut self) {
        self.small.clear();
        self.sender.on_reconnect();
        self.small.push_back(self.receiver.on_reconnect().encode());
        self.meter.resumed();
    }

    async fn over(
        &mut self,
        connection: Connection,
        links: &mut Links,
    ) -> Result<Over, CarryError> {
        let (outgoing, mut incoming) =
            link::open(connection, self.meter.clone(), self.throttle.clone());
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.note_ends();
            let has_more = self.say(&outgoing);
            self.watch_link(has_more);
            if self.meter.has_ended() && !has_more {
                drop(outgoing);
                incoming.close().await;
                return Ok(Over::Finished);
            }
            let flush_at = self.flush_at.unwrap_or_else(Instant::now);
            let reads = self.room();
            tokio::select! {
                biased;
                heard = incoming.next(), if has_room(self.census.as_ref()) => match heard {
                    Heard::Frame(frame) => self.on_frame(frame)?,
                    Heard::Lost(error) => return Ok(Over::Lost(error)),
                    Heard::Wrong(error) => return Err(error),
                },
                accepted = self.giver.progress() => self.on_accepted(accepted),
                packed = self.packers.done() => {
                    self.sender.on_packed(packed);
                    self.sender.set_codec(self.packers.codec(std::time::Instant::now()));
                }
                _ = ping.tick() => {
                    self.small.push_back(Frame::Ping { number: self.meter.age_us() }.encode());
                }
                () = freed(self.image.as_ref()) => {}
                () = freed(self.census.as_ref()) => {}
                () = outgoing.room(), if has_more => {}
                length = read_engine(&self.engine.0, &mut self.buffer, reads), if reads > 0 => {
                    self.on_read(length);
                }
                () = tokio::time::sleep_until(flush_at), if self.flush_at.is_some() => {
                    self.flush_at = None;
                    self.sender.flush();
                }
                connection = links.replaced() => return Ok(Over::Replaced(Box::new(connection))),
            }
        }
    }

    /// Returns how much to read from the engine now; 0: not yet.
    fn room(&self) -> usize {
        if !has_room(self.image.as_ref()) {
            return 0;
        }
        match self.sender.room().min(READ_BYTES) {
            room if room >= ROOM_MIN && !self.is_input_over => room,
            _ => 0,
        }
    }

    /// Hands over what the link takes; returns whether there is more.
    fn say(&mut self, link: &Outgoing) -> bool {
        while let Some(job) = self.sender.take_job() {
            self.packers.put(job);
        }
        self.feed_image();
        while link.takes_more() {
            let Some(frame) = self.next_frame() else { return false };
            link.say(frame);
        }
        true
    }

    fn watch_link(&mut self, is_full: bool) {
        let now = Instant::now();
        if let Some(since) = self.link_full.take() {
            self.packers.on_link_wait(now - since);
        }
        self.link_full = is_full.then_some(now);
    }

    fn feed_image(&mut self) {
        while let Some(image) = self.image.as_ref().filter(|image| image.has_room()) {
            match self.sender.poll_kept() {
                Some(kept) => image.put(kept),
                None if self.sender.is_done() => self.image = None,
                None => return,
            }
        }
    }

    fn next_frame(&mut self) -> Option<Bytes> {
        if let Some(small) = self.small.pop_front() {
            return Some(small);
        }
        if let Some(reply) = self.receiver.poll_reply() {
            return Some(reply.encode());
        }
        let frame = self.sender.poll_frame()?;
        let counts = self.sender.counts();
        let fresh = counts.frame_bytes - counts.repeat_bytes - self.wire.sent();
        self.wire.send(fresh, self.born.elapsed());
        Some(frame)
    }

    fn on_read(&mut self, length: usize) {
        let now = Instant::now();
        if length == 0 {
            self.is_input_over = true;
            self.flush_at = None;
            if !self.sender.is_stopped() {
                self.sender.finish();
            }
            return;
        }
        self.meter.took(length as u64, now.into_std());
        self.sender.push(&self.buffer);
        self.buffer.clear();
        self.flush_at = Some(now + IDLE);
    }

    fn on_frame(&mut self, frame: Frame) -> Result<(), CarryError> {
        match frame {
            Frame::Batch(_) | Frame::Supply { .. } | Frame::End { .. } => {
                let stream = Bytes::from(self.receiver.on_frame(frame)?);
                self.meter.came(stream.len() as u64, std::time::Instant::now());
                if let Some(census) = self.census.as_ref().filter(|_| !stream.is_empty()) {
                    census.put(stream.clone());
                }
                self.giver.put(stream);
            }
            Frame::Ping { number } => self.small.push_back(Frame::Pong { number }.encode()),
            Frame::Pong { number } => {
                let micros = self.meter.age_us().saturating_sub(number);
                let round_trip = Duration::from_micros(micros);
                self.meter.round_trip(round_trip);
                self.wire.round_trip(round_trip);
            }
            Frame::Ack { .. }
            | Frame::Again { .. }
            | Frame::Resume { .. }
            | Frame::Done { .. }
            | Frame::Stop => {
                self.sender.on_frame(frame)?;
                self.widen();
            }
        }
        Ok(())
    }

    /// Follows what the other side has taken.
    fn widen(&mut self) {
        let now = std::time::Instant::now();
        self.meter.accepted_there(self.sender.accepted_bytes(), now);
        self.sender.set_window(self.meter.window_bytes());
        self.wire.accept(self.sender.wire_acked_bytes(), self.born.elapsed());
        self.sender.set_wire_window(self.wire.size());
        self.meter.set_counts(self.sender.counts());
    }

    /// The engine here has taken so many bytes, or wants no more.
    fn on_accepted(&mut self, accepted: Option<u64>) {
        match accepted {
            Some(bytes) => {
                self.receiver.on_accepted(bytes);
                self.meter.accepted_here(bytes, false);
            }
            None => {
                self.receiver.stop();
                self.meter.end_incoming(End::Stopped);
            }
        }
    }

    /// Tells the engine, and whoever asks, what has ended.
    fn note_ends(&mut self) {
        if self.sender.is_stopped() && !self.meter.has_outgoing_ended() {
            self.meter.end_outgoing(End::Stopped);
            self.is_input_over = true;
            // The engine here learns it the way it would from the other one.
            let _ = rustix::net::shutdown(&self.engine.0, Shutdown::Read);
        }
        if self.sender.is_done() && !self.meter.has_outgoing_ended() {
            self.meter.end_outgoing(End::Complete { digest: self.sender.digest() });
        }
        if self.receiver.is_done() && !self.meter.has_incoming_ended() {
            // An engine that is gone needs no end.
            let _ = rustix::net::shutdown(&self.engine.0, Shutdown::Write);
            self.meter.end_incoming(End::Complete { digest: self.receiver.digest() });
            self.census = None;
        }
    }
}

fn has_room<T>(feed: Option<&Feed<T>>) -> bool {
    feed.is_none_or(Feed::has_room)
}

/// Returns when a thread that keeps has taken something.
async fn freed<T>(feed: Option<&Feed<T>>) {
    match feed {
        Some(feed) => feed.freed().await,
        None => std::future::pending().await,
    }
}

impl Links {
    /// Returns the next connection, after one was lost.
    async fn next(&mut self) -> Result<Connection, CarryError> {
        let connection = tokio::time::timeout(RESUME_MAX, async {
            match self {
                Links::Dial(carrier) => dial(carrier).await,
                Links::Wait(connections) => connections.recv().await.ok_or(CarryError::NotResumed),
            }
        });
        connection.await.unwrap_or(Err(CarryError::NotResumed))
    }

    /// Returns a connection that takes the place of one that may still seem alive here.
    async fn replaced(&mut self) -> Connection {
        match self {
            Links::Dial(_) => std::future::pending().await,
            Links::Wait(connections) => match connections.recv().await {
                Some(connection) => connection,
                None => std::future::pending().await,
            },
        }
    }
}

async fn dial(carrier: &Carrier) -> Result<Connection, CarryError> {
    let mut wait = REDIAL_FIRST;
    loop {
        match carrier.resume().await {
            Ok(connection) => return Ok(connection),
            Err(NoLink::Refused(reason)) => return Err(CarryError::Refused { reason }),
            Err(NoLink::Unreachable(problem)) => {
                tracing::debug!(problem, "the link could not be made yet");
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(REDIAL_MAX);
    }
}
