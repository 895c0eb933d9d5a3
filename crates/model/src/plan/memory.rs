// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Is there memory for the guest? The seed's arithmetic, in the seed's unit.

use super::{Finding, Question};
use crate::codes;
use crate::units::Bytes;

/// What an engine needs besides the guest's memory: its own code and buffers, and the tables that
/// grow with the guest.
pub fn engine_overhead(memory: Bytes) -> Bytes {
    Bytes(Bytes::mib(64).0 + memory.0 / 128)
}

/// A guest that may be squeezed, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consent {
    /// What its file gives it, and what it may be squeezed down to.
    pub size: Bytes,
    pub min: Bytes,
    /// What its engine really takes of the host now.
    pub resident: Bytes,
}

impl Consent {
    /// What the host has back for certain, once the guest is squeezed to the least. Memory that
    /// the guest has never touched gives nothing back.
    pub fn gives(&self) -> Bytes {
        let guest = self.resident.saturating_sub(engine_overhead(self.size));
        guest.min(self.size).saturating_sub(self.min)
    }
}

/// Returns what each guest's balloon is to aim at so that the host has `missing` more: every guest
/// gives in proportion to what it can. None: stays as it is.
pub fn squeeze(missing: Bytes, guests: &[Consent]) -> Vec<Option<Bytes>> {
    let all: u64 = guests.iter().map(|guest| guest.gives().0).sum();
    let target = |guest: &Consent| {
        let gives = guest.gives();
        let share = u128::from(missing.0.min(all)) * u128::from(gives.0);
        let share = u64::try_from(share.div_ceil(u128::from(all.max(1)))).unwrap_or(gives.0);
        let taken = guest.gives().0 + guest.min.0;
        (share > 0).then(|| Bytes(taken.saturating_sub(share)).max(guest.min))
    };
    guests.iter().map(target).collect()
}

/// Returns what each squeezed guest (what its balloon aims at, and its size) may have again where
/// `room` is free, in their order. None: nothing changes.
pub fn give_back(room: Bytes, guests: &[(Bytes, Bytes)]) -> Vec<Option<Bytes>> {
    let mut room = room;
    let grow = guests.iter().map(|&(target, size)| {
        let more = size.saturating_sub(target).min(room);
        room = room.saturating_sub(more);
        (more > Bytes(0)).then(|| target.saturating_add(more))
    });
    grow.collect()
}

pub(super) fn memory(question: &Question<'_>) -> Vec<Finding> {
    // A stopped guest takes no memory by moving its definition.
    let (Some(passport), Some(_)) = (question.passport, question.run_state) else {
        return Vec::new();
    };
    let facts = question.target.host.memory;
    let overhead = engine_overhead(passport.memory);
    let needed = passport.memory.saturating_add(overhead);
    let available = facts
        .free
        .saturating_add(facts.reclaimable)
        .saturating_sub(facts.promised)
        .saturating_sub(facts.host_min_memory);
    let (guest, target) = (question.guest_name(), question.target_name());
    let needed_kib = needed.as_kib_ceil();
    let free = free_text(question);
    if needed <= available {
        return vec![Finding::ok(
            codes::PLAN_MEMORY,
            format!("`{guest}` needs {needed_kib} KiB on `{target}`, and there is room: {free}"),
        )];
    }
    let min = facts.host_min_memory.as_kib_ceil();
    vec![Finding::blocker(
        codes::PLAN_MEMORY,
        format!(
            "`{guest}` needs {needed_kib} KiB on `{target}` ({} and {} for its engine), but \
             host_min_memory is {min} KiB and keeping it would leave only {} KiB free ({free})",
            passport.memory,
            overhead,
            available.as_kib_ceil()
        ),
        format!(
            "free {} on `{target}` (stop or move a guest there, give its guests a `memory_min`, or \
             lower `host_min_memory`), or choose another host: `whimbrel host list`",
            needed.saturating_sub(available)
        ),
    )]
}

/// Returns what is free and what counts against it.
fn free_text(question: &Question<'_>) -> String {
    let host = question.target.host;
    let facts = host.memory;
    let mut text = format!("{} KiB are free", facts.free.as_kib_ceil());
    if facts.reclaimable > Bytes(0) {
        let kib = facts.reclaimable.as_kib_ceil();
        text.push_str(&format!(", {kib} KiB can be taken from guests that allow it"));
    }
    if facts.promised > Bytes(0) {
        let (kib, count) = (facts.promised.as_kib_ceil(), host.incoming_count);
        text.push_str(&format!(", {kib} KiB are promised to {count} arriving"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent(size: u64, min: u64, taken: u64) -> Consent {
        let size = Bytes::mib(size);
        let resident = Bytes::mib(taken).saturating_add(engine_overhead(size));
        Consent { size, min: Bytes::mib(min), resident }
    }

    /// Each gives in proportion, none goes below its least, and what was never touched gives
    /// nothing.
    #[test]
    fn guests_are_squeezed_in_proportion_and_never_below_their_least() {
        let guests = [consent(1024, 256, 1024), consent(512, 256, 512), consent(1024, 512, 300)];
        assert_eq!(guests.map(|guest| guest.gives()), [Bytes::mib(768), Bytes::mib(256), Bytes(0)]);
        let targets = squeeze(Bytes::mib(512), &guests);
        assert_eq!(targets, [Some(Bytes::mib(640)), Some(Bytes::mib(384)), None]);
        let all = squeeze(Bytes::mib(9999), &guests);
        assert_eq!(all, [Some(Bytes::mib(256)), Some(Bytes::mib(256)), None]);
        assert_eq!(squeeze(Bytes::mib(1), &[]), []);
        assert_eq!(squeeze(Bytes(0), &guests), [None, None, None]);
    }

    #[test]
    fn what_was_taken_is_given_back_as_far_as_there_is_room() {
        let squeezed = [(Bytes::mib(256), Bytes::mib(512)), (Bytes::mib(100), Bytes::mib(512))];
        let all = give_back(Bytes::mib(4096), &squeezed);
        assert_eq!(all, [Some(Bytes::mib(512)), Some(Bytes::mib(512))]);
        let some = give_back(Bytes::mib(300), &squeezed);
        assert_eq!(some, [Some(Bytes::mib(512)), Some(Bytes::mib(144))]);
        assert_eq!(give_back(Bytes(0), &squeezed), [None, None]);
    }
}
