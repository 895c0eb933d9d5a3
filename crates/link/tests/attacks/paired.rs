// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Attacks by a paired host, or by whoever took one over: it may ask, and only in the limits.

use crate::lab::Lab;
use crate::tls;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A field of a protobuf message that is bytes, a text or a message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

fn number(field: u8, value: u64) -> Vec<u8> {
    [&[field << 3][..], &varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

fn hello(min: u64, max: u64, software: &str, name: &str) -> Vec<u8> {
    let (software, name) = (field(3, software.as_bytes()), field(4, name.as_bytes()));
    frame(&[number(1, min), number(2, max), software, name].concat())
}

fn good_hello() -> Vec<u8> {
    hello(1, 1, "whimbrel", "friend")
}

/// What is sent behind the handshake.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let asking = |request: Vec<u8>| [good_hello(), frame(&request)].concat();
    let offer = |channels: u64| {
        let offer = [field(1, b"x = 1"), number(3, channels)].concat();
        let ids = [field(1, &[1; 16]), field(2, &[2; 16]), number(3, 2)].concat();
        asking(field(4, &[ids, field(4, &offer)].concat()))
    };
    let opening = |handoff: &[u8], guest: &[u8], epoch: u64| {
        asking(field(4, &[field(1, handoff), field(2, guest), number(3, epoch)].concat()))
    };
    vec![
        ("a frame of 4 GiB", vec![255; 100]),
        ("a frame of a byte too many", vec![0, 16, 0, 1]),
        ("a greeting of garbage", frame(&[0xff; 40])),
        ("an empty greeting", frame(&[])),
        ("version 0", hello(0, 1, "x", "friend")),
        ("versions backwards", hello(2, 1, "x", "friend")),
        ("versions of tomorrow", hello(70, 90, "x", "friend")),
        ("a version beyond numbers", hello(u64::MAX, u64::MAX, "x", "friend")),
        ("software of 300 letters", hello(1, 1, &"x".repeat(300), "friend")),
        ("no name", hello(1, 1, "x", "")),
        ("a name that is a path", hello(1, 1, "x", "../friend")),
        ("a name that is a number", hello(1, 1, "x", "17")),
        ("a name of 64 letters", hello(1, 1, "x", &"a".repeat(64))),
        ("a name that is no text", [number(1, 1), number(2, 1), field(4, &[0xff])].concat()),
        ("no request", asking(vec![])),
        ("a request of tomorrow", asking(field(15, b"x"))),
        ("a request of garbage", asking(vec![0xff; 30])),
        ("a request of a byte too many", [good_hello(), vec![0, 16, 0, 1]].concat()),
        ("a definition of 257 KiB", asking(field(2, &field(1, &[b'x'; 257 << 10])))),
        ("a passport of 769 KiB", asking(field(2, &field(2, &[b'x'; 769 << 10])))),
        ("a definition that is no text", asking(field(2, &field(1, &[0xc3, 0x28])))),
        ("who owns nothing", asking(field(3, &[]))),
        ("who owns 15 bytes", asking(field(3, &field(1, &[1; 15])))),
        ("who owns 17 bytes", asking(field(3, &field(1, &[1; 17])))),
        ("a handoff of 15 bytes", opening(&[1; 15], &[2; 16], 2)),
        ("a guest of 0 bytes", opening(&[1; 16], &[], 2)),
        ("an epoch at the end of numbers", opening(&[1; 16], &[2; 16], u64::MAX)),
        ("no channels", offer(0)),
        ("65 channels", offer(65)),
        ("a log of half a guest", asking(field(5, &field(1, &[1; 8])))),
        ("a console of nobody", asking(field(7, &[]))),
    ]
}

/// Whatever a paired host says that makes no sense, it is told so, the connection ends, and no
/// request reaches the daemon.
#[tokio::test(flavor = "multi_thread")]
async fn paired_hosts_are_held_to_the_limits() {
    let lab = Lab::new().await;
    for (name, bytes) in attacks() {
        let requests = lab.seen.requests.load(Ordering::SeqCst);
        let mut stream = tls::connect(&lab, &lab.friend).await.unwrap();
        // The host may hang up before it has everything.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(crate::lab::PATIENCE, stream.read_to_end(&mut answer));
        assert!(read.await.is_ok(), "{name}: the connection stays");
        assert_eq!(lab.seen.requests.load(Ordering::SeqCst), requests, "{name}: got in");
        assert!(lab.is_served().await, "{name}: the friend is not served any more");
    }
}

/// The test's own encoder speaks the protocol: the same, well-formed, is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_proper_request_is_served() {
    let lab = Lab::new().await;
    let mut stream = tls::connect(&lab, &lab.friend).await.unwrap();
    stream.write_all(&[good_hello(), frame(&field(1, &[]))].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(lab.seen.requests.load(Ordering::SeqCst), 1);
    assert!(answer.windows(4).any(|bytes| bytes == b"none"), "{answer:?}");
}
