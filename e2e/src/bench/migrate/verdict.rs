// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What was measured, as tables for people, and held against the goals.

use super::cell::Question;
use super::converge::{HAS_ENDED, WRITTEN};
use super::cores::{BUSIEST, BUSY, CARRIERS, ENGINES};
use super::cut::{AFTER, ATTEMPTS, RESENT, UNTIL_THERE};
use super::measure::{BYTES, LOAD, SILENCE, TRAVEL, WHOLE};
use super::samples::{Key, Samples};
use crate::bench::table::Spread;
use std::fmt::Write as _;

/// How a figure is shown: its head, what it is divided by, its decimals.
type Column = (&'static str, &'static str, f64, usize);

const MOVE: [Column; 4] = [
    (BYTES, "wire MB", 1e6, 1),
    (WHOLE, "whole s", 1e3, 2),
    (TRAVEL, "travel s", 1e3, 2),
    (SILENCE, "silence ms", 1.0, 0),
];
/// Where the processors' time went, beside the time there was.
const CORES: [Column; 5] = [
    (WHOLE, "whole s", 1e3, 2),
    (BUSY, "all cores s", 1e3, 2),
    (ENGINES, "engines s", 1e3, 2),
    (CARRIERS, "carrying processes s", 1e3, 2),
    (BUSIEST, "busiest thread s", 1e3, 2),
];
/// No silence: a client cannot reach every guest over a wire that is cut.
const CUT: [Column; 4] = [
    (AFTER, "MB after the cut", 1e6, 1),
    (RESENT, "sent again %", 1.0, 1),
    (UNTIL_THERE, "until it was there s", 1e3, 1),
    (ATTEMPTS, "attempts", 1.0, 0),
];
const CONVERGE: [Column; 5] = [
    (HAS_ENDED, "ended", 1.0, 1),
    (WHOLE, "whole s", 1e3, 1),
    (BYTES, "wire MB", 1e6, 0),
    (SILENCE, "silence ms", 1.0, 0),
    (WRITTEN, "pages written/s", 1.0, 0),
];

/// A figure of ours, by itself or in parts of a rival's.
struct Goal {
    question: Question,
    figure: &'static str,
    /// On this link only.
    link: Option<&'static str>,
    rival: Option<&'static str>,
    at_most: f64,
}

const fn ratio(
    question: Question,
    figure: &'static str,
    link: Option<&'static str>,
    rival: &'static str,
    at_most: f64,
) -> Goal {
    Goal { question, figure, link, rival: Some(rival), at_most }
}

const fn limit(
    question: Question,
    figure: &'static str,
    link: Option<&'static str>,
    at_most: f64,
) -> Goal {
    Goal { question, figure, link, rival: None, at_most }
}

const GOALS: &[Goal] = &[
    ratio(Question::Visit, BYTES, None, "Qx", 0.97),
    ratio(Question::Visit, BYTES, None, "Q0", 0.35),
    ratio(Question::Visit, BYTES, None, "V", 0.35),
    ratio(Question::Visit, WHOLE, Some("100mbit"), "Qx", 1.0),
    ratio(Question::Visit, WHOLE, Some("100mbit"), "Q0", 0.35),
    ratio(Question::Visit, WHOLE, Some("1gbit"), "Qx", 1.0),
    ratio(Question::Visit, WHOLE, Some("unshaped"), "Qx", 1.1),
    ratio(Question::Visit, WHOLE, Some("unshaped"), "Q0", 1.1),
    ratio(Question::Visit, WHOLE, Some("unshaped"), "V", 0.5),
    ratio(Question::Visit, SILENCE, Some("1gbit"), "Qx", 1.0),
    ratio(Question::Visit, SILENCE, Some("100mbit"), "Qx", 1.0),
    limit(Question::Visit, SILENCE, Some("1gbit"), 50.0),
    limit(Question::Visit, SILENCE, Some("100mbit"), 50.0),
    ratio(Question::Return, BYTES, None, "Qx", 0.05),
    ratio(Question::Return, BYTES, None, "Q0", 0.02),
    ratio(Question::Return, BYTES, None, "V", 0.02),
    ratio(Question::Return, WHOLE, Some("100mbit"), "Qx", 0.25),
    ratio(Question::Return, WHOLE, Some("100mbit"), "Q0", 0.06),
    ratio(Question::Return, WHOLE, Some("1gbit"), "Qx", 0.7),
    limit(Question::Cut, RESENT, None, 2.0),
];

/// All tables, in Markdown.
pub(super) fn text(samples: &Samples) -> String {
    let mut text = String::new();
    for question in Question::ALL {
        let keys = samples.keys(question.name());
        if keys.is_empty() {
            continue;
        }
        let columns: &[Column] = match question {
            Question::Visit | Question::Return => &MOVE,
            Question::Cut => &CUT,
            Question::Converge => &CONVERGE,
        };
        let _ = writeln!(text, "### {}\n", question.title());
        table(&mut text, samples, &keys, columns);
        if matches!(question, Question::Visit | Question::Return) {
            let _ = writeln!(text, "Of the processors that took:\n");
            table(&mut text, samples, &keys, &CORES);
        }
    }
    goals(&mut text, samples);
    if let Some(load) = samples.spread_of_all(LOAD) {
        let _ = writeln!(text, "\nLoad average of the machine: {}.", show(load, 1.0, 1));
    }
    text
}

fn table(text: &mut String, samples: &Samples, keys: &[Key], columns: &[Column]) {
    let heads: Vec<_> = columns.iter().map(|(_, head, ..)| *head).collect();
    let _ = writeln!(text, "| guest | link | way | {} | rounds |", heads.join(" | "));
    let _ = writeln!(text, "| --- | --- | --- |{} --- |", " --- |".repeat(columns.len()));
    for key in keys {
        let cells: Vec<_> = columns
            .iter()
            .map(|(figure, _, unit, decimals)| {
                let spread = samples.spread(key, figure);
                spread.map_or_else(String::new, |spread| show(spread, *unit, *decimals))
            })
            .collect();
        let rounds = columns.iter().filter_map(|(figure, ..)| samples.spread(key, figure));
        let rounds = rounds.map(|spread| spread.count).max().unwrap_or_default();
        let Key { kind, link, way, .. } = key;
        let _ = writeln!(text, "| {kind} | {link} | {way} | {} | {rounds} |", cells.join(" | "));
    }
    text.push('\n');
}

/// `median (least to most)`.
fn show(spread: Spread, unit: f64, decimals: usize) -> String {
    let Spread { median, least, most, count } = spread;
    let [median, least, most] =
        [median, least, most].map(|value| format!("{:.decimals$}", value / unit));
    if count == 1 { median } else { format!("{median} ({least} to {most})") }
}

fn goals(text: &mut String, samples: &Samples) {
    let mut lines = String::new();
    for goal in GOALS {
        for key in samples.keys(goal.question.name()) {
            let is_ours = ["ours", "tunnel", "pages"].contains(&key.way.as_str());
            if !is_ours || goal.link.is_some_and(|link| link != key.link) {
                continue;
            }
            let Some(found) = found(samples, goal, &key) else { continue };
            let verdict = if found <= goal.at_most { "met" } else { "missed" };
            let Key { kind, link, way, question, .. } = &key;
            let Goal { figure, rival, at_most, .. } = goal;
            let of = rival.map_or_else(|| way.clone(), |rival| format!("{way} / {rival}"));
            let _ = writeln!(
                lines,
                "| {question} | {kind} | {link} | {figure} | {of} | {found:.2} | {at_most} | {verdict} |"
            );
        }
    }
    if !lines.is_empty() {
        text.push_str(
            "### Goals\n\n| question | guest | link | figure | of | found | goal | |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        text.push_str(&lines);
    }
}

/// What was measured where a goal was set; `None` if it was not, or not of both.
fn found(samples: &Samples, goal: &Goal, ours: &Key) -> Option<f64> {
    let found = samples.spread(ours, goal.figure)?.median;
    let Some(rival) = goal.rival else { return Some(found) };
    let theirs = samples.spread(&Key { way: rival.to_owned(), ..ours.clone() }, goal.figure)?;
    Some(found / theirs.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ratio just below its goal is met, one above is missed; what was not measured is not
    /// judged.
    #[test]
    fn ratios_are_held_against_the_goals() {
        let place = tempfile::tempdir().unwrap();
        let mut samples = Samples::open(&place.path().join("f.csv"), true).unwrap();
        let key = |way: &str| {
            let [question, kind, link, way] = ["visit", "idle", "1gbit", way].map(str::to_owned);
            Key { question, kind, link, way, round: 0 }
        };
        let mut note = |way: &str, bytes: f64, whole: f64| {
            let figures = [(BYTES.to_owned(), bytes), (WHOLE.to_owned(), whole)];
            samples.note(&key(way), &figures).unwrap();
        };
        note("ours", 96.0, 1500.0);
        note("Qx", 100.0, 1000.0);
        let text = text(&samples);
        assert!(text.contains("| wire bytes | ours / Qx | 0.96 | 0.97 | met |"), "{text}");
        assert!(text.contains("| whole ms | ours / Qx | 1.50 | 1 | missed |"), "{text}");
        assert!(!text.contains("ours / Q0"), "{text}");
        assert!(text.contains("| idle | 1gbit | ours | 0.0 | 1.50 |  |  | 1 |"), "{text}");
    }
}
