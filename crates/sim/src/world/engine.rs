// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Engines, as `docs/` describes what real ones do.

use super::{World, Wrong};
use whimbrel_model::id::HandoffId;
use whimbrel_model::run_state::RunState;

/// An engine process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Engine {
    pub phase: Phase,
    /// The attempt it sends or receives.
    pub handoff: Option<HandoffId>,
    /// The version of the guest its memory holds.
    pub memory: u8,
    /// Whether it ever executed the guest.
    pub has_run: bool,
    /// Whether half of its memory still lies at the source.
    pub needs_source: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    Running,
    /// Paused, or ended by itself and kept.
    Stopped(RunState),
    /// Running and sending.
    Sending,
    /// Sending a guest that does not run.
    SendingStopped(RunState),
    /// Everything is sent and the guest stopped, but nobody has said how it ended.
    Switching(RunState),
    /// Completed: stopped for good.
    Finished(RunState),
    /// Stopped in post-copy: the target may draw pages.
    Serving(RunState),
    /// Waiting for memory.
    Incoming,
    /// Has everything (post-copy: the package), has never run.
    Complete(RunState),
}

impl Phase {
    pub fn is_running(self) -> bool {
        match self {
            Phase::Running | Phase::Sending => true,
            Phase::Stopped(_) | Phase::SendingStopped(_) | Phase::Switching(_) => false,
            Phase::Finished(_) | Phase::Serving(_) | Phase::Incoming | Phase::Complete(_) => false,
        }
    }

    /// Whether the engine holds the image's lock.
    pub fn holds_lock(self) -> bool {
        match self {
            Phase::Running | Phase::Sending => true,
            Phase::Stopped(_) | Phase::SendingStopped(_) => true,
            Phase::Switching(_) | Phase::Finished(_) | Phase::Serving(_) => false,
            Phase::Incoming | Phase::Complete(_) => false,
        }
    }
}

impl Engine {
    /// A guest that has been here for a while.
    pub fn running_as(run: RunState, memory: u8) -> Self {
        let phase = match run {
            RunState::Running => Phase::Running,
            other => Phase::Stopped(other),
        };
        Self { phase, handoff: None, memory, has_run: true, needs_source: false }
    }

    pub fn incoming(handoff: HandoffId) -> Self {
        Self {
            phase: Phase::Incoming,
            handoff: Some(handoff),
            memory: 0,
            has_run: false,
            needs_source: false,
        }
    }
}

impl World {
    /// The engine of `host` begins to execute what it has in memory.
    pub(crate) fn run(&mut self, host: usize) {
        let version = self.version;
        let Some(engine) = self.host_mut(host).engine.as_mut() else { return };
        let was_running = engine.phase.is_running();
        let memory = engine.memory;
        engine.phase = Phase::Running;
        engine.has_run = true;
        if was_running {
            return;
        }
        engine.memory = version + 1;
        self.version += 1;
        if memory != version {
            self.is_wrong(Wrong::TimeTravel);
        }
        self.check_one();
    }

    /// The guest begins at its firmware on `host`.
    pub(crate) fn boot_guest(&mut self, host: usize) {
        self.version += 1;
        let engine = Engine::running_as(RunState::Running, self.version);
        self.host_mut(host).engine = Some(engine);
        self.expected = Some(RunState::Running);
        self.check_one();
    }

    fn check_one(&mut self) {
        if self.running().count() > 1 {
            self.is_wrong(Wrong::Two);
        }
    }

    /// Whether some engine other than the one on `host` has the image open for writing.
    pub(crate) fn is_locked_by_other(&self, host: usize) -> bool {
        self.hosts
            .iter()
            .enumerate()
            .any(|(index, h)| index != host && h.engine.is_some_and(|e| e.phase.holds_lock()))
    }

    /// Ends the engine of `host` because the machines said so.
    pub(crate) fn destroy(&mut self, host: usize, is_excused: bool) {
        let Some(engine) = self.host_mut(host).engine.take() else { return };
        let is_whole =
            |engine: &Engine| !engine.needs_source && !matches!(engine.phase, Phase::Serving(_));
        let is_newest = |engine: &Engine| engine.memory == self.version && is_whole(engine);
        let has_other = self.hosts.iter().any(|h| h.engine.as_ref().is_some_and(is_newest));
        let is_loss = is_newest(&engine) && !has_other && self.crashed != self.version;
        if is_loss && !is_excused && self.expected.is_some() {
            self.is_wrong(Wrong::Lost);
        }
        if is_loss {
            self.crashed = self.version;
        }
        self.lose_half(host, &engine, !is_excused);
    }

    /// The engine of `host` dies by itself, or with its host.
    pub(crate) fn kill_engine(&mut self, host: usize) {
        let Some(engine) = self.host_mut(host).engine.take() else { return };
        if engine.memory == self.version {
            self.crashed = self.version;
        }
        self.lose_half(host, &engine, false);
    }

    /// Whoever draws pages from an engine that is gone is gone, too.
    fn lose_half(&mut self, host: usize, engine: &Engine, is_fault_of_ours: bool) {
        if !matches!(engine.phase, Phase::Serving(_)) {
            return;
        }
        for other in (0..self.hosts.len()).filter(|&other| other != host) {
            let Some(half) = self.hosts[other].engine else { continue };
            if half.handoff == engine.handoff && half.needs_source {
                if is_fault_of_ours && half.has_run {
                    self.is_wrong(Wrong::HalfLost);
                }
                self.host_mut(other).engine = None;
            }
        }
    }

    /// Memory flows from the engine of `source` to whoever receives the same attempt.
    pub(crate) fn receiver(&self, source: usize) -> Option<usize> {
        let engine = self.hosts[source].engine?;
        if !matches!(engine.phase, Phase::Sending | Phase::SendingStopped(_)) {
            return None;
        }
        self.hosts.iter().position(|h| {
            h.engine.is_some_and(|e| e.phase == Phase::Incoming && e.handoff == engine.handoff)
        })
    }
}
