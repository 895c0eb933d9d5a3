// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The crash matrix: at every point that a migration passes, everything that can go wrong.
//!
//! ```text
//!   points.rs     what a migration passes, and how far it is then
//!   faults.rs     what goes wrong, and how it is healed
//!   expected.rs   what must come of it
//!   stage.rs      two hosts, one guest, daemons that stop at points
//!   observer.rs   which engine ran when, by the engines' own word
//!   case.rs       one migration with one fault
//!   leftovers.rs  what must not be there afterwards
//!   results.rs    what came of it, kept for the next run and for the page
//!   virsh.rs      the same with `virsh migrate` instead of ours
//! ```

mod case;
mod expected;
mod faults;
mod leftovers;
mod observer;
mod points;
mod results;
mod stage;
pub mod virsh;

use crate::lab::{finish, guard};
use crate::scene::console_of;
use crate::setting::Setting;
use anyhow::{Context as _, Result, ensure};
use case::{Case, Verdict};
use faults::Fault;
use points::{POINTS, SOMETIMES};
use results::{Line, Results};
use stage::{Side, Stage};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What only a program with fault points contains.
const TRACE_OF_FAULTS: &[u8] = b"WHIMBREL_FAULTS";
/// One in so many cases is in the spread.
const SPREAD: usize = 7;
const MOVE_PATIENCE: Duration = Duration::from_secs(60);

/// What of the matrix to run.
#[derive(Debug, Default)]
pub struct Options {
    pub quick: bool,
    /// `POINT/FAULT`, or either of them.
    pub only: Vec<String>,
    /// Forgets what earlier runs have shown.
    pub fresh: bool,
    /// Writes `docs/crash-matrix.md`.
    pub docs: bool,
    pub jobs: usize,
}

/// Runs what of the matrix was asked for and is not done yet. Returns whether all went well.
pub fn run(options: &Options) -> Result<bool> {
    guard();
    let setting = Setting::find()?;
    only_the_other_program_has_faults(&setting)?;
    setting.image()?;
    let directory = setting.logs().with_file_name("crash-matrix");
    fs::create_dir_all(&directory)?;
    let wanted = select(options)?;
    let is_fresh = options.fresh || options.quick || !options.only.is_empty();
    let name = match (options.quick, options.only.is_empty()) {
        (true, _) => "quick.tsv",
        (_, false) => "only.tsv",
        (false, true) => "results.tsv",
    };
    let results = Results::open(&directory.join(name), is_fresh)?;
    let waiting: VecDeque<_> =
        wanted.iter().filter(|case| !results.is_done(case)).copied().collect();
    println!("{} cases, {} of them to be run", wanted.len(), waiting.len());
    let started = Instant::now();
    if !waiting.is_empty() && options.only.is_empty() {
        the_points_are_known(&setting)?;
    }
    let run =
        Run { setting, directory, waiting: Mutex::new(waiting), results: Mutex::new(results) };
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(|| run.work())).collect();
        jobs.into_iter().try_for_each(|job| job.join().expect("a panic ends the run"))
    })?;
    let results = run.results.into_inner().expect("nothing panics with this lock");
    results::write_page(&results, &wanted, &run.directory.join("table.md"))?;
    if options.docs {
        results::write_page(&results, &wanted, Path::new("docs/crash-matrix.md"))?;
    }
    let counts = results.counts(&wanted);
    let count = |word: &str| counts.get(word).copied().unwrap_or(0);
    println!("{:.0} s; results in {}", started.elapsed().as_secs_f64(), run.directory.display());
    println!("{} cases had nothing to break", count("idle"));
    let (passed, failed) = (count("ok") + count("idle"), count("FAILED"));
    println!("{passed} passed, {failed} failed, {} skipped", count("not-passed"));
    Ok(failed == 0)
}

/// Every fault at every point where it can be, in the order of the points.
fn all() -> Vec<Case> {
    let of_point = |point| {
        let faults = Fault::ALL.into_iter().filter(move |fault: &Fault| fault.applies_to(point));
        faults.map(move |fault| Case { point, fault })
    };
    POINTS.iter().flat_map(of_point).collect()
}

fn select(options: &Options) -> Result<Vec<Case>> {
    let mut cases = all();
    if options.quick {
        // There are so few lost words that steps could miss them.
        let is_lost = |case: &Case| case.fault == Fault::Lost;
        let (lost, others): (Vec<_>, Vec<_>) = cases.into_iter().partition(is_lost);
        cases = others.into_iter().step_by(SPREAD).chain(lost).collect();
    }
    if !options.only.is_empty() {
        let is_meant = |case: &Case, word: &String| {
            *word == case.key() || *word == case.point.key() || *word == case.fault.key()
        };
        cases.retain(|case| options.only.iter().any(|word| is_meant(case, word)));
        ensure!(!cases.is_empty(), "there is no such case: {}", options.only.join(", "));
    }
    Ok(cases)
}

/// What people install has no fault points.
fn only_the_other_program_has_faults(setting: &Setting) -> Result<()> {
    let has_trace = |program: &Path| -> Result<bool> {
        let bytes = fs::read(program)?;
        Ok(bytes.windows(TRACE_OF_FAULTS.len()).any(|window| window == TRACE_OF_FAULTS))
    };
    ensure!(!has_trace(&setting.program()?)?, "the ordinary program has fault points");
    ensure!(has_trace(&setting.program_with_faults()?)?, "the other program has no fault points");
    Ok(())
}

/// Records a migration there and one back, and holds what they pass against the list.
fn the_points_are_known(setting: &Setting) -> Result<()> {
    let mut stage = Stage::new(setting)?;
    let sides = [Side::Source, Side::Target];
    let mut passed = BTreeSet::new();
    for _ in 0..2 {
        for side in sides {
            observer::begin_trace(&stage.host(side).faults().join("trace"))?;
        }
        finish(stage.migrate()?, "migrate", "", MOVE_PATIENCE)?.ok()?;
        crate::scene::until("the move is over", MOVE_PATIENCE, || stage.is_quiet())?;
        for side in sides {
            let trace = observer::read_trace(&stage.host(side).faults().join("trace"))?;
            passed.extend(trace.into_iter().map(|name| (side, name)));
        }
        stage.turn();
    }
    let listed = |side: Side, name: &str| {
        SOMETIMES.contains(&name) || POINTS.iter().any(|p| p.side == side && p.name == name)
    };
    let new: Vec<_> = passed.iter().filter(|(side, name)| !listed(*side, name)).collect();
    ensure!(new.is_empty(), "points that are not in the list of the matrix: {new:?}");
    let is_gone = |point: &&points::Point| {
        !SOMETIMES.contains(&point.name) && !passed.contains(&(point.side, point.name.to_owned()))
    };
    let gone: Vec<_> = POINTS.iter().filter(is_gone).map(points::Point::key).collect();
    ensure!(gone.is_empty(), "points of the list that nothing passes any more: {gone:?}");
    Ok(())
}

/// What the labs of one run share.
struct Run {
    setting: Setting,
    directory: PathBuf,
    waiting: Mutex<VecDeque<Case>>,
    results: Mutex<Results>,
}

impl Run {
    /// Acts out cases in a lab of its own until none is left; after a failure in a fresh one.
    fn work(&self) -> Result<()> {
        let mut stage = None;
        let next = || self.waiting.lock().expect("nothing panics with this lock").pop_front();
        while let Some(case) = next() {
            let mut ready = match stage.take() {
                Some(ready) => ready,
                None => Stage::new(&self.setting)?,
            };
            let started = Instant::now();
            let logs = ready.hosts().map(|host| length(&host.daemon_log()));
            let outcome = case.run(&mut ready);
            let mut results = self.results.lock().expect("nothing panics with this lock");
            let line = results.add(&case, &outcome)?;
            drop(results);
            show(&case, &line, started.elapsed());
            match outcome {
                Ok(Verdict::Right(_) | Verdict::NotPassed) => stage = Some(ready),
                Err(_) => self.keep_logs(&case, &ready, logs, &line)?,
            }
        }
        Ok(())
    }

    /// Keeps what both daemons said during a case that failed.
    fn keep_logs(&self, case: &Case, stage: &Stage, from: [usize; 2], line: &Line) -> Result<()> {
        let mut text = format!("{}\n{}\n", case.key(), line.remark);
        for (host, from) in stage.hosts().into_iter().zip(from) {
            let log = fs::read(host.daemon_log())?;
            let said = String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned();
            let role =
                if std::ptr::eq(host, stage.host(Side::Source)) { "source" } else { "target" };
            text.push_str(&format!("\n== {} (the {role})\n{said}", host.name));
            text.push_str(&console_of(host, stage::GUEST));
        }
        let name = case.key().replace(['/', ':'], "-");
        fs::write(self.directory.join(format!("{name}.log")), text).context("failed to keep logs")
    }
}

fn length(file: &Path) -> usize {
    fs::metadata(file).map_or(0, |found| usize::try_from(found.len()).unwrap_or(0))
}

fn show(case: &Case, line: &Line, took: Duration) {
    let Line { word, place, still_ms, settled_ms, remark } = line;
    let key = case.key();
    let seconds = took.as_secs_f64();
    println!("{word:<10} {key:<52} {place:<15} {still_ms:>5} {settled_ms:>6} ms {seconds:6.1} s");
    if !remark.is_empty() {
        println!("    | {remark}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expected::expected;

    /// Every case has an end that is right, and the spread meets every fault and both hosts.
    #[test]
    fn every_case_is_written_down_and_the_spread_is_one() {
        for case in all() {
            assert!(!expected(case.point, case.fault).is_empty(), "{}", case.key());
        }
        let quick = select(&Options { quick: true, ..Options::default() }).unwrap();
        for fault in Fault::ALL {
            assert!(quick.iter().any(|case| case.fault == fault), "{}", fault.key());
        }
        for side in [Side::Source, Side::Target] {
            assert!(quick.iter().filter(|case| case.point.side == side).count() > 10);
        }
    }

    /// No two cases share a name.
    #[test]
    fn cases_are_told_apart() {
        let keys: BTreeSet<_> = all().iter().map(Case::key).collect();
        assert_eq!(keys.len(), all().len());
    }
}
