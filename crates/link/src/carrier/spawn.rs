// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Starts a carrying process that outlives the daemon.

use super::config::{Config, ConfigError};
use super::control::{Control, SOCKET_FILE, STATUS_FILE};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

const LOG_FILE: &str = "carry.log";

/// How long the process may take until it can be talked to.
const START_MAX: Duration = Duration::from_secs(10);

/// What the process writes to its standard output once it can be talked to.
pub(super) const READY: &[u8] = b"ready\n";

#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("failed to {action} `{}`", .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the carrying process did not start; its last words: {last_words}")]
    NotReady { last_words: String },
}

/// Starts `program carry directory`, and returns once it can be talked to.
///
/// `wrapper` goes before it: what puts a process into a scope of its own, where an init system
/// would end it together with the daemon.
pub async fn spawn(
    program: &Path,
    wrapper: &[OsString],
    directory: &Path,
    config: &Config,
) -> Result<Control, SpawnError> {
    for stale in [SOCKET_FILE, STATUS_FILE] {
        remove(&directory.join(stale))?;
    }
    config.save(directory)?;
    let log_path = directory.join(LOG_FILE);
    let log = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path);
    let log =
        log.map_err(|source| SpawnError::File { action: "open", path: log_path.clone(), source })?;
    let mut words = wrapper.iter().map(OsString::as_os_str);
    let mut command = match words.next() {
        Some(first) => {
            let mut command = Command::new(first);
            command.args(words).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.arg("carry").arg(directory).current_dir("/");
    // Its threads hand buffers to each other: with an arena each, every one of them keeps its peak.
    command.env("MALLOC_ARENA_MAX", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().map_err(|source| SpawnError::File {
        action: "start",
        path: program.to_owned(),
        source,
    })?;
    match ready(&mut child).await {
        Ok(()) => {
            // Somebody must hear of its end, or it stays as a zombie.
            tokio::spawn(async move { child.wait().await });
            Ok(Control::new(directory))
        }
        Err(error) => {
            // It may be gone already.
            let _ = child.kill().await;
            Err(SpawnError::NotReady { last_words: last_words(&log_path, &error) })
        }
    }
}

async fn ready(child: &mut Child) -> io::Result<()> {
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut line = [0; READY.len()];
    let read = tokio::time::timeout(START_MAX, stdout.read_exact(&mut line));
    read.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if line == READY { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn last_words(log: &Path, error: &io::Error) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    match text.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => line.to_owned(),
        None => error.to_string(),
    }
}

fn remove(path: &Path) -> Result<(), SpawnError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(SpawnError::File { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
