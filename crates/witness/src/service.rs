// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Answers requests: one line in, one line out, over TCP and on the console; ticks over UDP.
//!
//! ```text
//!   status                          ok key=value …
//!   problems                        ok N: first; second; …
//!   verify                          ok pages=N damaged=N   after a pass over all memory
//!   set dirty KIND MIB_PER_S [MIB]  ok
//!   set files PER_S                 ok           rewrites small files of the userland
//!   run COMMAND                     ok STATUS LINE   a shell command in the userland
//!   ticks [MICROSECONDS]            tick NUMBER UPTIME_US COUNTER, again and again (TCP only)
//!   echo TEXT                       ok TEXT
//!   reboot | poweroff | panic       ok, and then it happens
//! ```

use crate::machine::{self, End};
use crate::memory::Verify;
use crate::parameters::Dirty;
use crate::state::State;
use crate::userland::Userland;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Longest request line.
pub(crate) const LINE_MAX: u64 = 1024;
/// Most connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// Largest UDP request whose content is sent back.
const DATAGRAM_MAX: usize = 256;
const TICK_INTERVAL_MIN: Duration = Duration::from_micros(100);
const TICK_INTERVAL: Duration = Duration::from_millis(1);

/// What answers: shared by the network and the console.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) state: &'static State,
    pub(crate) verify: SyncSender<Verify>,
    pub(crate) userland: Option<Userland>,
}

/// What a request leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    Status,
    Problems,
    Verify,
    Set(Dirty),
    SetFiles(u64),
    Run(&'a str),
    Ticks(Duration),
    Echo(&'a str),
    End(End),
}

pub(crate) fn parse(line: &str) -> Option<Request<'_>> {
    let line = line.trim();
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    Some(match (verb, rest) {
        ("status", "") => Request::Status,
        ("problems", "") => Request::Problems,
        ("verify", "") => Request::Verify,
        ("ticks", "") => Request::Ticks(TICK_INTERVAL),
        ("ticks", rest) => {
            Request::Ticks(Duration::from_micros(rest.parse().ok()?).max(TICK_INTERVAL_MIN))
        }
        ("set", rest) => match rest.split_once(' ')? {
            ("dirty", rest) => Request::Set(Dirty::parse(rest.split_ascii_whitespace())?),
            ("files", per_s) => Request::SetFiles(per_s.parse().ok()?),
            _ => return None,
        },
        ("run", command) if !command.is_empty() => Request::Run(command),
        ("echo", text) => Request::Echo(text),
        ("poweroff", "") => Request::End(End::PowerOff),
        ("reboot", "") => Request::End(End::Reboot),
        ("panic", "") => Request::End(End::Panic),
        _ => return None,
    })
}

impl Service {
    /// Answers one line. Ends of the machine happen after the answer, by [`machine::end`].
    pub(crate) fn answer(&self, request: &Request<'_>) -> String {
        match request {
            Request::Status => format!("ok {}", self.state.status()),
            Request::Problems => {
                let problems = self.state.problems();
                format!("ok {}: {}", problems.len(), problems.join("; "))
            }
            Request::Verify => self.verify(),
            Request::Set(dirty) => {
                *self.state.dirty.lock().expect("no thread panics with this lock") = *dirty;
                "ok".to_owned()
            }
            Request::SetFiles(per_s) => {
                self.state.files.per_s.store(*per_s, Relaxed);
                "ok".to_owned()
            }
            Request::Run(command) => match &self.userland {
                Some(userland) => userland.run(command),
                None => "error: there is no userland".to_owned(),
            },
            Request::Echo(text) => format!("ok {text}"),
            Request::Ticks(_) => "error: ticks need a connection".to_owned(),
            Request::End(_) => "ok".to_owned(),
        }
    }

    fn verify(&self) -> String {
        let (answer, damaged) = sync_channel(1);
        let pages = self.state.memory.page_count.load(Relaxed);
        match self.verify.try_send(answer).ok().and_then(|()| damaged.recv().ok()) {
            Some(damaged) => format!("ok pages={pages} damaged={damaged}"),
            None => "error: too many wait for a pass already".to_owned(),
        }
    }

    /// Accepts connections for ever, a thread each.
    pub(crate) fn serve_tcp(self, listener: &TcpListener) {
        let open = Arc::new(());
        for stream in listener.incoming().flatten() {
            if Arc::strong_count(&open) > CONNECTIONS_MAX {
                continue;
            }
            let (service, open) = (self.clone(), Arc::clone(&open));
            std::thread::spawn(move || {
                let _counted = open;
                // A connection that breaks is its client's affair.
                let _ = service.converse(&stream);
            });
        }
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        while let Some(line) = read_line(&mut reader)? {
            let Some(request) = parse(&line) else {
                writer.write_all(b"error: what?\n")?;
                continue;
            };
            if let Request::Ticks(interval) = request {
                return self.tick(writer, interval);
            }
            writer.write_all(format!("{}\n", self.answer(&request)).as_bytes())?;
            if let Request::End(how) = request {
                machine::end(how);
            }
        }
        Ok(())
    }

    /// Sends a line per interval until the connection ends.
    fn tick(&self, mut writer: &TcpStream, interval: Duration) -> io::Result<()> {
        let mut due = Instant::now();
        for number in 0_u64.. {
            writer.write_all(format!("tick {number} {}\n", self.moment()).as_bytes())?;
            due += interval;
            match due.checked_duration_since(Instant::now()) {
                Some(rest) => std::thread::sleep(rest),
                None => due = Instant::now(),
            }
        }
        Ok(())
    }

    /// Answers every datagram with the moment and the datagram's own content.
    pub(crate) fn serve_udp(&self, socket: &UdpSocket) {
        let mut request = [0; DATAGRAM_MAX];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut request) else { continue };
            let mut answer = format!("tick {} ", self.moment()).into_bytes();
            answer.extend(&request[..length]);
            // Lost answers are what UDP is for.
            let _ = socket.send_to(&answer, client);
        }
    }

    /// Uptime in microseconds and the durable counter of the first disk.
    fn moment(&self) -> String {
        let counter = self.state.disks[0].counter.load(Relaxed);
        format!("{} {counter}", self.state.started.elapsed().as_micros())
    }
}

/// Reads a line of at most [`LINE_MAX`] bytes; `None` at the end.
pub(crate) fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let length = reader.take(LINE_MAX).read_until(b'\n', &mut line)?;
    if length as u64 == LINE_MAX && line.last() != Some(&b'\n') {
        return Err(io::Error::other("the line is too long"));
    }
    Ok((length > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Kind;

    #[test]
    fn requests_are_understood_or_refused() {
        let dirty = Dirty { kind: Kind::Random, mib_per_s: 8, over_mib: 16 };
        let check = |line, expected| assert_eq!(parse(line), expected, "{line}");
        check("status\r\n", Some(Request::Status));
        check("set dirty random 8 16", Some(Request::Set(dirty)));
        check("set files 20", Some(Request::SetFiles(20)));
        check("run ls -l | wc", Some(Request::Run("ls -l | wc")));
        check("echo a b", Some(Request::Echo("a b")));
        check("ticks", Some(Request::Ticks(TICK_INTERVAL)));
        check("ticks 1", Some(Request::Ticks(TICK_INTERVAL_MIN)));
        check("panic", Some(Request::End(End::Panic)));
        for line in
            ["", "status now", "set dirty", "set clean none 0", "ticks often", "run", "halt"]
        {
            check(line, None);
        }
    }

    /// Nobody fills the guest's memory with a line that never ends.
    #[test]
    fn lines_are_bounded() {
        let mut endless = BufReader::new(io::repeat(b'x'));
        assert!(read_line(&mut endless).is_err());
        let mut two = BufReader::new(&b"one\ntwo"[..]);
        assert_eq!(read_line(&mut two).unwrap().as_deref(), Some("one\n"));
        assert_eq!(read_line(&mut two).unwrap().as_deref(), Some("two"));
        assert_eq!(read_line(&mut two).unwrap(), None);
    }
}
