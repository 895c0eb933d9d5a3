// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A process that cannot be mistaken for another one.
//!
//! A process descriptor (pidfd) stays with its process when the pid is given to somebody else, and
//! becomes readable when it ends. It is opened first, and the start time read after: if that is the
//! expected one, the descriptor is of the expected process.

use crate::contract::Process;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process, held by its descriptor.
#[derive(Debug)]
pub(crate) struct Pinned {
    process: Process,
    /// Where we are the parent: it must be waited for, or it stays as a zombie.
    child: Mutex<Option<Child>>,
    descriptor: AsyncFd<OwnedFd>,
}

impl Pinned {
    /// Takes hold of a process that lives now; none if there is no such process, or only its
    /// remains.
    pub(crate) fn open(pid: u32) -> io::Result<Option<Pinned>> {
        let Some(raw) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
            return Ok(None);
        };
        let flags = rustix::process::PidfdFlags::empty();
        let descriptor = match rustix::process::pidfd_open(raw, flags) {
            Ok(descriptor) => descriptor,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(stat) = Stat::read(pid)? else { return Ok(None) };
        if stat.is_dead {
            return Ok(None);
        }
        #[allow(
            deprecated,
            reason = "its successor is unsafe, for descriptors that change; an OwnedFd does not"
        )]
        let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
        let process = Process { pid, start_ticks: stat.start_ticks };
        Ok(Some(Pinned { process, child: Mutex::new(None), descriptor }))
    }

    /// Takes hold of our own child, which will be reaped by whoever first sees it end.
    pub(crate) fn adopt(mut child: Child) -> io::Result<Pinned> {
        let Some(mut pinned) = Self::open(child.id())? else {
            let status = child.wait()?;
            return Err(io::Error::other(format!("it ended at once ({status})")));
        };
        pinned.child = Mutex::new(Some(child));
        Ok(pinned)
    }

    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// Waits until the process has ended and nothing is left of it.
    pub(crate) async fn gone(&self) {
        // An error here would mean that the descriptor is not one of a process.
        let _ = self.descriptor.readable().await;
        // Held while waiting, so that nobody returns before it was reaped. It is dead already.
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = self.process.pid;
        match child.take().map(|mut child| child.wait()) {
            Some(Ok(status)) => tracing::info!(pid, %status, "an engine has ended"),
            Some(Err(error)) => tracing::warn!(pid, %error, "an engine was not reaped"),
            None => {}
        }
    }

    /// Kills the process, if it still lives.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let descriptor = self.descriptor.get_ref();
        match rustix::process::pidfd_send_signal(descriptor, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the CPU time the process has used.
    pub(crate) fn cpu_time(&self) -> io::Result<Option<Duration>> {
        let stat = Stat::read(self.process.pid)?;
        let ours = stat.filter(|stat| stat.start_ticks == self.process.start_ticks);
        Ok(ours.map(|stat| {
            let per_second = rustix::param::clock_ticks_per_second();
            Duration::from_millis(stat.cpu_ticks.saturating_mul(1000) / per_second)
        }))
    }
}

/// What we read of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// A zombie: its parent has not looked at it yet.
    is_dead: bool,
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Option<Stat>> {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat cannot be read")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // The process ended between opening the file and reading it.
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Option<Stat> {
        // The second field is the program's name in parentheses, and may contain both kinds.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            cpu_ticks: number(14)?.saturating_add(number(15)?),
            start_ticks: number(22)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn stat_is_read_behind_the_name() {
        let text = "17 (a) b) S 1 2 3 4 5 6 7 8 9 10 110 220 13 14 15 16 17 18 4242 20 21";
        let expected = Stat { is_dead: false, cpu_ticks: 330, start_ticks: 4242 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("17 (a"), None);
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    /// The end of a process is awaited, not polled; a zombie is not a living process.
    #[tokio::test]
    async fn a_process_is_followed_to_its_end() {
        let mut child = sleeper();
        let pinned = Pinned::open(child.id()).unwrap().expect("it lives");
        pinned.kill().unwrap();
        pinned.gone().await;
        assert!(Pinned::open(child.id()).unwrap().is_none(), "a zombie is not alive");
        child.wait().unwrap();
        assert!(Pinned::open(child.id()).unwrap().is_none());
        pinned.kill().unwrap();
    }

    /// Of our own child nothing is left, not even a zombie.
    #[tokio::test]
    async fn a_child_is_reaped() {
        let child = sleeper();
        let stat = format!("/proc/{}/stat", child.id());
        let pinned = Pinned::adopt(child).unwrap();
        pinned.kill().unwrap();
        pinned.gone().await;
        assert!(!std::path::Path::new(&stat).exists());
    }
}
