// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How the daemon talks to a carrying process: one line of JSON each way, on `carry.sock`.
//!
//! Each command is a connection of its own, so that a daemon that was restarted needs nothing but
//! the directory.

use super::status::Status;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use whimbrel_model::id::{GuestName, HostName};

pub(super) const SOCKET_FILE: &str = "carry.sock";
pub(super) const STATUS_FILE: &str = "status";

/// How long a carrying process may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long it may take until an image is on the disk.
pub(super) const KEEP_MAX: Duration = Duration::from_secs(60);
/// How often to look whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Longest answer that is read: a status of every channel there can be.
const ANSWER_BYTES_MAX: u64 = 256 << 10;
/// Longest command.
pub(super) const COMMAND_BYTES_MAX: usize = 4096;

/// What the daemon may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    Status,
    /// Comes with a TCP connection that asked for this handoff.
    Adopt,
    /// Change the limit of all channels together.
    Bandwidth {
        bytes_per_second: Option<u64>,
    },
    /// The guest has moved: keep what makes its return cheap.
    Keep {
        guest: String,
        other: String,
        unix_ms: u64,
    },
    /// End as soon as everything is finished, or at once if nothing began.
    Close,
    /// End now: close every socket.
    Cut,
}

/// What came of [`Command::Keep`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeepAnswer {
    /// Why not; none: it was.
    pub(super) not_kept: Option<String>,
}

/// The carrying process of one migration, as its daemon sees it.
#[derive(Clone, Debug)]
pub struct Control {
    directory: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the carrying process in `{}` is gone", .directory.display())]
    Gone {
        directory: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the carrying process in `{}` did not answer within {} s",
        .directory.display(),
        ANSWER_MAX.as_secs()
    )]
    Silent { directory: PathBuf },
    #[error(
        "the carrying process in `{}` said something that makes no sense",
        .directory.display()
    )]
    Nonsense {
        directory: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl Control {
    /// The carrying process in `directory`, which may be gone.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns how it stands, or how it stood when it ended.
    pub async fn status(&self) -> Result<Status, ControlError> {
        let text = match self.ask(Command::Status, None).await {
            Err(ControlError::Gone { directory, source }) => {
                let last = tokio::fs::read(self.directory.join(STATUS_FILE)).await;
                last.map_err(|_| ControlError::Gone { directory, source })?
            }
            answer => answer?,
        };
        Status::from_json(&text)
            .map_err(|source| ControlError::Nonsense { directory: self.directory.clone(), source })
    }

    /// Returns whether the process is there.
    pub async fn is_alive(&self) -> bool {
        self.ask(Command::Status, None).await.is_ok()
    }

    /// Hands over a connection that asked for this handoff.
    pub async fn adopt(&self, stream: std::net::TcpStream) -> Result<(), ControlError> {
        self.ask(Command::Adopt, Some(&stream)).await.map(drop)
    }

    /// Changes the limit of all channels together; none: no limit.
    pub async fn set_bandwidth(&self, bytes_per_second: Option<u64>) -> Result<(), ControlError> {
        self.ask(Command::Bandwidth { bytes_per_second }, None).await.map(drop)
    }

    /// Says that the guest has moved: the carrying process makes durable what it keeps of its
    /// memory, or knows of it. Returns why nothing is kept, if nothing is.
    pub async fn keep(
        &self,
        guest: &GuestName,
        other: &HostName,
        unix_ms: u64,
    ) -> Result<Option<String>, ControlError> {
        let command = Command::Keep { guest: guest.to_string(), other: other.to_string(), unix_ms };
        let answer = self.ask_for(command, None, KEEP_MAX).await?;
        serde_json::from_slice::<KeepAnswer>(&answer)
            .map(|answer| answer.not_kept)
            .map_err(|source| ControlError::Nonsense { directory: self.directory.clone(), source })
    }

    /// Lets it end, once everything is finished.
    pub async fn close(&self) -> Result<(), ControlError> {
        gone_is_fine(self.ask(Command::Close, None).await)
    }

    /// Ends it now: both engines see closed sockets. Returns when it has ended, so that its place
    /// can be removed. One that does not answer is killed.
    pub async fn cut(&self) -> Result<(), ControlError> {
        match gone_is_fine(self.ask(Command::Cut, None).await) {
            Err(ControlError::Silent { .. }) => self.kill().await,
            other => other?,
        }
        let silent = |_| ControlError::Silent { directory: self.directory.clone() };
        tokio::time::timeout(ANSWER_MAX, self.ended()).await.map_err(silent)
    }

    /// Kills the process that listens: the kernel knows who that is, whatever it does.
    async fn kill(&self) {
        let Ok(stream) = UnixStream::connect(self.directory.join(SOCKET_FILE)).await else {
            return;
        };
        let pid = stream.peer_cred().ok().and_then(|listener| listener.pid());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It may have ended by itself just now.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Waits until nobody listens any more: removing its socket is the last thing it does.
    async fn ended(&self) {
        while UnixStream::connect(self.directory.join(SOCKET_FILE)).await.is_ok() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn ask(
        &self,
        command: Command,
        with: Option<&std::net::TcpStream>,
    ) -> Result<Vec<u8>, ControlError> {
        self.ask_for(command, with, ANSWER_MAX).await
    }

    async fn ask_for(
        &self,
        command: Command,
        with: Option<&std::net::TcpStream>,
        answer_max: Duration,
    ) -> Result<Vec<u8>, ControlError> {
        let exchanged = tokio::time::timeout(answer_max, self.exchange(command, with)).await;
        let directory = || self.directory.clone();
        let answer = exchanged.map_err(|_| ControlError::Silent { directory: directory() })?;
        answer.map_err(|source| ControlError::Gone { directory: directory(), source })
    }

    async fn exchange(
        &self,
        command: Command,
        with: Option<&std::net::TcpStream>,
    ) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(self.directory.join(SOCKET_FILE)).await?;
        let mut line = serde_json::to_vec(&command).expect("these types are JSON");
        line.push(b'\n');
        match with {
            Some(descriptor) => send_with(&stream, &line, descriptor).await?,
            None => stream.write_all(&line).await?,
        }
        let mut answer = Vec::new();
        (&mut stream).take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }
}

fn gone_is_fine(outcome: Result<Vec<u8>, ControlError>) -> Result<(), ControlError> {
    match outcome {
        Ok(_) | Err(ControlError::Gone { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sends a line and a descriptor in one message.
async fn send_with(stream: &UnixStream, line: &[u8], descriptor: impl AsFd) -> io::Result<()> {
    let descriptors = [descriptor.as_fd()];
    let sent = stream.async_io(Interest::WRITABLE, || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let line = [IoSlice::new(line)];
        Ok(rustix::net::sendmsg(stream, &line, &mut ancillary, SendFlags::NOSIGNAL)?)
    });
    // A line this short leaves whole, or not at all.
    if sent.await? == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
