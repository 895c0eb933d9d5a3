// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Which memory of this host is promised to guests that have not taken it yet.
//!
//! An engine takes its guest's memory page by page, so what the kernel calls available goes on
//! shrinking long after a guest was let in. Whoever is on the way here is written down until it
//! has arrived, and counts.

use crate::guests::{GuestError, Papers};
use std::collections::BTreeMap;
use std::sync::Mutex;
use whimbrel_api::Problem;
use whimbrel_host::machine;
use whimbrel_model::facts::MemoryFacts;
use whimbrel_model::id::GuestId;
use whimbrel_model::units::Bytes;

/// The memory of this host, as guests are let in.
#[derive(Debug)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the host keeps for itself.
    kept: Bytes,
    promised: BTreeMap<GuestId, Bytes>,
}

impl Memory {
    pub(crate) fn new(kept: Bytes) -> Self {
        Self { state: Mutex::new(State { kept, promised: BTreeMap::new() }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the promises")
    }

    pub(crate) fn set_kept(&self, kept: Bytes) {
        self.state().kept = kept;
    }

    pub(crate) fn facts(&self) -> MemoryFacts {
        let state = self.state();
        let promised = Bytes(state.promised.values().map(|bytes| bytes.0).sum());
        machine::memory(state.kept, promised)
    }

    /// Promises memory to a guest that is about to start or to arrive, if there is enough.
    pub(crate) fn promise(&self, papers: &Papers) -> Result<(), Problem> {
        let facts = self.facts();
        let needed = papers.guest.memory.size;
        let free = Bytes(facts.free.0.saturating_sub(facts.promised.0));
        if free.0 < needed.0 + facts.host_min_memory.0 {
            return Err(GuestError::NoMemory {
                guest: papers.guest.name.to_string(),
                needed,
                kept: facts.host_min_memory,
                free,
            }
            .into());
        }
        self.state().promised.insert(papers.id, needed);
        Ok(())
    }

    /// The guest has what it was promised, or does not come.
    pub(crate) fn release(&self, guest: GuestId) {
        self.state().promised.remove(&guest);
    }

    /// How many guests are promised memory: those on their way here.
    pub(crate) fn promised_count(&self) -> u32 {
        u32::try_from(self.state().promised.len()).unwrap_or(u32::MAX)
    }
}
