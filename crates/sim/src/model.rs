// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The model check: every world that can be reached, by breadth-first search.

use crate::heal;
use crate::world::{Action, Scope, World, Wrong, after};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A scope to be explored.
#[derive(Clone)]
pub struct Exploration {
    pub scope: Arc<Scope>,
    /// One world in this many is also healed; 1: each.
    pub heal_each: u64,
}

impl Model for Exploration {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.scope)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(&self.scope, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let next = after(world, &self.scope, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing wrong", |_, world: &World| world.wrong.is_none()),
            Property::always("heals", |this: &Self, world| this.heals(world)),
        ]
    }
}

impl Exploration {
    fn heals(&self, world: &World) -> bool {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        if !hasher.finish().is_multiple_of(self.heal_each) || world.wrong.is_some() {
            return true;
        }
        self.heal(world).is_ok()
    }

    pub fn heal(&self, world: &World) -> Result<World, (Wrong, World)> {
        heal::heal(world, &self.scope)
    }
}

/// What an exploration found.
pub struct Findings {
    pub states: usize,
    pub depth: usize,
    pub is_exhausted: bool,
    pub took: Duration,
    /// The shortest way to something wrong, if there is one.
    pub counterexample: Option<Counterexample>,
}

pub struct Counterexample {
    pub wrong: Wrong,
    pub actions: Vec<Action>,
}

/// Explores until everything was seen, something is wrong, or `states_max` worlds were visited.
pub fn explore(exploration: &Exploration, states_max: usize) -> Findings {
    let began = Instant::now();
    let checker = exploration.clone().checker().threads(1).target_state_count(states_max);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path =
        checker.discoveries().into_values().min_by_key(|path| path.clone().into_actions().len());
    let counterexample = path.map(|path| {
        let last = path.last_state();
        let wrong = last.wrong.or_else(|| exploration.heal(last).err().map(|(wrong, _)| wrong));
        Counterexample { wrong: wrong.unwrap_or(Wrong::Unsettled), actions: path.into_actions() }
    });
    Findings {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        is_exhausted: checker.state_count() < states_max && counterexample.is_none(),
        took: began.elapsed(),
        counterexample,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage;
    use crate::mutants::Mutant;
    use crate::scopes;

    fn explore_all(mutant: Option<Mutant>) -> Option<Counterexample> {
        scopes::all().into_iter().find_map(|mut scope| {
            scope.mutant = mutant;
            let exploration = Exploration { scope: Arc::new(scope), heal_each: 16 };
            explore(&exploration, 8_000).counterexample
        })
    }

    /// Nothing is wrong in the first worlds of every scope; `./x model` goes on from there.
    #[test]
    fn the_first_worlds_are_right() {
        if let Some(counter) = explore_all(None) {
            panic!("{}: {:#?}", coverage::words(counter.wrong), counter.actions);
        }
    }

    /// The test is tested: the same search finds a fault that needs few steps, and the way to it.
    #[test]
    fn a_fault_is_found() {
        let found = explore_all(Some(Mutant::TargetNotHeld)).expect("it is found");
        assert!(!found.actions.is_empty());
    }

    /// Every transition that the first worlds take stands in the committed page.
    #[test]
    fn no_transition_is_unknown() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/transitions.md");
        let committed = std::fs::read_to_string(page).unwrap();
        let coverage = coverage::Coverage::default();
        for mut scope in scopes::all() {
            scope.coverage = coverage.clone();
            explore(&Exploration { scope: Arc::new(scope), heal_each: 16 }, 8_000);
        }
        let seen = coverage::table(&coverage.seen());
        let unknown: Vec<_> = seen.lines().filter(|line| !committed.contains(line)).collect();
        assert!(unknown.is_empty(), "{unknown:#?}");
    }
}
