// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! An attached console: the terminal here, the guest's serial line there.
//!
//! The session outlives what it is attached to: when the guest moves, or the daemon is restarted,
//! it attaches again and goes on where it was.

mod escape;
mod tail;

pub(crate) use escape::Escape;

use crate::command::ConsoleArgs;
use crate::context::{Context, End};
use crate::{Done, codes};
use bytes::Bytes;
use std::io::Read;
use std::time::Duration;
use tail::Tail;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use whimbrel_api::console::{ConsoleQuery, Frame, FrameReader, Notice};
use whimbrel_api::limits::SCROLLBACK_BYTES_MAX;
use whimbrel_api::problem::code;
use whimbrel_api::{Kind, Problem};

/// Most bytes of one read from the keyboard.
const KEYS_BYTES_MAX: usize = 4096;
/// Reads from the keyboard that may wait for the guest; further ones are lost, as at a real line.
const KEYS_QUEUE_MAX: usize = 64;
/// Longest to try to attach again after the console was lost.
const AGAIN_TIME_MAX: Duration = Duration::from_secs(30);
/// Between two tries.
const AGAIN_TIME_BETWEEN: Duration = Duration::from_millis(200);
/// Ctrl+C, which leaves a console that is only watched.
const INTERRUPT_KEY: u8 = 0x03;

/// Attaches, and stays until the user leaves or there is nothing more to see.
pub(crate) async fn run(cx: &mut Context, args: ConsoleArgs) -> Done {
    let guest = args.guest().to_owned();
    cx.about(&guest);
    let is_terminal = cx.printer.io.is_input_terminal && cx.printer.io.is_out_terminal;
    if !is_terminal && !args.read_only {
        return Err(no_terminal(&guest));
    }
    let query = ConsoleQuery {
        read_only: args.read_only,
        force: args.force,
        follows: false,
        scrollback_bytes: Some(args.scrollback),
    };
    // Before the terminal changes: most problems are found here.
    let stream = cx.client.console(&guest, &query).await?;
    let raw = is_terminal.then(|| cx.printer.raw_mode()).transpose().map_err(no_raw_mode)?;
    let keys = is_terminal.then(|| keys(cx.printer.take_input()));
    let mut session = Session {
        cx,
        guest,
        escape: args.escape,
        query,
        keys,
        held: Vec::new(),
        tail: Tail::default(),
        is_attached: false,
    };
    let ended = session.run(stream).await;
    session.cx.printer.is_raw = false;
    drop(raw);
    ended
}

fn no_terminal(guest: &str) -> Problem {
    Problem::new(
        Kind::Usage,
        codes::CONSOLE_NO_TERMINAL,
        "a console needs a terminal to type at and to show it",
        format!("run this in a terminal, or only watch: `whimbrel console {guest} --read-only`"),
    )
}

fn no_raw_mode(error: std::io::Error) -> Problem {
    let text = format!("the terminal cannot be switched to raw mode: {error}");
    Problem::new(Kind::Usage, codes::CONSOLE_NO_TERMINAL, text, "use another terminal")
}

/// Reads the keyboard in a thread of its own: there is no other way to wait for it that works with
/// every kind of terminal.
fn keys(mut input: Box<dyn Read + Send>) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(KEYS_QUEUE_MAX);
    std::thread::spawn(move || {
        let mut buffer = [0; KEYS_BYTES_MAX];
        while let Ok(count @ 1..) = input.read(&mut buffer) {
            if sender.blocking_send(Bytes::copy_from_slice(&buffer[..count])).is_err() {
                return;
            }
        }
    });
    receiver
}

struct Session<'a> {
    cx: &'a mut Context,
    guest: String,
    escape: Escape,
    query: ConsoleQuery,
    /// What is typed; none without a terminal.
    keys: Option<mpsc::Receiver<Bytes>>,
    /// What was typed while the guest was on its way: it hears it when it is there.
    held: Vec<Bytes>,
    /// The end of what was shown.
    tail: Tail,
    /// Whether the user was told how to leave.
    is_attached: bool,
}

/// Why a stream is over.
enum Over {
    /// The user has left.
    Left,
    /// There is nothing more to see.
    Ended(String),
    /// The guest is somewhere else.
    Moved(String),
    /// The daemon is gone, or this client was too slow.
    Lost,
}

impl Session<'_> {
    async fn run<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&mut self, stream: S) -> Done {
        let mut over = self.serve(stream).await;
        loop {
            let query = match over {
                Over::Left => {
                    self.cx.printer.say("");
                    self.cx.printer.say(&format!("Left the console of {}.", self.guest));
                    return Ok(End::Done);
                }
                Over::Ended(reason) => {
                    self.cx.printer.say("");
                    self.cx.printer.say(&format!("The console has ended: {reason}."));
                    return Ok(End::Done);
                }
                Over::Moved(host) => {
                    self.cx.printer.say("");
                    self.cx.printer.say(&format!("{} has moved to {host}.", self.guest));
                    self.tail = Tail::default();
                    ConsoleQuery { follows: true, ..self.query }
                }
                Over::Lost => ConsoleQuery { follows: false, ..self.query },
            };
            let query = ConsoleQuery { scrollback_bytes: Some(SCROLLBACK_BYTES_MAX), ..query };
            over = match self.attach_again(&query).await? {
                Some(stream) => self.serve(stream).await,
                None => Over::Left,
            };
        }
    }

    /// Attaches again, for some time; nothing if the user leaves meanwhile.
    async fn attach_again(
        &mut self,
        query: &ConsoleQuery,
    ) -> Result<Option<impl AsyncRead + AsyncWrite + Send + Unpin + use<>>, Problem> {
        let deadline = Instant::now() + AGAIN_TIME_MAX;
        loop {
            let problem = match self.cx.client.console(&self.guest, query).await {
                Ok(stream) => return Ok(Some(stream)),
                Err(problem) => problem,
            };
            if !can_pass(&problem) || Instant::now() > deadline {
                return Err(problem);
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN_TIME_BETWEEN) => {}
                () = self.left() => return Ok(None),
            }
        }
    }

    async fn serve<S>(&mut self, stream: S) -> Over
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let mut frames: FrameReader<ReadHalf<S>> = FrameReader::new(reader);
        let typed = type_in(writer);
        for keys in self.held.drain(..) {
            drop(typed.try_send(keys));
        }
        // Until the daemon says `Live`, what comes may have been shown before.
        let mut scrollback = Some(Vec::new());
        loop {
            tokio::select! {
                frame = frames.next() => match frame {
                    Ok(Some(Frame::Data(bytes))) => match &mut scrollback {
                        Some(held) => held.extend_from_slice(&bytes),
                        None => self.show(&bytes),
                    },
                    Ok(Some(Frame::Notice(notice))) => {
                        if let Some(held) = scrollback.take() {
                            let new = self.tail.new_part(&held).to_vec();
                            self.show(&new);
                        }
                        if let Some(over) = self.notice(notice) {
                            return over;
                        }
                    }
                    Ok(None) | Err(_) => return Over::Lost,
                },
                keys = next_keys(&mut self.keys) => {
                    if self.escape.find(&keys, self.query.read_only).is_some() {
                        return Over::Left;
                    }
                    if !self.query.read_only {
                        // A guest that does not read loses keys, as at a real line.
                        drop(typed.try_send(keys));
                    }
                }
                () = self.cx.interrupts.next() => return Over::Left,
            }
            if self.cx.printer.is_out_closed() {
                return Over::Left;
            }
        }
    }

    /// Returns once the user leaves. What is typed until then is held.
    async fn left(&mut self) {
        loop {
            let keys = tokio::select! {
                keys = next_keys(&mut self.keys) => keys,
                () = self.cx.interrupts.next() => return,
            };
            let is_read_only = self.query.read_only;
            if self.escape.find(&keys, is_read_only).is_some() {
                return;
            }
            if !is_read_only && self.held.len() < KEYS_QUEUE_MAX {
                self.held.push(keys);
            }
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        self.tail.push(bytes);
        self.cx.printer.raw(bytes);
    }

    fn notice(&mut self, notice: Notice) -> Option<Over> {
        match notice {
            Notice::Live { is_writer } => {
                if !std::mem::replace(&mut self.is_attached, true) {
                    self.welcome(is_writer);
                }
                None
            }
            Notice::WriterLost { by_uid } => {
                let text = format!("User {by_uid} has taken over; you only watch now.");
                self.cx.printer.say(&text);
                None
            }
            Notice::Moved { host } => Some(Over::Moved(host)),
            Notice::Ended { reason } => Some(Over::Ended(reason)),
            Notice::TooSlow => Some(Over::Lost),
        }
    }

    fn welcome(&mut self, is_writer: bool) {
        let leave = match (&self.keys, self.escape.name()) {
            (None, _) => "Ctrl+C leaves".to_owned(),
            (Some(_), Some(name)) => format!("{name} leaves"),
            (Some(_), None) => "no key leaves".to_owned(),
        };
        self.cx.printer.say(&format!("Attached to {}; {leave}.", self.guest));
        if !is_writer && !self.query.read_only {
            self.cx
                .printer
                .say("Somebody else types here, so you only watch; `--force` takes over.");
        }
    }
}

/// Whether a problem may be over soon: the guest is on its way, or the daemon is being restarted.
fn can_pass(problem: &Problem) -> bool {
    let passing = [
        code::DAEMON_NOT_REACHABLE,
        code::CONNECTION_LOST,
        code::GUEST_NOT_FOUND,
        code::CONSOLE_ENDED,
    ];
    problem.kind == Kind::Failed || passing.contains(&problem.code.as_str())
}

/// Returns what is typed; never, without a terminal or at the end of the input.
async fn next_keys(keys: &mut Option<mpsc::Receiver<Bytes>>) -> Bytes {
    match keys {
        Some(receiver) => match receiver.recv().await {
            Some(bytes) => bytes,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Sends what is typed in a task of its own, so that a guest that does not read never keeps the
/// user from leaving.
fn type_in<S>(mut writer: WriteHalf<S>) -> mpsc::Sender<Bytes>
where
    S: AsyncWrite + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel::<Bytes>(KEYS_QUEUE_MAX);
    tokio::spawn(async move {
        while let Some(bytes) = receiver.recv().await {
            if writer.write_all(&Frame::Data(bytes).to_bytes()).await.is_err() {
                return;
            }
        }
    });
    sender
}
