// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The conversation about one handoff.
//!
//! A task of its own reads and writes, so that the driver may wait for its next message beside
//! everything else, and so that both sides keep saying that they are there while nothing happens:
//! a host that lost its power must be noticed in seconds, not when TCP gives up.

use super::RequestError;
use crate::frame::{self, FRAME_BYTES_MAX, FrameError, FrameReader};
use crate::proto;
use crate::tls::PeerStream;
use crate::wire::HandoffFrame;
use crate::wire::convert::Wire;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use whimbrel_handoff::message::Message;
use whimbrel_model::id::HostName;
use whimbrel_model::problem::Problem;

/// How often a side that has nothing to say says that it is still there.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(2);
/// How long a peer may be silent before the connection counts as lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(8);
/// Most messages that wait for the network, or for the driver.
const QUEUE_MAX: usize = 64;

/// A conversation about one handoff with one peer.
///
/// Dropping it ends the conversation, after what was sent has left.
#[derive(Debug)]
pub struct HandoffStream {
    host: HostName,
    sender: HandoffSender,
    received: mpsc::Receiver<Result<HandoffFrame, RequestError>>,
}

/// The sending half, for whoever else must speak.
#[derive(Clone, Debug)]
pub struct HandoffSender {
    host: HostName,
    frames: mpsc::Sender<HandoffFrame>,
}

impl HandoffStream {
    pub(super) fn new(reader: FrameReader<PeerStream>, host: HostName) -> Self {
        let (stream, first) = reader.into_parts();
        let (read, write) = tokio::io::split(stream);
        let reader = FrameReader::resume(read, first, FRAME_BYTES_MAX);
        let (frames, outbound) = mpsc::channel(QUEUE_MAX);
        let (inbound, received) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(pump(reader, write, host.clone(), outbound, inbound));
        let sender = HandoffSender { host: host.clone(), frames };
        Self { host, sender, received }
    }

    pub fn host(&self) -> &HostName {
        &self.host
    }

    pub fn sender(&self) -> HandoffSender {
        self.sender.clone()
    }

    /// Sends a message. It may still be lost; the machines know.
    pub async fn send(&self, message: Message) -> Result<(), RequestError> {
        self.sender.send(message).await
    }

    /// Returns what the peer says next, or nothing when it has ended the conversation. May be
    /// dropped and called again.
    pub async fn recv(&mut self) -> Result<Option<HandoffFrame>, RequestError> {
        self.received.recv().await.transpose()
    }
}

impl HandoffSender {
    pub async fn send(&self, message: Message) -> Result<(), RequestError> {
        self.send_frame(HandoffFrame::Message(message)).await
    }

    /// Tells the peer why this side will end the conversation or the attempt.
    pub async fn problem(&self, problem: Problem) -> Result<(), RequestError> {
        self.send_frame(HandoffFrame::Problem(problem)).await
    }

    async fn send_frame(&self, frame: HandoffFrame) -> Result<(), RequestError> {
        let sent = self.frames.send(frame).await;
        sent.map_err(|_| RequestError::Ended { host: self.host.clone() })
    }
}

type Inbound = mpsc::Sender<Result<HandoffFrame, RequestError>>;

async fn pump(
    reader: FrameReader<ReadHalf<PeerStream>>,
    write: WriteHalf<PeerStream>,
    host: HostName,
    outbound: mpsc::Receiver<HandoffFrame>,
    inbound: Inbound,
) {
    // Whichever half ends first ends the other: a conversation has two directions or none.
    let problem = tokio::select! {
        outcome = read_all(reader, &host, &inbound) => outcome.err(),
        outcome = write_all(write, outbound) => {
            outcome.err().map(|source| RequestError::Lost { host: host.clone(), source })
        }
    };
    if let Some(problem) = problem {
        let _ = inbound.send(Err(problem)).await;
    }
}

async fn read_all(
    mut reader: FrameReader<ReadHalf<PeerStream>>,
    host: &HostName,
    inbound: &Inbound,
) -> Result<(), RequestError> {
    loop {
        let silent = || RequestError::Silent { host: host.clone(), seconds: SILENCE_MAX.as_secs() };
        let frame = tokio::time::timeout(SILENCE_MAX, reader.next::<proto::HandoffFrame>());
        let frame = frame.await.map_err(|_| silent())?;
        let frame = frame.map_err(|source| RequestError::Lost { host: host.clone(), source })?;
        let Some(frame) = frame else { return Ok(()) };
        if matches!(frame.frame, Some(proto::handoff_frame::Frame::Alive(_))) {
            continue;
        }
        let frame = HandoffFrame::from_proto(frame)
            .map_err(|source| RequestError::Nonsense { host: host.clone(), source })?;
        if inbound.send(Ok(frame)).await.is_err() {
            // The driver listens no more. What it sent last may still be on its way.
            std::future::pending::<()>().await;
        }
    }
}

async fn write_all(
    mut write: WriteHalf<PeerStream>,
    mut outbound: mpsc::Receiver<HandoffFrame>,
) -> Result<(), FrameError> {
    let mut alive = tokio::time::interval_at(Instant::now() + ALIVE_EVERY, ALIVE_EVERY);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            biased;
            frame = outbound.recv() => match frame {
                Some(frame) => frame.to_proto(),
                None => return write.shutdown().await.map_err(FrameError::Io),
            },
            _ = alive.tick() => proto::HandoffFrame {
                frame: Some(proto::handoff_frame::Frame::Alive(proto::Alive {})),
            },
        };
        frame::send(&mut write, &frame, FRAME_BYTES_MAX).await?;
    }
}
