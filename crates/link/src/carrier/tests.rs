// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two carrying processes, in one process, on loopback, between engines that are plain sockets.

mod hostile;
mod pages;
mod urgent;

use super::config::{Config, Disks, Meet, Pages, Side, Way};
use super::process::Carrier;
use super::status::{End, Status};
use crate::identity::Identity;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use whimbrel_model::id::HandoffId;

const PATIENCE: Duration = Duration::from_secs(20);

/// Both sides, and the path of each engine's socket.
struct Pair {
    source: Arc<Carrier>,
    target: Arc<Carrier>,
    source_engine: PathBuf,
    /// What the target's engine listens on.
    target_engine: UnixListener,
    /// The bytes that the link may carry from the source before it is cut.
    _home: Arc<tempfile::TempDir>,
}

/// Two hosts, in the order in which a guest goes.
struct Hosts {
    home: Arc<tempfile::TempDir>,
    names: [&'static str; 2],
    is_again: bool,
}

impl Hosts {
    fn new() -> Self {
        let home = Arc::new(tempfile::tempdir().unwrap());
        let names = ["alpha", "beta"];
        names.iter().for_each(|name| std::fs::create_dir(home.path().join(name)).unwrap());
        Self { home, names, is_again: false }
    }

    /// The way back.
    fn back(&self) -> Self {
        let [alpha, beta] = self.names;
        Self { home: self.home.clone(), names: [beta, alpha], is_again: false }
    }
}

/// Where each link is cut: after so many bytes from the source.
#[derive(Clone, Copy)]
struct CutAfter(usize);

/// What befalls links, in the order in which they are made; the last befalls all that follow.
#[derive(Clone)]
enum Fate {
    Whole,
    Cut(Vec<CutAfter>),
}

impl From<Option<CutAfter>> for Fate {
    fn from(cut: Option<CutAfter>) -> Self {
        cut.map_or(Fate::Whole, |cut| Fate::Cut(vec![cut]))
    }
}

impl Pair {
    async fn new(connections: u32, cut: Option<CutAfter>) -> Self {
        Self::on_way(&Hosts::new(), connections, cut, |_| Way::Tunnel).await
    }

    /// One channel, whose pages are looked for.
    async fn of_pages(cut: Option<CutAfter>) -> Self {
        Self::of_hosts(&Hosts::new(), cut, None).await
    }

    /// The same, between certain hosts, which may keep so much.
    async fn of_hosts(hosts: &Hosts, cut: Option<CutAfter>, image_bytes_max: Option<u64>) -> Self {
        Self::on_way(hosts, 1, cut, |folder| {
            Way::Pages(Pages {
                folder: folder.join("pages"),
                image_bytes_max,
                is_reused: true,
                disks: None,
                is_patient: false,
                has_urgent_channel: false,
                link_bytes_per_s: None,
                connections: 1,
            })
        })
        .await
    }

    async fn on_way(
        hosts: &Hosts,
        connections: u32,
        fate: impl Into<Fate>,
        way: impl Fn(&Path) -> Way,
    ) -> Self {
        let paths = hosts.names.map(|name| hosts.home.path().join(name));
        let [alpha, beta] =
            [0, 1].map(|i| Identity::load_or_create(&paths[i].join("identity")).unwrap());
        let handoff = HandoffId(uuid::Uuid::new_v4());
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = port.local_addr().unwrap();
        let [source_engine, target_engine] = [0, 1].map(|i| paths[i].join("engine.sock"));
        let config = |peer: &Identity, side, engine, path: &Path| Config {
            handoff,
            identity: PathBuf::new(),
            peer: peer.id(),
            side,
            engine,
            connections,
            bandwidth: None,
            way: way(path),
            is_again: hosts.is_again,
        };
        let meet = Meet::Listen { path: source_engine.clone(), owner: None };
        let source = config(&beta, Side::Source { addresses: vec![address] }, meet, &paths[0]);
        let target = config(&alpha, Side::Target, Meet::Connect(target_engine.clone()), &paths[1]);
        let source = Carrier::new(source, alpha, &paths[0]);
        let target = Carrier::new(target, beta, &paths[1]);
        let _ = std::fs::remove_file(&target_engine);
        let listener = UnixListener::bind(&target_engine).unwrap();
        for carrier in [&source, &target] {
            let (ready, is_ready) = tokio::sync::oneshot::channel();
            tokio::spawn(carrier.clone().run(move || {
                let _ = ready.send(());
                Ok(())
            }));
            is_ready.await.unwrap();
        }
        tokio::spawn(hand_over(port, target.clone(), fate.into()));
        let _home = hosts.home.clone();
        Self { source, target, source_engine, target_engine: listener, _home }
    }

    /// Opens the next channel, and returns the engines' ends.
    async fn open(&self) -> (UnixStream, UnixStream) {
        let source = UnixStream::connect(&self.source_engine).await.unwrap();
        let (target, _) = in_time(self.target_engine.accept()).await.unwrap();
        (source, target)
    }

    async fn until(&self, holds: impl Fn(&Status, &Status) -> bool) -> (Status, Status) {
        in_time(async {
            loop {
                let (source, target) = (self.source.status(), self.target.status());
                if holds(&source, &target) {
                    return (source, target);
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
    }
}

/// What the daemon of the target does, with links that may be cut.
async fn hand_over(port: TcpListener, target: Arc<Carrier>, fate: Fate) {
    for number in 0.. {
        let (outer, _) = port.accept().await.unwrap();
        match &fate {
            Fate::Whole => target.adopt(outer.into_std().unwrap()),
            Fate::Cut(cuts) => {
                let cut = cuts[cuts.len().min(number + 1) - 1];
                let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let near = TcpStream::connect(inner.local_addr().unwrap()).await.unwrap();
                target.adopt(inner.accept().await.unwrap().0.into_std().unwrap());
                tokio::spawn(cut_after(outer, near, cut));
            }
        }
    }
}

async fn cut_after(outer: TcpStream, near: TcpStream, CutAfter(mut left): CutAfter) {
    let (mut from_source, mut to_source) = outer.into_split();
    let (mut from_target, mut to_target) = near.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_target, &mut to_source).await;
    });
    let mut buffer = vec![0; 4096];
    while left > 0 {
        let most = left.min(buffer.len());
        match from_source.read(&mut buffer[..most]).await {
            Ok(length) if length > 0 => {
                left -= length;
                to_target.write_all(&buffer[..length]).await.unwrap();
            }
            _ => break,
        }
    }
    back.abort();
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes no time")
}

fn some_bytes(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

async fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    in_time(stream.read_to_end(&mut bytes)).await.unwrap();
    bytes
}

/// A migration of three channels: everything arrives in order, both ways, each side hears of the
/// end the other has made, the digests are equal, and the processes end when they are told.
#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives() {
    let pair = Pair::new(3, None).await;
    let forward = some_bytes(5_000_000);
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let (mut source, mut target) = pair.open().await;
        let bytes = forward.clone();
        tasks.push(tokio::spawn(async move {
            source.write_all(&bytes).await.unwrap();
            source.shutdown().await.unwrap();
            assert_eq!(read_all(&mut source).await, b"thanks");
        }));
        let expected = forward.clone();
        tasks.push(tokio::spawn(async move {
            assert!(read_all(&mut target).await == expected);
            target.write_all(b"thanks").await.unwrap();
        }));
    }
    for task in tasks {
        in_time(task).await.unwrap();
    }
    let (source, target) = pair.until(|s, t| s.is_complete() && t.is_complete()).await;
    assert!(source.has_sent_everything() && target.has_received_everything());
    let digest = *blake3::hash(&forward).as_bytes();
    for channel in [&source.channels[1].outgoing, &target.channels[1].incoming] {
        assert_eq!(channel.end, Some(End::Complete { digest }));
        assert_eq!((channel.bytes, channel.accepted_bytes), (5_000_000, 5_000_000));
        assert!(channel.wire_bytes > 5_000_000);
    }
    assert_eq!(source.channels[0].incoming.bytes, 6);
}

/// A half-closed channel still carries the other direction, and a byte does not wait for more.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_leaves_at_once_and_half_closes_are_carried() {
    let pair = Pair::new(1, None).await;
    let (mut source, mut target) = pair.open().await;
    let began = std::time::Instant::now();
    for n in 0..100u8 {
        source.write_u8(n).await.unwrap();
        assert_eq!(in_time(target.read_u8()).await.unwrap(), n);
        target.write_u8(n).await.unwrap();
        assert_eq!(in_time(source.read_u8()).await.unwrap(), n);
    }
    // Each way would wait for a timer, if there were one: 200 of them.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    source.shutdown().await.unwrap();
    assert_eq!(in_time(target.read(&mut [0])).await.unwrap(), 0);
    target.write_all(b"more").await.unwrap();
    target.shutdown().await.unwrap();
    assert_eq!(read_all(&mut source).await, b"more");
}

/// Both engines write far more than any buffer and read only afterwards, one after the other:
/// an acknowledgement or the other direction stuck behind data would be a deadlock.
#[tokio::test(flavor = "multi_thread")]
async fn directions_do_not_wait_for_each_other() {
    let pair = Pair::new(1, None).await;
    let (mut source, mut target) = pair.open().await;
    // As much as fits is written, and nobody reads it.
    let chunk = vec![7; 64 << 10];
    let mut forward = 0;
    while let Ok(outcome) =
        tokio::time::timeout(Duration::from_millis(300), source.write(&chunk)).await
    {
        forward += outcome.unwrap();
    }
    // Memory is bounded, ...
    assert!(forward < 12 << 20, "{forward}");
    // ... and the other direction works all the same.
    let back = some_bytes(3_000_000);
    let sent = back.clone();
    let (received, ()) = tokio::join!(
        async {
            let mut received = vec![0; back.len()];
            in_time(source.read_exact(&mut received)).await.unwrap();
            received
        },
        async { target.write_all(&sent).await.unwrap() },
    );
    assert!(received == back);
    source.shutdown().await.unwrap();
    assert_eq!(read_all(&mut target).await.len(), forward);
}

/// An engine that closes its socket while the other still writes: the other learns it as from a
/// socket of its own, and nobody calls it a cut link.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_wants_no_more_says_so() {
    let pair = Pair::new(1, None).await;
    let (mut source, target) = pair.open().await;
    drop(target);
    let chunk = vec![7; 64 << 10];
    let error = in_time(async {
        loop {
            if let Err(error) = source.write_all(&chunk).await {
                return error;
            }
        }
    });
    assert_eq!(error.await.kind(), std::io::ErrorKind::BrokenPipe);
    drop(source);
    let (source, target) = pair.until(|s, t| s.is_finished && t.is_finished).await;
    assert_eq!(source.channels[0].outgoing.end, Some(End::Stopped));
    assert_eq!(target.channels[0].incoming.end, Some(End::Stopped));
    assert_eq!((source.problem, target.problem), (None, None));
}

/// The daemon's kill switch: both engines see closed sockets, on both hosts.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_ends_both_engines() {
    let pair = Pair::new(2, None).await;
    let (mut source, mut target) = pair.open().await;
    source.write_all(b"abc").await.unwrap();
    in_time(target.read_exact(&mut [0; 3])).await.unwrap();
    pair.source.cut();
    assert_eq!(read_all(&mut source).await, b"");
    assert_eq!(read_all(&mut target).await, b"");
    let (source, target) = pair.until(|s, t| s.problem.is_some() && t.problem.is_some()).await;
    assert!(!source.is_complete() && !target.is_complete());
}

/// An engine that has lost its channels before is waited for only once there is a link to the other
/// engine; and where there is none, that is known without having asked it.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_comes_again_is_given_a_way_that_leads_somewhere() {
    let hosts = Hosts { is_again: true, ..Hosts::new() };
    let pair = Pair::on_way(&hosts, 1, None, |_| Way::Tunnel).await;
    let (mut target, _) = in_time(pair.target_engine.accept()).await.unwrap();
    pair.until(|source, _| source.is_linked && source.channels.is_empty()).await;
    let mut source = UnixStream::connect(&pair.source_engine).await.unwrap();
    source.write_all(b"abc").await.unwrap();
    in_time(target.read_exact(&mut [0; 3])).await.unwrap();

    let hosts = Hosts { is_again: true, ..Hosts::new() };
    let pair = Pair::on_way(&hosts, 1, Some(CutAfter(0)), |_| Way::Tunnel).await;
    let (source, _) = pair.until(|source, _| source.problem.is_some()).await;
    assert!(!source.is_linked);
}

/// The limit holds for both channels together.
#[tokio::test(flavor = "multi_thread")]
async fn the_bandwidth_is_limited() {
    let pair = Pair::new(2, None).await;
    pair.source.set_bandwidth(Some(4_000_000));
    let began = std::time::Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..2 {
        let (mut source, mut target) = pair.open().await;
        tasks.push(tokio::spawn(async move {
            source.write_all(&vec![1; 1_000_000]).await.unwrap();
            source.shutdown().await.unwrap();
            std::mem::forget(source);
        }));
        tasks.push(tokio::spawn(async move {
            assert_eq!(read_all(&mut target).await.len(), 1_000_000);
        }));
    }
    for task in tasks {
        in_time(task).await.unwrap();
    }
    assert!(began.elapsed() > Duration::from_millis(400), "{:?}", began.elapsed());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Wherever the link is cut, in the handshake or behind it: both engines see closed sockets,
    /// what arrived is a prefix of what was sent, and neither side takes it for complete.
    #[test]
    fn a_cut_at_any_byte_ends_both_engines(cut in prop_oneof![0usize..6000, 6000usize..400_000]) {
        runtime().block_on(async {
            let pair = Pair::new(1, Some(CutAfter(cut))).await;
            let sent = some_bytes(500_000);
            let mut source = UnixStream::connect(&pair.source_engine).await.unwrap();
            let bytes = sent.clone();
            let writer = tokio::spawn(async move {
                // Ends with an error, or because everything fitted into buffers.
                let _ = source.write_all(&bytes).await;
                let mut rest = Vec::new();
                let _ = source.read_to_end(&mut rest).await;
                rest
            });
            let reader = async {
                // The cut may come before the target's engine was ever connected.
                let mut received = Vec::new();
                tokio::select! {
                    accepted = pair.target_engine.accept() => {
                        let _ = accepted.unwrap().0.read_to_end(&mut received).await;
                    }
                    _ = pair.until(|s, t| s.problem.is_some() && t.channels.is_empty()) => {}
                }
                received
            };
            let received = in_time(reader).await;
            prop_assert_eq!(in_time(writer).await.unwrap(), b"");
            prop_assert!(sent.starts_with(&received));
            let (source, target) = pair.until(|s, _| s.problem.is_some()).await;
            prop_assert!(!source.has_sent_everything());
            prop_assert!(!target.has_received_everything());
            Ok(())
        })?;
    }
}
