// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A thread that lives in namespaces of its own and does there what it is asked.
//!
//! Linux gives namespaces to threads, and a child inherits those of the thread that started it; a
//! socket keeps the one it was made in. So no helper program is needed to run things elsewhere.

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};

type Job = Box<dyn FnOnce() + Send>;

/// Somewhere else on this machine.
pub struct Place {
    jobs: Sender<Job>,
}

impl Place {
    /// Enters the named network namespace, takes a mount and a host name namespace of its own, and
    /// prepares the place.
    pub fn new(
        namespace: &str,
        prepare: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<Place> {
        let path = format!("/run/netns/{namespace}");
        let (jobs, queue) = channel::<Job>();
        let (ready, entered) = channel();
        std::thread::spawn(move || {
            let outcome = enter(&path).and_then(|()| prepare());
            // The receiver waits until this is said.
            let _ = ready.send(outcome);
            for job in queue {
                job();
            }
        });
        entered.recv().expect("the thread says how it went")?;
        Ok(Place { jobs })
    }

    /// Does something there and returns what came of it.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, outcome) = channel();
        let job = move || {
            let _ = answer.send(job());
        };
        self.jobs.send(Box::new(job)).expect("the thread of a place lives as long as the place");
        outcome.recv().expect("a job that panics takes the process with it")
    }

    /// Starts a program there.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        self.run(move || {
            let program = command.get_program().to_owned();
            command.spawn().with_context(|| format!("failed to start {}", program.display()))
        })
    }
}

fn enter(path: &str) -> Result<()> {
    let namespace = File::open(path).with_context(|| format!("no namespace {path}"))?;
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("failed to leave the machine's own namespaces")?;
    setns(&namespace, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("failed to enter the namespace {path}"))
}
