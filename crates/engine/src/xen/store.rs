// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Speaks with xenstored over its socket: reads a key, and waits for domains to come and go.
//!
//! A message is a header of four little-endian words (type, request, transaction, length) and as
//! many bytes. What is watched is told without having been asked, so a connection that watches is
//! used for nothing else.

pub(super) mod plain;

use std::io;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const SOCKETS: [&str; 2] = ["/run/xenstored/socket", "/var/run/xenstored/socket"];
/// The protocol's own limit.
const PAYLOAD_BYTES_MAX: usize = 4096;
const HEADER_BYTES: usize = 16;

const DIRECTORY: u32 = 1;
const READ: u32 = 2;
const WATCH: u32 = 4;
const WRITE: u32 = 11;
const WATCH_EVENT: u32 = 15;
const ERROR: u32 = 16;

/// One connection.
#[derive(Debug)]
pub(super) struct Store(UnixStream);

impl Store {
    pub(super) async fn open() -> io::Result<Store> {
        UnixStream::connect(socket()).await.map(Store)
    }

    /// Reads a key; none where it is not there.
    pub(super) async fn read(&mut self, path: &str) -> io::Result<Option<String>> {
        self.say(READ, &[path]).await?;
        let (kind, payload) = self.hear().await?;
        let text = String::from_utf8_lossy(&payload).trim_end_matches('\0').to_owned();
        match kind {
            READ => Ok(Some(text)),
            ERROR if text == "ENOENT" => Ok(None),
            _ => Err(io::Error::other(format!("xenstored answers `{text}`"))),
        }
    }

    /// Turns the connection into one that hears whenever a domain has shut down or is gone.
    pub(super) async fn watch_ends(self) -> io::Result<Changes> {
        self.watch(&["@releaseDomain"]).await
    }

    /// The same, and when there is one more.
    pub(super) async fn watch_domains(self) -> io::Result<Changes> {
        self.watch(&["@introduceDomain", "@releaseDomain"]).await
    }

    async fn watch(mut self, keys: &[&str]) -> io::Result<Changes> {
        for key in keys {
            self.say(WATCH, &[key, "domains"]).await?;
        }
        Ok(Changes(self))
    }

    async fn say(&mut self, kind: u32, words: &[&str]) -> io::Result<()> {
        let message = message(kind, words)?;
        self.0.write_all(&message).await
    }

    async fn hear(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).await?;
        let (kind, length) = payload_length(&header)?;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await?;
        Ok((kind, payload))
    }
}

/// The domains of this host as they come and go.
#[derive(Debug)]
pub(super) struct Changes(Store);

impl Changes {
    /// Waits for the next change, whichever domain it is.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        loop {
            let (kind, payload) = self.0.hear().await?;
            match kind {
                WATCH_EVENT => return Ok(()),
                ERROR => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    return Err(io::Error::other(format!("xenstored answers `{text}`")));
                }
                // It has taken the watch.
                _ => {}
            }
        }
    }
}

fn socket() -> &'static str {
    SOCKETS.iter().find(|path| Path::new(path).exists()).unwrap_or(&SOCKETS[0])
}

/// Returns the kind of a message and how long what follows its header is.
fn payload_length(header: &[u8; HEADER_BYTES]) -> io::Result<(u32, usize)> {
    let word = |at: usize| {
        u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes were taken"))
    };
    match usize::try_from(word(12)) {
        Ok(length @ ..=PAYLOAD_BYTES_MAX) => Ok((word(0), length)),
        _ => Err(io::Error::other(format!("xenstored sends {} bytes at once", word(12)))),
    }
}

fn message(kind: u32, words: &[&str]) -> io::Result<Vec<u8>> {
    let payload: Vec<u8> =
        words.iter().flat_map(|word| word.bytes().chain(std::iter::once(0))).collect();
    framed(kind, &payload)
}

/// Puts the header before a payload.
fn framed(kind: u32, payload: &[u8]) -> io::Result<Vec<u8>> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(io::Error::other("a key too long for xenstored"));
    }
    let length = u32::try_from(payload.len()).expect("the limit fits");
    let header = [kind, 0, 0, length].into_iter().flat_map(u32::to_le_bytes);
    Ok(header.chain(payload.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_protocol_says() {
        let read = message(READ, &["/tool"]).unwrap();
        assert_eq!(read, b"\x02\0\0\0\0\0\0\0\0\0\0\0\x06\0\0\0/tool\0");
        assert!(message(READ, &["x".repeat(PAYLOAD_BYTES_MAX).as_str()]).is_err());
    }

    /// An answer longer than the protocol allows is refused before memory is taken for it.
    #[tokio::test]
    async fn answers_are_bounded() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut store = Store(ours);
        theirs.write_all(b"\x02\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff").await.unwrap();
        assert!(store.read("/tool").await.is_err());
    }
}
