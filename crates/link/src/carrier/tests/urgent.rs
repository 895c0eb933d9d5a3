// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The urgent channel beside a stream of pages.

use super::*;

fn pages(folder: &Path, has_urgent_channel: bool) -> Way {
    Way::Pages(Pages {
        folder: folder.join("pages"),
        image_bytes_max: None,
        is_reused: false,
        link_bytes_per_s: None,
        connections: 1,
        disks: None,
        is_patient: false,
        has_urgent_channel,
    })
}

async fn with_urgent(fate: Fate) -> Pair {
    Pair::on_way(&Hosts::new(), 1, fate, |folder| pages(folder, true)).await
}

/// What an engine in post-copy does: the stream of pages is stuck, because the target's engine does
/// not read it, and what the guest waits for passes it. Both arrive whole in the end.
#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_stand_behind_the_others() {
    let pair = with_urgent(Fate::Whole).await;
    let (mut source, mut target) = pair.open().await;
    let (mut urgent_source, mut urgent_target) = pair.open().await;
    let many = some_bytes(30_000_000);
    let sent = many.clone();
    let sending = tokio::spawn(async move {
        source.write_all(&sent).await.unwrap();
        source.shutdown().await.unwrap();
        read_all(&mut source).await
    });
    pair.until(|source, _| source.channels[0].outgoing.bytes > 64 << 10).await;
    for n in 0..20u8 {
        urgent_source.write_u8(n).await.unwrap();
        assert_eq!(in_time(urgent_target.read_u8()).await.unwrap(), n);
    }
    assert!(!sending.is_finished());
    assert!(read_all(&mut target).await == many);
    target.shutdown().await.unwrap();
    urgent_source.shutdown().await.unwrap();
    assert_eq!(read_all(&mut urgent_target).await, b"");
    drop(urgent_target);
    in_time(sending).await.unwrap();
    let (source, target) = pair.until(|s, t| s.is_complete() && t.is_complete()).await;
    assert_eq!(source.urgent.unwrap().outgoing.bytes, 20);
    assert_eq!(target.urgent.unwrap().incoming.accepted_bytes, 20);
}

/// An engine that has not come to need it does without, and all that is said of its end holds.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_need_not_connect_it() {
    let pair = with_urgent(Fate::Whole).await;
    let (mut source, mut target) = pair.open().await;
    source.write_all(b"abc").await.unwrap();
    source.shutdown().await.unwrap();
    assert_eq!(read_all(&mut target).await, b"abc");
    target.shutdown().await.unwrap();
    let (source, target) = pair.until(|s, t| s.is_complete() && t.is_complete()).await;
    assert_eq!((source.urgent, target.urgent), (None, None));
    assert!(source.is_finished && target.is_finished);
}

/// A target that was told of none says so, and the engines see closed sockets.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_opened_only_where_both_were_told() {
    let told = |folder: &Path| pages(folder, folder.ends_with("alpha"));
    let pair = Pair::on_way(&Hosts::new(), 1, None, told).await;
    let (mut source, mut target) = pair.open().await;
    let mut urgent = UnixStream::connect(&pair.source_engine).await.unwrap();
    for engine in [&mut urgent, &mut source] {
        assert_eq!(read_all(engine).await, b"");
    }
    let (source, _) = pair.until(|source, _| source.problem.is_some()).await;
    assert!(source.problem.unwrap().contains("told of no urgent channel"));
    pair.target.cut();
    assert_eq!(read_all(&mut target).await, b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Wherever its connection is cut, in the handshake or behind it: the engines notice nothing,
    /// and every byte arrives once.
    #[test]
    fn its_cuts_are_survived(
        cuts in proptest::collection::vec(
            prop_oneof![0usize..6000, 6000usize..400_000], 1..8,
        ),
    ) {
        runtime().block_on(async {
            let whole = CutAfter(usize::MAX);
            // The first is that of the pages.
            let cuts = [whole].into_iter().chain(cuts.into_iter().map(CutAfter)).chain([whole]);
            let pair = with_urgent(Fate::Cut(cuts.collect())).await;
            let (_source, _target) = pair.open().await;
            let mut urgent = UnixStream::connect(&pair.source_engine).await.unwrap();
            let forward = some_bytes(1_000_000);
            let sent = forward.clone();
            let sending = tokio::spawn(async move {
                urgent.write_all(&sent).await.unwrap();
                urgent.shutdown().await.unwrap();
                read_all(&mut urgent).await
            });
            let (mut target, _) = in_time(pair.target_engine.accept()).await.unwrap();
            prop_assert!(read_all(&mut target).await == forward);
            drop(target);
            prop_assert!(in_time(sending).await.unwrap().is_empty());
            let (source, target) = (pair.source.status(), pair.target.status());
            prop_assert_eq!((source.problem, target.problem), (None, None));
            Ok(())
        })?;
    }
}
