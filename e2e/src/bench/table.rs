// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Figures as they are taken, in a file; and as a table, for people.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Every figure taken, in the order in which they were.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Figure>);

/// One figure of one round.
#[derive(Clone, Debug)]
struct Figure {
    who: &'static str,
    what: String,
    value: f64,
}

/// Median and spread of a figure over all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) count: usize,
}

impl Table {
    pub(super) fn time(&mut self, who: &'static str, what: &str, time: Duration) {
        self.note(who, &format!("{what} (ms)"), time.as_secs_f64() * 1000.0);
    }

    pub(super) fn note(&mut self, who: &'static str, what: &str, value: f64) {
        self.0.push(Figure { who, what: what.to_owned(), value });
    }

    /// Writes every single figure, for whoever wants to judge the medians.
    pub(super) fn write(&self, path: &PathBuf) -> Result<()> {
        let lines =
            self.0.iter().map(|Figure { who, what, value }| format!("{who},{what},{value:.3}\n"));
        let text: String = std::iter::once("who,what,value\n".to_owned()).chain(lines).collect();
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn print(&self) {
        println!("{:<34} {:<9} {:>9} {:>9} {:>9} {:>5}", "", "", "median", "least", "most", "runs");
        let mut shown: Vec<(&str, &str)> = Vec::new();
        for Figure { what, who, .. } in &self.0 {
            if shown.contains(&(what, who)) {
                continue;
            }
            // All who did the same stand together.
            let rivals = self.0.iter().filter(|figure| figure.what == *what);
            for rival in rivals.map(|figure| figure.who) {
                if shown.contains(&(what, rival)) {
                    continue;
                }
                shown.push((what, rival));
                let Spread { median, least, most, count } = self.spread(rival, what);
                println!("{what:<34} {rival:<9} {median:>9.1} {least:>9.1} {most:>9.1} {count:>5}");
            }
        }
    }

    /// What we need of what the other needs, by the medians.
    pub(super) fn ratio(&self, who: &str, other: &str, what: &str) -> f64 {
        let what = format!("{what} (ms)");
        self.spread(who, &what).median / self.spread(other, &what).median
    }

    fn spread(&self, who: &str, what: &str) -> Spread {
        let meant = self.0.iter().filter(|figure| figure.who == who && figure.what == what);
        Spread::of(meant.map(|figure| figure.value).collect())
    }
}

impl Spread {
    /// Not a number where there are no values.
    pub(super) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_unstable_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let count = values.len();
        let median = f64::midpoint(at(count.saturating_sub(1) / 2), at(count / 2));
        Spread { median, least: at(0), most: at(count.saturating_sub(1)), count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median of an even count lies between the two in the middle; the order of the rounds
    /// does not matter; others' figures are not mixed in.
    #[test]
    fn medians_are_medians() {
        let mut table = Table::default();
        for value in [40, 10, 20, 30] {
            table.time("ours", "move", Duration::from_millis(value));
        }
        table.time("theirs", "move", Duration::from_millis(50));
        let spread = table.spread("ours", "move (ms)");
        assert_eq!((spread.median, spread.least, spread.most, spread.count), (25.0, 10.0, 40.0, 4));
        assert_eq!(table.ratio("ours", "theirs", "move"), 0.5);
    }
}
