// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The rule of the two slots: which record is the newest, and when nobody can say.

use super::copy::{COPIES, Numbered, SECTOR_BYTES, SLOT_BYTES, Sector, decode_sector};
use super::medium::Medium;
use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;

/// The files whose last write or sync failed in this process, by the number drawn for each when
/// it was created.
static POISONED: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

#[derive(Debug)]
pub(super) enum SlotError {
    InDoubt { details: String },
    Poisoned,
    Newer { version: u16 },
    Io { action: &'static str, source: io::Error },
}

/// Both slots of a file that is certain of its newest record.
#[derive(Debug)]
pub(super) struct Slots<M> {
    medium: M,
    newest: Numbered,
    copies_mended: usize,
}

impl<M: Medium> Slots<M> {
    /// Fills both slots: record number 1, and a blank before it.
    pub(super) fn create(mut medium: M, record: &[u8]) -> Result<Self, SlotError> {
        let (file, _) = uuid::Uuid::new_v4().as_u64_pair();
        let blank = Numbered { number: 0, file, record: Vec::new() };
        let first = Numbered { number: 1, file, record: record.to_vec() };
        for record in [&blank, &first] {
            medium
                .write_slot(record.slot(), &record.encode())
                .map_err(|source| SlotError::Io { action: "write", source })?;
        }
        medium.sync().map_err(|source| SlotError::Io { action: "sync", source })?;
        Ok(Self { medium, newest: first, copies_mended: 0 })
    }

    /// Finds the newest record, and makes it durable in all its copies.
    pub(super) fn open(medium: M) -> Result<Self, SlotError> {
        let length = medium.length().map_err(|source| SlotError::Io { action: "read", source })?;
        if length != 2 * SLOT_BYTES as u64 {
            let details = format!("it has {length} bytes, and should have {}", 2 * SLOT_BYTES);
            return Err(SlotError::InDoubt { details });
        }
        let [even, odd] = [read_slot(&medium, 0)?, read_slot(&medium, 1)?];
        let newest = judge(&even, &odd)?;
        let copies_mended = [&even, &odd]
            .iter()
            .filter(|slot| slot.newest == newest)
            .map(|slot| COPIES - slot.copies_of_newest)
            .sum();
        let mut slots = Self { medium, newest, copies_mended };
        slots.check_poison()?;
        slots.put(slots.newest.clone())?;
        Ok(slots)
    }

    pub(super) fn read(&self) -> Result<&[u8], SlotError> {
        self.check_poison()?;
        Ok(&self.newest.record)
    }

    pub(super) fn write(&mut self, record: &[u8]) -> Result<(), SlotError> {
        self.check_poison()?;
        let Numbered { number, file, .. } = self.newest;
        let number = number.checked_add(1).expect("fewer than 2^64 records are written");
        self.put(Numbered { number, file, record: record.to_vec() })
    }

    pub(super) fn copies_mended(&self) -> usize {
        self.copies_mended
    }

    /// Writes a record to all copies of its slot and syncs it. Whatever fails, poisons.
    fn put(&mut self, record: Numbered) -> Result<(), SlotError> {
        let written = self.medium.write_slot(record.slot(), &record.encode());
        let failed = match written {
            Err(source) => Some(SlotError::Io { action: "write", source }),
            Ok(()) => {
                self.medium.sync().err().map(|source| SlotError::Io { action: "sync", source })
            }
        };
        if let Some(error) = failed {
            poisoned().insert(record.file);
            return Err(error);
        }
        self.newest = record;
        Ok(())
    }

    fn check_poison(&self) -> Result<(), SlotError> {
        match poisoned().contains(&self.newest.file) {
            true => Err(SlotError::Poisoned),
            false => Ok(()),
        }
    }
}

fn poisoned() -> std::sync::MutexGuard<'static, BTreeSet<u64>> {
    POISONED.lock().expect("nobody panics while holding this lock")
}

/// What is intact in a slot.
struct Slot {
    newest: Numbered,
    /// Whether a copy of the record before the newest is still there: the write was torn.
    has_older: bool,
    copies_of_newest: usize,
}

/// Reads a slot, or explains why it proves nothing.
fn read_slot(medium: &impl Medium, slot: usize) -> Result<Slot, SlotError> {
    let doubt = |details: String| SlotError::InDoubt { details: format!("slot {slot} {details}") };
    let bytes =
        medium.read_slot(slot).map_err(|error| doubt(format!("cannot be read: {error}")))?;
    let mut intact = Vec::new();
    for (index, sector) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
        match decode_sector(slot * COPIES + index, sector) {
            Sector::Intact(record) => intact.push(record),
            Sector::Newer(version) => return Err(SlotError::Newer { version }),
            Sector::Broken => {}
        }
    }
    let Some(newest) = intact.iter().max_by_key(|record| record.number).cloned() else {
        return Err(doubt("has no intact copy: its record may have been the newest".into()));
    };
    let (same, others): (Vec<_>, Vec<_>) = intact.iter().partition(|record| **record == newest);
    for record in &others {
        if record.number.checked_add(2) != Some(newest.number) || record.file != newest.file {
            return Err(doubt(format!(
                "has copies that contradict each other (records {} and {})",
                record.number, newest.number
            )));
        }
    }
    Ok(Slot { has_older: !others.is_empty(), copies_of_newest: same.len(), newest })
}

/// Returns the newest record, if a crash could have left the two slots like this.
fn judge(even: &Slot, odd: &Slot) -> Result<Numbered, SlotError> {
    let (later, earlier) =
        if even.newest.number > odd.newest.number { (even, odd) } else { (odd, even) };
    let (later_number, earlier_number) = (later.newest.number, earlier.newest.number);
    let details = if later.newest.file != earlier.newest.file {
        "its slots belong to different files".to_owned()
    } else if earlier_number.checked_add(1) != Some(later_number) {
        format!("records {earlier_number} and {later_number} do not follow each other")
    } else if earlier.has_older {
        // This slot was complete before the later record was begun.
        format!("a part of record {earlier_number} is missing, though it was complete once")
    } else {
        return Ok(later.newest.clone());
    };
    Err(SlotError::InDoubt { details })
}

/// What a restart of the daemon does, for tests.
#[cfg(test)]
pub(super) fn forget_poison<M>(slots: &Slots<M>) {
    poisoned().remove(&slots.newest.file);
}
