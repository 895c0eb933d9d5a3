// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The asking side.

use super::handoff::HandoffStream;
use super::socket::STAGGER;
use super::{ANSWER_MAX, ByteStream, ConnectError, RequestError, tune};
use crate::frame::{self, FRAME_BYTES_MAX, FrameReader};
use crate::identity::Identity;
use crate::tls::{self, HandshakeError, PeerStream};
use crate::wire::convert::Wire;
use crate::wire::{
    ConsoleQuery, FactsQuery, Hello, LogQuery, Opening, PeerStatus, ReportQuery, Request, Response,
    WhoOwns,
};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use whimbrel_handoff::ownership::Answer;
use whimbrel_model::id::{HostId, HostName};

/// Where a paired host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    pub host: HostId,
    pub name: HostName,
    /// In the order they are tried.
    pub addresses: Vec<SocketAddr>,
}

/// Connects to paired hosts in the name of this one.
#[derive(Clone, Debug)]
pub struct Dialer {
    identity: Arc<Identity>,
    hello: Hello,
}

impl Dialer {
    pub fn new(identity: Arc<Identity>, hello: Hello) -> Self {
        Self { identity, hello }
    }

    /// Connects to a peer at the first of its addresses that answers, and greets it.
    pub async fn connect(
        &self,
        peer: &PeerAddress,
        deadline: Duration,
    ) -> Result<Connection, ConnectError> {
        let Some(&first) = peer.addresses.first() else {
            return Err(ConnectError::NoAddress { host: peer.name.clone() });
        };
        let silent = || ConnectError::Silent {
            host: peer.name.clone(),
            address: first,
            seconds: deadline.as_secs(),
        };
        let connected = tokio::time::timeout(deadline, async {
            let stream = self.first_that_answers(peer).await?;
            Connection::greet(stream, &self.hello).await
        });
        connected.await.unwrap_or_else(|_| Err(silent()))
    }

    async fn first_that_answers(&self, peer: &PeerAddress) -> Result<PeerStream, ConnectError> {
        let mut attempts: FuturesUnordered<_> = (0u32..)
            .zip(&peer.addresses)
            .map(|(index, &address)| async move {
                tokio::time::sleep(STAGGER * index).await;
                self.try_address(peer, address).await
            })
            .collect();
        let mut told = None;
        while let Some(outcome) = attempts.next().await {
            match (outcome, &told) {
                (Ok(stream), _) => return Ok(stream),
                // Whoever answers, even to refuse, says more than an address that leads nowhere.
                (Err(error), None | Some(ConnectError::Unreachable { .. })) => told = Some(error),
                (Err(_), Some(_)) => {}
            }
        }
        Err(told.expect("there was an address"))
    }

    async fn try_address(
        &self,
        peer: &PeerAddress,
        address: SocketAddr,
    ) -> Result<PeerStream, ConnectError> {
        let host = peer.name.clone();
        let tcp = TcpStream::connect(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::ConnectionRefused => {
                ConnectError::Closed { host: host.clone(), address, source }
            }
            _ => ConnectError::Unreachable { host: host.clone(), address, source },
        })?;
        tune(&tcp);
        let connected =
            tls::connect_peer(&self.identity, peer.host, host.clone(), tcp, address).await;
        connected.map_err(|error| match error {
            HandshakeError::AnotherHost { found } => {
                ConnectError::AnotherHost { host, address, found }
            }
            HandshakeError::Tls(source) => refusal(host, source),
            source => ConnectError::Handshake { host, source },
        })
    }
}

/// Tells a peer that does not want us from a handshake that broke.
fn refusal(host: HostName, source: io::Error) -> ConnectError {
    let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied)) => {
            ConnectError::NotAllowed { host }
        }
        _ => ConnectError::Handshake { host, source: HandshakeError::Tls(source) },
    }
}

/// A greeted peer, ready for one request.
#[derive(Debug)]
pub struct Connection {
    reader: FrameReader<PeerStream>,
    host: HostName,
    hello: Hello,
}

impl Connection {
    async fn greet(mut stream: PeerStream, ours: &Hello) -> Result<Self, ConnectError> {
        let host = stream.name().clone();
        let lost = |source| match source {
            frame::FrameError::Io(source) => refusal(host.clone(), source),
            source => ConnectError::Frame { host: host.clone(), source },
        };
        frame::send(&mut stream, &ours.to_proto(), FRAME_BYTES_MAX).await.map_err(&lost)?;
        let mut reader = FrameReader::new(stream, FRAME_BYTES_MAX);
        // The peer looks at our certificate after our side of the handshake is done, so its
        // refusal arrives here.
        let theirs = reader.next().await.map_err(&lost)?.ok_or_else(|| ConnectError::Frame {
            host: host.clone(),
            source: frame::FrameError::CutShort,
        })?;
        let hello = Hello::from_proto(theirs)
            .map_err(|source| ConnectError::Nonsense { host: host.clone(), source })?;
        if ours.common_version(&hello).is_none() {
            let Hello { version_min: min, version_max: max, software, .. } = hello;
            return Err(ConnectError::Version { host, min, max, software });
        }
        Ok(Self { reader, host, hello })
    }

    /// What the peer said about itself.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The address of the peer that answered.
    pub fn address(&mut self) -> SocketAddr {
        self.reader.stream_mut().address()
    }

    pub async fn ping(mut self) -> Result<PeerStatus, RequestError> {
        match self.ask(&Request::Ping).await? {
            Response::Status(status) => Ok(status),
            _ => Err(self.off_topic()),
        }
    }

    /// Returns what the peer would find if the guest went there: facts as JSON.
    pub async fn facts(mut self, query: FactsQuery) -> Result<Vec<u8>, RequestError> {
        match self.ask(&Request::Facts(query)).await? {
            Response::Document(json) => Ok(json),
            _ => Err(self.off_topic()),
        }
    }

    pub async fn who_owns(mut self, query: WhoOwns) -> Result<Answer, RequestError> {
        match self.ask(&Request::WhoOwns(query)).await? {
            Response::Owner(answer) => Ok(answer),
            _ => Err(self.off_topic()),
        }
    }

    pub async fn guests(mut self) -> Result<Vec<u8>, RequestError> {
        match self.ask(&Request::Guests).await? {
            Response::Document(json) => Ok(json),
            _ => Err(self.off_topic()),
        }
    }

    /// Tells the peer that this host has forgotten it.
    pub async fn unpair(mut self) -> Result<(), RequestError> {
        let answer = self.ask(&Request::Unpair).await?;
        self.expect_done(answer)
    }

    /// Returns the peer's report of a migration between the two, as JSON.
    pub async fn report(mut self, query: ReportQuery) -> Result<Vec<u8>, RequestError> {
        match self.ask(&Request::Report(query)).await? {
            Response::Document(json) => Ok(json),
            _ => Err(self.off_topic()),
        }
    }

    /// Asks for the papers of every guest that the peer owns.
    pub async fn papers(mut self) -> Result<Lines, RequestError> {
        self.send(&Request::Papers).await?;
        Ok(Lines { connection: self })
    }

    pub async fn log(mut self, query: LogQuery) -> Result<Lines, RequestError> {
        self.send(&Request::Log(query)).await?;
        Ok(Lines { connection: self })
    }

    pub async fn console(self, query: ConsoleQuery) -> Result<ByteStream, RequestError> {
        self.bytes(&Request::Console(query)).await
    }

    pub(super) fn host(&self) -> &HostName {
        &self.host
    }

    /// Asks for something after which the connection carries bytes of no frame.
    pub(super) async fn bytes(mut self, request: &Request) -> Result<ByteStream, RequestError> {
        let answer = self.ask(request).await?;
        self.expect_done(answer)?;
        let (stream, first) = self.reader.into_parts();
        Ok(ByteStream { first, stream })
    }

    /// Opens the conversation about a handoff, or takes it up again.
    pub async fn handoff(mut self, opening: Opening) -> Result<HandoffStream, RequestError> {
        let answer = self.ask(&Request::Handoff(opening)).await?;
        self.expect_done(answer)?;
        Ok(HandoffStream::new(self.reader, self.host))
    }

    async fn send(&mut self, request: &Request) -> Result<(), RequestError> {
        let request = request.to_proto();
        let sent = frame::send(self.reader.stream_mut(), &request, FRAME_BYTES_MAX).await;
        sent.map_err(|source| RequestError::Lost { host: self.host.clone(), source })
    }

    async fn ask(&mut self, request: &Request) -> Result<Response, RequestError> {
        let answered = tokio::time::timeout(ANSWER_MAX, async {
            self.send(request).await?;
            self.next().await?.ok_or_else(|| RequestError::Ended { host: self.host.clone() })
        });
        let answered = answered.await;
        let silent =
            || RequestError::Silent { host: self.host.clone(), seconds: ANSWER_MAX.as_secs() };
        answered.unwrap_or_else(|_| Err(silent()))
    }

    async fn next(&mut self) -> Result<Option<Response>, RequestError> {
        let frame = self.reader.next().await;
        let host = || self.host.clone();
        let frame = frame.map_err(|source| RequestError::Lost { host: host(), source })?;
        let Some(frame) = frame else { return Ok(None) };
        let response = Response::from_proto(frame)
            .map_err(|source| RequestError::Nonsense { host: host(), source })?;
        match response {
            Response::Problem(problem) => Err(RequestError::Problem(problem)),
            response => Ok(Some(response)),
        }
    }

    fn expect_done(&self, answer: Response) -> Result<(), RequestError> {
        match answer {
            Response::Done => Ok(()),
            _ => Err(self.off_topic()),
        }
    }

    fn off_topic(&self) -> RequestError {
        RequestError::OffTopic { host: self.host.clone() }
    }
}

/// Lines of a peer's log, or papers of its guests.
#[derive(Debug)]
pub struct Lines {
    connection: Connection,
}

impl Lines {
    /// Returns the next event as JSON, or nothing when the peer has said everything.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, RequestError> {
        match self.connection.next().await? {
            Some(Response::Line(json)) => Ok(Some(json)),
            Some(Response::Done) => Ok(None),
            Some(_) => Err(self.connection.off_topic()),
            None => Err(RequestError::Ended { host: self.connection.host.clone() }),
        }
    }
}
