// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A guest's console as a stream socket: xenconsoled has it as a terminal, whose path is in
//! xenstore. Of a whole machine it is the serial port, which firmware and boot loader use, too.

use super::instance::XenInstance;
use super::store::Store;
use crate::error::EngineError;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Weak;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

pub(super) const SOCKET: &str = "console.sock";
/// A whole machine has both, and its serial port is the one that it always writes to.
const TERMINALS: [&str; 2] = ["serial/0", "console"];
const CHUNK_BYTES: usize = 4096;

/// Serves the console for as long as the instance is held.
pub(super) fn serve(instance: Weak<XenInstance>, path: &Path) -> Result<(), EngineError> {
    let failed = |source| EngineError::File { action: "listen on", path: path.into(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            if let Err(error) = join(&instance, client).await {
                tracing::debug!(%error, "a console has ended");
            }
        }
    });
    Ok(())
}

async fn join(instance: &Weak<XenInstance>, mut client: UnixStream) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let terminal = loop {
        let number = instance.upgrade().ok_or_else(gone)?.number().await;
        let tty = match number {
            Ok(number) => terminal_of(number).await?,
            Err(_) => None,
        };
        if let Some(tty) = tty {
            break open(&tty)?;
        }
        // Still arriving; xenconsoled writes the key a moment after the domain is made.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    let mut from_guest = [0; CHUNK_BYTES];
    let mut from_client = [0; CHUNK_BYTES];
    loop {
        tokio::select! {
            ready = terminal.readable() => {
                let mut ready = ready?;
                let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut from_guest)?));
                match read {
                    Ok(Ok(0)) => return Ok(()),
                    Ok(Ok(length)) => client.write_all(&from_guest[..length]).await?,
                    Ok(Err(error)) => return Err(error),
                    Err(_) => {}
                }
            }
            read = client.read(&mut from_client) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                let mut rest = &from_client[..length];
                while !rest.is_empty() {
                    let mut ready = terminal.writable().await?;
                    if let Ok(written) = ready.try_io(|fd| Ok(rustix::io::write(fd, rest)?)) {
                        rest = &rest[written?..];
                    }
                }
            }
        }
    }
}

async fn terminal_of(number: u32) -> io::Result<Option<String>> {
    let mut store = Store::open().await?;
    for port in TERMINALS {
        if let Some(tty) = store.read(&format!("/local/domain/{number}/{port}/tty")).await? {
            return Ok(Some(tty));
        }
    }
    Ok(None)
}

/// Opens the terminal, which xenconsoled has told to pass bytes as they are.
fn open(tty: &str) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = nix::libc::O_NOCTTY | nix::libc::O_NONBLOCK;
    let mut options = std::fs::OpenOptions::new();
    let terminal = options.read(true).write(true).custom_flags(flags).open(tty)?;
    #[allow(
        deprecated,
        reason = "its successor is unsafe, for descriptors that change; an OwnedFd does not"
    )]
    let terminal = AsyncFd::new(OwnedFd::from(terminal))?;
    Ok(terminal)
}
