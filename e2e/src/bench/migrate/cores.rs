// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Where the processors' time goes while a guest moves. On a machine that has few of them this is
//! what tells a slow program from one that waits for a core: with cores to spare, no move can be
//! shorter than its busiest thread is busy, and none need be much longer.

use super::measure::number;
use anyhow::{Context as _, Result};
use std::collections::HashMap;
use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) const BUSY: &str = "busy core ms";
pub(super) const ENGINES: &str = "engines core ms";
pub(super) const CARRIERS: &str = "carriers core ms";
pub(super) const BUSIEST: &str = "busiest thread ms";

/// What threads did after the last look before they ended is missed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Of a clock tick, as `/proc` counts.
const TICK_MS: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Engine,
    Carrier,
    Other,
}

/// A thread is its number and when it began: numbers come again.
type Thread = (u32, u64);

#[derive(Clone, Copy, Debug)]
struct Spent {
    who: Who,
    /// When it was first seen, and last.
    first: u64,
    last: u64,
}

/// Looks until it is stopped.
pub(super) struct Watch {
    stop: Sender<()>,
    watching: JoinHandle<Result<Vec<(String, f64)>>>,
}

impl Watch {
    pub(super) fn begin() -> Watch {
        let (stop, stopped) = channel();
        let watching = std::thread::spawn(move || {
            let busy = busy_ticks()?;
            let mut threads = HashMap::new();
            look(&mut threads, true);
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                look(&mut threads, false);
            }
            look(&mut threads, false);
            Ok(figures(busy_ticks()? - busy, threads.into_values()))
        });
        Watch { stop, watching }
    }

    /// Returns the figures of all that was done meanwhile.
    pub(super) fn end(self) -> Result<Vec<(String, f64)>> {
        drop(self.stop);
        self.watching.join().expect("no look panics")
    }
}

fn figures(busy: u64, threads: impl Iterator<Item = Spent>) -> Vec<(String, f64)> {
    let (mut engines, mut carriers, mut busiest) = (0, 0, 0);
    for Spent { who, first, last } in threads {
        let spent = last - first;
        match who {
            Who::Engine => engines += spent,
            Who::Carrier => carriers += spent,
            Who::Other => continue,
        }
        busiest = busiest.max(spent);
    }
    let figures = [(BUSY, busy), (ENGINES, engines), (CARRIERS, carriers), (BUSIEST, busiest)];
    figures.map(|(name, ticks)| (name.to_owned(), number(ticks * TICK_MS))).to_vec()
}

/// Takes down what every thread of an engine or a carrying process has spent so far.
fn look(threads: &mut HashMap<Thread, Spent>, is_first: bool) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let is_process = process.file_name().to_string_lossy().parse::<u32>().is_ok();
        // What has ended meanwhile is seen no more.
        let Ok(command) = fs::read(process.path().join("cmdline")) else { continue };
        let who = who(&command);
        if !is_process || who == Who::Other {
            continue;
        }
        let tasks = fs::read_dir(process.path().join("task")).into_iter().flatten().flatten();
        for task in tasks {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let Some((thread, ticks)) = ticks(&stat) else { continue };
            let first = if is_first { ticks } else { 0 };
            let spent = threads.entry(thread).or_insert(Spent { who, first, last: 0 });
            spent.last = ticks;
        }
    }
}

/// Tells by its command line what a process is.
fn who(command: &[u8]) -> Who {
    let mut words = command.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    match words.next() {
        _ if program.starts_with(b"qemu-system") => Who::Engine,
        Some(b"carry") => Who::Carrier,
        _ => Who::Other,
    }
}

/// Reads a thread, and how many ticks it has had of a core, of its `stat` in `/proc`.
fn ticks(stat: &str) -> Option<(Thread, u64)> {
    let (number, rest) = stat.split_once(" (")?;
    // The name may have blanks and brackets of its own.
    let fields: Vec<_> = rest.rsplit_once(") ")?.1.split(' ').collect();
    let field = |nth: usize| fields.get(nth - 3)?.parse::<u64>().ok();
    Some(((number.parse().ok()?, field(22)?), field(14)? + field(15)?))
}

/// All that all cores have done, in ticks.
fn busy_ticks() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("the first line is of all cores")?;
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        anyhow::bail!("`/proc/stat` says less than it should: {line}")
    };
    Ok(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_apart() {
        assert_eq!(who(b"/usr/bin/qemu-system-x86_64\0-name\0web1\0"), Who::Engine);
        assert_eq!(who(b"/proc/7/exe\0carry\0/run/x\0"), Who::Carrier);
        assert_eq!(who(b"whimbrel\0daemon\0"), Who::Other);
        let stat = "77 (a (b) c) S 1 77 77 0 -1 4 9 0 0 0 12 30 0 0 20 0 5 0 4242 1 2";
        assert_eq!(ticks(stat), Some(((77, 4242), 42)));
    }

    #[test]
    fn only_what_was_spent_meanwhile_counts() {
        let spent = |who, first, last| Spent { who, first, last };
        let threads =
            [spent(Who::Engine, 5, 25), spent(Who::Engine, 0, 10), spent(Who::Carrier, 0, 12)];
        let found: Vec<_> = figures(50, threads.into_iter()).into_iter().map(|it| it.1).collect();
        assert_eq!(found, [500.0, 300.0, 120.0, 200.0]);
    }
}
