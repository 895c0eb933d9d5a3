// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! An observer that depends on nobody: every engine of the lab has a second monitor, and here
//! somebody listens to it. When an engine began to run its guest and when it stopped, it says
//! itself, with the time by the one clock both hosts share.
//!
//! An engine says `RESUME` before its first instruction and `STOP` after its last, so what is
//! counted as running is never less than what ran.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often to look for new engines. One is launched a long time before it may run.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Puts a second monitor into every engine that is given a guest.
const WRAPPER: &str = r#"#!/bin/sh
case " $* " in
*" -uuid "*)
    exec qemu-system-x86_64 "$@" -mon chardev=observer,mode=control \
        -chardev "socket,id=observer,path=PLACE/$$.sock,server=on,wait=off"
    ;;
*) exec qemu-system-x86_64 "$@" ;;
esac
"#;

/// A time in which an engine ran its guest, in seconds; still running: no end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) pid: u32,
    pub(super) from: f64,
    pub(super) until: Option<f64>,
}

type Runs = Arc<Mutex<Vec<Run>>>;

/// Listens to all engines of a lab.
pub(super) struct Observer {
    runs: Runs,
    program: PathBuf,
    is_over: Arc<AtomicBool>,
}

impl Observer {
    /// Begins to watch. Engines are to be started by [`Observer::program`].
    pub(super) fn new(directory: &Path) -> Result<Observer> {
        let place = directory.join("observed");
        fs::create_dir_all(&place)?;
        // Engines run as a user of their own, and make their sockets here.
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777))?;
        let program = directory.join("observed-qemu");
        fs::write(&program, WRAPPER.replace("PLACE", &place.display().to_string()))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let (runs, is_over) = (Runs::default(), Arc::new(AtomicBool::new(false)));
        let (noted, over) = (Arc::clone(&runs), Arc::clone(&is_over));
        std::thread::spawn(move || look(&place, &noted, &over));
        Ok(Observer { runs, program, is_over })
    }

    /// What daemons are to take for QEMU.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Forgets what is over.
    pub(super) fn forget(&self) {
        self.runs.lock().expect("nothing panics with this lock").retain(|run| run.until.is_none());
    }

    fn runs(&self) -> Vec<Run> {
        self.runs.lock().expect("nothing panics with this lock").clone()
    }

    /// Returns the engines that run their guest now.
    pub(super) fn running(&self) -> Vec<u32> {
        self.runs().iter().filter(|run| run.until.is_none()).map(|run| run.pid).collect()
    }

    /// Returns when an engine last began to run its guest.
    pub(super) fn last_start(&self) -> f64 {
        self.runs().iter().map(|run| run.from).fold(0.0, f64::max)
    }

    /// Returns the longest time, from a moment on until now, in which no engine ran.
    pub(super) fn longest_silence(&self, since: f64) -> Duration {
        let mut runs = self.runs();
        runs.sort_by(|a, b| a.from.total_cmp(&b.from));
        let (mut silent_from, mut longest) = (since, 0.0_f64);
        for run in runs {
            longest = longest.max(run.from - silent_from);
            silent_from = silent_from.max(run.until.unwrap_or(f64::INFINITY));
        }
        Duration::from_secs_f64(longest.max(now() - silent_from).max(0.0))
    }

    /// Fails if two engines ran at any one moment.
    pub(super) fn never_two(&self) -> Result<()> {
        match self.longest_overlap() {
            Some((together, a, b)) => {
                bail!("TWO COPIES RAN for {together:.6} s: {a:?} and {b:?}")
            }
            None => Ok(()),
        }
    }

    /// Returns the longest time, in seconds, in which two engines ran, and which two.
    pub(super) fn longest_overlap(&self) -> Option<(f64, Run, Run)> {
        let runs = self.runs();
        let until = |run: &Run| run.until.unwrap_or_else(now);
        let pairs = runs.iter().enumerate().flat_map(|(index, a)| {
            runs.iter().skip(index + 1).filter(|b| b.pid != a.pid).map(move |b| (a, b))
        });
        let together = pairs.map(|(a, b)| (until(a).min(until(b)) - a.from.max(b.from), *a, *b));
        together.filter(|(time, ..)| *time > 0.0).max_by(|(a, ..), (b, ..)| a.total_cmp(b))
    }

    /// Returns for how long, in seconds, an engine had run the guest when another one, that had run
    /// it before, went on: what the guest did in that time is undone, but for its disks.
    pub(super) fn undone(&self) -> Option<f64> {
        let mut runs = self.runs();
        runs.sort_by(|a, b| a.from.total_cmp(&b.from));
        let (mut undone, mut before) = (None, Vec::new());
        for (index, run) in runs.iter().enumerate() {
            let last = index.checked_sub(1).and_then(|last| runs.get(last));
            if let Some(last) = last.filter(|last| last.pid != run.pid)
                && before.contains(&run.pid)
            {
                undone = Some(last.until.unwrap_or_else(now).min(run.from) - last.from);
            }
            before.push(run.pid);
        }
        undone
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

/// The time by the clock that engines use in their events.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn look(place: &Path, runs: &Runs, is_over: &AtomicBool) {
    let known = Arc::new(Mutex::new(BTreeSet::new()));
    let known_now = || known.lock().expect("nothing panics with this lock");
    while !is_over.load(Relaxed) {
        let names = fs::read_dir(place).into_iter().flatten().flatten();
        for path in names.map(|entry| entry.path()) {
            let pid = path.file_stem().and_then(|name| name.to_str()?.parse::<u32>().ok());
            let Some(pid) = pid.filter(|pid| !known_now().contains(pid)) else { continue };
            // Bound, but not listening yet: the next look.
            if let Ok(stream) = UnixStream::connect(&path) {
                known_now().insert(pid);
                let (runs, known) = (Arc::clone(runs), Arc::clone(&known));
                std::thread::spawn(move || {
                    // However the conversation ends, the engine is gone then.
                    let _ = listen(pid, stream, &runs);
                    note(&runs, pid, now(), false);
                    // Another engine may get its number.
                    let _ = fs::remove_file(path);
                    known.lock().expect("nothing panics with this lock").remove(&pid);
                });
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn listen(pid: u32, mut stream: UnixStream, runs: &Runs) -> Result<()> {
    let lines = BufReader::new(stream.try_clone()?);
    let asked = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n";
    stream.write_all(asked.as_bytes())?;
    for line in lines.lines() {
        let said: Value = serde_json::from_str(&line?).context("not JSON")?;
        if said["return"]["running"] == true {
            note(runs, pid, now(), true);
        }
        let at = |part: &str| said["timestamp"][part].as_f64().unwrap_or_default();
        let time = at("seconds") + at("microseconds") / 1e6;
        match said["event"].as_str() {
            Some("RESUME") => note(runs, pid, time, true),
            Some("STOP") => note(runs, pid, time, false),
            _ => {}
        }
    }
    Ok(())
}

fn note(runs: &Runs, pid: u32, time: f64, is_running: bool) {
    let mut runs = runs.lock().expect("nothing panics with this lock");
    let open = runs.iter_mut().find(|run| run.pid == pid && run.until.is_none());
    match (open, is_running) {
        (None, true) => runs.push(Run { pid, from: time, until: None }),
        (Some(run), false) => run.until = Some(time),
        (Some(_), true) | (None, false) => {}
    }
}

/// Reads the points that were passed while they were written down.
pub(super) fn read_trace(file: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(file).context("no trace was written")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Begins to write down the points that are passed.
pub(super) fn begin_trace(file: &Path) -> Result<()> {
    File::create(file).context("failed to begin a trace").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(runs: &[Run]) -> Observer {
        Observer {
            runs: Arc::new(Mutex::new(runs.to_vec())),
            program: PathBuf::new(),
            is_over: Arc::default(),
        }
    }

    /// What is silent is the time between two runs, and from the last one on.
    #[test]
    fn silence_is_measured() {
        let run = |from, until| Run { pid: 1, from, until };
        let paused = observed(&[run(0.0, Some(5.0)), run(7.0, Some(8.0)), run(8.5, None)]);
        assert_eq!(paused.longest_silence(1.0), Duration::from_secs(2));
        assert_eq!(paused.longest_silence(6.0), Duration::from_secs(1));
        assert_eq!(paused.longest_silence(9.0), Duration::ZERO);
        assert!(observed(&[]).longest_silence(now() - 3.0) >= Duration::from_secs(3));
    }

    /// Whoever goes on after another one has run undoes what that one did; whoever only stood still
    /// in between does not.
    #[test]
    fn what_is_undone_is_noticed() {
        let run = |pid, from, until| Run { pid, from, until };
        assert_eq!(observed(&[run(1, 0.0, Some(5.0)), run(2, 5.0, None)]).undone(), None);
        assert_eq!(observed(&[run(1, 0.0, Some(5.0)), run(1, 6.0, None)]).undone(), None);
        let back = [run(1, 0.0, Some(5.0)), run(2, 6.0, Some(8.0)), run(1, 9.0, None)];
        assert_eq!(observed(&back).undone(), Some(2.0));
    }

    /// One after the other is fine, one beside the other is not, however short.
    #[test]
    fn two_at_a_time_are_noticed() {
        let run = |pid, from, until| Run { pid, from, until };
        let moved = [run(1, 0.0, Some(5.0)), run(2, 5.0, None)];
        observed(&moved).never_two().unwrap();
        let again = [run(1, 0.0, Some(5.0)), run(1, 6.0, None)];
        observed(&again).never_two().unwrap();
        let twins = [run(1, 0.0, Some(5.000_001)), run(2, 5.0, None)];
        observed(&twins).never_two().unwrap_err();
        let stale = [run(1, 0.0, Some(5.0)), run(2, 5.1, None), run(1, 6.0, None)];
        observed(&stale).never_two().unwrap_err();
    }
}
