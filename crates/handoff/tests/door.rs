// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The door beside what the model checks: a single answer, and what it forbids.

use uuid::Uuid;
use whimbrel_handoff::door::{
    Disk, Evidence, Image, KnownBy, OwnerFound, Peer, Refusal, Unknown, Verdict, Word, recover,
    start,
};
use whimbrel_handoff::effect::Event;
use whimbrel_handoff::message::Kind;
use whimbrel_handoff::ownership::{Answer, EngineView, Found, Ownership};
use whimbrel_handoff::record::{BootId, Handoff, Identity, Record, Standing};
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

const HERE: HostId = HostId([0xaa; 32]);
const THERE: HostId = HostId([0xbb; 32]);

/// What the door says to the owner of epoch 2, when the other host says that it moves the guest
/// here with this epoch.
fn verdict_of_owner(moving: u64) -> Verdict {
    verdict_of_owner_told(Answer::Moving { from: THERE, to: HERE, epoch: Epoch(moving) })
}

/// The same with another answer.
fn verdict_of_owner_told(answer: Answer) -> Verdict {
    let boot = BootId([0x22; 16]);
    let record = Record {
        identity: Identity { guest: GuestId(Uuid::from_u128(0x11)), host: HERE },
        boot,
        consumed: Epoch(2),
        standing: Standing::Owned { epoch: Epoch(2), mending: None },
    };
    let found = Found::Record(record);
    let (own, _) = Ownership::recover(record.identity, boot, found, EngineView::Gone);
    let peers = vec![Peer { host: THERE, answer: Some(answer), is_keeper: false }];
    start(&Evidence { own: &own, disk: Disk::Local, peers })
}

/// A guest that crashes right after it has arrived is started again, though its source has not
/// heard yet that it has.
#[test]
fn a_source_that_has_not_heard_is_no_obstacle() {
    assert_eq!(verdict_of_owner(2), Verdict::Start { epoch: Epoch(2) });
}

/// A source that an operator's word tells to go on with what it ceded says so while it asks around:
/// a target that was off meanwhile, and truly, does not start beside it.
#[test]
fn a_source_that_comes_back_on_a_word_is_seen() {
    let (boot, identity) =
        (BootId([0x22; 16]), Identity { guest: GuestId(Uuid::from_u128(0x11)), host: THERE });
    let handoff = Handoff {
        id: HandoffId(Uuid::from_u128(0x33)),
        peer: HERE,
        epoch: Epoch(2),
        kind: Kind::PreCopy,
    };
    let run = Some(RunState::Running);
    let standing = Standing::Ceded { epoch: Epoch(1), handoff, run };
    let found = Found::Record(Record { identity, boot, consumed: Epoch(2), standing });
    let (source, _) = Ownership::recover(identity, boot, found, EngineView::Gone);
    assert!(matches!(source.answer(), Answer::Moving { .. }) && !source.is_taking());
    let (source, _) = source.on_event(Event::Resume);
    assert!(source.is_taking());
    assert_eq!(source.answer(), Answer::Acquiring { epoch: Epoch(2) });
    let known_by = KnownBy::Peer(THERE);
    let refused = Refusal::OwnedBy { owner: THERE, epoch: Epoch(2), known_by };
    assert_eq!(verdict_of_owner_told(source.answer()), Verdict::Refused(refused));
    let (source, _) = source.on_event(Event::ClaimWon { epoch: Epoch(2) });
    assert!(matches!(
        verdict_of_owner_told(source.answer()),
        Verdict::Refused(Refusal::OwnedBy { .. })
    ));
}

/// A handoff to this host that is newer than what it owns is one it has forgotten.
#[test]
fn a_newer_handoff_is_one() {
    let open = Verdict::Refused(Refusal::HandoffOpen { at: THERE });
    assert_eq!(verdict_of_owner(3), open);
}

const IDENTITY: Identity = Identity { guest: GuestId(Uuid::from_u128(0x11)), host: HERE };

/// What the door says about an image whose owner record is damaged, without a word and after one
/// that this does not matter. The other host keeps the definition, and has given this answer.
fn verdicts_despite_damage(
    found: Found,
    answer: Option<Answer>,
    is_in_use: bool,
) -> (Verdict, Verdict) {
    let boot = BootId([0x22; 16]);
    let (own, _) = Ownership::recover(IDENTITY, boot, found, EngineView::Gone);
    let image = Image { owner: OwnerFound::Damaged, is_in_use, ..Image::default() };
    let peers = vec![Peer { host: THERE, answer, is_keeper: true }];
    let evidence = Evidence { own: &own, disk: Disk::Images(vec![image]), peers };
    let word = Word { despite_damage: true, ..Word::default() };
    (start(&evidence), recover(&evidence, word))
}

/// A damaged record forbids every start, until a person says that it does not matter.
#[test]
fn damage_is_overruled_by_a_word() {
    let (start, word) = verdicts_despite_damage(Found::Nothing, Some(Answer::NoRecord), false);
    assert_eq!(start, Verdict::InDoubt(vec![Unknown::DiskDamaged]));
    assert_eq!(word, Verdict::Acquire { after: Epoch::default(), epoch: Epoch(1) });
}

/// The owner itself takes the guest anew by that word: what is damaged may be its own claim.
#[test]
fn an_owner_claims_again_despite_damage() {
    let standing = Standing::Owned { epoch: Epoch(2), mending: None };
    let boot = BootId([0x22; 16]);
    let record = Record { identity: IDENTITY, boot, consumed: Epoch(2), standing };
    let (_, word) = verdicts_despite_damage(Found::Record(record), Some(Answer::NoRecord), false);
    assert_eq!(word, Verdict::Acquire { after: Epoch::default(), epoch: Epoch(3) });
}

/// That word does not outweigh what can be known: an owner that answers, an image in use, and,
/// where the host's own record is damaged, too, a host that keeps the guest and is silent.
#[test]
fn a_word_about_damage_is_about_nothing_else() {
    let epoch = Epoch(4);
    let owner = Answer::Owner { owner: THERE, epoch, consumed: epoch };
    let (_, word) = verdicts_despite_damage(Found::Nothing, Some(owner), false);
    let known_by = KnownBy::Peer(THERE);
    assert_eq!(word, Verdict::Refused(Refusal::OwnedBy { owner: THERE, epoch, known_by }));

    let (_, word) = verdicts_despite_damage(Found::Nothing, Some(Answer::NoRecord), true);
    assert_eq!(word, Verdict::Refused(Refusal::InUse));

    let (start, word) = verdicts_despite_damage(Found::Damaged, None, false);
    let silent = Unknown::Silent { host: THERE };
    let all = vec![Unknown::DiskDamaged, Unknown::OwnRecordDamaged, silent];
    assert_eq!(start, Verdict::InDoubt(all));
    assert_eq!(word, Verdict::InDoubt(vec![silent]));
}
