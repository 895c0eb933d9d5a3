// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Plugs a disk in: says to its backend which block device it is, if nobody is in the way.
//!
//! From the question to the answer a lock is held, the one that Xen's own scripts take: between two
//! that ask at once, one would not see the other.

use super::sharing::{Access, Number, User, Who, in_the_way};
use super::{Device, HotplugError, connected, locks};
use crate::xen::store::plain::Store;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

const LOCK: &str = "block";
const BACKENDS: &str = "/local/domain/0/backend/vbd";
const MOUNTS: &str = "/proc/mounts";
/// Where a guest's device model runs in a domain of its own, Xen ends its name like this.
const DEVICE_MODEL: &str = "-1";

pub(super) fn add(store: &mut Store, device: &Device) -> Result<(), HotplugError> {
    // Asked for twice, it is done once.
    if read(store, &device.key("physical-device"))?.is_some() {
        return Ok(());
    }
    let path = PathBuf::from(needed(store, device.key("params"))?);
    let wanted = Access::parse(&needed(store, device.key("mode"))?);
    let failed = |source| HotplugError::File { action: "look at", path: path.clone(), source };
    let real = std::fs::canonicalize(&path).map_err(failed)?;
    let Some(number) = number(&real).map_err(failed)? else {
        return Err(HotplugError::NotBlock { path });
    };
    let _lock = Lock::take(&locks())?;
    let users = if wanted == Access::Shared { Vec::new() } else { users(store, device)? };
    if let Some(by) = in_the_way(wanted, number, &users) {
        return Err(HotplugError::Busy { path, by });
    }
    let real = real.to_string_lossy();
    for (key, value) in [("physical-device", &*number.to_string()), ("physical-device-path", &real)]
    {
        store.write(&device.key(key), value).map_err(HotplugError::store("write"))?;
    }
    connected(store, device)
}

fn read(store: &mut Store, key: &str) -> Result<Option<String>, HotplugError> {
    store.read(key).map_err(HotplugError::store("read"))
}

fn needed(store: &mut Store, key: String) -> Result<String, HotplugError> {
    read(store, &key)?.ok_or(HotplugError::Missing { key })
}

/// The number of a block device; none where it is something else.
fn number(path: &Path) -> io::Result<Option<Number>> {
    let metadata = std::fs::metadata(path)?;
    let device = metadata.rdev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let number = Number { major: major.into(), minor: minor.into() };
    Ok(metadata.file_type().is_block_device().then_some(number))
}

/// Everybody on this host who has a block device.
fn users(store: &mut Store, device: &Device) -> Result<Vec<User>, HotplugError> {
    let failed = |source| HotplugError::File { action: "read", path: MOUNTS.into(), source };
    let mut users = mounted(&std::fs::read_to_string(MOUNTS).map_err(failed)?);
    let ours = read(store, &format!("/local/domain/{}/vm", device.domain))?;
    for domain in list(store, BACKENDS)? {
        let below = format!("{BACKENDS}/{domain}");
        let is_same = is_same(store, &domain, ours.as_deref())?;
        for backend in list(store, &below)? {
            // It may go while it is looked at.
            let text = read(store, &format!("{below}/{backend}/physical-device"))?;
            let Some(device) = text.as_deref().and_then(Number::parse) else { continue };
            let mode = read(store, &format!("{below}/{backend}/mode"))?.unwrap_or_default();
            let who = Who::Domain { number: domain.parse().unwrap_or_default(), is_same };
            users.push(User { device, access: Access::parse(&mode), who });
        }
    }
    Ok(users)
}

fn list(store: &mut Store, path: &str) -> Result<Vec<String>, HotplugError> {
    store.list(path).map_err(HotplugError::store("read"))
}

/// Whether a domain is the guest with this uuid. One that is gone, and has left its devices, is in
/// nobody's way.
fn is_same(store: &mut Store, domain: &str, ours: Option<&str>) -> Result<bool, HotplugError> {
    let theirs = read(store, &format!("/local/domain/{domain}/vm"))?;
    Ok(match (theirs, ours) {
        (None, _) => true,
        (Some(theirs), Some(ours)) => {
            theirs.trim_end_matches(DEVICE_MODEL) == ours.trim_end_matches(DEVICE_MODEL)
        }
        (Some(_), None) => false,
    })
}

/// What is mounted from block devices.
fn mounted(mounts: &str) -> Vec<User> {
    let mounts = mounts.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [source, at, _, options, ..] = words.as_slice() else { return None };
        let device =
            source.starts_with('/').then(|| number(Path::new(source)).ok()).flatten()??;
        let is_read_only = options.split(',').any(|option| option == "ro");
        let access = if is_read_only { Access::Read } else { Access::Write };
        Some(User { device, access, who: Who::Mounted { at: (*at).to_owned() } })
    });
    mounts.collect()
}

/// A lock of Xen's scripts: a file that is removed by who has it locked. Only a lock on the file
/// that is there now counts.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(folder: &Path) -> Result<Lock, HotplugError> {
        let path = folder.join(LOCK);
        let failed = |source| HotplugError::File { action: "lock", path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        loop {
            let mut options = File::options();
            let opened = options.read(true).write(true).create(true).truncate(false).open(&path);
            let file = opened.map_err(failed)?;
            flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
            let held = inode(file.metadata().map_err(failed)?);
            if std::fs::metadata(&path).is_ok_and(|there| inode(there) == held) {
                return Ok(Lock { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever waits finds another file there, or none, and tries again.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    /// However the file comes and goes, one at a time has it.
    #[test]
    fn one_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let (folder, inside) = (place.path().join("locks"), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _lock = Lock::take(&folder).unwrap();
                        assert_eq!(inside.fetch_add(1, SeqCst), 0);
                        inside.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "a lock is left over");
    }

    /// What is no block device has no number, and takes nothing away from anybody.
    #[test]
    fn mounts_that_are_no_block_devices_do_not_count() {
        let mounts =
            "proc /proc proc rw 0 0\n/nowhere /srv ext4 rw 0 0\n/dev/null /x ext4 ro 0 0\n";
        assert_eq!(mounted(mounts), []);
        assert_eq!(mounted("too short"), []);
    }
}
