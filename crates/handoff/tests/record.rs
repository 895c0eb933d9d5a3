// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The bytes of a record: what `encode` wrote, `decode` reads; nothing else is accepted; and the
//! bytes of version 1 never change, since older releases have written them.

use proptest::prelude::*;
use uuid::Uuid;
use whimbrel_handoff::message::Kind;
use whimbrel_handoff::record::{
    BootId, Decline, Declined, Handoff, Identity, RECORD_BYTES_MAX, Record, RecordError, Standing,
};
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

fn record(consumed: u64, standing: Standing) -> Record {
    Record {
        identity: Identity { guest: GuestId(Uuid::from_u128(0x11)), host: HostId([0xaa; 32]) },
        boot: BootId([0x22; 16]),
        consumed: Epoch(consumed),
        standing,
    }
}

fn handoff(epoch: u64, kind: Kind) -> Handoff {
    let id = HandoffId(Uuid::from_u128(0x33));
    Handoff { id, peer: HostId([0xbb; 32]), epoch: Epoch(epoch), kind }
}

/// One record of each kind.
fn samples() -> Vec<Record> {
    let owner = HostId([0xcc; 32]);
    let declined = |how| Some(Declined { handoff: HandoffId(Uuid::from_u128(0x44)), how });
    let (epoch, owned) = (Epoch(4), Epoch(4));
    let elsewhere = |declined| Standing::Elsewhere { owner, epoch, declined };
    let run = Some(RunState::Running);
    vec![
        record(4, Standing::Owned { epoch, mending: None }),
        record(9, Standing::Owned { epoch, mending: Some(RunState::IoError) }),
        record(4, elsewhere(None)),
        record(5, elsewhere(declined(Decline::Refused))),
        record(5, elsewhere(declined(Decline::Returned))),
        record(5, Standing::Offering { epoch, handoff: handoff(5, Kind::PreCopy), run }),
        record(5, Standing::Ceded { epoch, handoff: handoff(5, Kind::Stopped), run: None }),
        record(5, Standing::Draining { handoff: handoff(5, Kind::PostCopy) }),
        record(7, Standing::Receiving { owned, handoff: handoff(7, Kind::PreCopy) }),
        record(7, Standing::Taken { owned, handoff: handoff(7, Kind::PreCopy), run }),
        record(8, Standing::Disputed { epoch, owner, newer: Epoch(8) }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The layout of version 1, byte by byte, of the record that matters most.
#[test]
fn a_ceded_record_has_these_bytes_for_ever() {
    let handoff = handoff(5, Kind::PreCopy);
    let run = Some(RunState::Paused);
    let bytes = record(5, Standing::Ceded { epoch: Epoch(4), handoff, run }).encode();
    let expected = [
        "01",                               // version
        "00000000000000000000000000000011", // guest
        &"aa".repeat(32),                   // host
        &"22".repeat(16),                   // boot
        "0500000000000000",                 // consumed
        "04",                               // ceded
        "0400000000000000",                 // the epoch held
        "00000000000000000000000000000033", // handoff
        &"bb".repeat(32),                   // peer
        "0500000000000000",                 // the epoch offered
        "01",                               // pre-copy
        "03",                               // paused
    ]
    .concat();
    let written = expected.len() / 2;
    assert_eq!(hex(&bytes[..written]), expected);
    assert!(bytes[written..].iter().all(|&byte| byte == 0));
}

/// Every kind of record survives a round trip, and no two have the same bytes.
#[test]
fn every_kind_of_record_comes_back() {
    let mut seen = std::collections::BTreeSet::new();
    for sample in samples() {
        let bytes = sample.encode();
        assert_eq!(Record::decode(&bytes), Ok(sample));
        assert!(seen.insert(bytes));
    }
}

/// A blank file, a short one and a later version are named for what they are.
#[test]
fn what_is_no_record_is_refused() {
    assert_eq!(Record::decode(&[0; RECORD_BYTES_MAX]), Err(RecordError::Version { found: 0 }));
    assert_eq!(Record::decode(&[]), Err(RecordError::Length { length: 0 }));
    let mut later = samples()[0].encode();
    later[0] = 2;
    assert_eq!(Record::decode(&later), Err(RecordError::Version { found: 2 }));
    let mut trailing = samples()[0].encode();
    trailing[RECORD_BYTES_MAX - 1] = 1;
    assert!(matches!(Record::decode(&trailing), Err(RecordError::Contradiction { .. })));
}

/// Records that no machine can have written are refused although each field is fine.
#[test]
fn contradictions_are_refused() {
    let check = |record: Record| {
        let decoded = Record::decode(&record.encode());
        assert!(matches!(decoded, Err(RecordError::Contradiction { .. })), "{record:?}");
    };
    let me = HostId([0xaa; 32]);
    // Owned with an epoch newer than the newest.
    check(record(3, Standing::Owned { epoch: Epoch(4), mending: None }));
    // Another owner, which is this host.
    check(record(4, Standing::Elsewhere { owner: me, epoch: Epoch(4), declined: None }));
    // Offered the epoch that is held.
    let same = handoff(4, Kind::PreCopy);
    check(record(4, Standing::Offering { epoch: Epoch(4), handoff: same, run: None }));
    // A handoff with itself.
    let own = Handoff { peer: me, ..handoff(5, Kind::PreCopy) };
    check(record(5, Standing::Receiving { owned: Epoch(4), handoff: own }));
    // An epoch that leaves no room to count on.
    check(record(u64::MAX, Standing::Owned { epoch: Epoch(4), mending: None }));
}

proptest! {
    /// Whatever the bytes: decoding does not panic, and what it accepts encodes to the same bytes,
    /// so that each record has one encoding.
    #[test]
    fn accepted_bytes_are_canonical(
        which in 0..11usize,
        at in 0..RECORD_BYTES_MAX,
        value: u8,
    ) {
        let mut bytes = samples()[which].encode();
        bytes[at] = value;
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::decode(&bytes);
    }
}
