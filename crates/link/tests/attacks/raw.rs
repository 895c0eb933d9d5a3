// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Attacks with bytes that are not TLS, or not all of it.

use crate::lab::Lab;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Attack {
    pub(crate) name: String,
    bytes: Vec<u8>,
    then: Then,
}

enum Then {
    /// The host must close the connection by itself, at once.
    WaitForTheEnd,
    /// The attacker leaves in the middle of what it was saying.
    Leave,
}

/// Sends the bytes and sees how it ends.
pub(crate) async fn strike(lab: &Lab, attack: &Attack) {
    let mut tcp = TcpStream::connect(lab.address).await.unwrap();
    // The host may hang up before it has everything.
    let _ = tcp.write_all(&attack.bytes).await;
    if let Then::Leave = attack.then {
        tcp.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer).await;
    // What looks like a good hello is answered with the host's half of a handshake, or, where only
    // its key is wrong, with a fatal alert: what byte that is, is drawn anew each time.
    let is_handshake = answer.starts_with(&[22, 3, 3]);
    let is_alert = answer.len() == 7 && answer.starts_with(&[21, 3, 3, 0, 2, 2]);
    let is_tls = matches!(attack.then, Then::Leave) && (is_handshake || is_alert);
    assert!(answer.is_empty() || is_tls, "{}: {answer:?}", attack.name);
}

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = other_protocols();
    attacks.extend(broken_records());
    attacks.extend(hellos_cut_short());
    attacks.extend(noise());
    attacks
}

fn at_once(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Attack {
    Attack { name: name.into(), bytes: bytes.into(), then: Then::WaitForTheEnd }
}

fn leaving(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Attack {
    Attack { name: name.into(), bytes: bytes.into(), then: Then::Leave }
}

/// Everything that people point at a port.
fn other_protocols() -> Vec<Attack> {
    let mut hello_frame = vec![0, 0, 0, 12, 8, 1, 16, 1, 26, 1, 120, 34, 3, 97, 98, 99];
    // A complete greeting and a request of the peer protocol, without TLS around it.
    hello_frame.extend([0, 0, 0, 2, 10, 0]);
    vec![
        at_once("http", *b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        at_once("http 2", *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        at_once("ssh", *b"SSH-2.0-OpenSSH_9.2\r\n"),
        at_once("smtp", *b"EHLO example.org\r\n"),
        at_once("redis", *b"*1\r\n$4\r\nPING\r\n"),
        at_once("memcached", *b"stats\r\n"),
        at_once("proxy protocol", *b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n"),
        at_once("xend's relocation", *b"receive\n"),
        at_once("a qemu stream", *b"QEVM\0\0\0\x03"),
        at_once("a libxl stream", *b"LibxlFmt\0\0\0\x02\0\0\0\0"),
        at_once("postgres asks for tls", [0, 0, 0, 8, 4, 210, 22, 47]),
        at_once("the peer protocol without tls", hello_frame),
        at_once("a frame of 4 GiB", [255; 64]),
        at_once("zeros", [0; 64]),
        at_once("a terminal", *b"\r\n\r\n"),
        leaving("nothing", []),
    ]
}

/// The beginning of TLS, wrong.
fn broken_records() -> Vec<Attack> {
    let record = |kind: u8, major: u8, length: u16, body: &[u8]| {
        let [high, low] = length.to_be_bytes();
        [&[kind, major, 1, high, low], body].concat()
    };
    let mut attacks = vec![
        at_once("sslv2", [0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 16]),
        at_once("dtls", [22, 254, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]),
        at_once("an alert", record(21, 3, 2, &[2, 40])),
        at_once("application data", record(23, 3, 5, b"hello")),
        at_once("change cipher spec", record(20, 3, 1, &[1])),
        at_once("a heartbeat", record(24, 3, 3, &[1, 255, 255])),
        at_once("a record of nothing", record(22, 3, 0, &[])),
        at_once("a record of 64 KiB", record(22, 3, 65535, &[1, 0, 255, 250])),
        at_once("a record of 16 KiB", record(22, 3, 16384, &[1, 0, 63, 252])),
        at_once("a record of one byte too many", record(22, 3, 4092, &[1, 0, 15, 248])),
        at_once("a major version of the future", record(22, 4, 100, &[1])),
    ];
    // Every other handshake message than a ClientHello.
    for kind in [0, 2, 4, 8, 11, 13, 15, 20, 24, 254] {
        attacks.push(at_once(
            format!("handshake message {kind}"),
            record(22, 3, 50, &[&[kind, 0, 0, 46][..], &[0; 46]].concat()),
        ));
    }
    for (name, body) in [
        ("a hello of zeros", &[&[1, 0, 0, 46][..], &[0; 46]].concat()),
        ("a hello that lies about its length", &[&[1, 0, 0, 200][..], &[3; 46]].concat()),
        ("a hello with a session id of 255 bytes", &hello_with_session_id(255)),
    ] {
        let length = u16::try_from(body.len()).unwrap();
        attacks.push(at_once(name, record(22, 3, length, body)));
    }
    attacks
}

fn hello_with_session_id(length: u8) -> Vec<u8> {
    [&[1, 0, 0, 60, 3, 3][..], &[7; 32], &[length], &[0; 25]].concat()
}

/// A good hello, up to any point.
fn hellos_cut_short() -> Vec<Attack> {
    let hello = crate::tls::a_hello();
    let cuts = [1, 2, 3, 5, 6, 9, 43, 44, hello.len() / 2, hello.len() - 1];
    let cut = |&cut: &usize| leaving(format!("a hello cut at {cut}"), &hello[..cut]);
    cuts.iter().map(cut).collect()
}

/// A good hello with one byte that is not, and then silence from the attacker.
fn noise() -> Vec<Attack> {
    let hello = crate::tls::a_hello();
    (0..12usize)
        .map(|index| {
            let at = 5 + index * (hello.len() - 6) / 12;
            let mut bytes = hello.clone();
            bytes[at] ^= 0xff;
            leaving(format!("a hello with byte {at} wrong"), bytes)
        })
        .collect()
}
