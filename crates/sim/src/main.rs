// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel-sim model [--full] | sim --seeds N [--seed S] | mutants`: tests the tests' way.

use std::io::Write;
use std::sync::Arc;
use whimbrel_sim::model::{Exploration, explore};
use whimbrel_sim::scopes;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let max: usize = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(100_000);
    let only = std::env::args().nth(3);
    for scope in scopes::all() {
        if only.as_ref().is_some_and(|only| !scope.name.contains(only.as_str())) {
            continue;
        }
        let exploration = Exploration { scope: Arc::new(scope), heal_each: 16 };
        let found = explore(&exploration, max);
        writeln!(
            out,
            "{:40} {:>9} states, depth {:>3}, {} {:.1?}",
            exploration.scope.name,
            found.states,
            found.depth,
            if found.is_exhausted { "all " } else { "part" },
            found.took
        )?;
        if let Some(counter) = found.counterexample {
            writeln!(out, "  WRONG {:?}", counter.wrong)?;
            for action in counter.actions {
                writeln!(out, "    {action:?}")?;
            }
        }
    }
    Ok(())
}
