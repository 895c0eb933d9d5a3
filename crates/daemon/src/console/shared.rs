// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the line and the clients of a console share: the scrollback, the queues, and who types.

use super::CLIENTS_MAX;
use crate::http::Caller;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use tokio::sync::{mpsc, watch};
use whimbrel_api::console::{ConsoleQuery, Frame, Notice};
use whimbrel_api::limits::{SCROLLBACK_BYTES_DEFAULT, SCROLLBACK_BYTES_MAX};
use whimbrel_api::problem::code;
use whimbrel_api::{Kind, Problem};
use whimbrel_model::id::GuestName;

/// Chunks that may wait for a client before it loses its place; at most
/// [`super::line::READ_BYTES_MAX`] each, and shared between all clients.
pub(super) const QUEUE_CHUNKS_MAX: usize = 256;
/// Chunks that may wait for the guest to read what is typed.
const TYPED_CHUNKS_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    guest: GuestName,
    state: Mutex<State>,
    /// What is typed, on its way to the engine.
    typed: mpsc::Sender<Bytes>,
    /// Set once, when the line shall read what is left and end.
    ending: watch::Sender<Option<Notice>>,
}

#[derive(Debug, Default)]
struct State {
    scrollback: Scrollback,
    /// The log was read. Whoever comes before that is greeted then.
    is_seeded: bool,
    clients: Vec<Client>,
    client_id_last: u64,
    /// The client that types.
    writer: Option<u64>,
    /// Set once the hub has ended: what to tell those who come later.
    ended: Option<Notice>,
}

#[derive(Debug)]
struct Client {
    id: u64,
    queue: mpsc::Sender<Bytes>,
    farewell: Arc<OnceLock<Notice>>,
    /// What it wants to see first, until it has.
    ungreeted: Option<ConsoleQuery>,
}

impl Client {
    /// Queues a frame; a client whose queue is full loses its place.
    fn send(&self, frame: Bytes) -> bool {
        match self.queue.try_send(frame) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                let _ = self.farewell.set(Notice::TooSlow);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// A client's place at a console; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    /// Frames for the client, encoded. Closed when the console ends for it.
    pub(super) queue: mpsc::Receiver<Bytes>,
    /// The last thing to tell the client, once the queue is closed.
    pub(super) farewell: Arc<OnceLock<Notice>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.detach(self.id);
    }
}

impl Shared {
    pub(super) fn new(guest: GuestName) -> (Self, mpsc::Receiver<Bytes>) {
        let (typed, typed_out) = mpsc::channel(TYPED_CHUNKS_MAX);
        let ending = watch::Sender::new(None);
        (Self { guest, state: Mutex::default(), typed, ending }, typed_out)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }

    /// Gives a client a place. What it shall see first comes at once, or, in a hub that has just
    /// begun, as soon as the log was read: it must not miss what the guest said meanwhile.
    pub(super) fn attach(
        this: &Arc<Self>,
        caller: Caller,
        query: ConsoleQuery,
    ) -> Result<Place, Problem> {
        let mut state = this.state();
        if let Some(notice) = &state.ended {
            return Err(ended(&this.guest, notice));
        }
        if state.clients.len() >= CLIENTS_MAX {
            return Err(too_many(&this.guest));
        }
        state.client_id_last += 1;
        let id = state.client_id_last;
        let is_writer = !query.read_only && (query.force || state.writer.is_none());
        if is_writer && let Some(old) = state.writer.replace(id) {
            state.tell(old, &Notice::WriterLost { by_uid: caller.uid });
        }
        let (queue, queue_out) = mpsc::channel(QUEUE_CHUNKS_MAX);
        let farewell = Arc::new(OnceLock::new());
        let ungreeted = Some(query);
        state.clients.push(Client { id, queue, farewell: Arc::clone(&farewell), ungreeted });
        if state.is_seeded {
            state.greet();
        }
        Ok(Place { shared: Arc::clone(this), id, queue: queue_out, farewell })
    }

    fn detach(&self, id: u64) {
        let mut state = self.state();
        state.clients.retain(|client| client.id != id);
        if state.writer == Some(id) {
            state.writer = None;
        }
    }

    /// Types for a client, if it is the one that may. Waits while the guest does not read.
    pub(super) async fn type_in(&self, id: u64, bytes: Bytes) {
        if self.state().writer == Some(id) {
            // Fails only when the line is gone, and then the client is told why.
            let _ = self.typed.send(bytes).await;
        }
    }

    /// Puts old bytes of the console, from its log, into the scrollback.
    pub(super) fn seed(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.scrollback.seed(bytes);
        state.is_seeded = true;
        state.greet();
    }

    /// Hands bytes of the console to everyone.
    pub(super) fn output(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.scrollback.push(bytes);
        let frame = Frame::Data(Bytes::copy_from_slice(bytes)).to_bytes();
        state.clients.retain(|client| client.send(frame.clone()));
        if state.writer.is_some_and(|id| state.clients.iter().all(|client| client.id != id)) {
            state.writer = None;
        }
    }

    /// Has the line read what is left and end with this notice. The first notice stays.
    pub(super) fn end(&self, notice: Notice) {
        self.ending.send_if_modified(|ending| {
            let is_first = ending.is_none();
            if is_first {
                *ending = Some(notice);
            }
            is_first
        });
    }

    /// Returns once [`Self::end`] was called, with its notice.
    pub(super) async fn ending(&self) -> Notice {
        let mut ending = self.ending.subscribe();
        let notice = ending.wait_for(Option::is_some).await.expect("the sender is ours");
        notice.clone().expect("just waited for it")
    }

    /// Sends all clients away without a word.
    pub(super) fn let_go(&self) {
        let mut state = self.state();
        state.clients.clear();
        let reason = "the daemon let go of it".to_owned();
        state.ended.get_or_insert(Notice::Ended { reason });
    }

    /// Tells all clients that it is over, and everyone who comes later, too.
    pub(super) fn finish(&self, notice: Notice) {
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        for client in state.clients.drain(..) {
            let _ = client.farewell.set(notice.clone());
        }
        state.writer = None;
        state.ended = Some(notice);
    }
}

impl State {
    fn tell(&mut self, id: u64, notice: &Notice) {
        let frame = Frame::Notice(notice.clone()).to_bytes();
        let is_meant = |client: &Client| client.id == id && client.ungreeted.is_none();
        self.clients.retain(|client| !is_meant(client) || client.send(frame.clone()));
    }

    /// Shows what was there before to those who have just come.
    fn greet(&mut self) {
        for client in &mut self.clients {
            let Some(query) = client.ungreeted.take() else { continue };
            let is_writer = self.writer == Some(client.id);
            let mut first = BytesMut::new();
            Frame::Data(self.scrollback.end_for(query)).encode(&mut first);
            Frame::Notice(Notice::Live { is_writer }).encode(&mut first);
            // A new queue has room; a client that has gone already wants nothing.
            let _ = client.queue.try_send(first.freeze());
        }
    }
}

/// The end of what the console has shown.
#[derive(Debug, Default)]
struct Scrollback {
    bytes: VecDeque<u8>,
    /// How many bytes came from the engine since the hub began; the rest is from the log.
    live_count: usize,
}

const SCROLLBACK_MAX: usize = SCROLLBACK_BYTES_MAX as usize;

impl Scrollback {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.bytes.drain(..self.bytes.len().saturating_sub(SCROLLBACK_MAX));
        self.live_count = (self.live_count + bytes.len()).min(self.bytes.len());
    }

    fn seed(&mut self, bytes: &[u8]) {
        let mut all: VecDeque<u8> = bytes.iter().copied().collect();
        all.append(&mut self.bytes);
        all.drain(..all.len().saturating_sub(SCROLLBACK_MAX));
        self.bytes = all;
    }

    /// Returns what a new client sees first. Where that begins in the middle of a line, the rest
    /// of that line is left out.
    fn end_for(&self, query: ConsoleQuery) -> Bytes {
        let wanted = query.scrollback_bytes.unwrap_or(SCROLLBACK_BYTES_DEFAULT);
        let there = if query.follows { self.live_count } else { self.bytes.len() };
        let count = usize::try_from(wanted).unwrap_or(usize::MAX).min(there);
        let start = self.bytes.len() - count;
        let is_cut = count < there && count > 0 && self.bytes[start - 1] != b'\n';
        let line_rest = if is_cut {
            let line_end = self.bytes.range(start..).position(|&byte| byte == b'\n');
            line_end.map_or(0, |position| position + 1)
        } else {
            0
        };
        self.bytes.range(start + line_rest..).copied().collect()
    }
}

fn ended(guest: &GuestName, notice: &Notice) -> Problem {
    let (text, remedy) = match notice {
        Notice::Moved { host } => (
            format!("guest `{guest}` has just moved to `{host}`"),
            format!("attach again: `whimbrel console {guest}`"),
        ),
        Notice::Ended { .. }
        | Notice::Live { .. }
        | Notice::WriterLost { .. }
        | Notice::TooSlow => (
            format!("the console of guest `{guest}` has ended"),
            format!("see what the guest is doing with `whimbrel show {guest}`"),
        ),
    };
    Problem::new(Kind::Refused, code::CONSOLE_ENDED, text, remedy)
}

fn too_many(guest: &GuestName) -> Problem {
    Problem::new(
        Kind::Refused,
        code::CONSOLE_TOO_MANY_CLIENTS,
        format!("{CLIENTS_MAX} clients are attached to the console of guest `{guest}` already"),
        "leave one of them, with Ctrl+] in its terminal",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrollback(log: &str, live: &str) -> Scrollback {
        let mut scrollback = Scrollback::default();
        scrollback.seed(log.as_bytes());
        scrollback.push(live.as_bytes());
        scrollback
    }

    /// A client sees whole lines, at most as much as it asked for, and a client that follows its
    /// guest sees nothing of earlier visits.
    #[test]
    fn a_client_sees_the_end() {
        let scrollback = scrollback("old 1\nold 2\n", "new 1\nnew 2\n");
        let check = |scrollback_bytes, follows, expected: &str| {
            let query = ConsoleQuery { scrollback_bytes, follows, ..ConsoleQuery::default() };
            assert_eq!(scrollback.end_for(query), expected.as_bytes());
        };
        check(None, false, "old 1\nold 2\nnew 1\nnew 2\n");
        check(Some(6), false, "new 2\n");
        check(Some(8), false, "new 2\n");
        check(Some(0), false, "");
        check(None, true, "new 1\nnew 2\n");
        check(Some(7), true, "new 2\n");
    }

    /// Who comes before the log was read sees it all the same, and is told only then that the rest
    /// is live.
    #[test]
    fn nobody_comes_too_early() {
        let (shared, _typed) = Shared::new(GuestName::new("web1").unwrap());
        let shared = Arc::new(shared);
        let query = ConsoleQuery::default();
        let mut early = Shared::attach(&shared, Caller { uid: 0 }, query).unwrap();
        assert!(early.queue.try_recv().is_err());
        shared.seed(b"meanwhile\n");
        let mut late = Shared::attach(&shared, Caller { uid: 0 }, query).unwrap();
        let (early, late) = (early.queue.try_recv().unwrap(), late.queue.try_recv().unwrap());
        assert!(early.windows(9).any(|seen| seen == b"meanwhile"));
        assert!(late.windows(9).any(|seen| seen == b"meanwhile"));
    }

    /// Whatever is pushed or seeded, the scrollback stays below its limit and keeps the newest.
    #[test]
    fn the_scrollback_is_bounded() {
        let mut scrollback = Scrollback::default();
        scrollback.push(&vec![b'a'; SCROLLBACK_MAX]);
        scrollback.push(b"bc");
        scrollback.seed(b"never seen");
        assert_eq!(scrollback.bytes.len(), SCROLLBACK_MAX);
        assert_eq!(scrollback.bytes.back(), Some(&b'c'));
        assert_eq!(scrollback.bytes.front(), Some(&b'a'));
        assert_eq!(scrollback.live_count, SCROLLBACK_MAX);
    }
}
