// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What fakes send each other through their channels.
//!
//! ```text
//! every channel:   source -> target   "WHIMFAKE" channel u32, guest 16 bytes
//!                  source -> target   'D' length u32, so many bytes      target -> source   'A'
//! the main one:    source -> target   'E' memory u64                     target -> source   'C'
//! ```
//! One byte on the wire stands for [`SCALE`] bytes of memory. Each piece is acknowledged before
//! the next, so a link that stalls is felt at once.

use super::Stage;
use super::guest::Body;
use crate::contract::MigrationOptions;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;
use whimbrel_model::units::Bytes;

const MAGIC: &[u8; 8] = b"WHIMFAKE";
const SCALE: u64 = 1024;
const PIECE_BYTES_MAX: u32 = 16 << 10;
const STEPS_A_SECOND: u64 = 10;
/// What the link would carry if nobody limited it.
const RATE: Bytes = Bytes::mib(1024);
/// However little it may send, a page in each tenth of a second goes.
const LEAST: Bytes = Bytes(40 << 10);

/// What arrived.
pub(super) struct Ended {
    pub(super) memory: u64,
}

/// Sends a guest; returns when the target has everything.
pub(super) async fn send(body: &Body, options: &MigrationOptions, path: &Path) -> io::Result<()> {
    let mut main = connect(body, path, 0).await?;
    for index in 1..options.connections() {
        let mut channel = connect(body, path, index).await?;
        send_piece(&mut channel, 1).await?;
    }
    let mut remaining = body.state().memory_size().0;
    loop {
        hang(body, Stage::Active, &mut main).await?;
        let begun = Instant::now();
        send_round(body, &mut main, remaining, false).await?;
        let (tuning, dirty_rate) = {
            let state = body.state();
            (state.tuning, state.dirty_rate)
        };
        let free = 100 - u64::from(tuning.throttle_percent.min(99));
        let dirty_rate = Bytes(dirty_rate.0 / 100 * free);
        remaining = over(dirty_rate, begun.elapsed().max(Duration::from_millis(1)));
        if options.is_stop_and_copy {
            remaining = 0;
        }
        let rate = tuning.bandwidth.unwrap_or(RATE);
        if remaining <= over(rate, tuning.pause_max) {
            break;
        }
        body.report(false, |progress| {
            progress.round += 1;
            progress.remaining = Bytes(remaining);
            progress.dirty_rate = dirty_rate;
            progress.throttle_percent = tuning.throttle_percent;
        });
    }
    body.switch_over();
    hang(body, Stage::Switching, &mut main).await?;
    send_round(body, &mut main, remaining, true).await?;
    let memory = body.state().memory;
    main.write_u8(b'E').await?;
    main.write_u64(memory).await?;
    expect(&mut main, b'C').await
}

/// Receives a guest; returns when it is complete.
pub(super) async fn receive(
    body: &Body,
    options: &MigrationOptions,
    listener: UnixListener,
) -> io::Result<Ended> {
    let mut main = accept(body, &listener, 0).await?;
    body.report(false, |_| {});
    for index in 1..options.connections() {
        let mut channel = accept(body, &listener, index).await?;
        if channel.read_u8().await? != b'D' {
            return Err(wrong("a data channel without data"));
        }
        take_piece(&mut channel).await?;
    }
    loop {
        match main.read_u8().await? {
            b'D' => take_piece(&mut main).await?,
            b'E' => {
                let memory = main.read_u64().await?;
                main.write_u8(b'C').await?;
                return Ok(Ended { memory });
            }
            _ => return Err(wrong("an unknown frame")),
        }
    }
}

async fn connect(body: &Body, path: &Path, index: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(MAGIC).await?;
    stream.write_u32(index).await?;
    stream.write_all(body.id.0.as_bytes()).await?;
    Ok(stream)
}

async fn accept(body: &Body, listener: &UnixListener, index: u32) -> io::Result<UnixStream> {
    let (mut stream, _) = listener.accept().await?;
    let mut magic = [0; MAGIC.len()];
    stream.read_exact(&mut magic).await?;
    let found = stream.read_u32().await?;
    let mut guest = [0; 16];
    stream.read_exact(&mut guest).await?;
    if magic != *MAGIC || found != index || guest != *body.id.0.as_bytes() {
        return Err(wrong("a channel that was not expected"));
    }
    Ok(stream)
}

/// Sends so much memory, not faster than the bandwidth allows.
async fn send_round(
    body: &Body,
    main: &mut UnixStream,
    bytes: u64,
    is_switching: bool,
) -> io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        let bandwidth = body.state().tuning.bandwidth;
        let rate = bandwidth.unwrap_or(RATE).max(LEAST).0;
        // Small steps where it is slow, so that new tuning is felt soon.
        let step = (rate / STEPS_A_SECOND / SCALE).clamp(1, u64::from(PIECE_BYTES_MAX));
        let piece = left.div_ceil(SCALE).min(step);
        let length = u32::try_from(piece).expect("the limit above fits");
        let begun = Instant::now();
        send_piece(main, length).await?;
        let stands_for = left.min(piece * SCALE);
        left -= stands_for;
        let due = Duration::from_millis(stands_for.saturating_mul(1000) / rate);
        if bandwidth.is_some() {
            tokio::time::sleep_until(begun + due).await;
        }
        body.report(is_switching, |progress| {
            progress.transferred = Bytes(progress.transferred.0 + stands_for);
            progress.remaining = Bytes(left);
            progress.rate = Bytes(rate);
        });
    }
    Ok(())
}

async fn send_piece(stream: &mut UnixStream, length: u32) -> io::Result<()> {
    stream.write_u8(b'D').await?;
    stream.write_u32(length).await?;
    let piece = usize::try_from(length).expect("a piece is small");
    stream.write_all(&vec![0x5a; piece]).await?;
    expect(stream, b'A').await
}

async fn take_piece(stream: &mut UnixStream) -> io::Result<()> {
    let length = stream.read_u32().await?;
    if length > PIECE_BYTES_MAX {
        return Err(wrong("a piece that is too long"));
    }
    let mut piece = vec![0; usize::try_from(length).expect("the limit above fits")];
    stream.read_exact(&mut piece).await?;
    stream.write_u8(b'A').await
}

async fn expect(stream: &mut UnixStream, wanted: u8) -> io::Result<()> {
    match stream.read_u8().await? {
        found if found == wanted => Ok(()),
        _ => Err(wrong("an unexpected answer")),
    }
}

/// Stands still where it was told to, until it is told otherwise or the channel is closed.
async fn hang(body: &Body, stage: Stage, main: &mut UnixStream) -> io::Result<()> {
    let mut told = body.hang.subscribe();
    let released = told.wait_for(|told| *told != Some(stage));
    tokio::select! {
        biased;
        _ = released => Ok(()),
        // Nothing is sent to us now, so what can be read is the end.
        _ = main.read_u8() => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

fn over(rate: Bytes, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    rate.0.saturating_mul(micros) / 1_000_000
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
