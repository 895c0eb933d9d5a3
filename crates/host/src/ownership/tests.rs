// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The one thing to prove: **no damage, no crash and no failing disk makes the file answer with a
//! record older than the last one it acknowledged.** And the second: an ordinary crash, however
//! the write was torn, never needs a person.

use super::copy::{COPIES, Numbered, SECTOR_BYTES, SLOT_BYTES};
use super::medium::Medium;
use super::slots::{SlotError, Slots, forget_poison};
use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

const FILE_BYTES: usize = 2 * SLOT_BYTES;

/// A disk that remembers what is durable and what is only cached, and does as a test tells it.
#[derive(Clone, Debug)]
struct FakeDisk(Rc<RefCell<Inner>>);

#[derive(Debug)]
struct Inner {
    cached: Vec<u8>,
    durable: Vec<u8>,
    sync: Sync,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sync {
    Works,
    /// The write-back fails, the error is reported once, and the pages count as clean.
    FailsAndForgets,
}

impl FakeDisk {
    fn blank() -> Self {
        let zeros = vec![0; FILE_BYTES];
        Self(Rc::new(RefCell::new(Inner {
            cached: zeros.clone(),
            durable: zeros,
            sync: Sync::Works,
        })))
    }

    fn with(bytes: Vec<u8>) -> Self {
        let disk = Self::blank();
        disk.0.borrow_mut().cached.clone_from(&bytes);
        disk.0.borrow_mut().durable = bytes;
        disk
    }

    fn durable(&self) -> Vec<u8> {
        self.0.borrow().durable.clone()
    }

    fn power_cut(&self) {
        let mut inner = self.0.borrow_mut();
        inner.cached = inner.durable.clone();
    }

    fn set_sync(&self, sync: Sync) {
        self.0.borrow_mut().sync = sync;
    }
}

impl Medium for FakeDisk {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.borrow().cached.len() as u64)
    }

    fn read_slot(&self, slot: usize) -> io::Result<Box<[u8; SLOT_BYTES]>> {
        let bytes: [u8; SLOT_BYTES] =
            self.0.borrow().cached[slot * SLOT_BYTES..][..SLOT_BYTES].try_into().unwrap();
        Ok(Box::new(bytes))
    }

    fn write_slot(&mut self, slot: usize, bytes: &[u8; SLOT_BYTES]) -> io::Result<()> {
        self.0.borrow_mut().cached[slot * SLOT_BYTES..][..SLOT_BYTES].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.0.borrow_mut();
        match inner.sync {
            Sync::Works => inner.durable = inner.cached.clone(),
            Sync::FailsAndForgets => {
                inner.sync = Sync::Works;
                return Err(io::Error::from_raw_os_error(nix::libc::EIO));
            }
        }
        Ok(())
    }
}

/// Returns the bytes of a file after `records` were written and acknowledged.
fn file_with(records: &[&[u8]]) -> Vec<u8> {
    let disk = FakeDisk::blank();
    let mut slots = Slots::create(disk.clone(), records[0]).unwrap();
    for record in &records[1..] {
        slots.write(record).unwrap();
    }
    disk.durable()
}

/// Returns the answer of a file with these bytes; `None` is in doubt.
fn answer(bytes: Vec<u8>) -> Option<Vec<u8>> {
    match Slots::open(FakeDisk::with(bytes)) {
        Ok(slots) => Some(slots.read().unwrap().to_vec()),
        Err(SlotError::InDoubt { .. }) => None,
        Err(other) => panic!("neither an answer nor in doubt: {other:?}"),
    }
}

fn is_answer(bytes: Vec<u8>, expected: &[u8]) -> bool {
    answer(bytes).is_some_and(|found| found == expected)
}

/// Any single flipped bit of the file is survived with the newest record.
#[test]
fn every_flipped_bit_leaves_the_newest_record() {
    let intact = file_with(&[b"one", b"two", b"three"]);
    for bit in 0..FILE_BYTES * 8 {
        let mut bytes = intact.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(is_answer(bytes, b"three"), "bit {bit}");
    }
}

/// A file of any other length was never written by us: in doubt.
#[test]
fn every_other_length_is_in_doubt() {
    let intact = file_with(&[b"one", b"two", b"three"]);
    for length in (0..FILE_BYTES).chain([FILE_BYTES + 1, 3 * SLOT_BYTES]) {
        let mut bytes = intact.clone();
        bytes.resize(length, 0);
        assert_eq!(answer(bytes), None, "length {length}");
    }
}

/// All 65,536 ways to break whole sectors: the newest record while each slot has an intact copy
/// left, else in doubt. Never `two`.
#[test]
fn every_set_of_broken_sectors_is_the_newest_record_or_in_doubt() {
    let intact = file_with(&[b"one", b"two", b"three"]);
    for set in 0..=u16::MAX {
        let mut bytes = intact.clone();
        for sector in (0..2 * COPIES).filter(|sector| set & (1 << sector) != 0) {
            bytes[sector * SECTOR_BYTES + 100] ^= 0x5a;
        }
        let has_copies = set & 0xff != 0xff && set >> 8 != 0xff;
        match has_copies {
            true => assert!(is_answer(bytes, b"three"), "sectors {set:016b}"),
            false => assert_eq!(answer(bytes), None, "sectors {set:016b}"),
        }
    }
}

/// All 6,561 ways a crash can leave the eight sectors of an unfinished write (old, new, broken
/// each): the record before or the record itself, and in doubt only if no sector is intact.
#[test]
fn every_torn_write_is_the_record_before_or_the_record_itself() {
    for newest in [1, 2, 3] {
        let records: &[&[u8]] = &[b"one", b"two", b"three", b"four"];
        let before = file_with(&records[..newest]);
        let after = file_again(&before, records[newest]);
        let slot = (newest + 1) % 2;
        let mut outcomes = [0; 3];
        for pattern in 0..3_usize.pow(8) {
            let bytes = torn(&before, &after, slot, pattern);
            let states = (0..COPIES).map(|sector| state(pattern, sector));
            let expected = match states.clone().any(|state| state == 1) {
                true => Some(records[newest]),
                false if states.clone().any(|state| state == 0) => Some(records[newest - 1]),
                false => None,
            };
            assert_eq!(answer(bytes).as_deref(), expected, "record {newest}, pattern {pattern}");
            outcomes[expected.map_or(0, |record| 1 + usize::from(record == records[newest]))] += 1;
        }
        assert_eq!(outcomes, [1, 255, 6305]);
    }
}

/// Returns the bytes after one more write to a file with these bytes.
fn file_again(bytes: &[u8], record: &[u8]) -> Vec<u8> {
    let disk = FakeDisk::with(bytes.to_vec());
    Slots::open(disk.clone()).unwrap().write(record).unwrap();
    disk.durable()
}

/// Returns what a pattern makes of a sector: its digit to the base of three.
fn state(pattern: usize, sector: usize) -> usize {
    (0..sector).fold(pattern, |pattern, _| pattern / 3) % 3
}

/// Returns the pattern in which a sector is new and all others are old.
fn one_new(sector: usize) -> usize {
    (0..sector).fold(1, |pattern, _| pattern * 3)
}

/// Returns `before` with the sectors of one slot old (0), new (1) or broken (2).
fn torn(before: &[u8], after: &[u8], slot: usize, pattern: usize) -> Vec<u8> {
    let mut bytes = before.to_vec();
    for sector in 0..COPIES {
        let range = slot * SLOT_BYTES + sector * SECTOR_BYTES..;
        let range = range.start..range.start + SECTOR_BYTES;
        match state(pattern, sector) {
            0 => {}
            1 => bytes[range.clone()].copy_from_slice(&after[range]),
            _ => bytes[range].fill(0xa5),
        }
    }
    bytes
}

/// A write cut after any byte, from the front or from the back, needs no person, and the file goes
/// on working.
#[test]
fn a_write_cut_at_any_byte_is_mended() {
    let before = file_with(&[b"one", b"two", b"three"]);
    let after = file_again(&before, b"four");
    for cut in 0..=SLOT_BYTES {
        for is_reversed in [false, true] {
            let mut bytes = before.clone();
            let range = if is_reversed { cut..SLOT_BYTES } else { 0..cut };
            bytes[range.clone()].copy_from_slice(&after[range]);
            let disk = FakeDisk::with(bytes);
            let mut slots = Slots::open(disk.clone()).expect("a torn write needs no person");
            assert!([&b"three"[..], b"four"].contains(&slots.read().unwrap()), "cut {cut}");
            slots.write(b"next").unwrap();
            assert!(is_answer(disk.durable(), b"next"), "cut {cut}");
        }
    }
}

/// What opening answered is durable: a power cut right after it, and any break of a sector after
/// that, do not take the answer back.
#[test]
fn an_answer_is_durable_before_it_is_given() {
    let before = file_with(&[b"one", b"two", b"three"]);
    let after = file_again(&before, b"four");
    // One sector of the new record reached the disk.
    for sector in 0..COPIES {
        let disk = FakeDisk::with(torn(&before, &after, 0, one_new(sector)));
        let slots = Slots::open(disk.clone()).unwrap();
        assert_eq!(slots.copies_mended(), COPIES - 1);
        disk.power_cut();
        let mut bytes = disk.durable();
        bytes[sector * SECTOR_BYTES] ^= 1;
        assert!(is_answer(bytes, b"four"), "sector {sector}");
    }
}

/// After a failed sync nobody gets an answer in this process. After a restart, the cache may show
/// a record that the disk never got: once it was answered, it stays the answer.
#[test]
fn a_failed_sync_poisons_until_the_restart() {
    let disk = FakeDisk::with(file_with(&[b"one", b"two"]));
    let mut slots = Slots::open(disk.clone()).unwrap();
    disk.set_sync(Sync::FailsAndForgets);
    assert!(matches!(slots.write(b"three"), Err(SlotError::Io { action: "sync", .. })));
    for _ in 0..2 {
        assert!(matches!(slots.read(), Err(SlotError::Poisoned)));
        assert!(matches!(slots.write(b"three"), Err(SlotError::Poisoned)));
        assert!(matches!(Slots::open(disk.clone()), Err(SlotError::Poisoned)));
    }

    forget_poison(&slots); // The daemon was restarted; the page cache was not.
    let slots = Slots::open(disk.clone()).unwrap();
    assert_eq!(slots.read().unwrap(), b"three");
    disk.power_cut();
    assert!(is_answer(disk.durable(), b"three"));
}

/// A sync that fails while opening means no answer, either.
#[test]
fn no_answer_without_a_sync() {
    let disk = FakeDisk::with(file_with(&[b"one", b"two"]));
    disk.set_sync(Sync::FailsAndForgets);
    assert!(matches!(Slots::open(disk.clone()), Err(SlotError::Io { action: "sync", .. })));
    assert!(matches!(Slots::open(disk), Err(SlotError::Poisoned)));
}

/// What no crash can leave is in doubt, however intact it looks.
#[test]
fn impossible_files_are_in_doubt() {
    let three = file_with(&[b"one", b"two", b"three"]);
    let six =
        ["four", "five", "six"].iter().fold(three.clone(), |b, r| file_again(&b, r.as_bytes()));
    let slot = |bytes: &[u8], slot: usize| bytes[slot * SLOT_BYTES..][..SLOT_BYTES].to_vec();

    // A slot from long ago: records 6 and 3.
    assert_eq!(answer([slot(&six, 0), slot(&three, 1)].concat()), None);
    // A slot of another guest's file.
    let other = file_with(&[b"1", b"2", b"3"]);
    assert_eq!(answer([slot(&other, 0), slot(&three, 1)].concat()), None);
    // Swapped slots.
    assert_eq!(answer([slot(&three, 1), slot(&three, 0)].concat()), None);
    // An old sector in the slot that was complete before the newest record was begun.
    let four = file_again(&three, b"four");
    let five = file_again(&four, b"five");
    assert_eq!(answer(torn(&five, &three, 0, 1)), None);
    // A sector of record 3 beside copies of record 6's slot neighbour 5 is torn, of record 1 not.
    let seven = file_again(&six, b"seven");
    assert_eq!(answer(torn(&seven, &three, 1, 1)), None);
    // Nothing at all.
    assert_eq!(answer(vec![0; FILE_BYTES]), None);
    assert_eq!(answer(vec![0xff; FILE_BYTES]), None);
}

/// A file of a newer version is named as such, not called damaged.
#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let mut bytes = file_with(&[b"one"]);
    for sector in bytes.chunks_exact_mut(SECTOR_BYTES) {
        sector[4] = 2;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&sector[..28]), &sector[32..]);
        sector[28..32].copy_from_slice(&sum.to_le_bytes());
    }
    let opened = Slots::open(FakeDisk::with(bytes));
    assert!(matches!(opened, Err(SlotError::Newer { version: 2 })));
}

/// The bytes on disk, as documented: a change of them is a new version.
#[test]
fn golden_sector() {
    let record =
        Numbered { number: 0x0102, file: 0x1112_1314_1516_1718, record: b"owned".to_vec() };
    let slot = record.encode();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (first, last) = (&slot[..SECTOR_BYTES], &slot[7 * SECTOR_BYTES..]);
    assert_eq!(hex(&first[..16]), "57426f77010000000201000000000000");
    assert_eq!(hex(&first[16..32]), "181716151413121105000000b63f1646");
    assert_eq!(first[32..37], *b"owned");
    assert!(first[37..].iter().all(|byte| *byte == 0));
    assert_eq!(hex(&last[..16]), "57426f77010007000201000000000000");
    assert_eq!(hex(&last[16..32]), "1817161514131211050000005350c283");
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        length: usize,
    },
    /// A write that a power cut interrupts: the sectors' states, as in [`torn`].
    TornWrite {
        length: usize,
        pattern: usize,
    },
    FailedSync {
        length: usize,
        is_power_cut: bool,
    },
    Restart,
    PowerCut,
    /// Breaks sectors of the disk, at most three in each slot.
    Rot {
        sectors: Vec<usize>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let length = 0..=RECORD_BYTES_MAX;
    prop_oneof![
        4 => length.clone().prop_map(|length| Step::Write { length }),
        4 => (length.clone(), 0..3_usize.pow(8))
            .prop_map(|(length, pattern)| Step::TornWrite { length, pattern }),
        1 => (length, any::<bool>())
            .prop_map(|(length, is_power_cut)| Step::FailedSync { length, is_power_cut }),
        1 => Just(Step::Restart),
        1 => Just(Step::PowerCut),
        1 => prop::collection::vec(0..2 * COPIES, 1..4).prop_map(|sectors| Step::Rot { sectors }),
    ]
}

/// A record that tells which one it is, `length` bytes long where that is enough.
fn numbered(number: u32, length: usize) -> Vec<u8> {
    let mut record = number.to_le_bytes().to_vec();
    record.resize(length.max(4), 0x77);
    record
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: the answer is never older than what was acknowledged
    /// or answered before, and never a record that nobody wrote.
    #[test]
    fn never_an_older_answer(steps in prop::collection::vec(step(), 1..40)) {
        let disk = FakeDisk::blank();
        let mut slots = Slots::create(disk.clone(), &numbered(0, 0)).unwrap();
        let (mut promised, mut written) = (0, 0);
        for step in steps {
            match step {
                Step::Write { length } => {
                    written += 1;
                    slots.write(&numbered(written, length)).unwrap();
                    promised = written;
                }
                Step::TornWrite { length, pattern } => {
                    written += 1;
                    let before = disk.durable();
                    slots.write(&numbered(written, length)).unwrap();
                    let after = disk.durable();
                    let slot = usize::from(before[..SLOT_BYTES] == after[..SLOT_BYTES]);
                    disk.0.borrow_mut().durable = torn(&before, &after, slot, pattern);
                    disk.power_cut();
                }
                Step::FailedSync { length, is_power_cut } => {
                    written += 1;
                    disk.set_sync(Sync::FailsAndForgets);
                    prop_assert!(slots.write(&numbered(written, length)).is_err());
                    prop_assert!(slots.read().is_err());
                    forget_poison(&slots);
                    if is_power_cut { disk.power_cut(); }
                }
                Step::Restart => {}
                Step::PowerCut => disk.power_cut(),
                Step::Rot { sectors } => {
                    for sector in sectors {
                        disk.0.borrow_mut().durable[sector * SECTOR_BYTES + 50] ^= 0x10;
                    }
                    disk.power_cut();
                }
            }
            slots = match Slots::open(disk.clone()) {
                Ok(slots) => slots,
                Err(SlotError::InDoubt { .. }) => return Ok(()),
                Err(other) => panic!("{other:?}"),
            };
            let found = u32::from_le_bytes(slots.read().unwrap()[..4].try_into().unwrap());
            prop_assert!(found >= promised, "answered {found}, promised {promised}");
            prop_assert!(found <= written);
            promised = found;
        }
    }
}

/// The real file: created once, held by one, written, found again, replaced.
#[test]
fn a_real_file_lives_through_its_days() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("ownership");
    assert!(OwnershipFile::open(&path).unwrap_err().is_missing());

    let mut file = OwnershipFile::create(&path, b"one").unwrap();
    assert_eq!(path.metadata().unwrap().len(), FILE_BYTES as u64);
    assert!(matches!(OwnershipFile::create(&path, b"x"), Err(OwnershipError::Exists { .. })));
    assert!(matches!(OwnershipFile::open(&path), Err(OwnershipError::InUse { .. })));
    for number in 2..20_u8 {
        file.write(&[number; RECORD_BYTES_MAX]).unwrap();
        assert_eq!(file.read().unwrap(), [number; RECORD_BYTES_MAX]);
    }
    let long = file.write(&[0; RECORD_BYTES_MAX + 1]);
    assert!(matches!(long, Err(OwnershipError::TooLong { length: 481, .. })));
    assert_eq!(file.read().unwrap(), [19; RECORD_BYTES_MAX], "too long a record changes nothing");
    drop(file);
    let file = OwnershipFile::open(&path).unwrap();
    assert_eq!(file.read().unwrap(), [19; RECORD_BYTES_MAX]);
    assert_eq!(file.copies_mended(), 0);
    drop(file);

    std::fs::write(&path, [0; FILE_BYTES]).unwrap();
    let doubt = OwnershipFile::open(&path).unwrap_err();
    assert!(matches!(doubt, OwnershipError::InDoubt { .. }));
    assert_eq!(doubt.kind(), Kind::InDoubt);
    let file = OwnershipFile::replace(&path, b"the operator said so").unwrap();
    assert_eq!(file.read().unwrap(), b"the operator said so");
    let mut names: Vec<_> = std::fs::read_dir(temp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "nothing temporary is left: {names:?}");
    assert!(names[1].starts_with("ownership.replaced-"));
}

/// A symbolic link in the place of the file is not followed.
#[test]
fn a_link_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let real = temp.path().join("real");
    drop(OwnershipFile::create(&real, b"one").unwrap());
    let link = temp.path().join("ownership");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert!(matches!(OwnershipFile::open(&link), Err(OwnershipError::Io { action: "open", .. })));
}
