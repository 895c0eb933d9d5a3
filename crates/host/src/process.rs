// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Processes that outlive the daemon, and are found again after it.
//!
//! A pid alone proves nothing: it may belong to another process by now. So a process is known by
//! pid *and start time*, and before anything is done to it, it is *held* by a pidfd, which can
//! never come to mean another one. A process that has ended and was not collected by its parent
//! yet (a zombie) is gone.

use nix::libc;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::SystemTime;
use tokio::io::unix::AsyncFd;
use whimbrel_model::problem::{Kind, Remedy};

/// A process, and none that later got its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, in clock ticks since boot.
    pub start_ticks: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("failed to {action} process {pid}")]
    Io {
        action: &'static str,
        pid: u32,
        #[source]
        source: io::Error,
    },
    #[error("there is no user `{name}` on this host")]
    NoUser { name: String },
    #[error("failed to look up the user `{name}`")]
    UserUnreadable {
        name: String,
        #[source]
        source: io::Error,
    },
}

impl Remedy for ProcessError {
    fn code(&self) -> &'static str {
        match self {
            ProcessError::Io { .. } => "process/unreachable",
            ProcessError::NoUser { .. } => "engine/no-user",
            ProcessError::UserUnreadable { .. } => "engine/user-unreadable",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            ProcessError::NoUser { .. } => Kind::Refused,
            _ => Kind::Failed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            ProcessError::Io { pid, .. } => format!("look at the process with `ps -fp {pid}`"),
            ProcessError::NoUser { name } => format!(
                "create the user with `useradd --system --shell /usr/sbin/nologin {name}`, or \
                 name another one as `user` under `[engine]` in the config"
            ),
            ProcessError::UserUnreadable { .. } => {
                "check the sources of users in `/etc/nsswitch.conf`".into()
            }
        }
    }
}

impl Identity {
    /// Returns the identity of a process that lives now.
    pub fn of(pid: u32) -> Result<Option<Self>, ProcessError> {
        Ok(match read_stat(pid)? {
            None | Some(Stat { state: 'Z' | 'X', .. }) => None,
            Some(Stat { start_ticks, .. }) => Some(Self { pid, start_ticks }),
        })
    }

    /// Whether this very process still lives.
    pub fn is_alive(self) -> Result<bool, ProcessError> {
        Ok(Self::of(self.pid)? == Some(self))
    }
}

struct Stat {
    state: char,
    start_ticks: u64,
}

fn read_stat(pid: u32) -> Result<Option<Stat>, ProcessError> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse_stat(&stat).map(Some).ok_or_else(|| ProcessError::Io {
            action: "understand the state of",
            pid,
            source: io::ErrorKind::InvalidData.into(),
        }),
        // ESRCH: it ended between the open and the read.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ESRCH) =>
        {
            Ok(None)
        }
        Err(source) => Err(ProcessError::Io { action: "look at", pid, source }),
    }
}

/// Reads `/proc/PID/stat`. The name in it may contain anything, also blanks and parentheses.
fn parse_stat(stat: &str) -> Option<Stat> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Stat { state, start_ticks: fields.nth(18)?.parse().ok()? })
}

/// A process that cannot be mistaken for another one as long as this value lives. It need not be
/// a child of ours.
#[derive(Debug)]
pub struct Held {
    identity: Identity,
    pidfd: AsyncFd<OwnedFd>,
}

impl Held {
    /// Takes hold of a process, if it still lives. Needs a tokio runtime.
    pub fn open(identity: Identity) -> Result<Option<Self>, ProcessError> {
        let failed =
            |source| ProcessError::Io { action: "take hold of", pid: identity.pid, source };
        let pidfd = match crate::sys::pidfd_open(identity.pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            pidfd => pidfd.map_err(failed)?,
        };
        // Looked at after it was opened: who had the pid then and has the right start time now is
        // the one we hold.
        if !identity.is_alive()? {
            return Ok(None);
        }
        let pidfd = crate::sys::readable(pidfd).map_err(failed)?;
        Ok(Some(Self { identity, pidfd }))
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns when the process has ended.
    pub async fn ended(&self) -> Result<(), ProcessError> {
        match self.pidfd.readable().await {
            Ok(_) => Ok(()),
            Err(source) => {
                Err(ProcessError::Io { action: "wait for", pid: self.identity.pid, source })
            }
        }
    }

    /// Sends a signal. Ended already: fine.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match crate::sys::pidfd_send_signal(self.pidfd.as_raw_fd(), signal as libc::c_int) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            sent => sent.map_err(|source| ProcessError::Io {
                action: "send a signal to",
                pid: self.identity.pid,
                source,
            }),
        }
    }

    /// Ends the process, whatever it is doing, and returns when it has ended.
    pub async fn kill(&self) -> Result<(), ProcessError> {
        self.signal(Signal::SIGKILL)?;
        self.ended().await
    }
}

/// The slice of all scopes; `share/systemd` says what it comes after.
const SLICE: &str = "whimbrel.slice";
/// The unit that stops the guests before the host goes down. Scopes go only after it has.
const GUESTS_UNIT: &str = "whimbrel-guests.service";

/// Returns the words that put a program into a systemd scope of its own; none where no systemd
/// runs, or where it is not ours to ask.
///
/// Not even stopping the daemon's unit reaches what is in a scope. `name` may be that of a scope
/// which systemd has not put away yet, or of another daemon on this machine: each call makes
/// another one of it.
pub fn scope_wrapper(name: &str, description: &str) -> Vec<OsString> {
    if !has_systemd() || !nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    scope_words(name, description, SystemTime::now()).map(OsString::from).into()
}

fn scope_words(name: &str, description: &str, now: SystemTime) -> [String; 8] {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    [
        "systemd-run".to_owned(),
        "--scope".to_owned(),
        "--quiet".to_owned(),
        // Forgotten when it ends, however it ended.
        "--collect".to_owned(),
        format!("--slice={SLICE}"),
        format!("--property=Before={GUESTS_UNIT}"),
        format!("--description={description}"),
        format!("--unit={name}-{:x}", since.as_micros()),
    ]
}

/// Returns when a process was started, by the clock of today.
pub fn started_at(pid: u32) -> Option<SystemTime> {
    // The directory of a process is made with it.
    std::fs::metadata(format!("/proc/{pid}")).ok()?.modified().ok()
}

fn has_systemd() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Looks up the user that engines run as.
pub fn user(name: &str) -> Result<User, ProcessError> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => {
            Ok(User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
        }
        Ok(None) => Err(ProcessError::NoUser { name: name.to_owned() }),
        Err(errno) => {
            Err(ProcessError::UserUnreadable { name: name.to_owned(), source: errno.into() })
        }
    }
}

/// Looks up the user that this process runs as.
pub fn own_user() -> User {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let known = nix::unistd::User::from_uid(uid).ok().flatten();
    let name = known.map_or_else(|| uid.to_string(), |user| user.name);
    User { name, uid: uid.as_raw(), gid: gid.as_raw() }
}

#[cfg(test)]
mod tests;
