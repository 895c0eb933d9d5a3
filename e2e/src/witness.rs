// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Asks the witness in the guest how it fares, from a client's place on the network.

use crate::lab::{GUEST_ADDRESS, Place};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where the witness listens.
const PORT: u16 = 7777;
/// How long an answer may take, on a machine where everything is emulated.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a freshly started guest may take to answer.
const BOOT_PATIENCE: Duration = Duration::from_secs(60);
/// How often the ticker asks.
const TICK: Duration = Duration::from_millis(1);

/// A guest's witness, reached from `place`.
pub struct Witness<'a> {
    place: &'a Place,
    address: SocketAddr,
}

/// What the witness says about itself.
#[derive(Clone, Debug)]
pub struct Status(HashMap<String, String>);

impl<'a> Witness<'a> {
    /// The witness at the usual address of a lab's guest.
    pub fn new(place: &'a Place) -> Witness<'a> {
        Witness::at(place, GUEST_ADDRESS)
    }

    pub fn at(place: &'a Place, address: Ipv4Addr) -> Witness<'a> {
        Witness { place, address: SocketAddr::from((address, PORT)) }
    }

    /// Waits until the guest has booted: it answers, keeps its pages and counts on both disks.
    pub fn wait(&self) -> Result<Status> {
        let deadline = Instant::now() + BOOT_PATIENCE;
        loop {
            let outcome = self.connect(Duration::from_secs(1)).and_then(|mut held| held.booted());
            match outcome {
                Ok(status) => return Ok(status),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context("the witness does not answer"));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Opens a connection and holds it.
    pub fn hold(&self) -> Result<Held> {
        self.connect(ANSWER_PATIENCE)
    }

    fn connect(&self, patience: Duration) -> Result<Held> {
        let address = self.address;
        let stream = self.place.run(move || TcpStream::connect_timeout(&address, patience));
        let stream = stream.with_context(|| format!("cannot connect to the guest at {address}"))?;
        stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Held { reader: BufReader::new(stream) })
    }

    pub fn status(&self) -> Result<Status> {
        self.hold()?.status()
    }

    /// Asks one thing on a connection of its own.
    pub fn ask(&self, request: &str) -> Result<String> {
        self.hold()?.ask(request)
    }

    /// Runs a shell command in the guest's userland, and returns the first line it printed.
    pub fn run(&self, command: &str, patience: Duration) -> Result<String> {
        let mut held = self.hold()?;
        held.reader.get_ref().set_read_timeout(Some(patience))?;
        let answer = held.ask(&format!("run {command}"))?;
        let (status, line) = answer.split_once(' ').unwrap_or((&answer, ""));
        ensure!(status == "0", "`{command}` in the guest ended with {status}: {line}");
        Ok(line.to_owned())
    }

    /// Checks that nothing was lost or damaged so far: all memory now, and both disks.
    pub fn is_well(&self) -> Result<Status> {
        self.hold()?.is_well()
    }

    /// Starts to ask for ticks every millisecond; the longest silence is the pause as a client
    /// sees it.
    pub fn watch(&self) -> Result<Ticker> {
        let socket = self.place.run(|| UdpSocket::bind("0.0.0.0:0"))?;
        socket.connect(self.address)?;
        Ok(Ticker::start(socket))
    }
}

/// A connection to the witness that is kept open.
pub struct Held {
    reader: BufReader<TcpStream>,
}

impl Held {
    /// Asks one thing over this connection and returns the answer after `ok`.
    pub fn ask(&mut self, request: &str) -> Result<String> {
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.reader.read_line(&mut line).with_context(|| format!("no answer to `{request}`"))?;
        match line.trim_end().strip_prefix("ok") {
            Some(answer) => Ok(answer.trim_start().to_owned()),
            None => bail!("`{request}` was answered with `{}`", line.trim_end()),
        }
    }

    pub fn status(&mut self) -> Result<Status> {
        let answer = self.ask("status")?;
        let pairs = answer.split(' ').filter_map(|pair| pair.split_once('='));
        Ok(Status(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    fn booted(&mut self) -> Result<Status> {
        let status = self.status()?;
        let is_up = ["pages", "boot0", "boot1"].map(|key| status.number(key).unwrap_or_default());
        ensure!(!is_up.contains(&0), "the witness is not up yet: {status:?}");
        Ok(status)
    }

    pub fn is_well(&mut self) -> Result<Status> {
        let verified = self.ask("verify")?;
        ensure!(verified.ends_with(" damaged=0"), "the guest's memory is damaged: {verified}");
        let status = self.status()?;
        let bad = ["problems", "memory_errors", "disk_errors0", "disk_errors1"];
        let counts = bad.iter().map(|key| status.number(key)).collect::<Result<Vec<_>>>()?;
        if counts.iter().any(|count| *count != 0) {
            bail!("the guest is not well: {}", self.ask("problems")?);
        }
        Ok(status)
    }
}

impl Status {
    pub fn number(&self, key: &str) -> Result<u64> {
        let value = self.0.get(key).with_context(|| format!("the status has no `{key}`"))?;
        value.parse().with_context(|| format!("`{key}` is `{value}`, not a number"))
    }

    /// The durable counter of a disk.
    pub fn counter(&self, disk: usize) -> Result<u64> {
        self.number(&format!("counter{disk}"))
    }

    /// How often the guest has booted with this disk.
    pub fn boot(&self, disk: usize) -> Result<u64> {
        self.number(&format!("boot{disk}"))
    }
}

/// Asks for ticks until it is stopped.
pub struct Ticker {
    is_over: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Ticks>,
}

/// What the ticker saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticks {
    pub answers: u64,
    pub longest_silence: Duration,
}

impl Ticker {
    fn start(socket: UdpSocket) -> Ticker {
        let is_over = Arc::new(AtomicBool::new(false));
        let socket = Arc::new(socket);
        let (asks, over) = (Arc::clone(&socket), Arc::clone(&is_over));
        let sender = std::thread::spawn(move || {
            while !over.load(Relaxed) {
                // A wire that is down right now is what we are here to see.
                let _ = asks.send(b"?");
                std::thread::sleep(TICK);
            }
        });
        let over = Arc::clone(&is_over);
        let receiver = std::thread::spawn(move || listen(&socket, &over));
        Ticker { is_over, sender, receiver }
    }

    pub fn stop(self) -> Ticks {
        self.is_over.store(true, Relaxed);
        self.sender.join().expect("the sender does not panic");
        self.receiver.join().expect("the receiver does not panic")
    }
}

fn listen(socket: &UdpSocket, is_over: &AtomicBool) -> Ticks {
    let mut ticks = Ticks::default();
    let mut last = None;
    let mut answer = [0; 256];
    let wait = Some(Duration::from_millis(50));
    socket.set_read_timeout(wait).expect("a timeout that is not zero is accepted");
    while !is_over.load(Relaxed) {
        if socket.recv(&mut answer).is_err() {
            continue;
        }
        let now = Instant::now();
        let silence = last.map_or(Duration::ZERO, |last| now - last);
        ticks.longest_silence = ticks.longest_silence.max(silence);
        ticks.answers += 1;
        last = Some(now);
    }
    // A silence that lasts to the end counts, too.
    if let Some(last) = last {
        ticks.longest_silence = ticks.longest_silence.max(last.elapsed());
    }
    ticks
}
