// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Every figure taken, in a file that is written as they are taken.

use crate::bench::table::Spread;
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

const HEADER: &str = "question,kind,link,way,round,figure,value\n";

/// Whose figures: one way in one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) question: String,
    pub(super) kind: String,
    pub(super) link: String,
    pub(super) way: String,
    pub(super) round: usize,
}

#[derive(Clone, Debug)]
struct Sample {
    key: Key,
    figure: String,
    value: f64,
}

pub(super) struct Samples {
    path: PathBuf,
    file: File,
    samples: Vec<Sample>,
}

impl Samples {
    /// Goes on with the file, or begins anew.
    pub(super) fn open(path: &Path, is_fresh: bool) -> Result<Samples> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let before = if is_fresh { None } else { fs::read_to_string(path).ok() };
        let samples: Vec<_> =
            before.iter().flat_map(|text| text.lines()).filter_map(parse).collect();
        let text = samples.iter().map(line).collect::<String>();
        // Written anew: a line that was broken off is gone, and every round is whole.
        fs::write(path, format!("{HEADER}{text}"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let file = File::options().append(true).open(path)?;
        Ok(Samples { path: path.to_owned(), file, samples })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.samples.iter().any(|sample| sample.key == *key)
    }

    /// Takes down the figures of one way in one round, all at once.
    pub(super) fn note(&mut self, key: &Key, figures: &[(String, f64)]) -> Result<()> {
        let sample = |(figure, value): &(String, f64)| Sample {
            key: key.clone(),
            figure: figure.clone(),
            value: *value,
        };
        let new: Vec<_> = figures.iter().map(sample).collect();
        self.file.write_all(new.iter().map(line).collect::<String>().as_bytes())?;
        self.samples.extend(new);
        Ok(())
    }

    /// Median and spread of a figure over all rounds; `None` where it was not taken.
    pub(super) fn spread(&self, of: &Key, figure: &str) -> Option<Spread> {
        let is_meant = |sample: &&Sample| {
            let key = Key { round: of.round, ..sample.key.clone() };
            key == *of && sample.figure == figure
        };
        let values: Vec<_> =
            self.samples.iter().filter(is_meant).map(|sample| sample.value).collect();
        (!values.is_empty()).then(|| Spread::of(values))
    }

    /// Median and spread of a figure over everything that was measured.
    pub(super) fn spread_of_all(&self, figure: &str) -> Option<Spread> {
        let meant = self.samples.iter().filter(|sample| sample.figure == figure);
        let values: Vec<_> = meant.map(|sample| sample.value).collect();
        (!values.is_empty()).then(|| Spread::of(values))
    }

    /// All that was measured for a question, each once, in the order in which it was, without the
    /// rounds.
    pub(super) fn keys(&self, question: &str) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.key.question == question) {
            let key = Key { round: 0, ..sample.key.clone() };
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        // What is compared stands together.
        let groups: Vec<_> = keys.iter().map(|key| (key.kind.clone(), key.link.clone())).collect();
        keys.sort_by_key(|key| {
            groups.iter().position(|group| *group == (key.kind.clone(), key.link.clone()))
        });
        keys
    }
}

fn line(sample: &Sample) -> String {
    let Sample { key: Key { question, kind, link, way, round }, figure, value } = sample;
    format!("{question},{kind},{link},{way},{round},{figure},{value:.3}\n")
}

/// Reads a line; `None` for the header and whatever is not whole.
fn parse(line: &str) -> Option<Sample> {
    let words: Vec<_> = line.split(',').collect();
    let [question, kind, link, way, round, figure, value] = words.as_slice() else { return None };
    let key = Key {
        question: (*question).to_owned(),
        kind: (*kind).to_owned(),
        link: (*link).to_owned(),
        way: (*way).to_owned(),
        round: round.parse().ok()?,
    };
    Some(Sample { key, figure: (*figure).to_owned(), value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(way: &str, round: usize) -> Key {
        let [question, kind, link, way] = ["visit", "idle", "1gbit", way].map(str::to_owned);
        Key { question, kind, link, way, round }
    }

    /// A run that was broken off, in the middle of a line, goes on where it was; a fresh one
    /// knows nothing.
    #[test]
    fn figures_are_found_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("figures.csv");
        let mut samples = Samples::open(&path, false).unwrap();
        for (round, value) in [10.0, 30.0, 20.0].into_iter().enumerate() {
            samples.note(&key("ours", round), &[("bytes".to_owned(), value)]).unwrap();
        }
        samples.note(&key("Qx", 0), &[("bytes".to_owned(), 99.0)]).unwrap();
        File::options().append(true).open(&path).unwrap().write_all(b"visit,idle,1g").unwrap();

        let again = Samples::open(&path, false).unwrap();
        assert!(again.has(&key("ours", 2)) && !again.has(&key("ours", 3)));
        let spread = again.spread(&key("ours", 0), "bytes").unwrap();
        assert_eq!((spread.least, spread.median, spread.most), (10.0, 20.0, 30.0));
        assert_eq!(again.keys("visit"), [key("ours", 0), key("Qx", 0)]);
        assert!(again.spread(&key("ours", 0), "silence").is_none());

        assert!(!Samples::open(&path, true).unwrap().has(&key("ours", 0)));
    }
}
