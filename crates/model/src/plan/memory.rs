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
