// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What all threads of the witness know: counters, and the list of what went wrong.

use crate::parameters::Dirty;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Most disks the witness writes to.
pub(crate) const DISKS_MAX: usize = 2;
/// Problems kept word for word; later ones are only counted.
const PROBLEMS_MAX: usize = 16;

pub(crate) struct State {
    pub(crate) started: Instant,
    pub(crate) seed: u64,
    pub(crate) memory: Memory,
    pub(crate) dirty: Mutex<Dirty>,
    pub(crate) disks: [Disk; DISKS_MAX],
    pub(crate) read_only_disks: AtomicU64,
    pub(crate) files: Files,
    problem_count: AtomicU64,
    problems: Mutex<Vec<String>>,
}

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) page_count: AtomicU64,
    /// Whole passes over all pages.
    pub(crate) passes: AtomicU64,
    pub(crate) pages_dirtied: AtomicU64,
    pub(crate) errors: AtomicU64,
}

/// Small files of a userland that are written anew, again and again.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) per_s: AtomicU64,
    pub(crate) written: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Disk {
    /// Zero: there is no such disk, or it is not written.
    pub(crate) boot: AtomicU64,
    /// The newest counter that is durable.
    pub(crate) counter: AtomicU64,
    pub(crate) errors: AtomicU64,
}

impl State {
    pub(crate) fn new(seed: u64, dirty: Dirty) -> State {
        State {
            started: Instant::now(),
            seed,
            memory: Memory::default(),
            dirty: Mutex::new(dirty),
            disks: Default::default(),
            read_only_disks: AtomicU64::new(0),
            files: Files::default(),
            problem_count: AtomicU64::new(0),
            problems: Mutex::new(Vec::new()),
        }
    }

    /// Takes note of something that must never happen, and says it on the console.
    pub(crate) fn report(&self, problem: &str) {
        self.problem_count.fetch_add(1, Relaxed);
        let mut kept = self.problems.lock().expect("no thread panics with this lock");
        if kept.len() < PROBLEMS_MAX {
            kept.push(problem.to_owned());
            drop(kept);
            crate::say(&format!("PROBLEM: {problem}"));
        }
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems.lock().expect("no thread panics with this lock").clone()
    }

    pub(crate) fn uptime_ms(&self) -> u128 {
        self.started.elapsed().as_millis()
    }

    pub(crate) fn dirty(&self) -> Dirty {
        *self.dirty.lock().expect("no thread panics with this lock")
    }

    /// The one line that `status` answers: `key=value`, parsed by the tests.
    pub(crate) fn status(&self) -> String {
        let dirty = self.dirty();
        let mut line = format!(
            "uptime_ms={} seed={} problems={} pages={} passes={} dirtied={} memory_errors={} \
             dirty={}:{}:{} read_only_disks={} files_written={}",
            self.uptime_ms(),
            self.seed,
            self.problem_count.load(Relaxed),
            self.memory.page_count.load(Relaxed),
            self.memory.passes.load(Relaxed),
            self.memory.pages_dirtied.load(Relaxed),
            self.memory.errors.load(Relaxed),
            dirty.kind.name(),
            dirty.mib_per_s,
            dirty.over_mib,
            self.read_only_disks.load(Relaxed),
            self.files.written.load(Relaxed),
        );
        for (index, disk) in self.disks.iter().enumerate() {
            let [boot, counter, errors] =
                [&disk.boot, &disk.counter, &disk.errors].map(|value| value.load(Relaxed));
            write!(
                line,
                " boot{index}={boot} counter{index}={counter} disk_errors{index}={errors}"
            )
            .expect("a string takes everything");
        }
        line
    }
}
