// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Writes to the engine what was rebuilt for it, and counts what it has accepted.

use super::super::channel::{Guard, write_engine};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// The engine's accepted bytes are told at least this often.
const TELL_BYTES: usize = 64 << 10;

/// See the module. What waits here is bounded by the window, which the receiver enforces.
pub(super) struct Giver {
    streams: mpsc::UnboundedSender<Bytes>,
    progress: mpsc::UnboundedReceiver<u64>,
    writer: AbortHandle,
    is_gone: bool,
}

impl Giver {
    pub(super) fn new(engine: Arc<Guard>) -> Self {
        let (streams, to_write) = mpsc::unbounded_channel();
        let (written, progress) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(engine, to_write, written)).abort_handle();
        Self { streams, progress, writer, is_gone: false }
    }

    pub(super) fn put(&self, stream: Bytes) {
        if !stream.is_empty() {
            // An engine that is gone says so in `progress`.
            let _ = self.streams.send(stream);
        }
    }

    /// Returns how many bytes more the engine has accepted; once none, if it wants no more.
    pub(super) async fn progress(&mut self) -> Option<u64> {
        if self.is_gone {
            std::future::pending::<()>().await;
        }
        let Some(mut bytes) = self.progress.recv().await else {
            self.is_gone = true;
            return None;
        };
        while let Ok(more) = self.progress.try_recv() {
            bytes += more;
        }
        Some(bytes)
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

async fn write(
    engine: Arc<Guard>,
    mut streams: mpsc::UnboundedReceiver<Bytes>,
    written: mpsc::UnboundedSender<u64>,
) {
    while let Some(stream) = streams.recv().await {
        for part in stream.chunks(TELL_BYTES) {
            if write_engine(&engine.0, part).await.is_err()
                || written.send(part.len() as u64).is_err()
            {
                return;
            }
        }
    }
}
