// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The carrying processes of a host: how much memory they take, and a way to hold them.

use crate::lab::Host;
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

/// The kernel remembers each process's peak, so only the last moment of one can be missed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does `work`, and returns how many KiB the largest carrying process of the hosts had resident at
/// its peak, meanwhile.
pub fn peak_kib<T>(hosts: [&Host; 2], work: impl FnOnce() -> T) -> (T, u64) {
    let is_over = AtomicBool::new(false);
    scope(|threads| {
        let watching = threads.spawn(|| {
            let mut peak = 0;
            while !is_over.load(Ordering::Relaxed) {
                let pids = hosts.into_iter().flat_map(of);
                peak = pids.map(peak_of).chain([peak]).max().unwrap_or_default();
                sleep(LOOK_EVERY);
            }
            peak
        });
        let over = Over(&is_over);
        let done = work();
        drop(over);
        (done, watching.join().expect("it only reads files"))
    })
}

/// Says that the work is over, also if it panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends a signal to the carrying processes of `host`: one that is stopped is silent.
pub fn signal(host: &Host, signal: Signal) -> Result<()> {
    let pids = of(host);
    ensure!(!pids.is_empty(), "nothing is carried on {}", host.name);
    for pid in pids {
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
    }
    Ok(())
}

/// The carrying processes of `host`.
pub fn of(host: &Host) -> Vec<u32> {
    host.processes().into_iter().filter(|pid| carries(*pid)).collect()
}

fn carries(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == b"carry")
}

/// Of a process that is gone, nothing.
fn peak_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}
