// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One attached client.

use super::shared::Place;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use whimbrel_api::console::{Frame, FrameReader};

/// Longest a client may take to accept one chunk.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);

/// Moves bytes between a client and its place until one of both ends.
pub(super) async fn serve(mut place: Place, stream: impl AsyncRead + AsyncWrite) {
    let (reader, writer) = tokio::io::split(stream);
    let (shared, id) = (place.shared.clone(), place.id);
    let typing = async {
        let mut reader = FrameReader::new(reader);
        // Notices go the other way only; a client that sends one, or no frames at all, is broken.
        while let Ok(Some(Frame::Data(bytes))) = reader.next().await {
            shared.type_in(id, bytes).await;
        }
    };
    tokio::select! {
        () = typing => {}
        // A client that cannot be written to has left.
        _ = show(&mut place, writer) => {}
    }
}

async fn show(place: &mut Place, mut writer: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(frames) = place.queue.recv().await {
        tokio::time::timeout(WRITE_TIME_MAX, writer.write_all(&frames)).await??;
    }
    if let Some(notice) = place.farewell.get() {
        let last = Frame::Notice(notice.clone()).to_bytes();
        tokio::time::timeout(WRITE_TIME_MAX, writer.write_all(&last)).await??;
    }
    tokio::time::timeout(WRITE_TIME_MAX, writer.shutdown()).await?
}
