// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two paired hosts on loopback, each request and stream between them.

use super::*;
use crate::frame::{self, FRAME_BYTES_MAX, FrameReader};
use crate::identity::Identity;
use crate::listener::{Arrival, Doors, Limits, Listener};
use crate::proto;
use crate::tls::{Pins, Standing};
use crate::wire::convert::Wire;
use crate::wire::{ConsoleQuery, HandoffFrame, Hello, LogQuery, Opening, Request, WhoOwns};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use whimbrel_handoff::message::{Body, Message};
use whimbrel_handoff::ownership::Answer;
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId, HostName};
use whimbrel_model::problem::{Kind, Problem, Remedy};
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

const PATIENCE: Duration = Duration::from_secs(20);

/// Alpha asks, beta answers.
struct Hosts {
    alpha: Arc<Identity>,
    beta: PeerAddress,
    listener: Listener,
    arrivals: mpsc::Receiver<Arrival>,
}

struct OnlyAlpha(HostId, Standing);

impl Pins for OnlyAlpha {
    fn standing(&self, host: HostId, _from: IpAddr) -> Standing {
        if host == self.0 { self.1.clone() } else { Standing::Stranger }
    }
}

fn name(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

impl Hosts {
    async fn new() -> Self {
        Self::with(Standing::Paired(name("alpha"))).await
    }

    async fn with(standing: Standing) -> Self {
        let [alpha, beta] = [(); 2].map(|()| Arc::new(Identity::generate().unwrap()));
        let pins = Arc::new(OnlyAlpha(alpha.id(), standing));
        let (listener, arrivals) = Listener::new(beta.clone(), pins, Limits::default());
        let doors = Doors { is_open_to_peers: true, is_open_to_pairing: false };
        listener.open(&["127.0.0.1:0".parse().unwrap()], doors).await.unwrap();
        let addresses = listener.addresses();
        let beta = PeerAddress { host: beta.id(), name: name("beta"), addresses };
        Self { alpha, beta, listener, arrivals }
    }

    async fn connect_as(&self, hello: Hello) -> Result<Connection, ConnectError> {
        Dialer::new(self.alpha.clone(), hello).connect(&self.beta, PATIENCE).await
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        self.connect_as(Hello::ours(name("alpha"))).await
    }

    /// Beta hears the next request.
    async fn incoming(&mut self) -> Incoming {
        let Arrival::Peer(stream) = self.arrivals.recv().await.unwrap() else { panic!("a peer") };
        assert_eq!((stream.peer(), stream.name().as_str()), (self.alpha.id(), "alpha"));
        Incoming::receive(stream, &Hello::ours(name("beta"))).await.unwrap()
    }

    /// Connects, and keeps greeting while beta waits for the request.
    async fn both<A>(
        &mut self,
        ask: impl AsyncFnOnce(Connection) -> A,
        answer: impl AsyncFnOnce(Incoming),
    ) -> A {
        let dialer = Dialer::new(self.alpha.clone(), Hello::ours(name("alpha")));
        let beta = self.beta.clone();
        let asking = async { ask(dialer.connect(&beta, PATIENCE).await.unwrap()).await };
        let answering = async { answer(self.incoming().await).await };
        let both = async { tokio::join!(asking, answering).0 };
        tokio::time::timeout(PATIENCE, both).await.expect("this takes no time")
    }
}

fn a_guest() -> GuestId {
    GuestId(uuid::Uuid::from_u128(1))
}

fn a_problem() -> Problem {
    Problem {
        kind: Kind::Refused,
        code: "a/b".to_owned(),
        text: "no".to_owned(),
        remedy: "do".to_owned(),
    }
}

/// A question and its answer; and a problem instead of it, in the peer's own words.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered() {
    let mut hosts = Hosts::new().await;
    let query = WhoOwns { guest: a_guest(), handoff: None };
    let answer = hosts.both(
        async |connection| connection.who_owns(query).await,
        async |incoming| {
            assert_eq!(incoming.request, Request::WhoOwns(query));
            assert_eq!(incoming.hello.host_name, name("alpha"));
            incoming.responder.owner(Answer::NoRecord).await.unwrap();
        },
    );
    assert_eq!(answer.await.unwrap(), Answer::NoRecord);
    let refused = hosts.both(
        async |connection| connection.guests().await,
        async |incoming| incoming.responder.problem(&a_problem()).await.unwrap(),
    );
    let refused = refused.await;
    assert!(matches!(&refused, Err(RequestError::Problem(p)) if *p == a_problem()), "{refused:?}");
    let off_topic = hosts.both(
        async |connection| connection.ping().await,
        async |incoming| incoming.responder.done().await.unwrap(),
    );
    assert!(matches!(off_topic.await, Err(RequestError::OffTopic { .. })));
}

/// Lines come as they are sent; the end is told from a lost connection; and the sender notices a
/// listener that has gone.
#[tokio::test(flavor = "multi_thread")]
async fn lines_are_streamed() {
    let mut hosts = Hosts::new().await;
    let query = LogQuery { guest: None, since_ms: 0, follow: false };
    let lines = hosts.both(
        async |connection| {
            let mut lines = connection.log(query).await.unwrap();
            let mut all = Vec::new();
            while let Some(line) = lines.next().await.unwrap() {
                all.push(line);
            }
            all
        },
        async |incoming| {
            let mut sink = incoming.responder.lines();
            sink.send(b"1".to_vec()).await.unwrap();
            sink.send(b"2".to_vec()).await.unwrap();
            sink.end().await.unwrap();
        },
    );
    assert_eq!(lines.await, [b"1", b"2"]);
    let lost = hosts.both(
        async |connection| connection.log(query).await.unwrap().next().await,
        async |incoming| drop(incoming.responder.lines()),
    );
    assert!(lost.await.is_err());
    hosts
        .both(
            async |connection| drop(connection.log(query).await.unwrap()),
            async |incoming| incoming.responder.lines().gone().await,
        )
        .await;
}

/// A way without a limit is found to be fast; a peer that announces too much is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_is_measured() {
    let mut hosts = Hosts::new().await;
    let measured = hosts.both(
        async |connection| connection.measure(Bytes(8 << 20)).await.unwrap(),
        async |incoming| incoming.responder.measure().await.unwrap(),
    );
    assert!(measured.await > Bytes(1 << 20));
    let greedy = hosts.both(
        async |connection| {
            let mut stream = connection.bytes(&Request::Measure).await.unwrap();
            stream.write_u32(u32::MAX).await.unwrap();
            stream.flush().await.unwrap();
            stream.read_u8().await
        },
        async |incoming| assert!(incoming.responder.measure().await.is_err()),
    );
    assert!(greedy.await.is_err());
}

/// A console is bytes in both directions, also those right behind the last frame.
#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_bytes() {
    let mut hosts = Hosts::new().await;
    let query = ConsoleQuery {
        guest: a_guest(),
        takes_over: false,
        is_read_only: false,
        scrollback_bytes: None,
    };
    let heard = hosts.both(
        async |connection| {
            let mut console = connection.console(query).await.unwrap();
            console.write_all(b"typed").await.unwrap();
            console.flush().await.unwrap();
            let mut shown = vec![0; 5];
            console.read_exact(&mut shown).await.unwrap();
            console.shutdown().await.unwrap();
            shown
        },
        async |incoming| {
            let mut console = incoming.responder.console().await.unwrap();
            console.write_all(b"shown").await.unwrap();
            console.flush().await.unwrap();
            let mut typed = Vec::new();
            console.read_to_end(&mut typed).await.unwrap();
            assert_eq!(typed, b"typed");
        },
    );
    assert_eq!(heard.await, b"shown");
}

fn opening() -> Opening {
    let handoff = HandoffId(uuid::Uuid::from_u128(2));
    Opening { handoff, guest: a_guest(), epoch: Epoch(2), offer: None }
}

fn message(body: Body) -> Message {
    let Opening { handoff, guest, epoch, .. } = opening();
    Message { guest, handoff, epoch, body }
}

/// A conversation goes on in both directions, in order; what was sent before the end arrives; and
/// the other side learns of the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_is_a_conversation() {
    let mut hosts = Hosts::new().await;
    let cede = message(Body::Cede { run: Some(RunState::Paused) });
    hosts
        .both(
            async |connection| {
                let mut stream = connection.handoff(opening()).await.unwrap();
                stream.send(message(Body::WhoOwns)).await.unwrap();
                let first = stream.recv().await.unwrap();
                assert_eq!(first, Some(HandoffFrame::Message(message(Body::Accepted))));
                let second = stream.recv().await.unwrap();
                assert_eq!(second, Some(HandoffFrame::Problem(a_problem())));
                stream.sender().send(cede).await.unwrap();
            },
            async |incoming| {
                assert_eq!(incoming.request, Request::Handoff(opening()));
                let mut stream = incoming.responder.handoff().await.unwrap();
                assert_eq!(stream.host(), &name("alpha"));
                stream.send(message(Body::Accepted)).await.unwrap();
                stream.sender().problem(a_problem()).await.unwrap();
                let first = stream.recv().await.unwrap();
                assert_eq!(first, Some(HandoffFrame::Message(message(Body::WhoOwns))));
                let second = stream.recv().await.unwrap();
                assert_eq!(second, Some(HandoffFrame::Message(cede)));
                assert_eq!(stream.recv().await.unwrap(), None);
            },
        )
        .await;
}

/// A peer that is there and says nothing at all, as after a cut link, is noticed in seconds; one
/// that only has nothing to say is not taken for it.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed() {
    let began = std::time::Instant::now();
    let (mut cut, mut quiet) = (Hosts::new().await, Hosts::new().await);
    let end = cut.both(
        async |connection| {
            let mut stream = connection.handoff(opening()).await.unwrap();
            stream.recv().await
        },
        async |incoming| incoming.responder.be_silent_after_done().await,
    );
    let patience = handoff::SILENCE_MAX + Duration::from_secs(1);
    let no_end = quiet.both(
        async |connection| {
            let mut stream = connection.handoff(opening()).await.unwrap();
            tokio::time::timeout(patience, stream.recv()).await
        },
        async |incoming| {
            let mut stream = incoming.responder.handoff().await.unwrap();
            assert!(stream.recv().await.unwrap().is_none());
        },
    );
    let (end, no_end) = tokio::join!(end, no_end);
    assert!(matches!(end, Err(RequestError::Silent { .. })), "{end:?}");
    assert!(no_end.is_err(), "it is still there: {no_end:?}");
    assert!(began.elapsed() < Duration::from_secs(15));
}

/// Each way of not getting through has its own name, for the remedy.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let code = |outcome: Result<Connection, ConnectError>| outcome.unwrap_err().code();
    let refused = Hosts::with(Standing::NotAllowed(name("alpha"))).await;
    assert_eq!(code(refused.connect().await), "peer/not-allowed");
    let mut other = Hosts::new().await;
    other.beta.host = HostId([7; 32]);
    assert_eq!(code(other.connect().await), "peer/another-host");
    other.beta.addresses.clear();
    assert_eq!(code(other.connect().await), "peer/no-address");
    let closed = Hosts::new().await;
    closed.listener.open(&[], Doors::default()).await.unwrap();
    assert_eq!(code(closed.connect().await), "peer/closed");
    let mut silent = Hosts::new().await;
    // Connected by the kernel, greeted by nobody.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    silent.beta.addresses = vec![port.local_addr().unwrap()];
    let dialer = Dialer::new(silent.alpha.clone(), Hello::ours(name("alpha")));
    let short = Duration::from_millis(200);
    assert_eq!(code(dialer.connect(&silent.beta, short).await), "peer/silent");
    let mut future = Hosts::new().await;
    let hello = Hello { version_min: 8, version_max: 9, ..Hello::ours(name("alpha")) };
    let dialer = Dialer::new(future.alpha.clone(), hello);
    let beta = future.beta.clone();
    let (outcome, ()) = tokio::join!(dialer.connect(&beta, PATIENCE), async {
        let Arrival::Peer(stream) = future.arrivals.recv().await.unwrap() else { panic!() };
        let heard = Incoming::receive(stream, &Hello::ours(name("beta"))).await;
        assert!(matches!(heard, Err(IncomingError::Version { min: 8, max: 9 })), "{heard:?}");
    });
    assert_eq!(code(outcome), "peer/version");
}

/// The second address is tried while the first one does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn another_address_is_tried() {
    let mut hosts = Hosts::new().await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let real = hosts.beta.addresses[0];
    hosts.beta.addresses = vec![closed, deaf.local_addr().unwrap(), real];
    let status = hosts.both(
        async |mut connection| {
            let address = connection.address();
            (address, connection.unpair().await)
        },
        async |incoming| incoming.responder.done().await.unwrap(),
    );
    let (address, outcome) = status.await;
    assert_eq!(address, real);
    assert!(outcome.is_ok());
}

/// Of a host that refuses at one address, and has another that leads nowhere, the refusal is told.
#[tokio::test]
async fn a_refusal_says_more_than_no_route() {
    let mut hosts = Hosts::new().await;
    let nowhere: SocketAddr = "255.255.255.255:8002".parse().unwrap();
    let closed: SocketAddr = "127.0.0.1:1".parse().unwrap();
    hosts.beta.addresses = vec![nowhere, closed];
    assert_eq!(hosts.connect().await.unwrap_err().code(), "peer/closed");
}

/// A frame reader loses nothing when it is dropped in the middle of a frame.
#[tokio::test]
async fn half_a_frame_is_kept() {
    let (mut near, far) = tokio::io::duplex(1024);
    let mut reader = FrameReader::new(far, FRAME_BYTES_MAX);
    let hello = Hello::ours(name("alpha"));
    let bytes = frame::encode(&hello.to_proto(), FRAME_BYTES_MAX).unwrap();
    let (half, rest) = bytes.split_at(9);
    near.write_all(half).await.unwrap();
    let short = Duration::from_millis(20);
    assert!(tokio::time::timeout(short, reader.next::<proto::Hello>()).await.is_err());
    near.write_all(rest).await.unwrap();
    let read = reader.next::<proto::Hello>().await.unwrap().unwrap();
    assert_eq!(Hello::from_proto(read).unwrap(), hello);
    near.write_all(&[0, 0]).await.unwrap();
    drop(near);
    assert!(matches!(reader.next::<proto::Hello>().await, Err(FrameError::CutShort)));
}
