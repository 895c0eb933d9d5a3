// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is known of one channel, shared by the tasks that carry it and by whoever asks.

use super::status::{ChannelStatus, End};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use whimbrel_pages::sender::Counts;
use whimbrel_pages::window::Window;

/// A read from the engine waits for this much room, so that no dribs and drabs are sent.
const ROOM_MIN: u64 = 32 << 10;

/// One channel's counters, window, and what is still to be said to the other side.
#[derive(Debug)]
pub(super) struct Meter {
    born: Instant,
    state: Mutex<State>,
    /// The window may have opened, or the other engine wants no more.
    pub(super) room: Notify,
    /// There is something to say.
    pub(super) speak: Notify,
}

#[derive(Debug)]
struct State {
    status: ChannelStatus,
    window: Window,
    last_byte: Instant,
    /// Of everything taken from the engine, once it has closed.
    sent_digest: Option<[u8; 32]>,
    pending: Pending,
}

/// Small frames that are due, at most one of each; they go before data.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) accepted: Option<u64>,
    pub(super) pong: Option<u64>,
    pub(super) end: bool,
    pub(super) stop: bool,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.accepted.is_none() && self.pong.is_none() && !self.end && !self.stop
    }
}

/// What a sender may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Bytes(u64),
    /// Wait for `room`.
    None,
    /// The other engine wants no more.
    Stopped,
}

impl Meter {
    pub(super) fn new(now: Instant) -> Self {
        let state = State {
            status: ChannelStatus::default(),
            window: Window::new(Duration::ZERO),
            last_byte: now,
            sent_digest: None,
            pending: Pending::default(),
        };
        Self { born: now, state: Mutex::new(state), room: Notify::new(), speak: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock of the pings.
    pub(super) fn age_us(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(super) fn status(&self) -> ChannelStatus {
        self.lock().status.clone()
    }

    pub(super) fn last_byte(&self) -> Instant {
        self.lock().last_byte
    }

    pub(super) fn shortest_round_trip(&self) -> Option<Duration> {
        self.lock().window.shortest_round_trip()
    }

    pub(super) fn set_connected(&self, is_connected: bool) {
        self.lock().status.is_connected = is_connected;
    }

    pub(super) fn has_outgoing_ended(&self) -> bool {
        self.lock().status.outgoing.end.is_some()
    }

    pub(super) fn has_incoming_ended(&self) -> bool {
        self.lock().status.incoming.end.is_some()
    }

    /// A new connection has taken the place of a lost one.
    pub(super) fn resumed(&self) {
        self.lock().status.resumed += 1;
    }

    /// The engine here has sent all; the state of its devices took so long.
    pub(super) fn set_devices(&self, took: Duration) {
        self.lock().status.devices = Some(took);
    }

    /// A stream of pages travels over so many connections.
    pub(super) fn set_connections(&self, count: usize) {
        let connections = &mut self.lock().status.connections;
        *connections = (*connections).max(u32::try_from(count).unwrap_or(u32::MAX));
    }

    pub(super) fn set_held_pages(&self, pages: u32) {
        self.lock().status.held_pages = pages;
    }

    pub(super) fn set_counts(&self, counts: Counts) {
        self.lock().status.pages = Some(counts);
    }

    /// Returns how many bytes may be on their way.
    pub(super) fn window_bytes(&self) -> u64 {
        self.lock().window.size()
    }

    /// Returns whether both directions have ended.
    pub(super) fn has_ended(&self) -> bool {
        let state = self.lock();
        state.status.outgoing.end.is_some() && state.status.incoming.end.is_some()
    }

    // Outgoing.

    pub(super) fn room(&self) -> Room {
        let state = self.lock();
        if state.status.outgoing.end.is_some() {
            return Room::Stopped;
        }
        match state.window.room() {
            room if room >= ROOM_MIN => Room::Bytes(room),
            _ => Room::None,
        }
    }

    pub(super) fn took(&self, bytes: u64, now: Instant) {
        let mut state = self.lock();
        state.window.send(bytes, now - self.born);
        state.status.outgoing.bytes = state.window.sent();
        state.last_byte = now;
    }

    /// The engine here has closed.
    pub(super) fn took_everything(&self, digest: [u8; 32]) {
        self.lock().sent_digest = Some(digest);
    }

    pub(super) fn sent_digest(&self) -> Option<[u8; 32]> {
        self.lock().sent_digest
    }

    pub(super) fn wrote(&self, wire_bytes: usize) {
        self.lock().status.outgoing.wire_bytes += u64::try_from(wire_bytes).unwrap_or(0);
    }

    /// Takes the other side's acknowledgement. Returns whether it made sense.
    pub(super) fn accepted_there(&self, total: u64, now: Instant) -> bool {
        let mut state = self.lock();
        let makes_sense = state.window.accept(total, now - self.born);
        state.status.outgoing.accepted_bytes = state.window.accepted();
        drop(state);
        self.room.notify_one();
        makes_sense
    }

    pub(super) fn round_trip(&self, measured: Duration) {
        self.lock().window.round_trip(measured);
    }

    /// Ends the outgoing direction, unless it has ended already.
    pub(super) fn end_outgoing(&self, end: End) {
        self.lock().status.outgoing.end.get_or_insert(end);
        self.room.notify_one();
        self.speak.notify_one();
    }

    // Incoming.

    /// Returns how many bytes wait for the engine now, with these.
    pub(super) fn came(&self, bytes: u64, now: Instant) -> u64 {
        let mut state = self.lock();
        state.last_byte = now;
        let flow = &mut state.status.incoming;
        flow.bytes += bytes;
        flow.bytes - flow.accepted_bytes
    }

    pub(super) fn read(&self, wire_bytes: usize) {
        self.lock().status.incoming.wire_bytes += u64::try_from(wire_bytes).unwrap_or(0);
    }

    /// Notes what the engine here has accepted; says so to the other side if it `is_due`.
    pub(super) fn accepted_here(&self, bytes: u64, is_due: bool) {
        let mut state = self.lock();
        state.status.incoming.accepted_bytes += bytes;
        if is_due {
            state.pending.accepted = Some(state.status.incoming.accepted_bytes);
            drop(state);
            self.speak.notify_one();
        }
    }

    /// Ends the incoming direction, and says so.
    pub(super) fn end_incoming(&self, end: End) {
        let mut state = self.lock();
        if state.status.incoming.end.is_some() {
            return;
        }
        state.status.incoming.end = Some(end);
        match end {
            End::Complete { .. } => state.pending.end = true,
            End::Stopped => state.pending.stop = true,
        }
        drop(state);
        self.speak.notify_one();
    }

    pub(super) fn answer_ping(&self, number: u64) {
        self.lock().pending.pong = Some(number);
        self.speak.notify_one();
    }

    /// Takes everything that is due.
    pub(super) fn take_pending(&self) -> Pending {
        std::mem::take(&mut self.lock().pending)
    }
}
