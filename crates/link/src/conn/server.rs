// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The answering side.

use super::handoff::HandoffStream;
use super::{ByteStream, REQUEST_MAX};
use crate::frame::{self, FRAME_BYTES_MAX, FrameError, FrameReader};
use crate::tls::PeerStream;
use crate::wire::convert::Wire;
use crate::wire::{Hello, PeerStatus, Request, Response, WireError};
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use whimbrel_handoff::ownership::Answer;
use whimbrel_model::id::{HostId, HostName};
use whimbrel_model::problem::{Kind, Problem};

/// A peer that has said what it wants.
#[derive(Debug)]
pub struct Incoming {
    pub request: Request,
    pub hello: Hello,
    pub responder: Responder,
}

/// Why a peer was not understood. It was told so.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    #[error("the peer said nothing for {} s", REQUEST_MAX.as_secs())]
    Late,
    #[error("the peer closed the connection before it asked for anything")]
    Ended,
    #[error("the peer speaks versions {min} to {max}, and this host others")]
    Version { min: u32, max: u32 },
    #[error("the peer sent no proper frame")]
    Frame(#[source] FrameError),
    #[error("the peer said something that makes no sense")]
    Nonsense(#[source] WireError),
}

impl Incoming {
    /// Greets a peer and hears what it wants.
    pub async fn receive(stream: PeerStream, ours: &Hello) -> Result<Self, IncomingError> {
        let mut responder = Responder::new(stream);
        let heard = tokio::time::timeout(REQUEST_MAX, responder.hear(ours));
        match heard.await.unwrap_or(Err(IncomingError::Late)) {
            Ok((hello, request)) => Ok(Self { request, hello, responder }),
            Err(error) => {
                let problem = Problem {
                    kind: Kind::Refused,
                    code: "peer/not-understood".to_owned(),
                    text: whimbrel_model::problem::chain(&error),
                    remedy: "install the same release on both hosts".to_owned(),
                };
                // The peer may be gone; it need not hear this.
                let _ = responder.problem(&problem).await;
                Err(error)
            }
        }
    }
}

/// Answers one request of one peer.
#[derive(Debug)]
pub struct Responder {
    reader: FrameReader<PeerStream>,
    peer: HostId,
    name: HostName,
    address: SocketAddr,
}

impl Responder {
    fn new(stream: PeerStream) -> Self {
        let (peer, name, address) = (stream.peer(), stream.name().clone(), stream.address());
        Self { reader: FrameReader::new(stream, FRAME_BYTES_MAX), peer, name, address }
    }

    pub fn peer(&self) -> HostId {
        self.peer
    }

    pub fn name(&self) -> &HostName {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    async fn hear(&mut self, ours: &Hello) -> Result<(Hello, Request), IncomingError> {
        let greeting = ours.to_proto();
        let sent = frame::send(self.reader.stream_mut(), &greeting, FRAME_BYTES_MAX);
        sent.await.map_err(IncomingError::Frame)?;
        let hello = self.frame().await?;
        let hello = Hello::from_proto(hello).map_err(IncomingError::Nonsense)?;
        if ours.common_version(&hello).is_none() {
            let (min, max) = (hello.version_min, hello.version_max);
            return Err(IncomingError::Version { min, max });
        }
        let request = self.frame().await?;
        let request = Request::from_proto(request).map_err(IncomingError::Nonsense)?;
        Ok((hello, request))
    }

    async fn frame<M: prost::Message + Default>(&mut self) -> Result<M, IncomingError> {
        self.reader.next().await.map_err(IncomingError::Frame)?.ok_or(IncomingError::Ended)
    }

    pub async fn problem(self, problem: &Problem) -> Result<(), FrameError> {
        self.last(&Response::Problem(problem.clone())).await
    }

    pub async fn status(self, status: PeerStatus) -> Result<(), FrameError> {
        self.last(&Response::Status(status)).await
    }

    /// Answers with JSON: facts, or guests.
    pub async fn document(self, json: Vec<u8>) -> Result<(), FrameError> {
        self.last(&Response::Document(json)).await
    }

    pub async fn owner(self, answer: Answer) -> Result<(), FrameError> {
        self.last(&Response::Owner(answer)).await
    }

    pub async fn done(self) -> Result<(), FrameError> {
        self.last(&Response::Done).await
    }

    /// Begins to answer with lines.
    pub fn lines(self) -> LineSink {
        LineSink { responder: self }
    }

    /// Accepts the conversation about a handoff.
    pub async fn handoff(mut self) -> Result<HandoffStream, FrameError> {
        self.say(&Response::Done).await?;
        Ok(HandoffStream::new(self.reader, self.name))
    }

    /// Accepts to be a console.
    pub async fn console(self) -> Result<ByteStream, FrameError> {
        self.bytes().await
    }

    pub(super) async fn bytes(mut self) -> Result<ByteStream, FrameError> {
        self.say(&Response::Done).await?;
        let (stream, first) = self.reader.into_parts();
        Ok(ByteStream { first, stream })
    }

    /// Accepts a conversation, and then only listens, as if the way back were cut.
    #[cfg(test)]
    pub(super) async fn be_silent_after_done(mut self) {
        self.say(&Response::Done).await.expect("the peer is there");
        while let Ok(Some(_)) = self.reader.next::<crate::proto::HandoffFrame>().await {}
    }

    async fn say(&mut self, response: &Response) -> Result<(), FrameError> {
        frame::send(self.reader.stream_mut(), &response.to_proto(), FRAME_BYTES_MAX).await
    }

    async fn last(mut self, response: &Response) -> Result<(), FrameError> {
        self.say(response).await?;
        self.reader.stream_mut().shutdown().await.map_err(FrameError::Io)
    }
}

/// Sends lines of the log to a peer.
#[derive(Debug)]
pub struct LineSink {
    responder: Responder,
}

impl LineSink {
    /// Sends one event, as JSON. Fails once the peer listens no more.
    pub async fn send(&mut self, json: Vec<u8>) -> Result<(), FrameError> {
        self.responder.say(&Response::Line(json)).await
    }

    /// Waits until the peer listens no more.
    pub async fn gone(&mut self) {
        // A peer that follows a log has nothing to say: whatever comes, it is over.
        let _ = self.responder.reader.next::<crate::proto::Request>().await;
    }

    /// Says why there will not be more.
    pub async fn problem(self, problem: &Problem) -> Result<(), FrameError> {
        self.responder.problem(problem).await
    }

    /// Says that this was everything.
    pub async fn end(self) -> Result<(), FrameError> {
        self.responder.done().await
    }
}
