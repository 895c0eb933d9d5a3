// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The hub between a pretended engine (a unix socket) and real clients.

use super::*;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{UnixListener, UnixStream};
use whimbrel_api::console::{Frame, FrameReader};

const ROOT: Caller = Caller { uid: 0 };
const ALICE: Caller = Caller { uid: 1000 };

/// An engine that nobody has connected to yet, and the hub of its console.
struct Lab {
    directory: TempDir,
    listener: UnixListener,
    hub: Hub,
}

impl Lab {
    fn new(log: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = HubOptions {
            guest: "web1".parse().unwrap(),
            socket: directory.path().join("console.sock"),
            log: directory.path().join("console.log"),
        };
        std::fs::write(&options.log, log).unwrap();
        let listener = UnixListener::bind(&options.socket).unwrap();
        Self { directory, listener, hub: Hub::start(options) }
    }

    async fn engine(&self) -> UnixStream {
        within(self.listener.accept()).await.unwrap().0
    }

    fn client(&self, caller: Caller, query: ConsoleQuery) -> Client {
        let (reader, writer) = tokio::io::split(self.hub.open(caller, query).unwrap());
        Client { frames: FrameReader::new(reader), writer, data: Vec::new() }
    }

    fn writer(&self) -> Client {
        self.client(ROOT, ConsoleQuery::default())
    }
}

struct Client {
    frames: FrameReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
    data: Vec<u8>,
}

impl Client {
    /// Reads to the next notice and returns it; none at the end of the stream.
    async fn notice(&mut self) -> Option<Notice> {
        loop {
            match within(self.frames.next()).await.unwrap()? {
                Frame::Data(bytes) => self.data.extend_from_slice(&bytes),
                Frame::Notice(notice) => return Some(notice),
            }
        }
    }

    /// Reads until `text` was shown.
    async fn sees(&mut self, text: &str) {
        while !self.data.ends_with(text.as_bytes()) {
            match within(self.frames.next()).await.unwrap() {
                Some(Frame::Data(bytes)) => self.data.extend_from_slice(&bytes),
                other => panic!("{other:?} before `{text}`"),
            }
        }
    }

    async fn types(&mut self, text: &'static str) {
        let frame = Frame::Data(text.into()).to_bytes();
        within(self.writer.write_all(&frame)).await.unwrap();
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("no answer for 10 s")
}

async fn reads(engine: &mut UnixStream, text: &str) {
    let mut buffer = vec![0; text.len()];
    within(engine.read_exact(&mut buffer)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), text);
}

const WRITER: Option<Notice> = Some(Notice::Live { is_writer: true });
const READER: Option<Notice> = Some(Notice::Live { is_writer: false });

/// What the guest shows reaches everyone, what was shown before comes first, and only the first
/// client types.
#[tokio::test]
async fn everyone_reads_and_one_types() {
    let lab = Lab::new("from the log\n");
    let mut engine = lab.engine().await;
    let mut first = lab.writer();
    assert_eq!(first.notice().await, WRITER);
    assert_eq!(first.data, b"from the log\n");
    engine.write_all(b"login: ").await.unwrap();
    first.sees("login: ").await;

    let mut second = lab.client(ALICE, ConsoleQuery::default());
    assert_eq!(second.notice().await, READER);
    assert_eq!(second.data, b"from the log\nlogin: ");
    second.types("never").await;
    first.types("root").await;
    reads(&mut engine, "root").await;
    engine.write_all(b"# ").await.unwrap();
    first.sees("# ").await;
    second.sees("# ").await;
}

/// `force` takes over, and whoever typed before is told by whom; the place at the keyboard is free
/// again once its owner leaves.
#[tokio::test]
async fn typing_can_be_taken_over() {
    let lab = Lab::new("");
    let mut engine = lab.engine().await;
    let mut first = lab.writer();
    assert_eq!(first.notice().await, WRITER);
    let force = ConsoleQuery { force: true, ..ConsoleQuery::default() };
    let mut second = lab.client(ALICE, force);
    assert_eq!(second.notice().await, WRITER);
    assert_eq!(first.notice().await, Some(Notice::WriterLost { by_uid: 1000 }));
    first.types("never").await;
    second.types("mine").await;
    reads(&mut engine, "mine").await;

    drop(second);
    loop {
        let mut third = lab.writer();
        if third.notice().await == WRITER {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// A client that does not read is dropped and told why, while another one misses nothing.
#[tokio::test]
async fn a_slow_reader_never_blocks_the_guest() {
    let lab = Lab::new("");
    let mut engine = lab.engine().await;
    let mut slow = lab.writer();
    let mut quick = lab.client(ALICE, ConsoleQuery { read_only: true, ..ConsoleQuery::default() });
    assert_eq!(quick.notice().await, READER);

    let flood = vec![b'x'; line::READ_BYTES_MAX * (shared::QUEUE_CHUNKS_MAX + 64)];
    let writing = async {
        within(engine.write_all(&flood)).await.unwrap();
        within(engine.write_all(b"end")).await.unwrap();
    };
    tokio::join!(writing, quick.sees("end"));
    assert_eq!(quick.data.len(), flood.len() + 3);
    assert_eq!(slow.notice().await, WRITER);
    assert_eq!(slow.notice().await, Some(Notice::TooSlow));
    assert_eq!(slow.notice().await, None);
}

/// The guest's last words arrive before the news that it has moved, also for words nobody had read
/// yet; who comes later is told at once.
#[tokio::test]
async fn a_moved_guest_says_where_it_went() {
    let lab = Lab::new("");
    let mut engine = lab.engine().await;
    let mut client = lab.writer();
    assert_eq!(client.notice().await, WRITER);
    engine.write_all(b"last words").await.unwrap();
    lab.hub.moved(&"beta".parse().unwrap());
    assert_eq!(client.notice().await, Some(Notice::Moved { host: "beta".into() }));
    assert_eq!(client.data, b"last words");
    assert_eq!(client.notice().await, None);

    let problem = lab.hub.open(ROOT, ConsoleQuery::default()).unwrap_err();
    assert_eq!(problem.code, "console/ended");
    assert_eq!(problem.text, "guest `web1` has just moved to `beta`");
}

/// A lost connection to the engine is made again, and clients stay.
#[tokio::test]
async fn a_lost_engine_is_found_again() {
    let lab = Lab::new("");
    let mut client = lab.writer();
    assert_eq!(client.notice().await, WRITER);
    for text in ["one", "two"] {
        let mut engine = lab.engine().await;
        engine.write_all(text.as_bytes()).await.unwrap();
        client.sees(text).await;
    }
    lab.hub.end("it was stopped");
    assert_eq!(client.notice().await, Some(Notice::Ended { reason: "it was stopped".into() }));
}

/// The hub is gone with its last handle: the stream of a client ends without a farewell, so that it
/// comes back, and the engine is free for the next daemon.
#[tokio::test]
async fn a_dropped_hub_lets_go() {
    let lab = Lab::new("");
    let mut engine = lab.engine().await;
    let mut client = lab.writer();
    assert_eq!(client.notice().await, WRITER);
    let Lab { directory, listener, hub } = lab;
    drop(hub);
    assert_eq!(client.notice().await, None);
    assert_eq!(within(engine.read(&mut [0; 1])).await.unwrap(), 0);
    drop((directory, listener));
}

/// Clients are bounded, and a place that was left can be taken again.
#[tokio::test]
async fn clients_are_bounded() {
    let lab = Lab::new("");
    let clients: Vec<_> = (0..CLIENTS_MAX).map(|_| lab.writer()).collect();
    let problem = lab.hub.open(ROOT, ConsoleQuery::default()).unwrap_err();
    assert_eq!(problem.code, "console/too-many-clients");
    drop(clients);
    while lab.hub.open(ROOT, ConsoleQuery::default()).is_err() {
        tokio::task::yield_now().await;
    }
}

/// A link in place of the socket is not followed: what is typed must not reach another program.
#[tokio::test]
async fn a_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("elsewhere.sock");
    let listener = UnixListener::bind(&elsewhere).unwrap();
    let socket = directory.path().join("console.sock");
    std::os::unix::fs::symlink(&elsewhere, &socket).unwrap();
    let error = line::try_connect(&socket).await.unwrap_err();
    assert_eq!(error.to_string(), "the console socket is a symbolic link");
    assert!(line::try_connect(&elsewhere).await.is_ok());
    drop(listener);
}
