// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! One image, many hosts: exactly one wins an epoch, nobody wins one that has passed, and a record
//! that is broken or about another file is never taken for a word about this one.

use super::*;
use std::os::unix::fs::symlink;
use std::sync::{Arc, Barrier};

const GUEST: GuestId = GuestId(uuid::Uuid::from_u128(0xabc));

struct Shared {
    temp: tempfile::TempDir,
    place: Place,
}

fn shared() -> Shared {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().canonicalize().unwrap().join("web1.img");
    std::fs::write(&image, "disk").unwrap();
    Shared { place: place(&image), temp }
}

fn place(image: &Path) -> Place {
    match Place::of(&DiskSource::Path(image.to_owned())).unwrap() {
        Beside::Place(place) => place,
        Beside::NoPlace(reason) => panic!("no place: {reason}"),
    }
}

fn owner(host: u8, epoch: u64) -> Owner {
    Owner {
        guest: GUEST,
        guest_name: "web1".into(),
        host: HostId([host; 32]),
        host_name: format!("host{host}"),
        epoch: Epoch(epoch),
        handoff: None,
        state: OwnerState::Held,
    }
}

fn claimant(host: u8, epoch: u64) -> Claimant {
    let Owner { guest, host, host_name, epoch, handoff, .. } = owner(host, epoch);
    Claimant { guest, host, host_name, epoch, handoff }
}

impl Shared {
    fn take(&self, host: u8, epoch: u64) {
        assert_eq!(self.place.claim(&claimant(host, epoch)).unwrap(), Claim::Won);
        self.place.record(&owner(host, epoch)).unwrap();
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.temp.path().join(format!("{FOLDER}/web1.img{suffix}"))
    }

    /// The name of a claim, as [`Shared::files`] shows it.
    fn claim_suffix(&self, epoch: u64) -> String {
        format!(".claim.{}.{epoch}", self.place.inode)
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.temp.path().join(FOLDER)) else { return vec![] };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Of many who want the same epoch at the same moment, one wins, and all others learn who.
#[test]
fn one_host_wins_an_epoch() {
    let shared = shared();
    for epoch in 1..20 {
        let barrier = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8)
            .map(|host| {
                let (place, barrier) = (shared.place.clone(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    place.claim(&claimant(host, epoch)).unwrap()
                })
            })
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let winners: Vec<_> =
            (0..8).filter(|host| outcomes[usize::from(*host)] == Claim::Won).collect();
        let [winner] = winners[..] else { panic!("{winners:?} won epoch {epoch}") };
        for outcome in outcomes.into_iter().filter(|outcome| *outcome != Claim::Won) {
            assert_eq!(outcome, Claim::Lost(claimant(winner, epoch)));
        }
        shared.place.record(&owner(winner, epoch)).unwrap();
    }
    let claim = format!("web1.img{}", shared.claim_suffix(19));
    assert_eq!(shared.files(), [&claim, "web1.img.owner"]);
}

/// A claim may be repeated by who has won it, after a crash at any point, and by nobody else;
/// another handoff of the same host is somebody else.
#[test]
fn a_winner_wins_again() {
    let shared = shared();
    let mine = Claimant { handoff: Some(HandoffId(uuid::Uuid::from_u128(5))), ..claimant(1, 3) };
    for _ in 0..2 {
        assert_eq!(shared.place.claim(&mine).unwrap(), Claim::Won);
    }
    assert_eq!(shared.place.claim(&claimant(1, 3)).unwrap(), Claim::Lost(mine.clone()));
    shared.place.record(&Owner { handoff: mine.handoff, ..owner(1, 3) }).unwrap();
    assert_eq!(shared.place.claim(&mine).unwrap(), Claim::Won);
    assert_eq!(shared.place.claim(&claimant(2, 3)).unwrap(), Claim::Lost(mine));
}

/// An epoch that has passed cannot be won any more, though its claim was pruned long ago; nor can
/// one before a claim that is not recorded yet.
#[test]
fn nobody_wins_the_past() {
    let shared = shared();
    shared.take(1, 5);
    shared.take(2, 7);
    let claim = format!("web1.img{}", shared.claim_suffix(7));
    assert_eq!(shared.files(), [&claim, "web1.img.owner"]);
    for epoch in [5, 6, 7] {
        assert_eq!(
            shared.place.claim(&claimant(1, epoch)).unwrap(),
            Claim::Lost(claimant(2, 7)),
            "epoch {epoch}"
        );
    }
    assert_eq!(shared.place.claim(&claimant(3, 9)).unwrap(), Claim::Won);
    assert_eq!(shared.place.claim(&claimant(1, 8)).unwrap(), Claim::Lost(claimant(3, 9)));
    let late = shared.place.record(&owner(1, 6)).unwrap_err();
    assert!(matches!(&late, ClaimError::Superseded { owner: found, .. } if **found == owner(2, 7)));
    assert_eq!(late.code(), "disk/owned-elsewhere");
}

/// The ordinary way of a guest: taken at its start, ceded, taken by the other host, forgotten.
#[test]
fn a_guest_moves() {
    let shared = shared();
    assert_eq!(shared.place.word().unwrap(), Word::Nothing);
    assert_eq!(shared.files(), [""; 0], "asking leaves nothing behind");
    shared.take(1, 1);
    assert_eq!(shared.place.word().unwrap(), Word::Owner(owner(1, 1)));

    let handoff = Some(HandoffId(uuid::Uuid::from_u128(9)));
    let ceded =
        Owner { state: OwnerState::Ceded { run: Some(RunState::Paused) }, handoff, ..owner(2, 2) };
    shared.place.record(&ceded).unwrap();
    assert_eq!(shared.place.word().unwrap(), Word::Owner(ceded));
    let beta = Claimant { handoff, ..claimant(2, 2) };
    assert_eq!(shared.place.claim(&claimant(3, 2)).unwrap(), Claim::Lost(beta.clone()));
    assert_eq!(shared.place.claim(&beta).unwrap(), Claim::Won);
    let held = Owner { handoff, ..owner(2, 2) };
    shared.place.record(&held).unwrap();
    assert_eq!(shared.place.word().unwrap(), Word::Owner(held));

    shared.place.release(GuestId(uuid::Uuid::from_u128(1))).unwrap();
    assert_eq!(shared.files().len(), 2, "another guest cannot release it");
    shared.place.release(GUEST).unwrap();
    shared.place.release(GUEST).unwrap();
    assert_eq!(shared.place.word().unwrap(), Word::Nothing);
    assert!(!shared.temp.path().join(FOLDER).exists());
}

/// Another guest cannot take an image that belongs to one.
#[test]
fn an_image_belongs_to_one_guest() {
    let shared = shared();
    shared.take(1, 1);
    let other = GuestId(uuid::Uuid::from_u128(1));
    let claim = shared.place.claim(&Claimant { guest: other, ..claimant(1, 99) }).unwrap();
    assert_eq!(claim, Claim::Lost(claimant(1, 1)));
    let record = shared.place.record(&Owner { guest: other, ..owner(1, 99) });
    assert!(matches!(record, Err(ClaimError::Superseded { .. })));
}

/// Every flipped bit and every truncation of a record and of a claim is noticed: in doubt, and
/// nobody can take or record anything until a person has spoken.
#[test]
fn every_damage_is_noticed() {
    let shared = shared();
    shared.take(1, 1);
    let (record, claim) = (shared.file(".owner"), shared.file(&shared.claim_suffix(1)));
    let good = std::fs::read(&record).unwrap();
    let flips = (0..good.len() * 8).map(|bit| {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let cuts = (0..good.len()).map(|length| good[..length].to_vec());
    for bytes in flips.chain(cuts).chain([vec![b'x'; 1 << 20]]) {
        std::fs::write(&record, &bytes).unwrap();
        assert!(matches!(shared.place.word().unwrap(), Word::Damaged { .. }), "{bytes:?}");
    }
    assert!(matches!(shared.place.claim(&claimant(1, 2)), Err(ClaimError::InDoubt { .. })));
    assert!(matches!(shared.place.record(&owner(1, 2)), Err(ClaimError::InDoubt { .. })));
    assert!(matches!(shared.place.release(GUEST), Err(ClaimError::InDoubt { .. })));

    std::fs::write(&record, &good).unwrap();
    std::fs::write(&claim, "whimbrel claim 1 00000000\n{}\n").unwrap();
    let lost = shared.place.claim(&claimant(1, 1)).unwrap_err();
    assert_eq!(lost.kind(), Kind::InDoubt);

    shared.place.remove_damaged().unwrap();
    assert_eq!(shared.files(), ["web1.img.owner"]);
    std::fs::write(&record, "whimbrel owner 1 00000000\n{}\n").unwrap();
    shared.place.remove_damaged().unwrap();
    assert_eq!(shared.place.word().unwrap(), Word::Nothing);
    assert_eq!(shared.place.claim(&claimant(3, 5)).unwrap(), Claim::Won);
}

/// The host that holds the claim writes a damaged record anew; no other host does.
#[test]
fn a_claim_mends_its_record() {
    let shared = shared();
    shared.take(1, 1);
    std::fs::write(shared.file(".owner"), "torn").unwrap();
    assert!(matches!(shared.place.record(&owner(2, 1)), Err(ClaimError::InDoubt { .. })));
    shared.place.record(&owner(1, 1)).unwrap();
    assert_eq!(shared.place.word().unwrap(), Word::Owner(owner(1, 1)));
}

/// A copy of the folder speaks of other files; a folder that was moved still speaks of its own; a
/// record put beside another image is a copy, too. Each is told apart.
#[test]
fn copies_and_moves_are_told_apart() {
    let shared = shared();
    shared.take(1, 4);
    let root = shared.temp.path().canonicalize().unwrap();

    let copy = root.join("copy");
    std::fs::create_dir_all(copy.join(FOLDER)).unwrap();
    std::fs::copy(root.join("web1.img"), copy.join("web1.img")).unwrap();
    std::fs::copy(shared.file(".owner"), copy.join(FOLDER).join("web1.img.owner")).unwrap();
    let copied = place(&copy.join("web1.img"));
    assert!(
        matches!(copied.word().unwrap(), Word::Copied { owner: found, .. } if found == owner(1, 4))
    );
    let claim = format!("web1.img{}", shared.claim_suffix(4));
    std::fs::copy(shared.temp.path().join(FOLDER).join(&claim), copy.join(FOLDER).join(&claim))
        .unwrap();
    // It belongs to nobody yet: whoever wins its first claim may have it, and only that one.
    assert_eq!(copied.claim(&claimant(9, 1)).unwrap(), Claim::Won);
    assert_eq!(copied.claim(&claimant(8, 1)).unwrap(), Claim::Lost(claimant(9, 1)));
    copied.record(&owner(9, 1)).unwrap();
    assert_eq!(copied.claim(&claimant(8, 1)).unwrap(), Claim::Lost(claimant(9, 1)));
    assert_eq!(copied.word().unwrap(), Word::Owner(owner(9, 1)));
    assert_eq!(shared.place.word().unwrap(), Word::Owner(owner(1, 4)), "the original is untouched");

    // Replaced by a new file of the same name: the record was about the old one.
    let new = root.join("new.img");
    std::fs::write(&new, "new").unwrap();
    std::fs::rename(&new, root.join("web1.img")).unwrap();
    assert!(matches!(place(&root.join("web1.img")).word().unwrap(), Word::Copied { .. }));

    let moved = root.join("moved");
    std::fs::rename(&copy, &moved).unwrap();
    let Word::Moved { owner: found, recorded } = place(&moved.join("web1.img")).word().unwrap()
    else {
        panic!("not told apart");
    };
    assert_eq!((found, recorded), (owner(9, 1), copy.join("web1.img")));
}

/// The place is beside the file itself, whatever links lead there; other kinds of disks have none,
/// and a file with two names would have two.
#[test]
fn the_place_is_beside_the_file_itself() {
    let shared = shared();
    let link = shared.temp.path().join("link.img");
    symlink("web1.img", &link).unwrap();
    assert_eq!(place(&link), shared.place);

    let nfs = DiskSource::Nfs("nfs://10.0.0.1/xen/guest.img".into());
    assert_eq!(Place::of(&nfs).unwrap(), Beside::NoPlace(NoPlace::Network));
    let of = |path: PathBuf| Place::of(&DiskSource::Path(path));
    assert!(matches!(of("/nowhere/a.img".into()), Err(ClaimError::NoImage { .. })));
    assert!(matches!(of(shared.temp.path().into()), Err(ClaimError::NotAnImage { .. })));
    assert!(matches!(of("/dev/null".into()), Err(ClaimError::NotAnImage { .. })));
    let long = shared.temp.path().join("l".repeat(IMAGE_NAME_BYTES_MAX + 1));
    std::fs::write(&long, "").unwrap();
    assert!(matches!(of(long), Err(ClaimError::NameTooLong { .. })));
    std::fs::hard_link(shared.place.image(), shared.temp.path().join("second.img")).unwrap();
    let linked = of(shared.place.image().into()).unwrap_err();
    assert!(matches!(linked, ClaimError::HardLinked { links: 2, .. }));
}

/// The longest name of an image takes the largest epoch.
#[test]
fn the_longest_name_takes_the_largest_epoch() {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("l".repeat(IMAGE_NAME_BYTES_MAX));
    std::fs::write(&image, "").unwrap();
    let place = place(&image);
    assert_eq!(place.claim(&claimant(1, u64::MAX)).unwrap(), Claim::Won);
    place.record(&owner(1, u64::MAX)).unwrap();
}

/// Links and pipes in the folder's or a record's place are refused, not followed or waited for.
#[test]
fn links_in_the_folder_are_refused() {
    let shared = shared();
    shared.take(1, 1);
    let elsewhere = shared.temp.path().join("elsewhere");
    std::fs::rename(shared.file(".owner"), &elsewhere).unwrap();
    symlink(&elsewhere, shared.file(".owner")).unwrap();
    assert!(matches!(shared.place.word(), Err(ClaimError::NotOurs { .. })));
    std::fs::remove_file(shared.file(".owner")).unwrap();
    nix::unistd::mkfifo(&shared.file(".owner"), nix::sys::stat::Mode::from_bits_truncate(0o600))
        .unwrap();
    assert!(matches!(shared.place.word(), Err(ClaimError::NotOurs { .. })));

    let folder = shared.temp.path().join(FOLDER);
    std::fs::rename(&folder, shared.temp.path().join("real")).unwrap();
    symlink("real", &folder).unwrap();
    assert!(matches!(shared.place.word(), Err(ClaimError::NotOurs { .. })));
    assert!(matches!(shared.place.claim(&claimant(1, 2)), Err(ClaimError::NotOurs { .. })));
}

/// Papers are kept and found; too long ones are refused, damaged ones not handed out.
#[test]
fn papers_are_kept() {
    let shared = shared();
    assert_eq!(shared.place.papers().unwrap(), None);
    let papers = GuestPapers {
        guest: GUEST,
        epoch: Epoch(3),
        definition: "name = \"web1\"\n".into(),
        passport: Some("{\"version\":1}".into()),
    };
    shared.place.keep_papers(&papers).unwrap();
    assert_eq!(shared.place.papers().unwrap(), Some(papers.clone()));
    let long = GuestPapers { definition: "#".repeat(PAPERS_BYTES_MAX), ..papers };
    assert!(matches!(shared.place.keep_papers(&long), Err(ClaimError::PapersTooLong { .. })));
    std::fs::write(shared.file(".guest"), "x").unwrap();
    assert!(matches!(shared.place.papers(), Err(ClaimError::InDoubt { .. })));
}

/// What a crashed writer left goes with a later record; what is being written now stays.
#[test]
fn leftovers_go() {
    let shared = shared();
    shared.take(1, 1);
    let (old, new) = (
        shared.temp.path().join(FOLDER).join("temporary-old"),
        shared.temp.path().join(FOLDER).join("temporary-new"),
    );
    for path in [&old, &new] {
        std::fs::write(path, "x").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    std::fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();
    shared.take(1, 2);
    assert!(!old.exists() && new.exists());
}

/// The record as people and other versions read it.
#[test]
fn golden_record() {
    let bytes = format::owner(&owner(1, 17), Path::new("/srv/web1.img"), 42);
    insta::assert_snapshot!(String::from_utf8(bytes).unwrap(), @r#"
    whimbrel owner 1 b30977ac
    {
      "guest": "00000000-0000-0000-0000-000000000abc",
      "guest_name": "web1",
      "host": "0101010101010101010101010101010101010101010101010101010101010101",
      "host_name": "host1",
      "epoch": 17,
      "handoff": null,
      "state": "held",
      "image": "/srv/web1.img",
      "inode": 42
    }
    "#);
}

/// What a word means for each who asks.
#[test]
fn standings() {
    let check = |found: Owner, host: u8, epoch: Option<u64>, expected: fn(Owner) -> Standing| {
        let word = Word::Owner(found.clone());
        let judged = standing(&word, GUEST, HostId([host; 32]), epoch.map(Epoch));
        assert_eq!(judged, expected(found));
    };
    check(owner(1, 5), 1, Some(5), |_| Standing::Ours);
    check(owner(1, 5), 1, Some(6), Standing::Behind);
    check(owner(1, 5), 2, Some(6), Standing::Behind);
    check(owner(1, 5), 1, Some(4), Standing::Ahead);
    check(owner(1, 5), 1, None, Standing::Ahead);
    check(owner(1, 5), 2, Some(5), Standing::Elsewhere);
    check(owner(1, 5), 2, Some(4), Standing::Elsewhere);
    check(owner(1, 5), 2, None, Standing::Elsewhere);
    let other = Owner { guest: GuestId(uuid::Uuid::nil()), ..owner(1, 5) };
    check(other, 1, Some(9), Standing::OtherGuest);
    assert_eq!(standing(&Word::Nothing, GUEST, HostId([1; 32]), None), Standing::Free);
}

/// A claim without a record, left by a start that failed in between, goes with its guest and with
/// no other.
#[test]
fn a_claim_that_was_never_recorded_is_released() {
    let Shared { place, temp: _temp } = shared();
    assert_eq!(place.claim(&claimant(1, 1)).unwrap(), Claim::Won);
    place.release(GuestId(uuid::Uuid::from_u128(99))).unwrap();
    assert_eq!(place.claims().unwrap().len(), 1);
    place.release(claimant(1, 1).guest).unwrap();
    assert!(place.claims().unwrap().is_empty());
}
