// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The explorers as a program; `./x model`, `./x sim` and `./x mutants` call it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use whimbrel_sim::coverage::{self, Coverage, Seen};
use whimbrel_sim::model::{Exploration, explore};
use whimbrel_sim::{kills, scopes, walk};

const USAGE: &str = "\
usage: whimbrel-sim model [--full | --states N] [--only PART-OF-A-NAME] [--write]
       whimbrel-sim sim [--seeds N] [--seed S]
       whimbrel-sim mutants [--write]
";

/// Worlds generated in each scope, in CI and for a full run.
const STATES: usize = 260_000;
const STATES_FULL: usize = 28_000_000;

/// Lives lived where nobody says how many.
const SEEDS: u64 = 100_000;

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_set = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)
    };
    let number = |name| value(name).and_then(|text| text.parse::<u64>().ok());
    let is_fine = match arguments.first().map(String::as_str) {
        Some("model") => {
            let states = if is_set("--full") { STATES_FULL } else { STATES };
            let asked = number("--states").and_then(|n| usize::try_from(n).ok());
            let only = value("--only").map(String::as_str).unwrap_or_default();
            let is_whole = asked.is_none() && only.is_empty() && !is_set("--full");
            let (is_right, seen) = model(&mut out, asked.unwrap_or(states), only)?;
            let table = coverage::table(&seen);
            let page = Page { name: "transitions.md", is_written: is_set("--write") };
            is_right && (!is_whole || page.agrees(&mut out, &table)?)
        }
        Some("sim") => {
            let first = number("--seed").unwrap_or(0);
            let one_or_many = if is_set("--seed") { 1 } else { SEEDS };
            let count = number("--seeds").unwrap_or(one_or_many);
            sim(&mut out, first, count)?
        }
        Some("mutants") => {
            let page = Page { name: "mutants.md", is_written: is_set("--write") };
            mutants(&mut out, page)?
        }
        _ => {
            write!(out, "{USAGE}")?;
            return Ok(ExitCode::from(2));
        }
    };
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn model(out: &mut impl Write, states_max: usize, only: &str) -> io::Result<(bool, Seen)> {
    let coverage = Coverage::default();
    let mut states = 0;
    let mut is_fine = true;
    let began = Instant::now();
    for mut scope in scopes::all() {
        if !scope.name.contains(only) {
            continue;
        }
        scope.coverage = coverage.clone();
        let exploration = Exploration { scope: Arc::new(scope), heal_each: 16 };
        let found = explore(&exploration, states_max);
        states += found.states;
        let extent = if found.is_exhausted { "exhausted" } else { "bounded" };
        writeln!(
            out,
            "{:38} {:>10} states, depth {:>3}, {extent}, {:.1} s",
            exploration.scope.name,
            found.states,
            found.depth,
            found.took.as_secs_f64()
        )?;
        if let Some(counter) = found.counterexample {
            is_fine = false;
            writeln!(out, "  WRONG: {}", coverage::words(counter.wrong))?;
            for action in counter.actions {
                writeln!(out, "    {}", walk::sentence(&action))?;
            }
        }
    }
    let seen = coverage.seen();
    let seconds = began.elapsed().as_secs_f64();
    writeln!(
        out,
        "{states} states in {seconds:.0} s; {} transitions and {} verdicts reached",
        seen.moves.len(),
        seen.verdicts.len()
    )?;
    Ok((is_fine, seen))
}

fn sim(out: &mut impl Write, first: u64, count: u64) -> io::Result<bool> {
    let began = Instant::now();
    let tally = walk::many(first..first.saturating_add(count), None, &Coverage::default());
    writeln!(
        out,
        "{} lives from seed {first}, {} steps, {} ended elsewhere, digest {:016x}, {:.1} s",
        tally.walks,
        tally.steps,
        tally.moved,
        tally.digest,
        began.elapsed().as_secs_f64()
    )?;
    match tally.failed {
        None => Ok(true),
        Some(failed) => {
            write!(out, "{}", walk::tell(&failed))?;
            Ok(false)
        }
    }
}

fn mutants(out: &mut impl Write, page: Page) -> io::Result<bool> {
    let kills = kills::all(|kill| {
        let fate = if kill.is_killed() { "killed" } else { "SURVIVES" };
        let model = kill.by_model.map_or("-", |(scope, _)| scope);
        let seed = kill.by_walk.map_or("-".to_owned(), |(seed, _)| format!("seed {seed}"));
        // The table that is returned matters; a line on the way does not.
        let _ = writeln!(out, "{:26} {fate:8} {model}; {seed}", kill.mutant.name());
        let _ = out.flush();
    });
    let agrees = page.agrees(out, &kills::table(&kills))?;
    Ok(agrees && kills.iter().all(kills::Kill::is_killed))
}

/// A page of the documentation that is written by this program and committed.
struct Page {
    name: &'static str,
    /// Whether to write it anew instead of comparing.
    is_written: bool,
}

impl Page {
    fn agrees(&self, out: &mut impl Write, text: &str) -> io::Result<bool> {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let path = docs.join(self.name);
        if self.is_written {
            std::fs::write(path, text)?;
            return Ok(true);
        }
        let committed = std::fs::read_to_string(path)?;
        if committed == text {
            return Ok(true);
        }
        let has = |page: &str, line: &str| page.lines().any(|other| other == line);
        for line in committed.lines().filter(|line| !has(text, line)) {
            writeln!(out, "docs/{}: gone: {line}", self.name)?;
        }
        for line in text.lines().filter(|line| !has(&committed, line)) {
            writeln!(out, "docs/{}: new: {line}", self.name)?;
        }
        writeln!(out, "look at it, then write the page with `--write`")?;
        Ok(false)
    }
}
