// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Leaves the machine as it was, whatever ends the lab: its end, a failure, a panic, Ctrl-C, or
//! (by the next lab) a kill.
//!
//! A lab's processes are known by their network namespace, which nothing else lives in.

use crate::command::run;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
const BASE: &str = "/tmp";

/// Labs of this process that stand.
static STANDING: Mutex<Vec<Remains>> = Mutex::new(Vec::new());

/// What a lab leaves behind unless it is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    pub(super) namespaces: [String; 4],
    pub(super) directory: PathBuf,
}

impl Remains {
    pub(super) fn of(prefix: &str, names: [&str; 4]) -> Remains {
        Remains {
            namespaces: names.map(|name| format!("{prefix}-{name}")),
            directory: Path::new(BASE).join(format!("whimbrel-{prefix}")),
        }
    }

    /// The remains of a lab called `prefix`, whoever made it.
    pub fn named(prefix: &str) -> Remains {
        Remains::of(prefix, ["lan", "client", "alpha", "beta"])
    }

    /// Tells whether anything is there to remove.
    pub fn exist(&self) -> bool {
        self.directory.exists() || self.namespaces.iter().any(|name| namespace(name).exists())
    }

    pub(super) fn register(&self) {
        STANDING.lock().expect("nothing panics with this lock").push(self.clone());
    }

    pub(super) fn forget(&self) {
        let mut standing = STANDING.lock().expect("nothing panics with this lock");
        standing.retain(|other| other != self);
    }

    /// Kills every process of the lab, then removes its namespaces and files.
    pub fn remove(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.processes().into_iter().map(end).count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        for name in self.namespaces.iter().filter(|name| namespace(name).exists()) {
            // What cannot be removed now is removed by the next lab.
            let _ = run(Command::new("ip").args(["netns", "del", name]));
        }
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// Returns the processes that live in the lab.
    pub fn processes(&self) -> Vec<Pid> {
        processes_in(self.namespaces.iter().map(String::as_str))
    }
}

/// Returns the processes that live in named network namespaces.
pub(super) fn processes_in<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Pid> {
    let inode = |path: &Path| fs::metadata(path).map(|metadata| metadata.ino()).ok();
    let ours: Vec<u64> = names.into_iter().filter_map(|name| inode(&namespace(name))).collect();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let theirs = inode(Path::new(&format!("/proc/{pid}/ns/net")));
            theirs.is_some_and(|inode| ours.contains(&inode))
        })
        .map(Pid::from_raw)
        .collect()
}

fn end(pid: Pid) {
    // It may be gone already.
    let _ = kill(pid, Signal::SIGKILL);
}

fn namespace(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Removes all labs of this process.
fn remove_standing() {
    let standing = match STANDING.lock() {
        Ok(standing) => standing.clone(),
        Err(poisoned) => poisoned.into_inner().clone(),
    };
    standing.iter().for_each(Remains::remove);
}

/// Removes labs whose process is gone.
pub fn remove_stale() {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    for prefix in names.filter_map(|name| owner_is_gone(&name)) {
        Remains::named(&prefix).remove();
    }
}

/// Returns the prefix of a namespace `wlPIDxCOUNT-name` whose process has ended.
fn owner_is_gone(name: &str) -> Option<String> {
    let (prefix, _) = name.split_once('-')?;
    let (pid, count) = prefix.strip_prefix("wl")?.split_once('x')?;
    let (pid, _) = (pid.parse::<u32>().ok()?, count.parse::<u32>().ok()?);
    (!Path::new(&format!("/proc/{pid}")).exists()).then(|| prefix.to_owned())
}

/// Sees to it that a panic, Ctrl-C and a polite kill leave no lab behind.
pub fn guard() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        remove_standing();
    }));
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime for signals can be built").block_on(wait_for_signal());
        remove_standing();
        #[allow(clippy::exit, reason = "the main thread may be in the middle of anything")]
        std::process::exit(130);
    });
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut polite = signal(SignalKind::terminate()).expect("SIGTERM can be listened to");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = polite.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only labs of dead processes are stale; other names are not even looked at.
    #[test]
    fn stale_labs_are_told_from_living_ones() {
        let own = format!("wl{}x0-alpha", std::process::id());
        assert_eq!(owner_is_gone(&own), None);
        assert_eq!(owner_is_gone("wl4194999x2-lan").as_deref(), Some("wl4194999x2"));
        for name in ["demo-alpha", "wl12-alpha", "wlx1-alpha", "wl1x-alpha", "other"] {
            assert_eq!(owner_is_gone(name), None, "{name}");
        }
    }
}
