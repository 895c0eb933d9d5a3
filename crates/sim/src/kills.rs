// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Which layer kills which mutant: the table of `docs/mutants.md`.

use crate::coverage::{self, Coverage};
use crate::model::{Exploration, explore};
use crate::mutants::Mutant;
use crate::world::Wrong;
use crate::{scopes, walk};
use std::fmt::Write;
use std::sync::Arc;

/// Worlds generated in each scope before a mutant counts as surviving there.
const STATES_MAX: usize = 60_000;
/// And if the simulation has not found it either.
const STATES_MAX_LAST: usize = 700_000;
/// Lives lived before a mutant counts as surviving.
const SEEDS_MAX: u64 = 6_000;

/// What happened to a mutant.
pub struct Kill {
    pub mutant: Mutant,
    /// The scope that found it, and what it found.
    pub by_model: Option<(&'static str, Wrong)>,
    /// The seed that found it, and what it found.
    pub by_walk: Option<(u64, Wrong)>,
}

impl Kill {
    pub fn is_killed(&self) -> bool {
        self.by_model.is_some() || self.by_walk.is_some()
    }
}

/// Hunts every mutant, and shows each as it is done.
pub fn all(mut show: impl FnMut(&Kill)) -> Vec<Kill> {
    let hunted = Mutant::ALL.iter().map(|&mutant| hunt(mutant));
    hunted.inspect(|kill| show(kill)).collect()
}

/// Hunts one mutant with both layers.
pub fn hunt(mutant: Mutant) -> Kill {
    let by_model = by_model(mutant, STATES_MAX);
    let failed = walk::many(0..SEEDS_MAX, Some(mutant), &Coverage::default()).failed;
    let by_walk = failed.and_then(|walk| walk.wrong.map(|wrong| (walk.seed, wrong)));
    let by_model = match by_walk {
        None => by_model.or_else(|| self::by_model(mutant, STATES_MAX_LAST)),
        Some(_) => by_model,
    };
    Kill { mutant, by_model, by_walk }
}

fn by_model(mutant: Mutant, states_max: usize) -> Option<(&'static str, Wrong)> {
    // What a short look does not find is in the wide scopes, which come last.
    let mut scopes = scopes::all();
    if states_max > STATES_MAX {
        scopes.reverse();
    }
    scopes.into_iter().find_map(|mut scope| {
        scope.mutant = Some(mutant);
        let name = scope.name;
        let exploration = Exploration { scope: Arc::new(scope), heal_each: 4 };
        let found = explore(&exploration, states_max);
        found.counterexample.map(|counter| (name, counter.wrong))
    })
}

/// Returns the table as it stands in the documentation.
pub fn table(kills: &[Kill]) -> String {
    let mut text = String::from(
        "# Mutants\n\n\
         Deliberate faults, each of which must be found. Written by `./x mutants`; a test \
         compares.\n\n\
         | mutant | the fault | the model check finds | the simulation finds |\n\
         | --- | --- | --- | --- |\n",
    );
    for Kill { mutant, by_model, by_walk } in kills {
        let model = by_model.map_or("-".to_owned(), |(scope, wrong)| {
            format!("{} ({scope})", coverage::words(wrong))
        });
        let walk = by_walk.map_or("-".to_owned(), |(seed, wrong)| {
            format!("{} (seed {seed})", coverage::words(wrong))
        });
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {} | {model} | {walk} |", mutant.name(), mutant.text());
    }
    text
}
