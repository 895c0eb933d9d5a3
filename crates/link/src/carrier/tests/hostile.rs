// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The other carrying process lies: the channel ends, with the reason, and the engine's socket with
//! it.

use super::super::channel::{CarryError, carry};
use super::super::frames::Frame;
use super::super::meter::Meter;
use super::super::throttle::Throttle;
use super::{in_time, some_bytes};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use whimbrel_pages::window::WINDOW_BYTES_MAX;

/// Lets the other side say `frames`, while the engine reads if it `is_reading`.
async fn hear(frames: &[Frame], is_reading: bool) -> CarryError {
    let (link, mut liar) = tokio::io::duplex(1 << 20);
    let (mut engine, near) = UnixStream::pair().unwrap();
    let meter = Arc::new(Meter::new(Instant::now()));
    let throttle = Arc::new(Throttle::new(None));
    let carried = tokio::spawn(carry(link, BytesMut::new(), near, meter, throttle));
    let mut said = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut said));
    let reading = tokio::spawn(async move {
        let mut rest = Vec::new();
        if is_reading {
            engine.read_to_end(&mut rest).await.unwrap();
        }
        (engine, rest)
    });
    // It hangs up on a liar.
    let _ = liar.write_all(&said).await;
    let error = in_time(carried).await.unwrap().unwrap_err();
    let (mut engine, _) = in_time(reading).await.unwrap();
    assert!(engine.write_all(b"x").await.is_err(), "the engine's socket is closed");
    error
}

fn data(bytes: &[u8]) -> Frame {
    Frame::Data(Bytes::copy_from_slice(bytes))
}

/// Digest, total: both must fit, or the attempt is over.
#[tokio::test]
async fn unequal_streams_are_noticed() {
    let digest = *blake3::hash(b"abc").as_bytes();
    let other = *blake3::hash(b"abd").as_bytes();
    for (total, digest) in [(3, other), (2, digest), (4, digest)] {
        let error = hear(&[data(b"abc"), Frame::Fin { total, digest }], true).await;
        assert!(matches!(error, CarryError::Unequal { arrived: 3, .. }), "{error}");
    }
}

/// What no honest side would say.
#[tokio::test]
async fn nonsense_is_refused() {
    let digest = *blake3::hash(b"").as_bytes();
    let fin = Frame::Fin { total: 0, digest };
    let lies: [&[Frame]; 7] = [
        &[Frame::Ack { total: 1 }],
        &[Frame::End],
        &[fin.clone(), fin.clone()],
        &[fin, data(b"more")],
        &[Frame::Ready],
        &[Frame::Refused { reason: "no".to_owned() }],
        &[Frame::Ack { total: u64::MAX }],
    ];
    for lie in lies {
        let error = hear(lie, true).await;
        assert!(matches!(error, CarryError::Nonsense { .. }), "{lie:?}: {error}");
    }
}

/// Memory is bounded whatever the other side sends to an engine that does not read.
#[tokio::test]
async fn more_than_the_window_is_refused() {
    let chunk = data(&some_bytes(1 << 20));
    let count = usize::try_from(WINDOW_BYTES_MAX >> 20).unwrap() + 3;
    let error = hear(&vec![chunk; count], false).await;
    assert!(matches!(error, CarryError::Nonsense { what: "more than the window" }), "{error}");
}
