// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A real distribution on a disk of the guest: its commands can be run, so that the page cache
//! holds what a server's would, and small files in it are rewritten as a service does.
//!
//! The witness stays PID 1 and is no part of it. A command is entered by the witness's own program,
//! started anew: it takes the disk for its root and becomes the shell.

use crate::page::{Kind, Page, Random};
use crate::state::State;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

const ROOT: &str = "/userland";
/// The first argument of the program when it is to become a shell.
const ENTER: &str = "--enter-userland";
/// Where the rewritten files lie in it.
const FILES: &str = "var/lib/witness";
const FILE_COUNT: usize = 256;
/// How much of a command's output is answered.
const ANSWER_MAX: u64 = 256;
/// How long to wait before asking again whether files are to be rewritten.
const REST: Duration = Duration::from_millis(100);

/// Runs commands, one at a time.
#[derive(Clone)]
pub(crate) struct Userland(Arc<Mutex<()>>);

/// Mounts the userland and starts the thread that rewrites files once it is asked to.
pub(crate) fn start(disk: &str, state: &'static State) -> io::Result<Userland> {
    let (device, none) = (Path::new("/dev").join(disk), None::<&str>);
    fs::create_dir_all(ROOT)?;
    mount(Some(&device), ROOT, Some("ext4"), MsFlags::MS_NOATIME, none)?;
    for (kind, place) in [("proc", "proc"), ("devtmpfs", "dev")] {
        mount(Some(kind), &Path::new(ROOT).join(place), Some(kind), MsFlags::empty(), none)?;
    }
    let place = Path::new(ROOT).join(FILES);
    fs::create_dir_all(&place)?;
    std::thread::spawn(move || rewrite(&place, state));
    Ok(Userland(Arc::default()))
}

/// Becomes the shell if this program was started for that; returns only if it was not, or failed.
pub(crate) fn enter() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ENTER {
        return None;
    }
    let command = arguments.next()?;
    let entered = chroot(ROOT).and_then(|()| std::env::set_current_dir("/"));
    if entered.is_ok() {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(command).env_clear();
        shell.envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root"), ("LANG", "C")]);
        // Returns only if there is no shell.
        let _ = shell.exec();
    }
    Some(ExitCode::from(127))
}

impl Userland {
    /// Runs a shell command to its end and answers its status and the beginning of its output.
    pub(crate) fn run(&self, command: &str) -> String {
        let _running = match self.0.try_lock() {
            Ok(running) => running,
            Err(TryLockError::WouldBlock) => return "error: another command runs".to_owned(),
            Err(TryLockError::Poisoned(_)) => return "error: an earlier command failed".to_owned(),
        };
        match spawn(command) {
            Ok((status, output)) => format!("ok {status} {output}"),
            Err(error) => format!("error: {error}"),
        }
    }
}

fn spawn(command: &str) -> io::Result<(i32, String)> {
    let mut shell = Command::new("/proc/self/exe");
    shell.args([ENTER, command]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut shell = shell.stderr(Stdio::null()).spawn()?;
    let mut output = Vec::new();
    if let Some(pipe) = shell.stdout.take() {
        pipe.take(ANSWER_MAX).read_to_end(&mut output)?;
    }
    let status = shell.wait()?;
    let output = String::from_utf8_lossy(&output);
    let line = output.lines().next().unwrap_or_default().to_owned();
    Ok((status.code().unwrap_or(-1), line))
}

/// Rewrites files in no order, as many a second as is asked, and looks at each before: what is
/// read must be what was last written.
fn rewrite(place: &Path, state: &State) {
    let mut versions = vec![0; FILE_COUNT];
    let mut random = Random(state.seed);
    loop {
        let Some(interval) = interval(state.files.per_s.load(Relaxed)) else {
            std::thread::sleep(REST);
            continue;
        };
        let index = random.below(FILE_COUNT);
        let file = File { path: place.join(format!("object-{index}")), index: index as u64 };
        match file.rewrite(versions[index]) {
            Ok(()) => {
                versions[index] += 1;
                state.files.written.fetch_add(1, Relaxed);
            }
            Err(problem) => state.report(&format!("{}: {problem}", file.path.display())),
        }
        std::thread::sleep(interval);
    }
}

/// The time between two files; `None` where none are to be written.
fn interval(per_s: u64) -> Option<Duration> {
    Some(Duration::from_micros(1_000_000_u64.checked_div(per_s)?))
}

/// A file that holds one checked page.
struct File {
    path: PathBuf,
    index: u64,
}

impl File {
    /// Writes the version after `version`, which must be there; zero means none yet.
    fn rewrite(&self, version: u64) -> Result<(), String> {
        let mut page = Page::zeroed();
        if version > 0 {
            let bytes = fs::read(&self.path).map_err(|error| error.to_string())?;
            page = Page::from_bytes(&bytes).ok_or("not a page")?;
            page.verify(self.index, version).map_err(|damage| format!("{damage:?}"))?;
        }
        page.write(self.index, version + 1, Kind::Text);
        fs::write(&self.path, page.to_bytes()).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file is written again and again, and a change by anybody else is seen by the next write.
    #[test]
    fn a_file_that_changed_by_itself_is_noticed() {
        let path = std::env::temp_dir().join(format!("witness-file-{}", std::process::id()));
        let file = File { path, index: 3 };
        for version in 0..3 {
            file.rewrite(version).unwrap();
        }
        assert!(file.rewrite(2).unwrap_err().contains("Stale"));
        let mut bytes = fs::read(&file.path).unwrap();
        bytes[100] ^= 1;
        fs::write(&file.path, bytes).unwrap();
        assert!(file.rewrite(3).unwrap_err().contains("Corrupt"));
        fs::remove_file(&file.path).unwrap();
    }

    #[test]
    fn nothing_a_second_is_never() {
        assert_eq!(interval(0), None);
        assert_eq!(interval(20), Some(Duration::from_millis(50)));
    }
}
