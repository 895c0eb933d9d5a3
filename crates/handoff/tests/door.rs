// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The door beside what the model checks: a single answer, and what it forbids.

use uuid::Uuid;
use whimbrel_handoff::door::{Disk, Evidence, Peer, Refusal, Verdict, start};
use whimbrel_handoff::ownership::{Answer, EngineView, Found, Ownership};
use whimbrel_handoff::record::{BootId, Identity, Record, Standing};
use whimbrel_model::id::{Epoch, GuestId, HostId};

const HERE: HostId = HostId([0xaa; 32]);
const THERE: HostId = HostId([0xbb; 32]);

/// What the door says to the owner of epoch 2, when the other host says that it moves the guest
/// here with this epoch.
fn verdict_of_owner(moving: u64) -> Verdict {
    let boot = BootId([0x22; 16]);
    let record = Record {
        identity: Identity { guest: GuestId(Uuid::from_u128(0x11)), host: HERE },
        boot,
        consumed: Epoch(2),
        standing: Standing::Owned { epoch: Epoch(2), mending: None },
    };
    let found = Found::Record(record);
    let (own, _) = Ownership::recover(record.identity, boot, found, EngineView::Gone);
    let answer = Answer::Moving { from: THERE, to: HERE, epoch: Epoch(moving) };
    let peers = vec![Peer { host: THERE, answer: Some(answer), is_keeper: false }];
    start(&Evidence { own: &own, disk: Disk::Local, peers })
}

/// A guest that crashes right after it has arrived is started again, though its source has not
/// heard yet that it has.
#[test]
fn a_source_that_has_not_heard_is_no_obstacle() {
    assert_eq!(verdict_of_owner(2), Verdict::Start { epoch: Epoch(2) });
}

/// A handoff to this host that is newer than what it owns is one it has forgotten.
#[test]
fn a_newer_handoff_is_one() {
    let open = Verdict::Refused(Refusal::HandoffOpen { at: THERE });
    assert_eq!(verdict_of_owner(3), open);
}
