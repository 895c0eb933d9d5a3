// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What came of the cases, kept in a file: a line for each time that one was acted out.

use super::act::Came;
use super::cases::Case;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often what did not go well is acted out.
pub(super) const TIMES: usize = 3;
/// Between several things in one field.
const AND: &str = "; ";

pub(super) struct Results {
    path: PathBuf,
    came: BTreeMap<String, Vec<Came>>,
}

impl Results {
    /// Opens the file; a fresh run forgets what is in it.
    pub(super) fn open(path: &Path, is_fresh: bool) -> Result<Results> {
        if is_fresh && path.exists() {
            fs::remove_file(path)?;
        }
        let mut came: BTreeMap<String, Vec<Came>> = BTreeMap::new();
        for (key, one) in fs::read_to_string(path).unwrap_or_default().lines().filter_map(parse) {
            came.entry(key).or_default().push(one);
        }
        Ok(Results { path: path.to_owned(), came })
    }

    pub(super) fn of(&self, case: &Case) -> &[Came] {
        self.came.get(&case.key()).map_or(&[], Vec::as_slice)
    }

    /// Whether a case need not be acted out again: it went well at once, or was repeated.
    pub(super) fn is_done(&self, case: &Case) -> bool {
        match self.of(case) {
            [] => false,
            [only] if only.is_well() => true,
            all => all.len() >= TIMES,
        }
    }

    pub(super) fn add(&mut self, case: &Case, came: Came) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        writeln!(file, "{}", line(&case.key(), &came))?;
        self.came.entry(case.key()).or_default().push(came);
        Ok(())
    }
}

impl Came {
    /// One copy, undamaged, nothing left, nothing to type, and never two.
    pub(super) fn is_well(&self) -> bool {
        let is_one = self.two.is_zero() && self.undone.is_zero();
        is_one && self.settled.is_some() && matches!(&*self.witness, "well" | "-")
    }
}

fn line(key: &str, came: &Came) -> String {
    let ms = |time: Duration| time.as_millis().to_string();
    let micros = |time: Duration| time.as_micros().to_string();
    let fields = [
        key.to_owned(),
        came.place.clone(),
        came.left.join(AND),
        micros(came.two),
        micros(came.undone),
        ms(came.still),
        came.settled.map_or_else(|| "-".to_owned(), ms),
        came.witness.clone(),
        came.to_type.join(AND),
        came.said.clone(),
    ];
    fields.map(|field| field.replace(['\n', '\t', '|'], " ")).join("\t")
}

fn parse(line: &str) -> Option<(String, Came)> {
    let mut fields = line.split('\t');
    let mut text = || fields.next().map(str::to_owned);
    let ms = |text: String| text.parse().ok().map(Duration::from_millis);
    let micros = |text: String| text.parse().ok().map(Duration::from_micros);
    let several = |text: String| {
        text.split(AND).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let key = text()?;
    let came = Came {
        place: text()?,
        left: several(text()?),
        two: micros(text()?)?,
        undone: micros(text()?)?,
        still: ms(text()?)?,
        settled: ms(text()?),
        witness: text()?,
        to_type: several(text()?),
        said: text()?,
    };
    Some((key, came))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::matrix::virsh::cases::all;

    pub(in crate::matrix::virsh) fn came(place: &str, left: &[&str]) -> Came {
        let is_well = left.is_empty() && place != "none";
        Came {
            place: place.to_owned(),
            left: left.iter().map(|word| (*word).to_owned()).collect(),
            two: Duration::ZERO,
            undone: Duration::ZERO,
            still: Duration::from_millis(120),
            settled: is_well.then_some(Duration::from_secs(1)),
            witness: "well".to_owned(),
            to_type: Vec::new(),
            said: "done".to_owned(),
        }
    }

    /// What is written is read again; what went well is done, what did not is when it was repeated.
    #[test]
    fn results_are_kept_and_bad_ones_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.tsv");
        let cases = all();
        let (good, bad) = (&cases[0], &cases[1]);
        let mut results = Results::open(&path, false).unwrap();
        results.add(good, came("target", &[])).unwrap();
        for _ in 1..TIMES {
            let left = ["paused copy on the source", "a job on the target"];
            results.add(bad, came("target", &left)).unwrap();
        }
        let mut again = Results::open(&path, false).unwrap();
        assert!(again.is_done(good) && !again.is_done(bad));
        assert_eq!(again.of(bad)[0].left.len(), 2);
        assert_eq!(again.of(bad)[0].settled, None);
        again.add(bad, came("target", &[])).unwrap();
        assert!(again.is_done(bad));
        assert!(!Results::open(&path, true).unwrap().is_done(good));
    }
}
