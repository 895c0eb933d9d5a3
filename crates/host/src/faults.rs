// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Fault points: named places at which a test may stop this process, starve it of its disk, or
//! have it say something twice, or not at all. Exists only with the feature `fault-points`, which
//! nothing that is shipped has; the crash matrix (`e2e/src/matrix.rs`) is what it is for.
//!
//! A test names a directory in `WHIMBREL_FAULTS`. In it lie
//!
//! - `trace`, if the points that are passed are to be written down: a name a line;
//! - `plan`, if something is to happen: `POINT PASSING ACTION`, for example `send/Ready 1 stop`.
//!   The plan is removed when it is carried out, so nothing happens twice;
//! - `harness.sock`, where a process that stops at its point says so and waits to be let go on.
//!   Whatever is to die meanwhile, the test kills.
//!
//! Before a point of a durable write has been passed nothing of it is on the disk.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

const VARIABLE: &str = "WHIMBREL_FAULTS";

static DIRECTORY: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os(VARIABLE).map(PathBuf::from));
static COUNT: Mutex<Count> = Mutex::new(Count { plan: String::new(), passed: 0 });
static ARMED: Mutex<Option<Armed>> = Mutex::new(None);

/// How often the point of a plan was passed.
struct Count {
    plan: String,
    passed: u32,
}

/// What the disk will do the next time it is asked to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Armed {
    Full,
    FailingSync,
}

/// What the one who passed a point is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    GoOn,
    /// Once more, as if it had come twice.
    Repeat,
    /// Not at all, as if it had been lost on its way.
    Lose,
}

/// Passes a point in the middle of asynchronous work.
pub async fn pass(point: &str) -> Passed {
    let Some(directory) = DIRECTORY.as_deref() else { return Passed::GoOn };
    let action = note(directory, point);
    if action.as_deref() == Some("stop") {
        let (directory, point) = (directory.to_owned(), point.to_owned());
        let waited = tokio::task::spawn_blocking(move || wait_to_be_let_go(&directory, &point));
        waited.await.expect("waiting does not panic");
        return Passed::GoOn;
    }
    act(action.as_deref())
}

/// Passes a point where it is fine to block.
pub fn pass_blocking(point: &str) -> Passed {
    let Some(directory) = DIRECTORY.as_deref() else { return Passed::GoOn };
    let action = note(directory, point);
    if action.as_deref() == Some("stop") {
        wait_to_be_let_go(directory, point);
        return Passed::GoOn;
    }
    act(action.as_deref())
}

/// Whether the disk is full, this once.
pub fn write() -> io::Result<()> {
    take(Armed::Full, nix::libc::ENOSPC)
}

/// Whether syncing fails, this once.
pub fn sync() -> io::Result<()> {
    take(Armed::FailingSync, nix::libc::EIO)
}

fn take(armed: Armed, errno: i32) -> io::Result<()> {
    let mut state = ARMED.lock().expect("nothing panics while it holds this");
    if *state == Some(armed) {
        *state = None;
        return Err(io::Error::from_raw_os_error(errno));
    }
    Ok(())
}

/// Writes the passing down and returns what is planned for it.
fn note(directory: &Path, point: &str) -> Option<String> {
    if let Ok(mut trace) = fs::OpenOptions::new().append(true).open(directory.join("trace")) {
        // A line this short is written whole. Without the trace the test fails by itself.
        let _ = trace.write_all(format!("{point}\n").as_bytes());
    }
    let path = directory.join("plan");
    let plan = fs::read_to_string(&path).ok()?;
    let mut words = plan.split_whitespace();
    if words.next() != Some(point) {
        return None;
    }
    let passing = words.next().and_then(|word| word.parse::<u32>().ok())?;
    let action = words.next()?.to_owned();
    let mut count = COUNT.lock().expect("nothing panics while it holds this");
    if count.plan != plan {
        *count = Count { plan: plan.clone(), passed: 0 };
    }
    count.passed += 1;
    // Whoever removes the plan carries it out.
    let is_now = count.passed == passing && fs::remove_file(path).is_ok();
    if is_now {
        // The next plan may read the same.
        count.plan.clear();
    }
    is_now.then_some(action)
}

fn act(action: Option<&str>) -> Passed {
    let armed = match action {
        Some("repeat") => return Passed::Repeat,
        Some("lose") => return Passed::Lose,
        Some("enospc") => Armed::Full,
        Some("eio") => Armed::FailingSync,
        Some(_) | None => return Passed::GoOn,
    };
    *ARMED.lock().expect("nothing panics while it holds this") = Some(armed);
    Passed::GoOn
}

/// Tells the test where this process stands, and waits for its answer. A test that is gone lets go.
fn wait_to_be_let_go(directory: &Path, point: &str) {
    let told = UnixStream::connect(directory.join("harness.sock")).and_then(|mut harness| {
        harness.write_all(format!("{point}\n").as_bytes())?;
        harness.read(&mut [0])
    });
    if let Err(error) = told {
        tracing::warn!(%error, point, "no test waits at this fault point");
    }
}
