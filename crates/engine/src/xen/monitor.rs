// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The process that `xl create` leaves behind for each domain.
//!
//! It waits for the domain's end and then destroys it, or makes it anew. Of a guest of ours that is
//! for the daemon to decide, so the process ends; the domain does not notice. It is known by where
//! it writes: a log that bears the domain's name.

use crate::error::EngineError;
use crate::qemu::process::Pinned;
use std::io;
use std::path::Path;

/// Ends the process that xl has left to watch over a domain, if there is one.
pub(super) async fn end(name: &str) -> Result<(), EngineError> {
    let failed =
        |source| EngineError::File { action: "look through", path: "/proc".into(), source };
    for entry in std::fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if !watches(&entry.path(), name) {
            continue;
        }
        let ended = async {
            // Held first and looked at again: by then its number might be another's.
            let Some(pinned) = Pinned::open(pid)? else { return Ok(()) };
            if watches(&entry.path(), name) {
                pinned.kill()?;
                pinned.gone().await;
            }
            Ok::<_, io::Error>(())
        };
        ended.await.map_err(|source| EngineError::File {
            action: "end",
            path: entry.path(),
            source,
        })?;
    }
    Ok(())
}

/// Whether this is an xl that writes to the log of the domain. What cannot be looked at is gone.
fn watches(process: &Path, name: &str) -> bool {
    let program = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    let log = std::fs::read_link(process.join("fd/1")).unwrap_or_default();
    let wanted = format!("xl-{name}.log");
    program.trim_end() == "xl" && log.file_name().is_some_and(|log| log == wanted.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    /// A process that is called like xl and writes to such a log.
    fn watcher(directory: &Path, name: &str) -> Child {
        let program = directory.join("xl");
        if !program.exists() {
            std::fs::copy("/bin/sleep", &program).unwrap();
        }
        let log = std::fs::File::create(directory.join(format!("xl-{name}.log"))).unwrap();
        let mut command = Command::new(program);
        command.arg0("xl").arg("600").stdout(log).stdin(Stdio::null()).spawn().unwrap()
    }

    /// That of another domain goes on.
    #[tokio::test]
    async fn only_the_domain_s_own_ends() {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("adopted-{}", std::process::id());
        let mut ours = watcher(directory.path(), &name);
        let mut other = watcher(directory.path(), &format!("{name}b"));
        end(&name).await.unwrap();
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        end(&name).await.unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
