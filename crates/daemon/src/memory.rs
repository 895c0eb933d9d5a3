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
use tokio::sync::Notify;
use whimbrel_api::Problem;
use whimbrel_engine::{Engine, HostMemory};
use whimbrel_host::machine;
use whimbrel_model::facts::MemoryFacts;
use whimbrel_model::id::GuestId;
use whimbrel_model::plan::memory::engine_overhead;
use whimbrel_model::units::Bytes;

/// The memory of this host, as guests are let in.
#[derive(Debug)]
pub(crate) struct Memory {
    state: Mutex<State>,
    /// Rung when there may be more room than before.
    pub(crate) has_room: Notify,
}

#[derive(Debug)]
struct State {
    /// What the host keeps for itself.
    kept: Bytes,
    promised: BTreeMap<GuestId, Bytes>,
    /// Guests that gave memory back for others, and what their balloons aim at.
    squeezed: BTreeMap<GuestId, Bytes>,
    /// What the engine said last, where the kernel does not see all of the host's memory.
    of_engine: Option<HostMemory>,
}

impl Memory {
    pub(crate) fn new(kept: Bytes) -> Self {
        let state =
            State { kept, promised: BTreeMap::new(), squeezed: BTreeMap::new(), of_engine: None };
        Self { state: Mutex::new(state), has_room: Notify::new() }
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
        let facts = machine::memory(state.kept, promised);
        match state.of_engine {
            Some(memory) => {
                let (total, free) = (memory.total, memory.available(state.kept));
                MemoryFacts { total, free, ..facts }
            }
            None => facts,
        }
    }

    /// Takes note of what the engine says of the host's memory; one that does not answer now is as
    /// it was.
    pub(crate) async fn look(&self, engine: &dyn Engine) {
        match engine.memory().await {
            Ok(found) => self.state().of_engine = found,
            Err(error) => tracing::warn!(%error, "the engine does not say what memory is free"),
        }
    }

    /// Promises memory to a guest that is about to start or to arrive, if there is enough.
    pub(crate) fn promise(&self, papers: &Papers) -> Result<(), Problem> {
        // What was promised to it before, it is not to find room beside.
        self.state().promised.remove(&papers.id);
        let facts = self.facts();
        let needed = needed(papers);
        let free = Bytes(facts.free.0.saturating_sub(facts.promised.0));
        if free < needed.saturating_add(facts.host_min_memory) {
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
        self.has_room.notify_one();
    }

    /// Promises memory to a guest that others make room for, and returns how much is missing.
    pub(crate) fn claim(&self, papers: &Papers) -> Bytes {
        self.state().promised.insert(papers.id, needed(papers));
        let facts = self.facts();
        let wanted = facts.promised.saturating_add(facts.host_min_memory);
        wanted.saturating_sub(facts.free)
    }

    /// Returns what is neither used nor spoken for.
    pub(crate) fn room(&self) -> Bytes {
        let facts = self.facts();
        facts.free.saturating_sub(facts.promised).saturating_sub(facts.host_min_memory)
    }

    /// What a guest's balloon aims at; none: it has all that its file gives it.
    pub(crate) fn note_squeezed(&self, guest: GuestId, target: Option<Bytes>) {
        match target {
            Some(target) => self.state().squeezed.insert(guest, target),
            None => self.state().squeezed.remove(&guest),
        };
    }

    pub(crate) fn squeezed(&self) -> BTreeMap<GuestId, Bytes> {
        self.state().squeezed.clone()
    }

    /// How many guests are promised memory: those on their way here.
    pub(crate) fn promised_count(&self) -> u32 {
        u32::try_from(self.state().promised.len()).unwrap_or(u32::MAX)
    }
}

/// What a guest takes: its own memory, and what its engine needs beside it.
fn needed(papers: &Papers) -> Bytes {
    let size = papers.guest.memory.size;
    size.saturating_add(engine_overhead(size))
}
