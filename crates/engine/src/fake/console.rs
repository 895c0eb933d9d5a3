// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The serial console of a fake guest: it greets, and then it echoes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

const READ_BYTES: usize = 4 << 10;

/// Serves one client after the other, as QEMU does.
pub(super) async fn serve(listener: UnixListener, name: String) {
    while let Ok((stream, _)) = listener.accept().await {
        // A client that leaves is the ordinary end.
        let _ = echo(stream, &name).await;
    }
}

async fn echo(mut stream: UnixStream, name: &str) -> std::io::Result<()> {
    stream.write_all(format!("{name} login: ").as_bytes()).await?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
    }
}
