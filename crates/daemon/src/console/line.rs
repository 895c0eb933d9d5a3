// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The connection to the engine: the only client its console ever has.

use super::HubOptions;
use super::log::Log;
use super::shared::Shared;
use bytes::Bytes;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Most bytes taken from the engine at once.
pub(super) const READ_BYTES_MAX: usize = 4 << 10;
/// Most chunks taken at the end. A socket buffer holds fewer; an engine that goes on writing does
/// not keep us.
const REST_CHUNKS_MAX: usize = 256;
/// How soon after a lost connection the first attempt is made, and how long it can become.
const RETRY_TIME_MIN: Duration = Duration::from_millis(50);
const RETRY_TIME_MAX: Duration = Duration::from_secs(2);

/// Holds the line until the hub ends.
pub(super) async fn run(
    options: HubOptions,
    shared: Arc<Shared>,
    mut typed: mpsc::Receiver<Bytes>,
) {
    let HubOptions { guest, socket, log } = options;
    let mut log = Log::new(log);
    shared.seed(&log.read_end().await);
    loop {
        let stream = tokio::select! {
            // An engine that has just accepted may have something to say before the end.
            biased;
            stream = connect(&socket) => stream,
            notice = shared.ending() => return shared.finish(notice),
        };
        tracing::debug!(%guest, "console connected");
        let (mut reader, mut writer) = stream.into_split();
        tokio::select! {
            () = read(&mut reader, &shared, &mut log) => {}
            () = write(&mut writer, &mut typed) => {}
            notice = shared.ending() => {
                read_rest(reader, writer, &shared);
                return shared.finish(notice);
            }
        }
        tracing::debug!(%guest, "console disconnected");
    }
}

/// Connects to the engine, however long that takes.
async fn connect(socket: &Path) -> UnixStream {
    let mut wait = RETRY_TIME_MIN;
    loop {
        match try_connect(socket).await {
            Ok(stream) => return stream,
            Err(error) => tracing::trace!(socket = %socket.display(), %error, "no console yet"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_TIME_MAX);
    }
}

pub(super) async fn try_connect(socket: &Path) -> io::Result<UnixStream> {
    // The directory is the engine's, and the engine is not trusted: a link put here would lead
    // what is typed somewhere else.
    if tokio::fs::symlink_metadata(socket).await?.is_symlink() {
        return Err(io::Error::other("the console socket is a symbolic link"));
    }
    UnixStream::connect(PathBuf::from(socket)).await
}

/// Reads until the connection ends.
async fn read(reader: &mut OwnedReadHalf, shared: &Shared, log: &mut Log) {
    let mut buffer = [0; READ_BYTES_MAX];
    loop {
        if reader.readable().await.is_err() {
            return;
        }
        match reader.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                shared.output(&buffer[..count]);
                log.note_written(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Reads what the engine has written and nobody has read yet: often the guest's last words.
fn read_rest(reader: OwnedReadHalf, writer: OwnedWriteHalf, shared: &Shared) {
    let stream = reader.reunite(writer).expect("two halves of one stream");
    // Not through tokio, which may not have heard yet that there is something to read.
    let Ok(mut stream) = stream.into_std() else { return };
    let mut buffer = [0; READ_BYTES_MAX];
    for _ in 0..REST_CHUNKS_MAX {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => shared.output(&buffer[..count]),
            _ => return,
        }
    }
}

/// Types until the connection ends.
async fn write(writer: &mut OwnedWriteHalf, typed: &mut mpsc::Receiver<Bytes>) {
    while let Some(bytes) = typed.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
