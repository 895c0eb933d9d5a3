// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What must become of any world once faults cease: exactly one copy, soon, and nothing left over.
//!
//! Healing is one fair run: every message sent before is lost, every host and daemon is up, every
//! driver does what is its turn, every message arrives once and in order, timers tick only when
//! nothing else moves. Nobody says a word as operator.

use crate::world::{Action, End, Phase, Scope, World, Wrong};
use std::collections::BTreeSet;
use std::sync::Arc;
use whimbrel_handoff::door::Then;
use whimbrel_handoff::ownership::State;
use whimbrel_handoff::target::Target;
use whimbrel_model::run_state::RunState;

/// Rounds of a driver's life after which a world must have settled.
const ROUNDS_MAX: usize = 60;

/// How many kinds of timers there are, the most patient last.
const PATIENCE_MAX: usize = 5;

/// Lets the world heal. Returns what is still wrong.
pub fn heal(world: &World, scope: &Scope) -> Result<World, (Wrong, World)> {
    let mut world = world.clone();
    world.net = Arc::default();
    world.left.starts = u8::MAX;
    for host in 0..world.hosts.len() {
        if !world.hosts[host].is_on {
            world.act(scope, Action::PowerReturns(host));
        }
        if world.hosts[host].node.is_none() {
            world.act(scope, Action::DaemonStarts(host));
        }
    }
    let mut patience = 0;
    for _ in 0..ROUNDS_MAX {
        settle(&mut world, scope);
        let before = (world.hosts.clone(), world.disk.clone());
        // Nothing moves by itself any more: timers, in the order of their patience.
        tick(&mut world, scope, patience);
        settle(&mut world, scope);
        if world.wrong.is_some() {
            break;
        }
        patience =
            if before == (world.hosts.clone(), world.disk.clone()) { patience + 1 } else { 0 };
        if patience > PATIENCE_MAX {
            break;
        }
    }
    match world.wrong.or_else(|| judge(&world)) {
        Some(wrong) => Err((wrong, world)),
        None => Ok(world),
    }
}

/// Lets everything happen that happens by itself.
fn settle(world: &mut World, scope: &Scope) {
    for _ in 0..ROUNDS_MAX {
        let before = world.clone();
        round(world, scope);
        if world.wrong.is_some() || *world == before {
            return;
        }
    }
}

/// Everybody does what is their turn, until they wait for each other.
fn round(world: &mut World, scope: &Scope) {
    for host in 0..world.hosts.len() {
        work(world, scope, host);
        engine(world, scope, host);
    }
    let parcels: BTreeSet<_> = std::mem::take(Arc::make_mut(&mut world.net));
    for parcel in parcels {
        work(world, scope, parcel.to);
        world.act(scope, Action::Deliver(parcel));
    }
}

fn work(world: &mut World, scope: &Scope, host: usize) {
    for _ in 0..100 {
        let Some(node) = &world.hosts[host].node else { return };
        let action = if !node.is_idle() {
            Action::Perform(host)
        } else if !node.background.is_empty() {
            Action::Finish(host, End::Well)
        } else if !node.answers.is_empty() {
            Action::Answer(host)
        } else if node.verdict.is_some() {
            Action::Enter(host)
        } else {
            return;
        };
        world.act(scope, action);
        if world.wrong.is_some() {
            return;
        }
    }
}

/// What the engine of a host does by itself, and what its driver sees of it.
fn engine(world: &mut World, scope: &Scope, host: usize) {
    let mut actions = Vec::new();
    world.actions(scope, &mut actions);
    for action in actions {
        let is_due = match action {
            Action::Progress(h) | Action::Settle(h) | Action::Drain(h) => h == host,
            Action::Complete(h) | Action::EngineMissing(h) | Action::Drained(h) => h == host,
            Action::Reap(h) | Action::GiveUp(h) => h == host,
            _ => false,
        };
        if is_due {
            world.act(scope, action);
            work(world, scope, host);
            return;
        }
    }
}

fn tick(world: &mut World, scope: &Scope, patience: usize) {
    for host in 0..world.hosts.len() {
        let mut actions = Vec::new();
        world.left.cancels = 1;
        world.actions(scope, &mut actions);
        let state = world.own(host).map(|own| own.state.clone());
        let wants_start = matches!(state, Some(State::Owned { .. }))
            && world.hosts[host].engine.is_none()
            && world.expected.is_some();
        let may_give_up = match &state {
            Some(State::Source(source)) => !source.has_ceded(),
            Some(State::Target(target)) => {
                matches!(target, Target::Starting { .. } | Target::Receiving { .. })
            }
            _ => false,
        };
        // Whose target has lost its memory needs a person, who says what the disk can confirm.
        let is_forgotten = match &state {
            Some(State::Source(source)) => source.has_ceded(),
            Some(State::Target(target)) => matches!(target, Target::Prepared { .. }),
            _ => false,
        };
        let nobody_owns = (0..world.hosts.len()).all(|host| {
            matches!(
                world.own(host).map(|own| &own.state),
                Some(State::Unknown | State::Elsewhere { .. })
            )
        });
        let is_former = matches!(&state, Some(State::Elsewhere { .. }));
        let needs_word = is_forgotten || (nobody_owns && is_former) || wants_start;
        if scope.budget.restores > 0 && needs_word && patience >= 4 {
            let then = if patience == 4 { Then::Resume } else { Then::Boot };
            world.ask(scope, host, true, Some(then));
            work(world, scope, host);
        }
        for action in actions {
            let is_due = match action {
                Action::Nudge(h) => h == host && patience == 0,
                Action::OwnerSeen(h) => h == host && patience == 1,
                Action::Heard(h, _) => h == host && patience == 1,
                Action::Ask { host: h, reaches: true } => h == host && patience == 2 && wants_start,
                Action::PeerGone(h) => h == host && patience == 3 && may_give_up,
                _ => false,
            };
            if is_due {
                world.act(scope, action);
                work(world, scope, host);
            }
        }
    }
}

/// What is wrong with a world that has healed.
fn judge(world: &World) -> Option<Wrong> {
    let mut owners = Vec::new();
    for (index, host) in world.hosts.iter().enumerate() {
        match host.node.as_ref().map(|node| &node.own.state) {
            Some(State::Owned { .. }) => owners.push(index),
            Some(State::Unknown | State::Elsewhere { .. }) => {}
            // Two hosts went on with one guest because somebody said something false. The older
            // is stopped and kept, for a person to look at.
            Some(State::Disputed { .. }) if world.is_disputed => continue,
            Some(_) | None => return Some(Wrong::Unsettled),
        }
        if host.engine.is_some() && owners.last() != Some(&index) {
            return Some(Wrong::LeftOver);
        }
    }
    let [owner] = owners[..] else { return Some(Wrong::Unsettled) };
    if world.is_tolerant {
        // Two may have run by a false word, and which of them this is nobody can say.
        return None;
    }
    let phase = world.hosts[owner].engine.map(|engine| engine.phase);
    match (world.expected, phase) {
        (None, None) => None,
        (None, Some(_)) => Some(Wrong::LeftOver),
        // The paused copy of a dispute can hold the image: a person has to give one up.
        (Some(_), None) if world.is_disputed => None,
        (Some(_), None) => Some(Wrong::NobodyRuns),
        (Some(RunState::Running), Some(Phase::Running)) => None,
        (Some(run), Some(Phase::Stopped(is))) if run == is => None,
        (Some(_), Some(_)) => Some(Wrong::RunStateChanged),
    }
}
