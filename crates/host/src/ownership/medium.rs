// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Where the slots lie: a file, or in tests a disk that tears, forgets and fails.

use super::OwnershipError;
use super::copy::SLOT_BYTES;
use nix::fcntl::{FallocateFlags, FlockArg, fallocate};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Two slots, and nothing else.
pub(super) trait Medium {
    fn length(&self) -> io::Result<u64>;
    fn read_slot(&self, slot: usize) -> io::Result<Box<[u8; SLOT_BYTES]>>;
    fn write_slot(&mut self, slot: usize, bytes: &[u8; SLOT_BYTES]) -> io::Result<()>;
    /// Returns once everything written is durable.
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_slot(&self, slot: usize) -> io::Result<Box<[u8; SLOT_BYTES]>> {
        let mut bytes = Box::new([0; SLOT_BYTES]);
        self.read_exact_at(bytes.as_mut_slice(), offset(slot))?;
        Ok(bytes)
    }

    fn write_slot(&mut self, slot: usize, bytes: &[u8; SLOT_BYTES]) -> io::Result<()> {
        #[cfg(feature = "fault-points")]
        crate::faults::write()?;
        self.write_all_at(bytes, offset(slot))
    }

    fn sync(&mut self) -> io::Result<()> {
        #[cfg(feature = "fault-points")]
        crate::faults::sync()?;
        self.sync_data()
    }
}

fn offset(slot: usize) -> u64 {
    (slot * SLOT_BYTES) as u64
}

fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OwnershipError {
    move |source| OwnershipError::Io { action, path: path.to_owned(), source }
}

/// Opens the file and holds it, so that no other process does.
pub(super) fn open(path: &Path) -> Result<File, OwnershipError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OwnershipError::Missing { path: path.to_owned() },
            _ => io_error("open", path)(error),
        })?;
    hold(&file, path)?;
    Ok(file)
}

/// Creates an empty file of the right size beside `path`, with its blocks allocated.
pub(super) fn create_temporary(path: &Path) -> Result<(PathBuf, File), OwnershipError> {
    let io = io_error("create", path);
    let temporary = with_suffix(path, "new")?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(&io)?;
    hold(&file, path)?;
    write_in_place(&file);
    let length = i64::try_from(2 * SLOT_BYTES).expect("two slots are small");
    match fallocate(&file, FallocateFlags::empty(), 0, length) {
        // A file system without `fallocate` allocates when both slots are written, in a moment.
        Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP) => Ok((temporary, file)),
        Err(errno) => {
            let _ = std::fs::remove_file(&temporary);
            Err(io(errno.into()))
        }
    }
}

/// Asks a copy-on-write file system to write this file in place, so that a full disk cannot stop
/// a record. Others do not know the flag, and need not.
fn write_in_place(file: &File) {
    const FS_NOCOW: u32 = 0x0080_0000;
    crate::sys::add_inode_flags(file.as_raw_fd(), FS_NOCOW);
}

/// Gives the finished file its name, unless there is one by that name.
pub(super) fn link_durably(temporary: &Path, path: &Path) -> Result<(), OwnershipError> {
    std::fs::hard_link(temporary, path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => OwnershipError::Exists { path: path.to_owned() },
        _ => io_error("name", path)(error),
    })?;
    sync_directory(path)
}

/// Gives the finished file its name, in place of whatever has it.
pub(super) fn rename_durably(temporary: &Path, path: &Path) -> Result<(), OwnershipError> {
    std::fs::rename(temporary, path).map_err(io_error("replace", path))?;
    sync_directory(path)
}

/// Keeps the file under a second name.
pub(super) fn keep_aside(path: &Path) -> Result<(), OwnershipError> {
    match std::fs::hard_link(path, with_suffix(path, "replaced")?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        linked => linked.map_err(io_error("keep", path)),
    }
}

fn with_suffix(path: &Path, what: &str) -> Result<PathBuf, OwnershipError> {
    let Some(name) = path.file_name() else {
        return Err(io_error("name", path)(io::Error::from(io::ErrorKind::InvalidInput)));
    };
    let mut name = name.to_owned();
    name.push(format!(".{what}-{}", uuid::Uuid::new_v4().simple()));
    Ok(path.with_file_name(name))
}

fn sync_directory(path: &Path) -> Result<(), OwnershipError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|d| d.sync_all()).map_err(io_error("make durable", path))
}

fn hold(file: &File, path: &Path) -> Result<(), OwnershipError> {
    #[allow(
        deprecated,
        reason = "`Flock` would own the file; closing it releases the lock as well"
    )]
    let locked = nix::fcntl::flock(file.as_raw_fd(), FlockArg::LockExclusiveNonblock);
    locked.map_err(|errno| match errno {
        nix::errno::Errno::EWOULDBLOCK => OwnershipError::InUse { path: path.to_owned() },
        errno => io_error("lock", path)(errno.into()),
    })
}
