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
//!
//! Where one core of TLS is less than the link, the source joins others to the first connection,
//! once it has heard the target there, and deals batches to them; the [`Receiver`] puts them in
//! order.

pub(super) mod begin;
mod cores;
mod giver;
mod joins;
pub(super) mod keeper;
mod link;
mod packers;

use super::channel::{CarryError, Guard, RESUME_MAX, read_engine};
use super::config::{PAGES_CONNECTIONS_MAX, Pages};
use super::frames::{self, OpenWay};
use super::meter::Meter;
use super::process::{Carrier, Connection, NoLink};
use super::status::End;
use super::throttle::Toll;
use begin::Begin;
use bytes::{Bytes, BytesMut};
use giver::Giver;
use joins::Joins;
use keeper::{Feed, Stretch};
use link::{Heard, Incoming, Outgoing};
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
/// How often the round trip is measured.
const PING_EVERY: Duration = Duration::from_millis(500);
/// The first wait before dialling again, doubled each time up to the longest.
const REDIAL_FIRST: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// After so many cuts one connection has to do: what lies between the hosts may not like several.
pub(super) const JOINED_CUTS_MAX: u32 = 8;

/// Where the next connection comes from, and how long it may take; none: as long as it takes.
pub(super) struct Links {
    way: LinkWay,
    patience: Option<Duration>,
}

pub(super) enum LinkWay {
    Dial { carrier: Arc<Carrier>, way: OpenWay },
    Wait(mpsc::Receiver<Coming>),
}

/// A connection of the source, and what for.
pub(super) enum Coming {
    /// It takes the place of all there were.
    Resumes(Connection),
    /// It comes besides. The source has not heard yet that this side is ready.
    Joins(Connection),
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
    census: Option<Feed<Stretch>>,
    meter: Arc<Meter>,
    toll: Toll,
    born: Instant,
    /// The packed bytes on their way.
    wire: Window,
    buffer: BytesMut,
    /// When what the engine has written must leave.
    flush_at: Option<Instant>,
    is_input_over: bool,
    /// The engine here does not learn that the other has gone; see [`Links::hides_ends`].
    hides_ends: bool,
    /// When the engine's pages were over, and its devices began.
    devices_since: Option<Instant>,
    /// Since when there is more to say than the link takes.
    link_full: Option<Instant>,
    /// Pings, and what begins a connection; before everything else.
    small: VecDeque<Bytes>,
    /// Of the source: how many connections there shall be.
    connections: u32,
    /// What the engine has written leaves this soon.
    idle: Duration,
    cuts: u32,
}

impl Stream {
    pub(super) fn new(begin: Begin) -> Self {
        let Begin { engine, sender, receiver, image, census, .. } = begin;
        let Begin { meter, toll, link_bytes_per_s, connections, idle, .. } = begin;
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
            toll,
            born: Instant::now(),
            wire: Window::new(Duration::ZERO),
            buffer: BytesMut::with_capacity(READ_BYTES),
            flush_at: None,
            is_input_over: false,
            hides_ends: false,
            devices_since: None,
            link_full: None,
            small: VecDeque::new(),
            connections,
            idle,
            cuts: 0,
        }
    }

    /// Carries until both directions have ended, and then for whoever has not heard of it. Without
    /// a first connection it begins like one that has lost its own.
    pub(super) async fn run(
        mut self,
        first: Option<Connection>,
        mut links: Links,
    ) -> Result<(), CarryError> {
        self.hides_ends = links.hides_ends();
        let mut connection = match first {
            Some(connection) => connection,
            None => {
                let connection = links.next().await?;
                self.say_where();
                connection
            }
        };
        loop {
            self.meter.set_connected(true);
            let over = self.over(connection, &mut links).await?;
            self.meter.set_connected(false);
            connection = match over {
                Over::Replaced(connection) => *connection,
                Over::Finished => match &mut links.way {
                    LinkWay::Dial { .. } if self.hides_ends && self.sender.is_stopped() => {
                        self.drain().await;
                        return Ok(());
                    }
                    LinkWay::Dial { .. } => return Ok(()),
                    LinkWay::Wait(coming) => match resuming(coming).await {
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

    /// Takes what the engine writes to nobody, until it closes: one that cannot write does not
    /// answer when it is told to give up.
    async fn drain(&mut self) {
        while read_engine(&self.engine.0, &mut self.buffer, READ_BYTES).await > 0 {
            self.buffer.clear();
        }
    }

    /// Begins a connection that goes on where others were.
    fn say_where(&mut self) {
        self.small.clear();
        self.sender.on_reconnect();
        self.small.push_back(self.receiver.on_reconnect().encode());
    }

    fn begin_again(&mut self) {
        self.say_where();
        self.meter.resumed();
        self.cuts += 1;
        if self.cuts == JOINED_CUTS_MAX {
            self.connections = 1;
        }
    }

    async fn over(
        &mut self,
        connection: Connection,
        links: &mut Links,
    ) -> Result<Over, CarryError> {
        let (mut outgoing, mut incoming) =
            link::open(connection, self.meter.clone(), self.toll.clone());
        let mut joins = Joins::new(links, self.connections - 1);
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.note_ends();
            let has_more = self.say(&outgoing);
            self.watch_link(has_more && outgoing.is_full());
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
                    Heard::Frame(frame) => {
                        joins.go_on();
                        self.on_frame(frame)?;
                    }
                    Heard::Lost(error) => return Ok(Over::Lost(error)),
                    Heard::Wrong(error) => return Err(error),
                },
                accepted = self.giver.progress() => self.on_accepted(accepted),
                packed = self.packers.done() => {
                    self.sender.on_packed(packed);
                    self.sender.set_codec(self.packers.codec(std::time::Instant::now()));
                }
                _ = ping.tick() => {
                    let ping = Frame::Ping { number: self.meter.age_us() }.encode();
                    outgoing.say_on_others(&ping);
                    self.small.push_back(ping);
                }
                joined = joins.next() => {
                    self.receiver.on_join();
                    incoming.join(&mut outgoing, joined);
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
                coming = links.coming() => match coming {
                    Coming::Resumes(connection) => {
                        return Ok(Over::Replaced(Box::new(connection)));
                    }
                    Coming::Joins(connection) => {
                        self.let_join(&mut outgoing, &mut incoming, connection);
                    }
                }
            }
        }
    }

    /// Takes another connection of the source. From before it is told so, batches may be early.
    fn let_join(&mut self, outgoing: &mut Outgoing, incoming: &mut Incoming, link: Connection) {
        if outgoing.len() >= PAGES_CONNECTIONS_MAX as usize {
            return tracing::warn!("the other side makes too many connections; one is closed");
        }
        self.receiver.on_join();
        incoming.join(outgoing, link);
        outgoing.say_on_last(frames::ready());
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
        // Only a source has more of them than pays for one.
        if self.connections > 1 {
            link.deal(|| {
                let frame = self.sender.poll_batch()?;
                self.note_sent();
                Some(frame)
            });
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
        self.note_sent();
        Some(frame)
    }

    fn note_sent(&mut self) {
        let counts = self.sender.counts();
        let fresh = counts.frame_bytes - counts.repeat_bytes - self.wire.sent();
        self.wire.send(fresh, self.born.elapsed());
    }

    fn on_read(&mut self, length: usize) {
        let now = Instant::now();
        if length == 0 {
            self.is_input_over = true;
            self.flush_at = None;
            if let Some(since) = self.devices_since {
                self.meter.set_devices(now - since);
            }
            if !self.sender.is_stopped() {
                self.sender.finish();
            }
            return;
        }
        self.meter.took(length as u64, now.into_std());
        self.sender.push(&self.buffer);
        if self.sender.boundary().is_some_and(|boundary| boundary.is_end_of_pages()) {
            self.devices_since.get_or_insert(now);
        }
        self.buffer.clear();
        self.flush_at = Some(now + self.idle);
    }

    fn on_frame(&mut self, frame: Frame) -> Result<(), CarryError> {
        match frame {
            Frame::Batch(_) | Frame::Supply { .. } | Frame::End { .. } => {
                let stream = self.receiver.on_frame(frame)?;
                self.give(stream);
                while let Some(stream) = self.receiver.poll_early()? {
                    self.give(stream);
                }
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

    /// Hands to the engine what was rebuilt for it.
    fn give(&mut self, stream: Vec<u8>) {
        let stream = Bytes::from(stream);
        self.meter.came(stream.len() as u64, std::time::Instant::now());
        if let Some(census) = self.census.as_ref().filter(|_| !stream.is_empty()) {
            census.put((stream.clone(), self.receiver.take_compared()));
        }
        self.giver.put(stream);
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
            if !self.hides_ends {
                // The engine here learns it the way it would from the other one.
                let _ = rustix::net::shutdown(&self.engine.0, Shutdown::Read);
            }
        }
        if self.sender.is_done() && !self.meter.has_outgoing_ended() {
            self.meter.end_outgoing(End::Complete { digest: self.sender.digest() });
        }
        if self.receiver.is_done() && !self.meter.has_incoming_ended() {
            if !self.hides_ends {
                // An engine that is gone needs no end.
                let _ = rustix::net::shutdown(&self.engine.0, Shutdown::Write);
            }
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
    pub(super) fn new(way: LinkWay, pages: &Pages) -> Self {
        Self { way, patience: (!pages.is_patient).then_some(RESUME_MAX) }
    }

    /// Whether the engine here is not to see the other one go: the source of a post-copy. QEMU 7.2
    /// does not come back from a stream that ends once post-copy has begun (its
    /// `postcopy-paused`), also where it could have its guest back; from `migrate_cancel` it does.
    fn hides_ends(&self) -> bool {
        matches!(self.way, LinkWay::Dial { .. }) && self.patience.is_none()
    }

    /// Returns the next connection, after one was lost.
    async fn next(&mut self) -> Result<Connection, CarryError> {
        let connection = async {
            match &mut self.way {
                LinkWay::Dial { carrier, way } => dial(carrier, way).await,
                LinkWay::Wait(coming) => resuming(coming).await.ok_or(CarryError::NotResumed),
            }
        };
        match self.patience {
            Some(patience) => {
                let connection = tokio::time::timeout(patience, connection);
                connection.await.unwrap_or(Err(CarryError::NotResumed))
            }
            None => connection.await,
        }
    }

    /// Returns a connection that takes the place of one that may still seem alive here, or joins
    /// it.
    async fn coming(&mut self) -> Coming {
        match &mut self.way {
            LinkWay::Dial { .. } => std::future::pending().await,
            LinkWay::Wait(coming) => match coming.recv().await {
                Some(coming) => coming,
                None => std::future::pending().await,
            },
        }
    }
}

/// Returns the next connection that takes the place of others. One that would join those that are
/// lost is closed, and its source learns that it is not needed.
async fn resuming(coming: &mut mpsc::Receiver<Coming>) -> Option<Connection> {
    loop {
        if let Coming::Resumes(connection) = coming.recv().await? {
            return Some(connection);
        }
    }
}

async fn dial(carrier: &Carrier, way: &OpenWay) -> Result<Connection, CarryError> {
    let mut wait = REDIAL_FIRST;
    loop {
        match carrier.link_for_pages(way.clone()).await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn links(is_patient: bool) -> (mpsc::Sender<Coming>, Links) {
        let pages = Pages {
            folder: PathBuf::new(),
            image_bytes_max: None,
            is_reused: false,
            link_bytes_per_s: None,
            connections: 1,
            disks: None,
            is_patient,
            has_urgent_channel: false,
        };
        let (sender, receiver) = mpsc::channel(1);
        (sender, Links::new(LinkWay::Wait(receiver), &pages))
    }

    /// A stream is given up after two minutes without a link, and never where nobody can do without
    /// it (virtual time).
    #[tokio::test(start_paused = true)]
    async fn patience_ends_only_where_it_may() {
        let (_sender, mut hurried) = links(false);
        assert!(matches!(hurried.next().await, Err(CarryError::NotResumed)));
        let (_sender, mut patient) = links(true);
        let days = Duration::from_secs(3 * 86_400);
        assert!(tokio::time::timeout(days, patient.next()).await.is_err());
    }
}
