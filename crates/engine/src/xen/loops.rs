// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Files behind loop devices, which is how xl gives a raw file to a guest.
//!
//! A loop device keeps what was read and written in the cache of its host, and where the guest goes
//! to the same file is read without that. So the devices of our guests are told to go past the
//! cache, before a guest runs with them; the kernel writes back what was in it, and forgets it.
//! Where one cannot, a guest that begins there runs and does not move, and one that comes does not
//! arrive: the cache may be of an earlier visit.

use super::store::plain::Store;
use std::io;
use std::path::Path;
use whimbrel_model::id::GuestId;

const PREFIX: &str = "/dev/loop";

/// A file and the loop device before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loop {
    pub(super) path: String,
    pub(super) node: String,
}

/// Returns those of a domain which go through the cache; may block.
pub(super) fn cached(number: u32) -> io::Result<Vec<Loop>> {
    let mut store = Store::open()?;
    let disks = format!("/local/domain/0/backend/vbd/{number}");
    let mut found = Vec::new();
    for disk in store.list(&disks)? {
        let mut read = |key: &str| store.read(&format!("{disks}/{disk}/{key}"));
        if let (Some(node), Some(path)) = (read("node")?, read("params")?)
            && node.starts_with(PREFIX)
            && !is_direct(Path::new("/sys/block"), &node)
        {
            found.push(Loop { path, node });
        }
    }
    Ok(found)
}

fn is_direct(blocks: &Path, node: &str) -> bool {
    let name = node.trim_start_matches("/dev/");
    let said = std::fs::read_to_string(blocks.join(name).join("loop/dio"));
    said.is_ok_and(|said| said.trim() == "1")
}

/// Finds a guest's domain without `xl`, which is slow where a guest stands still meanwhile.
fn number_of(id: GuestId) -> io::Result<Option<u32>> {
    let mut store = Store::open()?;
    let wanted = format!("/vm/{id}");
    for domain in store.list("/local/domain")? {
        if store.read(&format!("/local/domain/{domain}/vm"))?.as_ref() == Some(&wanted) {
            return Ok(domain.parse().ok());
        }
    }
    Ok(None)
}

/// Has the disks of a guest that does not run go past the cache, or says which one cannot.
pub(super) async fn go_past_cache(id: GuestId) -> Result<(), String> {
    let asked = move || number_of(id)?.map_or(Ok(Vec::new()), cached);
    let asked = tokio::task::spawn_blocking(asked).await;
    let loops = asked.expect("asking does not panic");
    let loops = loops.map_err(|error| format!("xenstored does not say what disks it has: {error}"));
    for Loop { path, node } in loops? {
        let mut command = tokio::process::Command::new("losetup");
        let said = match command.args(["--direct-io=on", &node]).output().await {
            Ok(output) if output.status.success() => continue,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(format!(
            "its disk `{path}` is behind `{node}`, which stays behind this host's cache, and that \
             may keep what the file was before; `losetup --direct-io=on {node}` said: {said}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_goes_past_the_cache() {
        let blocks = tempfile::tempdir().unwrap();
        for (name, said) in [("loop0", "1\n"), ("loop1", "0\n")] {
            let place = blocks.path().join(name).join("loop");
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("dio"), said).unwrap();
        }
        assert!(is_direct(blocks.path(), "/dev/loop0"));
        assert!(!is_direct(blocks.path(), "/dev/loop1"));
        assert!(!is_direct(blocks.path(), "/dev/loop2"));
    }
}
