// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Runs stories, each in a process of its own, and sums up.
//!
//! A process of its own means that a story which hangs can be ended, that one which panics takes no
//! other with it, and that what it says can be kept apart.

use crate::setting::{Setting, Skip};
use crate::stories::{STORIES, Story};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Longest a story may take; its lab is removed and it has failed.
const STORY_PATIENCE: Duration = Duration::from_secs(180);
/// The same for stories whose whole hosts are emulated.
const XEN_STORY_PATIENCE: Duration = Duration::from_secs(1800);
/// How long a story may take to clean up after it was ended.
const CLEANUP_PATIENCE: Duration = Duration::from_secs(15);
/// Lines of a failed story that are shown; the rest is in its log.
const SHOWN_LINES: usize = 120;
const SKIPPED: i32 = 77;

/// What came of a story.
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// Tells one story in this process.
pub fn tell(name: &str) -> Result<ExitCode> {
    crate::lab::guard();
    let story = STORIES.iter().find(|story| story.name == name);
    let story = story.with_context(|| format!("there is no story `{name}`"))?;
    match (story.tell)(&Setting::find()?) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => match error.downcast::<Skip>() {
            Ok(skip) => {
                eprintln!("{skip}");
                Ok(ExitCode::from(77))
            }
            Err(error) => Err(error),
        },
    }
}

/// Runs the stories of the named groups (all if none is named) but for some, and prints how each
/// ended.
pub fn run(wanted: &[String], except: &[String], jobs: usize) -> Result<ExitCode> {
    let mut stories = select(wanted)?;
    stories.retain(|story| !except.iter().any(|name| story.is_meant_by(name)));
    // Two emulated hosts are all that two processors bear.
    let jobs = if stories.iter().any(|story| LONG.contains(&story.group())) { 1 } else { jobs };
    let setting = Setting::find()?;
    // Built once, before the stories would all do it at a time.
    setting.program()?;
    setting.image()?;
    let logs = setting.logs();
    fs::create_dir_all(&logs)?;
    let started = Instant::now();
    let queue = Mutex::new(stories.into_iter().collect::<VecDeque<_>>());
    let (sender, outcomes) = channel();
    let mut counts = [0_usize; 3];
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (queue, logs, sender) = (&queue, &logs, sender.clone());
            scope.spawn(move || work(queue, logs, &sender));
        }
        drop(sender);
        for (story, outcome, took) in outcomes {
            counts[show(story, &outcome, took)] += 1;
        }
    });
    let [passed, failed, skipped] = counts;
    println!("{:.1} s in all; logs in {}", started.elapsed().as_secs_f64(), logs.display());
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Groups that are told when they are named: they take longer than all others together.
const LONG: [&str; 1] = ["xen"];

/// Chooses stories by group (`migrate`) or by name (`migrate/there_and_back`).
fn select(wanted: &[String]) -> Result<Vec<&'static Story>> {
    for name in wanted {
        if !STORIES.iter().any(|story| story.is_meant_by(name)) {
            let mut groups: Vec<_> = STORIES.iter().map(Story::group).collect();
            groups.dedup();
            bail!("there is no story or group `{name}`; there are {}", groups.join(", "));
        }
    }
    let is_wanted = |story: &&Story| match wanted {
        [] => !LONG.contains(&story.group()),
        names => names.iter().any(|name| story.is_meant_by(name)),
    };
    Ok(STORIES.iter().filter(is_wanted).collect())
}

type Told = (&'static Story, Outcome, Duration);

fn work(queue: &Mutex<VecDeque<&'static Story>>, logs: &Path, outcomes: &Sender<Told>) {
    let next = || queue.lock().expect("nothing panics with this lock").pop_front();
    while let Some(story) = next() {
        let started = Instant::now();
        let log = logs.join(format!("{}.log", story.name.replace('/', "-")));
        let outcome = run_one(story, &log)
            .unwrap_or_else(|error| Outcome::Failed(format!("could not be told: {error:#}")));
        outcomes.send((story, outcome, started.elapsed())).expect("the runner listens to the end");
    }
}

fn run_one(story: &Story, log: &PathBuf) -> Result<Outcome> {
    let output = File::create(log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["tell", story.name]).stdin(Stdio::null());
    // Errors here say where they come from; a backtrace of the runner says nothing.
    command.env("RUST_LIB_BACKTRACE", "0").env(crate::lab::TELLS, "1");
    let mut child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
    let patience = if story.group() == "xen" { XEN_STORY_PATIENCE } else { STORY_PATIENCE };
    let Some(status) = wait(&mut child, patience)? else {
        end(&mut child)?;
        let said = last_lines(log, SHOWN_LINES);
        return Ok(Outcome::Failed(format!("took longer than {patience:?}\n{said}")));
    };
    Ok(match status.code() {
        Some(0) => Outcome::Passed,
        Some(SKIPPED) => Outcome::Skipped(last_lines(log, 1)),
        _ => Outcome::Failed(last_lines(log, SHOWN_LINES)),
    })
}

fn wait(child: &mut Child, patience: Duration) -> Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() > deadline => return Ok(None),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Ends a story politely, so that it removes its lab; then by force.
fn end(child: &mut Child) -> Result<()> {
    let pid = i32::try_from(child.id()).context("a process id fits")?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    if wait(child, CLEANUP_PATIENCE)?.is_none() {
        child.kill()?;
        child.wait()?;
    }
    crate::lab::remove_stale();
    Ok(())
}

fn last_lines(log: &Path, count: usize) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Prints a line about a story and returns which count it belongs to.
fn show(story: &Story, outcome: &Outcome, took: Duration) -> usize {
    let seconds = took.as_secs_f64();
    match outcome {
        Outcome::Passed => {
            println!("ok      {:<44} {seconds:6.1} s", story.name);
            0
        }
        Outcome::Failed(said) => {
            println!("FAILED  {:<44} {seconds:6.1} s", story.name);
            said.lines().for_each(|line| println!("    | {line}"));
            1
        }
        Outcome::Skipped(reason) => {
            println!("skipped {:<44} {reason}", story.name);
            2
        }
    }
}
