// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What came of the cases, kept in a file, so that a run can be interrupted and taken up again.

use super::case::{Came, Case, Verdict};
use super::faults::Fault;
use super::points::POINTS;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// One line of the file, behind the case's key; times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `ok`, `idle` (nothing to break), `not-passed` or `FAILED`.
    pub(super) word: String,
    pub(super) place: String,
    pub(super) still_ms: u64,
    pub(super) settled_ms: u64,
    pub(super) remark: String,
}

pub(super) struct Results {
    path: PathBuf,
    lines: BTreeMap<String, Line>,
}

impl Results {
    /// Opens the file; a fresh run forgets what is in it.
    pub(super) fn open(path: &Path, is_fresh: bool) -> Result<Results> {
        if is_fresh && path.exists() {
            fs::remove_file(path)?;
        }
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().filter_map(parse).collect();
        Ok(Results { path: path.to_owned(), lines })
    }

    /// Whether a case need not be acted out again.
    pub(super) fn is_done(&self, case: &Case) -> bool {
        self.lines.get(&case.key()).is_some_and(|line| line.word != "FAILED")
    }

    pub(super) fn add(&mut self, case: &Case, outcome: &Result<Verdict>) -> Result<Line> {
        let line = match outcome {
            Ok(Verdict::Right(came)) => of(came),
            Ok(Verdict::NotPassed) => blank("not-passed", String::new()),
            Err(error) => blank("FAILED", format!("{error:#}").replace(['\n', '\t', '|'], " ")),
        };
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        let Line { word, place, still_ms, settled_ms, remark } = &line;
        let key = case.key();
        writeln!(file, "{key}\t{word}\t{place}\t{still_ms}\t{settled_ms}\t{remark}")?;
        self.lines.insert(key, line.clone());
        Ok(line)
    }

    /// Counts the cases of each word, of those asked for.
    pub(super) fn counts(&self, cases: &[Case]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in cases.iter().filter_map(|case| self.lines.get(&case.key())) {
            *counts.entry(line.word.clone()).or_default() += 1;
        }
        counts
    }

    /// Draws the table: a point a row, a fault a column.
    pub(super) fn table(&self) -> String {
        let faults = Fault::ALL;
        let mut text = String::from("| # | point |");
        faults.iter().for_each(|fault| _ = write!(text, " {} |", fault.key()));
        text.push_str("\n| --- | --- |");
        faults.iter().for_each(|_| text.push_str(" --- |"));
        text.push('\n');
        for (number, point) in (1..).zip(POINTS) {
            _ = write!(text, "| {number} | {} |", point.key());
            for fault in faults {
                let line = self.lines.get(&Case { point, fault }.key());
                let is_possible = fault.applies_to(point);
                _ = write!(text, " {} |", cell(line, is_possible));
            }
            text.push('\n');
        }
        text
    }
}

fn cell(line: Option<&Line>, is_possible: bool) -> String {
    match line {
        None if is_possible => "?".to_owned(),
        None => String::new(),
        Some(line) => match line.word.as_str() {
            "ok" => {
                let seconds = |ms: u64| ms as f64 / 1000.0;
                let (still, all) = (seconds(line.still_ms), seconds(line.settled_ms));
                format!("{} {still:.1}/{all:.1}", line.place)
            }
            "idle" => "nothing to break".to_owned(),
            "not-passed" => "not passed".to_owned(),
            _ => "**FAILED**".to_owned(),
        },
    }
}

fn of(came: &Came) -> Line {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Line {
        word: if came.was_idle { "idle" } else { "ok" }.to_owned(),
        place: came.end.word().to_owned(),
        still_ms: ms(came.still),
        settled_ms: ms(came.settled),
        remark: String::new(),
    }
}

fn blank(word: &str, remark: String) -> Line {
    let place = String::new();
    Line { word: word.to_owned(), place, still_ms: 0, settled_ms: 0, remark }
}

fn parse(line: &str) -> Option<(String, Line)> {
    let mut fields = line.split('\t');
    let key = fields.next()?.to_owned();
    let mut text = || fields.next().map(str::to_owned);
    let (word, place) = (text()?, text()?);
    let (still_ms, settled_ms) = (text()?.parse().ok()?, text()?.parse().ok()?);
    let remark = text().unwrap_or_default();
    Some((key, Line { word, place, still_ms, settled_ms, remark }))
}

/// Writes the page about the matrix: what it is, how much of it was run, the table.
pub(super) fn write_page(results: &Results, cases: &[Case], path: &Path) -> Result<()> {
    let counts = results.counts(cases);
    let run: usize = counts.values().sum();
    let mut said = Vec::new();
    for (word, what) in [
        ("ok", "ended as written down beforehand"),
        ("idle", "had nothing to break at that point, and moved"),
        ("not-passed", "were not passed by the migration that was to pass them"),
        ("FAILED", "failed"),
    ] {
        if let Some(count) = counts.get(word) {
            said.push(format!("{count} {what}"));
        }
    }
    let sum = format!("{run} of {} cases were run: {}.", cases.len(), said.join("; "));
    let page = format!("{}\n{sum}\n\n{}", include_str!("page.md"), results.table());
    fs::write(path, page).with_context(|| format!("failed to write {}", path.display()))
}
