// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Streams of pages: whole, both ways, over links that are cut again and again.

use super::*;
use crate::carrier::config::PAGES_CONNECTIONS_MAX;
use crate::carrier::pages::JOINED_CUTS_MAX;
use crate::carrier::pages::keeper::Moved;
use whimbrel_model::id::{GuestName, HostName};
use whimbrel_page_store::blocks;
use whimbrel_pages::split::{Piece, QemuSplit, Split as _};

fn recorded() -> Vec<u8> {
    let recorded = include_bytes!("../../../../pages/tests/data/qemu-7.2-pc.qevm.zst");
    zstd::decode_all(&recorded[..]).unwrap()
}

/// A recorded stream of QEMU, and then bytes that nobody can pack: enough for many cuts.
fn stream() -> Vec<u8> {
    let mut stream = recorded();
    stream.extend_from_slice(&some_bytes(3_000_000));
    stream
}

/// Brings a stream over and an answer back, between engines that notice nothing but bytes.
async fn bring(pair: &Pair) -> (Status, Status) {
    bring_only(pair, stream()).await
}

async fn bring_only(pair: &Pair, forward: Vec<u8>) -> (Status, Status) {
    let (mut source, mut target) = pair.open().await;
    let sent = forward.clone();
    let sending = tokio::spawn(async move {
        source.write_all(&sent).await.unwrap();
        source.shutdown().await.unwrap();
        assert_eq!(read_all(&mut source).await, b"thanks");
    });
    assert!(read_all(&mut target).await == forward);
    target.write_all(b"thanks").await.unwrap();
    drop(target);
    in_time(sending).await.unwrap();
    let (source, target) = pair.until(|s, t| s.is_complete() && t.is_complete()).await;
    let digest = *blake3::hash(&forward).as_bytes();
    assert_eq!(source.channels[0].outgoing.end, Some(End::Complete { digest }));
    assert_eq!(target.channels[0].incoming.end, Some(End::Complete { digest }));
    assert_eq!(source.channels[0].outgoing.accepted_bytes, forward.len() as u64);
    (source, target)
}

/// Every byte arrives in both directions, with the digest of what was sent; the pages are found,
/// and what is not random is packed.
#[tokio::test(flavor = "multi_thread")]
async fn pages_arrive() {
    let pair = Pair::of_pages(None).await;
    let (source, _) = bring(&pair).await;
    let pages = source.channels[0].pages.unwrap();
    assert!(pages.new_pages > 50, "{pages:?}");
    assert!(source.channels[0].outgoing.wire_bytes < source.channels[0].outgoing.bytes);
    assert_eq!((source.channels[0].resumed, pages.repeat_bytes), (0, 0));
}

/// Links that are cut after so many bytes, each of them: the engines notice nothing, and of what
/// travelled little travels again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_link_is_made_again() {
    let pair = Pair::of_pages(Some(CutAfter(700_000))).await;
    let (source, target) = bring(&pair).await;
    let (resumed, pages) = (source.channels[0].resumed, source.channels[0].pages.unwrap());
    assert!(resumed >= 4, "{resumed}");
    // What had arrived, and was acknowledged, does not travel again.
    assert!(pages.repeat_bytes * 2 < pages.frame_bytes, "{pages:?} after {resumed} cuts");
    assert_eq!((source.problem, target.problem), (None, None));
}

/// An engine that wants no more says so, also to one that still writes.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_wants_no_more_pages_says_so() {
    let pair = Pair::of_pages(None).await;
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
}

/// A byte does not wait for more, in either direction.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_of_a_stream_of_pages_leaves_at_once() {
    let pair = Pair::of_pages(None).await;
    let (mut source, mut target) = pair.open().await;
    for n in 0..20u8 {
        source.write_u8(n).await.unwrap();
        assert_eq!(in_time(target.read_u8()).await.unwrap(), n);
        target.write_u8(n).await.unwrap();
        assert_eq!(in_time(source.read_u8()).await.unwrap(), n);
    }
}

/// A source whose target does not know its stream any more does not try for ever: the engines see
/// closed sockets.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_known_any_more_ends() {
    let pair = Pair::of_pages(None).await;
    let (mut source, mut target) = pair.open().await;
    source.write_all(b"abc").await.unwrap();
    in_time(target.read_exact(&mut [0; 3])).await.unwrap();
    pair.target.cut();
    assert_eq!(read_all(&mut target).await, b"");
    assert_eq!(read_all(&mut source).await, b"");
    let (source, _) = pair.until(|s, t| s.problem.is_some() && t.problem.is_some()).await;
    assert!(source.problem.unwrap().contains("no stream here"));
}

async fn keep(pair: &Pair) -> [Result<(), String>; 2] {
    let moved = Moved {
        guest: GuestName::new("web1").unwrap(),
        other: HostName::new("other").unwrap(),
        unix_ms: 1,
    };
    [pair.source.keep(moved.clone()).await, pair.target.keep(moved).await]
}

/// Ends both carrying processes.
async fn end(pair: &Pair, hosts: &Hosts) {
    pair.source.cut();
    pair.target.cut();
    for name in hosts.names {
        let socket = hosts.home.path().join(name).join("carry.sock");
        in_time(async {
            while socket.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

/// A guest goes, and comes back as it was: the pages its first host has kept do not travel again.
/// Its second host keeps them then, for the next time.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_does_not_travel_again() {
    let mut hosts = Hosts::new();
    let mut wire_bytes = Vec::new();
    for visit in 0..3 {
        let pair = Pair::of_hosts(&hosts, None, Some(1 << 30)).await;
        let (source, _) = bring_only(&pair, recorded()).await;
        let (held, pages) = (source.channels[0].held_pages, source.channels[0].pages.unwrap());
        match visit {
            0 => assert!(held == 0 && pages.new_pages > 50, "{held} {pages:?}"),
            _ => assert!(held > 50 && pages.new_pages == 0, "{held} {pages:?}"),
        }
        wire_bytes.push(source.channels[0].outgoing.wire_bytes);
        assert_eq!(keep(&pair).await, [Ok(()), Ok(())]);
        end(&pair, &hosts).await;
        hosts = hosts.back();
    }
    assert!(wire_bytes[1] * 3 < wire_bytes[0], "{wire_bytes:?}");
}

/// Damage to what was kept, or none of it, or a host that may not keep: the guest comes whole.
#[tokio::test(flavor = "multi_thread")]
async fn damage_to_what_was_kept_costs_only_bytes() {
    for harm in ["flips", "cut", "gone", "limit", "other key"] {
        let there = Hosts::new();
        let limit = if harm == "limit" { 1000 } else { 1 << 30 };
        let pair = Pair::of_hosts(&there, None, Some(limit)).await;
        bring_only(&pair, recorded()).await;
        let [kept, known] = keep(&pair).await;
        assert_eq!((kept.is_ok(), known), (harm != "limit", Ok(())), "{harm}");
        end(&pair, &there).await;
        let image = there.home.path().join("alpha/pages/image");
        let length = std::fs::metadata(&image).map_or(0, |image| image.len());
        match harm {
            // The blocks of pages come first; the list of them is needed to lose some only.
            "flips" => flip(&image, (100..length / 2).step_by(2000)),
            "cut" => std::fs::File::options()
                .write(true)
                .open(image)
                .and_then(|file| file.set_len(length / 2))
                .unwrap(),
            "gone" => std::fs::remove_file(image).unwrap(),
            "other key" => flip(&there.home.path().join("beta/pages/held"), [70].into_iter()),
            _ => assert_eq!(length, 0),
        }
        let back = there.back();
        let pair = Pair::of_hosts(&back, None, None).await;
        let (source, target) = bring_only(&pair, recorded()).await;
        assert_eq!((source.problem, target.problem), (None, None), "{harm}");
        let is_used = source.channels[0].held_pages > 0;
        assert_eq!(is_used, harm == "flips", "{harm}");
        end(&pair, &back).await;
    }
}

fn flip(path: &Path, places: impl Iterator<Item = u64>) {
    let mut bytes = std::fs::read(path).unwrap();
    places.for_each(|place| bytes[usize::try_from(place).unwrap()] ^= 1);
    std::fs::write(path, bytes).unwrap();
}

/// Without the word that the guest has moved, nothing of it stays.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_of_a_guest_that_stayed() {
    let hosts = Hosts::new();
    let pair = Pair::of_hosts(&hosts, None, Some(1 << 30)).await;
    bring_only(&pair, recorded()).await;
    end(&pair, &hosts).await;
    for name in hosts.names {
        let folder = hosts.home.path().join(name).join("pages");
        let left = std::fs::read_dir(folder).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{name}");
    }
}

/// What lies on the guest's disk travels as a reference; where the disk has changed, or is another
/// one, or nobody has made an index, the pages travel.
#[tokio::test(flavor = "multi_thread")]
async fn what_lies_on_the_disk_does_not_travel() {
    let mut disk = Vec::new();
    QemuSplit::default().push(&recorded(), &mut |piece| {
        if let Piece::Page { page, .. } = piece {
            disk.extend_from_slice(page);
        }
    });
    for case in ["same", "changed", "shorter", "no index"] {
        let hosts = Hosts::new();
        let [alpha, beta] = hosts.names.map(|name| hosts.home.path().join(name).join("disk"));
        std::fs::write(&alpha, &disk).unwrap();
        std::fs::write(&beta, &disk).unwrap();
        match case {
            "changed" => flip(&beta, (0..disk.len() as u64).step_by(60_000)),
            "shorter" => std::fs::write(&beta, &disk[4096..]).unwrap(),
            _ => {}
        }
        let index = hosts.home.path().join("alpha/index");
        if case != "no index" {
            let disks = blocks::Disks::open(&[alpha]).unwrap();
            assert!(blocks::make(&index, &disks, |_| {}).unwrap() > 50);
        }
        let pair = Pair::on_way(&hosts, 1, None, |folder| {
            let disks = Disks { paths: vec![folder.join("disk")], index: folder.join("index") };
            Way::Pages(Pages {
                folder: folder.join("pages"),
                image_bytes_max: None,
                is_reused: true,
                link_bytes_per_s: None,
                connections: 1,
                disks: Some(disks),
                is_patient: false,
                has_urgent_channel: false,
            })
        })
        .await;
        let (source, target) = bring_only(&pair, recorded()).await;
        assert_eq!((source.problem, target.problem), (None, None), "{case}");
        let pages = source.channels[0].pages.unwrap();
        match case {
            "same" => assert!(pages.block_pages > 50 && pages.new_pages == 0, "{pages:?}"),
            "changed" => assert!(pages.block_pages > 50 && pages.repeat_bytes > 4096, "{pages:?}"),
            _ => assert!(pages.block_pages == 0 && pages.new_pages > 50, "{case}: {pages:?}"),
        }
        end(&pair, &hosts).await;
    }
}

/// Whose source wants so many connections.
async fn over(connections: u32, fate: Fate) -> Pair {
    with_patience(connections, fate, false).await
}

async fn with_patience(connections: u32, fate: Fate, is_patient: bool) -> Pair {
    Pair::on_way(&Hosts::new(), 1, fate, |folder| {
        Way::Pages(Pages {
            folder: folder.join("pages"),
            image_bytes_max: None,
            is_reused: true,
            link_bytes_per_s: None,
            connections,
            disks: None,
            is_patient,
            has_urgent_channel: false,
        })
    })
    .await
}

/// In post-copy the source's engine would not come back from a stream that ends: where the target's
/// engine goes, that is for the daemons to see.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_that_may_have_to_come_back_sees_no_end() {
    let pair = with_patience(1, Fate::Whole, true).await;
    let (mut source, target) = pair.open().await;
    drop(target);
    source.write_all(b"a page").await.unwrap();
    let (status, _) = pair.until(|s, _| s.is_finished).await;
    assert_eq!(status.channels[0].outgoing.end, Some(End::Stopped));
    let nothing = source.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    in_time(source.write_all(&some_bytes(4 << 20))).await.unwrap();
}

/// Batches are dealt to several connections, and arrive in order; more than there may be are not
/// made.
#[tokio::test(flavor = "multi_thread")]
async fn pages_travel_over_several_connections() {
    for (asked, made) in [(2, 2), (99, PAGES_CONNECTIONS_MAX)] {
        let pair = over(asked, Fate::Whole).await;
        let (mut source, mut target) = pair.open().await;
        let is_made = |s: &Status| s.channels.first().is_some_and(|c| c.connections == made);
        pair.until(|s, t| is_made(s) && is_made(t)).await;
        let forward = stream();
        let sent = forward.clone();
        let sending = tokio::spawn(async move {
            source.write_all(&sent).await.unwrap();
            source.shutdown().await.unwrap();
            assert_eq!(read_all(&mut source).await, b"thanks");
        });
        assert!(read_all(&mut target).await == forward);
        target.write_all(b"thanks").await.unwrap();
        drop(target);
        in_time(sending).await.unwrap();
        let (source, _) = pair.until(|s, t| s.is_complete() && t.is_complete()).await;
        let channel = &source.channels[0];
        assert_eq!((channel.resumed, channel.pages.unwrap().repeat_bytes), (0, 0));
    }
}

/// Where another connection cannot be made, the stream goes on over one.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_does_where_others_cannot_be_made() {
    let whole = CutAfter(usize::MAX);
    // What joins is cut in its handshake.
    let pair = over(3, Fate::Cut(vec![whole, CutAfter(300), whole])).await;
    let (source, target) = bring(&pair).await;
    assert_eq!((source.channels[0].connections, target.channels[0].connections), (1, 1));
    assert_eq!(source.channels[0].resumed, 0);
}

/// A path that kills every second connection, and with it the first: after some cuts the stream
/// does without.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_does_where_others_cannot_live() {
    let whole = CutAfter(usize::MAX);
    let cuts = [whole, CutAfter(2000)].into_iter().cycle().take(20).collect();
    let pair = over(2, Fate::Cut(cuts)).await;
    let (mut source, mut target) = pair.open().await;
    let reading = tokio::spawn(async move { read_all(&mut target).await.len() });
    let noise = some_bytes(1 << 20);
    let mut written = 0;
    // What joins dies of what is dealt to it.
    let is_joined = |s: Status| s.channels.first().is_none_or(|c| c.resumed < JOINED_CUTS_MAX);
    while is_joined(pair.source.status()) {
        in_time(source.write_all(&noise)).await.unwrap();
        written += noise.len();
    }
    for _ in 0..8 {
        in_time(source.write_all(&noise)).await.unwrap();
        written += noise.len();
    }
    drop(source);
    assert_eq!(reading.await.unwrap(), written);
    let (source, _) = pair.until(|s, t| s.is_finished && t.is_finished).await;
    assert_eq!(source.channels[0].resumed, JOINED_CUTS_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whichever connections are cut, and wherever, in the handshake or behind it: every byte
    /// arrives in both directions, and nothing gets stuck.
    #[test]
    fn cuts_of_any_connection_are_survived(
        connections in 2..4u32,
        cuts in proptest::collection::vec(
            prop_oneof![0usize..6000, 6000usize..1_500_000], 1..12,
        ),
    ) {
        runtime().block_on(async {
            let cuts = cuts.into_iter().map(CutAfter).chain([CutAfter(usize::MAX)]);
            // The first opens the stream: without it there is none, and that is told elsewhere.
            let cuts = [CutAfter(400_000)].into_iter().chain(cuts).collect();
            let pair = over(connections, Fate::Cut(cuts)).await;
            let (source, target) = bring(&pair).await;
            prop_assert_eq!((source.problem, target.problem), (None, None));
            Ok(())
        })?;
    }
}
