// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The same faults against `virsh migrate`: `./x crash-matrix --rival virsh`.
//!
//! libvirt is taken as it is installed, and everything is done from outside. What it is about to do
//! its own log says; at the line that stands for a moment its daemon is held (`SIGSTOP`), the deed
//! is done, and it goes on. Where the guest ran, its engines say themselves, to the observer of our
//! own matrix.
//!
//! ```text
//!   cases.rs     which fault at which moment
//!   moments.rs   how far a migration is, and how that is known
//!   faults.rs    what goes wrong, and how it is healed
//!   log.rs       follows the log of a libvirtd
//!   stage.rs     two libvirtds and a guest
//!   devices.rs   disks that each host has a device of its own for
//!   act.rs       one migration with one fault
//!   verdict.rs   what is there then, and what a person would have to type
//!   results.rs   what came of it, kept for the next run and for the page
//!   page.rs      docs/rivals.md
//! ```

mod act;
mod cases;
mod devices;
mod faults;
mod log;
mod moments;
mod page;
mod results;
mod stage;
mod verdict;

use super::Options;
use crate::lab::{Lab, guard};
use crate::setting::Setting;
use act::Came;
use anyhow::{Result, ensure};
use cases::Case;
use results::Results;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

/// A moment may be over before its daemon is held, on a machine that is busy.
const MISSED_MAX: usize = 5;

/// Runs what was asked for and is not done yet. Returns whether all of it could be acted out: how
/// it ended is what we want to know, and no failure of ours.
pub fn run(options: &Options) -> Result<bool> {
    guard();
    let setting = Setting::find()?;
    setting.image()?;
    let directory = setting.logs().with_file_name("crash-matrix-virsh");
    fs::create_dir_all(&directory)?;
    let wanted = select(&options.only)?;
    let is_part = !options.only.is_empty();
    let name = if is_part { "only.tsv" } else { "results.tsv" };
    let results = Results::open(&directory.join(name), options.fresh || is_part)?;
    let waiting: VecDeque<_> =
        wanted.iter().filter(|case| !results.is_done(case)).copied().collect();
    println!("{} cases, {} of them to be run", wanted.len(), waiting.len());
    let started = Instant::now();
    let run = Run {
        setting,
        directory,
        waiting: Mutex::new(waiting),
        results: Mutex::new(results),
        failures: Mutex::new(0),
    };
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..options.jobs.max(1)).map(|_| scope.spawn(|| run.work())).collect();
        jobs.into_iter().try_for_each(|job| job.join().expect("a panic ends the run"))
    })?;
    let results = run.results.into_inner().expect("nothing panics with this lock");
    let failures = run.failures.into_inner().expect("nothing panics with this lock");
    page::write(&results, &run.directory.join("rivals.md"))?;
    if options.docs {
        page::write(&results, Path::new("docs/rivals.md"))?;
    }
    println!("{:.0} s; results in {}", started.elapsed().as_secs_f64(), run.directory.display());
    println!("{}", page::sum(&results));
    println!("{failures} could not be acted out");
    Ok(failures == 0)
}

/// The cases named by their key, setup, moment or fault; all if none is named.
fn select(only: &[String]) -> Result<Vec<Case>> {
    let is_meant = |case: &Case, word: &String| {
        *word == case.key()
            || [case.setup.key(), case.moment.key, case.fault.key()].contains(&word.as_str())
    };
    let mut cases = cases::all();
    cases.retain(|case| only.is_empty() || only.iter().any(|word| is_meant(case, word)));
    ensure!(!cases.is_empty(), "there is no such case: {}", only.join(", "));
    Ok(cases)
}

/// What the labs of one run share.
struct Run {
    setting: Setting,
    directory: PathBuf,
    waiting: Mutex<VecDeque<Case>>,
    results: Mutex<Results>,
    failures: Mutex<usize>,
}

impl Run {
    /// Acts out cases until none is left.
    fn work(&self) -> Result<()> {
        let next = || self.waiting.lock().expect("nothing panics with this lock").pop_front();
        while let Some(case) = next() {
            if let Err(error) = self.act_out(&case) {
                println!("FAILED    {:<36} {error:#}", case.key());
                *self.failures.lock().expect("nothing panics with this lock") += 1;
            }
        }
        Ok(())
    }

    /// Acts out a case as often as it must be, each time in a lab of its own: after most of them
    /// nobody would want to go on with the old one.
    fn act_out(&self, case: &Case) -> Result<()> {
        let mut missed = 0;
        loop {
            // Nothing of ours runs there.
            let lab = Lab::new(Path::new("virsh"))?;
            self.setting.image()?.copy_to(&lab.shared)?;
            let came = case.act(&lab);
            self.keep_logs(case, &lab);
            drop(lab);
            let Some(came) = came? else {
                missed += 1;
                ensure!(missed < MISSED_MAX, "its moment was over {missed} times");
                continue;
            };
            show(case, &came);
            let mut results = self.results.lock().expect("nothing panics with this lock");
            results.add(case, came)?;
            if results.is_done(case) {
                return Ok(());
            }
        }
    }

    /// Keeps what both libvirtds said the last time that a case was acted out.
    fn keep_logs(&self, case: &Case, lab: &Lab) {
        for host in [&lab.alpha, &lab.beta] {
            let name = format!("{}-{}.log", case.key().replace('/', "-"), host.name);
            // It may not have come to that.
            let _ = fs::copy(stage::log_of(host), self.directory.join(name));
        }
    }
}

fn show(case: &Case, came: &Came) {
    let Came { place, left, two, undone, still, settled, witness, to_type, said } = came;
    let (word, key) = (if came.is_well() { "ok" } else { "NOT WELL" }, case.key());
    println!("{word:<9} {key:<36} {place:<7} {two:?} {undone:?} {still:?} {settled:?}");
    println!("    | {witness}; {left:?}; {to_type:?}; {said}");
}
