// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What stands between xl and the carrying process while a guest moves: `whimbrel xl-pipe`.
//!
//! ```text
//!   source                                                                  target
//!   xl migrate -s '' NAME COMMAND                                xl migrate-receive
//!        │ stdin, stdout                                               │ pipes
//!   xl-pipe send ──► carrying process ═══════════► carrying process ──► xl-pipe receive
//!        ▲ pipe.sock                                                   ▲ pipe.sock
//!      daemon ◄════════════════ the handoff ════════════════════════► daemon
//! ```
//!
//! Between the hosts travels nothing but the domain, one way, and the receiver's word that it has
//! it, the other. The words that say who owns the guest never leave the host: each xl hears them
//! from the process beside it, and that one from the daemon, after its decision is durable.
//!
//! | xl waits for | it is told when |
//! | --- | --- |
//! | `ready, send binary domain data` (source) | at once: the target has accepted the offer |
//! | `ready to unpause` (source) | the target's xl said it; the guest is stopped for good here |
//! | `cleared to unpause` (target) | the target's daemon says [`GO`] |
//! | result of the unpause (source) | the source's daemon says [`GONE`], or [`BACK`] |
//!
//! What passes is counted ([`passes`]): nobody else knows how far xl has come.
//!
//! The process outlives the daemon. If it dies before the guest has arrived, xl on the source lets
//! the guest run on, and on the target destroys its copy; if it dies after, both stand still.

use super::header::{self, HeaderError, Offered};
use crate::error::EngineError;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use whimbrel_pages::split::{Tally, XenTally};

mod passes;
mod save;

use passes::Passes;
pub(super) use passes::Travelled;

/// Where the carrying process and this one meet.
pub(super) const CHANNEL: &str = "migrate.sock";
/// Where the daemon asks and commands.
pub(super) const CONTROL: &str = "pipe.sock";

/// How xl begins, on the receiver's side.
const BANNER: &[u8] = b"xl migration receiver ready, send binary domain data.\n";
const RECEIVED: &[u8] = b"domain received, ready to unpause\0";
const PERMISSION: &[u8] = b"domain is yours, you are cleared to unpause\0";
const REPORT: &[u8] = b"my copy unpause results are as follows\0";
const WORD_BYTES_MAX: usize = 64;
/// How long a word of the daemon may take to come.
const WORD_MAX: Duration = Duration::from_secs(5);
const CHUNK_BYTES: usize = 128 << 10;
/// What may wait between xl and this process: each time one of them sleeps costs.
const PIPE_BYTES: usize = 1 << 20;

/// How far it has come.
pub(super) const STATUS: &str = "status";
/// The same, once the guest has arrived, or it is known that it will not.
pub(super) const WAIT: &str = "wait";
/// Give up, if the guest has not arrived yet.
pub(super) const CANCEL: &str = "cancel";
/// The guest is owned here: let it run.
pub(super) const GO: &str = "go";
/// The guest runs on the target: end the copy here.
pub(super) const GONE: &str = "gone";
/// The guest did not start on the target: let it run here.
pub(super) const BACK: &str = "back";

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Send,
    /// Sends a guest that stands still meanwhile.
    Save,
    Receive,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Travelling,
    /// All of the guest is at the target, and it runs nowhere.
    Arrived,
    /// xl was told to start it.
    Starting,
    /// The last word was spoken; what came of it.
    Settled {
        is_well: bool,
    },
    Failed {
        reason: String,
    },
    /// What came is not what was offered.
    Foreign {
        what: String,
    },
}

#[derive(Debug)]
struct State {
    phase: Phase,
    passes: Passes,
}

/// What the threads of this process share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn new() -> Arc<Shared> {
        let state = State { phase: Phase::Travelling, passes: Passes::default() };
        Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to `phase` from one that fits, and returns the status after that.
    fn step(&self, phase: Phase, fits: impl Fn(&Phase) -> bool) -> String {
        let mut state = self.state();
        if fits(&state.phase) {
            state.phase = phase;
            self.changed.notify_all();
        }
        drop(state);
        self.status()
    }

    /// Goes from travelling to `phase`; false where it was too late for that.
    fn leave_travelling(&self, phase: Phase) -> bool {
        let mut state = self.state();
        let is_travelling = state.phase == Phase::Travelling;
        if is_travelling {
            state.phase = phase;
            self.changed.notify_all();
        }
        is_travelling
    }

    fn fail(&self, reason: &str) {
        self.leave_travelling(Phase::Failed { reason: reason.to_owned() });
    }

    fn count(&self, bytes: usize, tally: Tally, since: Duration) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.state().passes.note(bytes, tally, since);
    }

    fn wait_while(&self, is_waiting: impl Fn(&Phase) -> bool) -> Phase {
        let state = self.state();
        let waited = self.changed.wait_while(state, |state| is_waiting(&state.phase));
        waited.unwrap_or_else(PoisonError::into_inner).phase.clone()
    }

    fn status_after_travelling(&self) -> String {
        self.wait_while(|phase| *phase == Phase::Travelling);
        self.status()
    }

    fn status(&self) -> String {
        let state = self.state();
        let figures = state.passes.travelled().words();
        match &state.phase {
            Phase::Travelling => format!("travelling {figures}"),
            Phase::Arrived | Phase::Starting => format!("arrived {figures}"),
            Phase::Settled { is_well: true } => format!("settled {figures}"),
            Phase::Settled { is_well: false } => "failed xl could not start the guest".to_owned(),
            Phase::Failed { reason } => format!("failed {reason}"),
            Phase::Foreign { what } => format!("foreign {what}"),
        }
    }
}

/// Runs one end, in the guest's own directory, until it is settled.
pub fn run(side: Side, directory: &Path) -> Result<(), EngineError> {
    let ended = (|| {
        let control = directory.join(CONTROL);
        remove_stale(&control)?;
        let control = UnixListener::bind(control)?;
        match side {
            Side::Send => send(directory, control),
            Side::Save => save::save(directory, control),
            Side::Receive => receive(directory, control),
        }
    })();
    let action = "carry a guest through";
    ended.map_err(|source| EngineError::File { action, path: directory.to_owned(), source })
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Answers the daemon, one line for one, for as long as the process lives.
fn serve<A>(listener: UnixListener, act: A)
where
    A: Fn(&str) -> String + Send + Sync + 'static,
{
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(word) = hear(&stream) else { continue };
            let act = Arc::clone(&act);
            let is_late = matches!(word.as_str(), GO | WAIT);
            let answer = move || {
                let _ = (&stream).write_all(format!("{}\n", act(&word)).as_bytes());
            };
            // Of these the answer comes late. The others are asked often.
            if is_late {
                std::thread::spawn(answer);
            } else {
                answer();
            }
        }
    });
}

/// Reads the daemon's word. It is written at once: nobody else waits for long.
fn hear(stream: &UnixStream) -> io::Result<String> {
    stream.set_read_timeout(Some(WORD_MAX))?;
    let limit = u64::try_from(WORD_BYTES_MAX).expect("it is small");
    let mut line = String::new();
    BufReader::new(stream.take(limit)).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Reads exactly these bytes, which are a word of xl's.
fn expect(from: &mut impl Read, word: &[u8]) -> io::Result<()> {
    let mut found = [0; WORD_BYTES_MAX];
    let found = &mut found[..word.len()];
    from.read_exact(found)?;
    if found == word {
        return Ok(());
    }
    let text = String::from_utf8_lossy(found).into_owned();
    Err(io::Error::other(format!("xl says `{text}`")))
}

/// Copies until the end, counting; returns at the first failure of either side.
fn pump(mut from: impl Read, mut to: impl Write, shared: &Shared) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut passed, began) = (XenTally::default(), Instant::now());
    loop {
        let length = match from.read(&mut chunk) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // After it has arrived, what xl says is its word to a receiver that is not there.
        if length == 0 || shared.state().phase != Phase::Travelling {
            return Ok(());
        }
        to.write_all(&chunk[..length])?;
        shared.count(length, passed.push(&chunk[..length]), began.elapsed());
    }
}

/// Answers the daemon of the source.
fn answer_source(control: UnixListener, shared: &Arc<Shared>) {
    let answering = Arc::clone(shared);
    serve(control, move |word| match word {
        CANCEL => answering.step(Phase::Failed { reason: "cancelled".to_owned() }, |phase| {
            *phase == Phase::Travelling
        }),
        GONE | BACK => {
            let settled = Phase::Settled { is_well: word == GONE };
            answering.step(settled, |phase| *phase == Phase::Arrived)
        }
        WAIT => answering.status_after_travelling(),
        _ => answering.status(),
    });
}

fn send(directory: &Path, control: UnixListener) -> io::Result<()> {
    let channel = UnixStream::connect(directory.join(CHANNEL))?;
    let shared = Shared::new();
    answer_source(control, &shared);
    // Smaller is slower, and not wrong.
    let _ = rustix::pipe::fcntl_setpipe_size(io::stdin(), PIPE_BYTES);
    let mut xl = io::stdout();
    xl.write_all(BANNER)?;
    xl.flush()?;
    let (forward, pumping) = (channel.try_clone()?, Arc::clone(&shared));
    std::thread::spawn(move || {
        let ended = pump(io::stdin(), forward, &pumping);
        pumping.fail(&ended.err().map_or("xl gave up".to_owned(), |error| error.to_string()));
    });
    let (mut backward, hearing) = (channel.try_clone()?, Arc::clone(&shared));
    std::thread::spawn(move || match expect(&mut backward, RECEIVED) {
        Ok(()) => drop(hearing.leave_travelling(Phase::Arrived)),
        Err(_) => hearing.fail("the link to the target was closed"),
    });
    let phase = shared.wait_while(|phase| *phase == Phase::Travelling);
    if phase != Phase::Arrived {
        // xl lets the guest run on when its pipe is closed.
        return Ok(());
    }
    // Nothing more comes from here: the digests of both ends can be compared.
    channel.shutdown(Shutdown::Write)?;
    xl.write_all(RECEIVED)?;
    xl.flush()?;
    let phase = shared.wait_while(|phase| *phase == Phase::Arrived);
    let is_well = phase == Phase::Settled { is_well: true };
    xl.write_all(&last_words(is_well))?;
    xl.flush()?;
    Ok(())
}

/// What a receiver says last. Where it could not start the guest, the sender wants to be allowed to
/// let it go on; not told so it leaves it standing still.
fn last_words(is_well: bool) -> Vec<u8> {
    let status = [u8::from(!is_well)];
    let allowed = if is_well { &[][..] } else { PERMISSION };
    [REPORT, &status, allowed].concat()
}

fn receive(directory: &Path, control: UnixListener) -> io::Result<()> {
    let offered = Offered::read(directory)?;
    let path = directory.join(CHANNEL);
    remove_stale(&path)?;
    let channel = UnixListener::bind(path)?;
    let (xl, theirs) = UnixStream::pair()?;
    let mut command = Command::new("xl");
    command.args(["migrate-receive", "-e"]);
    command.stdin(OwnedFd::from(theirs.try_clone()?)).stdout(OwnedFd::from(theirs));
    let mut child = command.spawn()?;
    // It still holds the ends that are xl's; a dead one would never be noticed.
    drop(command);
    let shared = Shared::new();
    let answering = Arc::clone(&shared);
    serve(control, move |word| match word {
        CANCEL => answering.step(Phase::Failed { reason: "cancelled".to_owned() }, |phase| {
            matches!(phase, Phase::Travelling | Phase::Arrived | Phase::Foreign { .. })
        }),
        GO => {
            answering.step(Phase::Starting, |phase| *phase == Phase::Arrived);
            answering.wait_while(|phase| *phase == Phase::Starting);
            answering.status()
        }
        WAIT => answering.status_after_travelling(),
        _ => answering.status(),
    });
    // The daemon waits for this line.
    let mut daemon = io::stdout();
    daemon.write_all(b"listening\n")?;
    daemon.flush()?;
    let (receiving, talking) = (Arc::clone(&shared), xl.try_clone()?);
    std::thread::spawn(move || {
        let taken = take_domain(&channel, talking, &offered, &receiving);
        let reason = taken.err().map_or("it has ended".to_owned(), |error| error.to_string());
        receiving.step(Phase::Failed { reason }, |phase| !is_over(phase));
    });
    let ended = shared.wait_while(|phase| !is_over(phase));
    if !matches!(ended, Phase::Settled { .. }) {
        // xl ends its copy when its input does.
        xl.shutdown(Shutdown::Both)?;
    }
    child.wait()?;
    // That is for whoever asks; the daemon, which ends its attempt then, says so.
    shared.wait_while(|phase| matches!(phase, Phase::Foreign { .. }));
    Ok(())
}

fn is_over(phase: &Phase) -> bool {
    match phase {
        Phase::Settled { .. } | Phase::Failed { .. } | Phase::Foreign { .. } => true,
        Phase::Travelling | Phase::Arrived | Phase::Starting => false,
    }
}

/// Takes the domain from the carrying process, and starts it when that is allowed.
fn take_domain(
    listener: &UnixListener,
    mut xl: UnixStream,
    offered: &Offered,
    shared: &Shared,
) -> io::Result<()> {
    let (mut channel, _) = listener.accept()?;
    expect(&mut xl, BANNER)?;
    match header::take(&mut channel, offered) {
        Ok(bytes) => {
            xl.write_all(&bytes)?;
            shared.count(bytes.len(), Tally::default(), Duration::ZERO);
        }
        Err(HeaderError::Cut(error)) => return Err(error),
        Err(error) => {
            shared.leave_travelling(Phase::Foreign { what: error.to_string() });
            return channel.shutdown(Shutdown::Both);
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let ended = pump(&channel, &xl, shared);
            // The source says nothing more once it has heard that all has arrived.
            let reason = ended
                .err()
                .map_or("the link to the source was closed".to_owned(), |e| e.to_string());
            if shared.leave_travelling(Phase::Failed { reason }) {
                let _ = xl.shutdown(Shutdown::Both);
            }
        });
        let received = expect(&mut &xl, RECEIVED);
        if received.is_ok() && shared.leave_travelling(Phase::Arrived) {
            (&channel).write_all(RECEIVED)?;
            channel.shutdown(Shutdown::Write)?;
        } else {
            shared.fail("xl could not take the guest");
            let _ = channel.shutdown(Shutdown::Both);
        }
        received
    })?;
    if shared.wait_while(|phase| *phase == Phase::Arrived) != Phase::Starting {
        return Ok(());
    }
    xl.write_all(PERMISSION)?;
    expect(&mut xl, REPORT)?;
    let mut status = [0];
    xl.read_exact(&mut status)?;
    shared.step(Phase::Settled { is_well: status == [0] }, |phase| *phase == Phase::Starting);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As xl reads them: a status of one byte, and leave to go on if that is bad.
    #[test]
    fn the_last_words_are_those_of_a_receiver() {
        assert_eq!(last_words(true), b"my copy unpause results are as follows\0\0");
        let lost = b"my copy unpause results are as follows\0\x01domain is yours, you are cleared \
                     to unpause\0";
        assert_eq!(last_words(false), lost);
    }
}
