// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The folder beside the images. All of it goes through one descriptor of the folder, so nothing
//! can be slipped in between by a link in its path.

use super::{ClaimError, FOLDER};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How a file begins that is not finished. A writer needs a moment; what is older was left.
const TEMPORARY: &str = "temporary-";
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

pub(super) struct Folder {
    path: PathBuf,
    folder: File,
}

pub(super) enum Content {
    Missing,
    Bytes(Vec<u8>),
    TooLong,
}

impl Folder {
    /// Opens the folder in `parent`, if there is one.
    pub(super) fn find(parent: &Path) -> Result<Option<Self>, ClaimError> {
        let path = parent.join(FOLDER);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match nix::fcntl::open(&path, flags, Mode::empty()) {
            Ok(folder) => Ok(Some(Self { path, folder: folder.into() })),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP | Errno::ENOTDIR) => Err(ClaimError::NotOurs { path }),
            Err(errno) => Err(ClaimError::Io { action: "open", path, source: errno.into() }),
        }
    }

    /// Opens the folder in `parent`, and creates it if there is none.
    pub(super) fn make(parent: &Path) -> Result<Self, ClaimError> {
        if let Some(folder) = Self::find(parent)? {
            return Ok(folder);
        }
        let io = |action| {
            move |source: io::Error| ClaimError::Io { action, path: parent.join(FOLDER), source }
        };
        let directory = File::open(parent).map_err(io("create"))?;
        match mkdirat(&directory, FOLDER, Mode::from_bits_truncate(0o700)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io("create")(errno.into())),
        }
        directory.sync_all().map_err(io("make durable"))?;
        Self::find(parent)?.ok_or_else(|| io("open")(io::ErrorKind::NotFound.into()))
    }

    pub(super) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a whole file of at most `bytes_max`. Only real files are read, never a link or a pipe.
    pub(super) fn read(&self, name: &OsStr, bytes_max: usize) -> Result<Content, ClaimError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file: File = match openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(Errno::ENOENT) => return Ok(Content::Missing),
            Err(Errno::ELOOP) => return Err(ClaimError::NotOurs { path: self.path_of(name) }),
            Err(errno) => return Err(self.io("open", name)(errno.into())),
        };
        if !file.metadata().map_err(self.io("look at", name))?.is_file() {
            return Err(ClaimError::NotOurs { path: self.path_of(name) });
        }
        let mut bytes = Vec::new();
        let limit = bytes_max as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(self.io("read", name))?;
        Ok(if bytes.len() > bytes_max { Content::TooLong } else { Content::Bytes(bytes) })
    }

    /// Puts a file in the place of whatever had its name, all or nothing, durably.
    pub(super) fn replace(&self, name: &OsStr, bytes: &[u8]) -> Result<(), ClaimError> {
        let temporary = self.write_temporary(name, bytes)?;
        if let Err(errno) = renameat(&self.folder, &*temporary, &self.folder, name) {
            self.discard(&temporary);
            return Err(self.io("replace", name)(errno.into()));
        }
        self.sync(name)
    }

    /// Creates a file that nobody has created before, durably; returns whether we were first.
    pub(super) fn create_exclusively(
        &self,
        name: &OsStr,
        bytes: &[u8],
    ) -> Result<bool, ClaimError> {
        let temporary = self.write_temporary(name, bytes)?;
        let linked = linkat(&self.folder, &*temporary, &self.folder, name, AtFlags::empty());
        // A repeated NFS request may be answered "exists" after the first one did it: the truth is
        // the number of names the file has now, by a new look at it.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let links = openat(&self.folder, &*temporary, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).metadata())
            .map(|found| found.nlink());
        self.discard(&temporary);
        match (links.map_err(self.io("look at", name))?, linked) {
            (2, _) => {}
            (_, Err(Errno::EEXIST)) => return Ok(false),
            (_, Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK | Errno::ENOSYS)) => {
                return Err(ClaimError::NoLinks { path: self.path.clone() });
            }
            (_, Err(errno)) => return Err(self.io("create", name)(errno.into())),
            (links, Ok(())) => {
                let text = format!("it was linked, and has {links} names");
                return Err(self.io("create", name)(io::Error::other(text)));
            }
        }
        self.sync(name)?;
        Ok(true)
    }

    /// Removes a file. Gone already: fine.
    pub(super) fn remove(&self, name: &OsStr) -> Result<(), ClaimError> {
        match unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => self.sync(name),
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.io("remove", name)(errno.into())),
        }
    }

    pub(super) fn names(&self) -> Result<Vec<OsString>, ClaimError> {
        let io = |source| ClaimError::Io { action: "list", path: self.path.clone(), source };
        let entries = std::fs::read_dir(&self.path).map_err(io)?;
        entries.map(|entry| Ok(entry.map_err(io)?.file_name())).collect()
    }

    /// Removes what writers that crashed left long ago. Best effort: it is in nobody's way.
    pub(super) fn remove_leftovers(&self) {
        for name in self.names().unwrap_or_default() {
            let is_old = self.age(&name).is_some_and(|age| age > LEFTOVER_AGE);
            if name.as_bytes().starts_with(TEMPORARY.as_bytes()) && is_old {
                self.discard(&name);
            }
        }
    }

    /// Returns how long ago a file was written; none for one from the future.
    pub(super) fn age(&self, name: &OsStr) -> Option<Duration> {
        let modified = self.path_of(name).symlink_metadata().and_then(|found| found.modified());
        SystemTime::now().duration_since(modified.ok()?).ok()
    }

    /// Removes the folder if nothing is in it any more.
    pub(super) fn remove_if_empty(self) {
        let _ = std::fs::remove_dir(&self.path);
    }

    fn write_temporary(&self, name: &OsStr, bytes: &[u8]) -> Result<OsString, ClaimError> {
        let temporary: OsString = format!("{TEMPORARY}{}", uuid::Uuid::new_v4().simple()).into();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let file = openat(&self.folder, &*temporary, flags, mode);
        let mut file: File = file.map_err(|e| self.io("create", name)(e.into()))?.into();
        if let Err(error) = write_durably(&mut file, bytes) {
            self.discard(&temporary);
            return Err(self.io("write", name)(error));
        }
        Ok(temporary)
    }

    fn discard(&self, temporary: &OsStr) {
        let _ = unlinkat(&self.folder, temporary, UnlinkatFlags::NoRemoveDir);
    }

    fn sync(&self, name: &OsStr) -> Result<(), ClaimError> {
        self.folder.sync_all().map_err(self.io("make durable", name))
    }

    fn io(&self, action: &'static str, name: &OsStr) -> impl Fn(io::Error) -> ClaimError + use<> {
        let path = self.path_of(name);
        move |source| ClaimError::Io { action, path: path.clone(), source }
    }
}

fn write_durably(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    #[cfg(feature = "fault-points")]
    crate::faults::write()?;
    file.write_all(bytes)?;
    #[cfg(feature = "fault-points")]
    crate::faults::sync()?;
    file.sync_all()
}
