// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Post-copy between two real QEMUs. The guest writes to half a megabyte of its memory without a
//! pause, and checks every page that it comes back to.

use crate::bench::{Bench, Kind, Limits, Wire, options, until, within};
use crate::qemu_only::boot_disk;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use whimbrel_engine::{EngineError, Instance, Migration, MigrationOptions, Start, Tuning};
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

/// Counts in one word of each page from 128 KiB to 576 KiB, and says `!` on the serial line with
/// every 4096th round. Says `X` for ever once a page is not what it left there.
const COUNTS_IN_PAGES: [u8; 69] = [
    0x31, 0xc9, 0xb8, 0x00, 0x20, 0x8e, 0xc0, 0x26, 0x89, 0x0e, 0x00, 0x00, 0x05, 0x00, 0x01, 0x3d,
    0x00, 0x90, 0x72, 0xf1, 0xb8, 0x00, 0x20, 0x8e, 0xc0, 0x26, 0x39, 0x0e, 0x00, 0x00, 0x75, 0x1c,
    0x26, 0xff, 0x06, 0x00, 0x00, 0x05, 0x00, 0x01, 0x3d, 0x00, 0x90, 0x72, 0xea, 0x41, 0xf7, 0xc1,
    0xff, 0x0f, 0x75, 0xe0, 0xb0, 0x21, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xd8, 0xb0, 0x58, 0xba, 0xf8,
    0x03, 0xee, 0xf4, 0xeb, 0xf7,
];

/// So slow that most pages are missing when the guest arrives.
const SLOW: Tuning = Tuning {
    bandwidth: Some(Bytes(64 << 10)),
    pause_max: Duration::from_millis(1),
    throttle_percent: 0,
};

/// Without and with a channel for the pages that the guest waits for.
const WAYS: [bool; 2] = [false, true];

fn postcopy_options(has_urgent_channel: bool) -> MigrationOptions {
    MigrationOptions { may_postcopy: true, has_urgent_channel, tuning: SLOW, ..options() }
}

struct Halves {
    bench: Bench,
    source: Arc<dyn Instance>,
    target: Arc<dyn Instance>,
    wire: Wire,
}

fn is_postcopy(migration: &Migration) -> bool {
    assert!(!matches!(migration, Migration::Failed { .. } | Migration::Cancelled), "{migration:?}");
    matches!(migration, Migration::PostCopy(_))
}

fn is_interrupted(migration: &Migration) -> bool {
    matches!(migration, Migration::Interrupted(_))
}

fn is_completed(migration: &Migration) -> bool {
    assert!(!matches!(migration, Migration::Failed { .. } | Migration::Cancelled), "{migration:?}");
    matches!(migration, Migration::Completed(_))
}

/// Waits until the guest has said more than it had.
async fn until_it_counts_on(directory: &Path) {
    let path = directory.join("console.log");
    let said = || std::fs::read(&path).unwrap_or_default();
    let before = said().len();
    within("the guest to count on", async {
        while said().len() <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(!said().contains(&b'X'), "a page is not what the guest left in it");
}

/// Moves a guest until both halves of it stand still.
async fn halves(has_urgent_channel: bool) -> Option<Halves> {
    let postcopy_options = postcopy_options(has_urgent_channel);
    let bench = Bench::new(Kind::Qemu).await?;
    let disk = boot_disk(&bench, &COUNTS_IN_PAGES);
    let defined = bench.define(|guest| guest.disks.push(disk)).await;
    let source = bench.launch(&defined, "alpha", Start::Boot).await;
    source.resume().await.unwrap();
    until_it_counts_on(&bench.directory("alpha")).await;
    let target = bench.launch(&defined, "beta", Start::Incoming).await;
    let listening = match target.receive(postcopy_options.clone()).await {
        Ok(listening) => listening,
        Err(EngineError::Refused { reason, .. }) if reason.contains("Postcopy") => {
            eprintln!("SKIPPED: {reason}");
            source.destroy().await.unwrap();
            target.destroy().await.unwrap();
            return None;
        }
        Err(EngineError::Unsupported { what }) if has_urgent_channel => {
            eprintln!("SKIPPED: {what}");
            source.destroy().await.unwrap();
            target.destroy().await.unwrap();
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let wire = Wire::new(bench.folder.path(), listening, Limits::NONE);
    source.send(postcopy_options, wire.end.clone()).await.unwrap();
    until(&source, "memory to flow", |migration| matches!(migration, Migration::Active(_))).await;
    source.enter_postcopy().await.unwrap();
    until(&source, "the source's half", is_postcopy).await;
    until(&target, "the target's half", is_postcopy).await;
    assert_eq!(source.run_state().await.unwrap(), RunState::Paused);
    assert_eq!(target.run_state().await.unwrap(), RunState::Paused);
    assert!(!target.has_run());
    Some(Halves { bench, source, target, wire })
}

/// The guest runs with most of its memory elsewhere, and what it finds there is what it left.
#[tokio::test]
async fn a_guest_runs_while_its_memory_follows() {
    for has_urgent_channel in WAYS {
        memory_follows(has_urgent_channel).await;
    }
}

async fn memory_follows(has_urgent_channel: bool) {
    let Some(halves) = halves(has_urgent_channel).await else { return };
    let Halves { bench, source, target, wire } = halves;
    target.resume().await.unwrap();
    until_it_counts_on(&bench.directory("beta")).await;
    source.retune(options().tuning).await.unwrap();
    until(&source, "the last page", is_completed).await;
    until(&target, "the last page", is_completed).await;
    until_it_counts_on(&bench.directory("beta")).await;
    wire.cut().await;
    source.destroy().await.unwrap();
    assert_eq!(target.run_state().await.unwrap(), RunState::Running);
    target.destroy().await.unwrap();
}

/// Cut off in the middle, more than once, both halves wait for new channels and go on.
#[tokio::test]
async fn a_cut_post_copy_goes_on_over_new_channels() {
    for has_urgent_channel in WAYS {
        goes_on_after_cuts(has_urgent_channel).await;
    }
}

async fn goes_on_after_cuts(has_urgent_channel: bool) {
    let Some(halves) = halves(has_urgent_channel).await else { return };
    let Halves { bench, source, target, mut wire } = halves;
    target.resume().await.unwrap();
    for _ in 0..2 {
        wire.cut().await;
        until(&source, "the source to notice", is_interrupted).await;
        until(&target, "the target to notice", is_interrupted).await;
        target.receive_again().await.unwrap();
        // Asked again by who cannot know that it listens already.
        let listening = target.receive_again().await.unwrap();
        wire = Wire::new(bench.folder.path(), listening, Limits::NONE);
        source.send_again(wire.end.clone()).await.unwrap();
        until(&source, "the source to go on", is_postcopy).await;
        until(&target, "the target to go on", is_postcopy).await;
    }
    source.retune(options().tuning).await.unwrap();
    until(&source, "the last page", is_completed).await;
    until(&target, "the last page", is_completed).await;
    until_it_counts_on(&bench.directory("beta")).await;
    source.destroy().await.unwrap();
    target.destroy().await.unwrap();
}

/// A target that is lost before it ran leaves a source that an older QEMU can still run.
#[tokio::test]
async fn a_target_that_never_ran_can_be_done_without() {
    let Some(Halves { bench, source, target, wire }) = halves(false).await else { return };
    target.destroy().await.unwrap();
    wire.cut().await;
    match source.cancel().await {
        Ok(migration) => {
            println!("{migration:?}");
            if source.run_state().await.unwrap() == RunState::Paused {
                source.resume().await.unwrap();
            }
            until_it_counts_on(&bench.directory("alpha")).await;
        }
        Err(error) => assert!(matches!(error, EngineError::Refused { .. }), "{error}"),
    }
    source.destroy().await.unwrap();
}
