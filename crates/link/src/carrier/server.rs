// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The carrying process's end of `carry.sock`.

use super::control::{COMMAND_BYTES_MAX, Command, KeepAnswer, SOCKET_FILE};
use super::pages::keeper::Moved;
use super::process::Carrier;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use whimbrel_model::id::{GuestName, HostName};

/// How long a command may take to arrive.
const COMMAND_MAX: Duration = Duration::from_secs(5);
/// After a failed `accept`, the next one waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn bind(directory: &Path) -> io::Result<UnixListener> {
    let path = directory.join(SOCKET_FILE);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(super) fn unbind(directory: &Path) {
    let _ = std::fs::remove_file(directory.join(SOCKET_FILE));
}

pub(super) async fn serve(carrier: Arc<Carrier>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let carrier = carrier.clone();
                tokio::spawn(async move {
                    match answer(&carrier, stream).await {
                        Ok(()) => carrier.heard_from_daemon(),
                        Err(error) => tracing::warn!(%error, "a command was not understood"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a command");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(carrier: &Arc<Carrier>, mut stream: UnixStream) -> io::Result<()> {
    let receiving = tokio::time::timeout(COMMAND_MAX, receive(&stream));
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let (command, descriptor) = receiving.await.map_err(late)??;
    let answer = match (command, descriptor) {
        (Command::Status, _) => carrier.status().to_json(),
        (Command::Adopt, Some(descriptor)) => {
            carrier.adopt(descriptor.into());
            "{}".to_owned()
        }
        (Command::Adopt, None) => return Err(io::ErrorKind::InvalidData.into()),
        (Command::Bandwidth { bytes_per_second }, _) => {
            carrier.set_bandwidth(bytes_per_second);
            "{}".to_owned()
        }
        (Command::Keep { guest, other, unix_ms }, _) => {
            let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
            let guest = GuestName::new(&guest).map_err(wrong)?;
            let other = HostName::new(&other).map_err(wrong)?;
            let not_kept = carrier.keep(Moved { guest, other, unix_ms }).await.err();
            serde_json::to_string(&KeepAnswer { not_kept }).expect("this type is JSON")
        }
        (Command::Close, _) => {
            carrier.close();
            "{}".to_owned()
        }
        (Command::Cut, _) => {
            carrier.cut();
            "{}".to_owned()
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(b"\n").await
}

/// Reads one line, and the descriptor that came with it.
async fn receive(stream: &UnixStream) -> io::Result<(Command, Option<OwnedFd>)> {
    let mut line = Vec::new();
    let mut descriptor = None;
    while line.last() != Some(&b'\n') {
        let mut part = [0; COMMAND_BYTES_MAX];
        let length = stream
            .async_io(Interest::READABLE, || receive_part(stream, &mut part, &mut descriptor))
            .await?;
        line.extend_from_slice(&part[..length]);
        if length == 0 || line.len() > COMMAND_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok((serde_json::from_slice(&line)?, descriptor))
}

fn receive_part(
    stream: &UnixStream,
    part: &mut [u8],
    descriptor: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut part = [IoSliceMut::new(part)];
    let received = recvmsg(stream, &mut part, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            *descriptor = descriptors.last();
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(received.bytes)
}
