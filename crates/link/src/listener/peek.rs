// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a connection wants, by its ClientHello, without taking a byte of it.

use super::Refusal;
use crate::tls::{self, ALPN_CARRY, ALPN_PAIR, ALPN_PEER};
use rustix::net::RecvFlags;
use rustls::server::Acceptor;
use std::io;
use tokio::io::Interest;
use tokio::net::TcpStream;
use whimbrel_model::id::HandoffId;

/// Longest ClientHello, with its record header. Ours has about 250 bytes.
pub(super) const CLIENT_HELLO_BYTES_MAX: usize = 4 << 10;

/// Type, version, length.
const RECORD_HEADER: usize = 5;
const RECORD_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;

/// Which protocol a connection asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Peer,
    Carry(HandoffId),
    Pair,
}

/// Waits for the whole first record and reads what it asks for.
pub(super) async fn wanted(tcp: &TcpStream) -> Result<Wanted, Refusal> {
    let mut buffer = [0; CLIENT_HELLO_BYTES_MAX];
    let mut length = 0;
    loop {
        length = peek_more(tcp, &mut buffer, length).await?;
        if let Some(record) = first_record(&buffer[..length])? {
            return read_hello(record);
        }
    }
}

/// Peeks until there is more than `known` bytes.
async fn peek_more(tcp: &TcpStream, buffer: &mut [u8], known: usize) -> Result<usize, Refusal> {
    loop {
        let ready = tcp.ready(Interest::READABLE).await.map_err(Refusal::Io)?;
        let peeked = tcp.try_io(Interest::READABLE, || {
            let (length, _) = rustix::net::recv(tcp, &mut *buffer, RecvFlags::PEEK)?;
            // What is peeked at stays readable. "Would block" makes the runtime wait for the next
            // packet instead of spinning on the bytes that are known.
            if length == known && length > 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(length)
        });
        match peeked {
            Ok(0) => return Err(Refusal::Ended),
            Ok(length) => return Ok(length),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(Refusal::Io(error));
            }
            Err(_) if ready.is_read_closed() => return Err(Refusal::Ended),
            Err(_) => {}
        }
    }
}

/// Returns the first record once it is complete. Our own hosts send the ClientHello in one; what
/// is longer, or not a handshake at all, is refused by its first bytes.
fn first_record(bytes: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    match bytes {
        [kind, ..] if *kind != RECORD_HANDSHAKE => Err(Refusal::NotTls),
        [_, major, ..] if *major != 3 => Err(Refusal::NotTls),
        [_, _, _, high, low, rest @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if length == 0 || RECORD_HEADER + length > CLIENT_HELLO_BYTES_MAX {
                return Err(Refusal::HelloLength { length });
            }
            match rest.first() {
                Some(&kind) if kind != HANDSHAKE_CLIENT_HELLO => return Err(Refusal::NotTls),
                _ => {}
            }
            Ok(bytes.get(..RECORD_HEADER + length))
        }
        _ => Ok(None),
    }
}

fn read_hello(record: &[u8]) -> Result<Wanted, Refusal> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &*record).map_err(Refusal::Io)?;
    let accepted = match acceptor.accept() {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return Err(Refusal::HelloLength { length: record.len() - RECORD_HEADER }),
        Err((error, _)) => return Err(Refusal::Hello(error)),
    };
    let hello = accepted.client_hello();
    let mut protocols = hello.alpn().into_iter().flatten();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else {
        return Err(Refusal::OtherProtocol);
    };
    match protocol {
        ALPN_PEER => Ok(Wanted::Peer),
        ALPN_PAIR => Ok(Wanted::Pair),
        ALPN_CARRY => {
            let handoff = hello.server_name().and_then(tls::handoff_of);
            handoff.map(Wanted::Carry).ok_or(Refusal::NoHandoff)
        }
        _ => Err(Refusal::OtherProtocol),
    }
}
