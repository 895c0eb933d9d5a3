// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Files of one folder, reached through a descriptor of the folder: nothing can be slipped in
//! between by a link, and what is not a plain file is not opened.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use whimbrel_model::units::Bytes;

use crate::error::StoreError;
use crate::policy::Space;

pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens the folder, if there is one.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>, StoreError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: path.to_owned() })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(StoreError::NotPlain { path: path.to_owned() }),
            Err(errno) => Err(StoreError::io("open", path)(errno.into())),
        }
    }

    /// Opens the folder, and creates it and those above it if there is none.
    pub(crate) fn make(path: &Path) -> Result<Self, StoreError> {
        if let Some(dir) = Self::find(path)? {
            return Ok(dir);
        }
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(path).map_err(StoreError::io("create", path))?;
        let gone = || StoreError::io("open", path)(Errno::NOENT.into());
        Self::find(path)?.ok_or_else(gone)
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file to be read, if there is one.
    pub(crate) fn open(&self, name: &str) -> Result<Option<File>, StoreError> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// Opens a file to be overwritten, if there is one.
    pub(crate) fn open_for_writing(&self, name: &str) -> Result<Option<File>, StoreError> {
        self.open_with(name, OFlags::WRONLY)
    }

    fn open_with(&self, name: &str, access: OFlags) -> Result<Option<File>, StoreError> {
        // A pipe somebody put here must not make us wait.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let not_plain = || StoreError::NotPlain { path: self.path_of(name) };
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(not_plain()),
            Err(errno) => return Err(StoreError::io("open", self.path_of(name))(errno.into())),
        };
        let io = StoreError::io("look at", self.path_of(name));
        let stat = rustix::fs::fstat(&fd).map_err(|errno| io(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_plain());
        }
        Ok(Some(fd.into()))
    }

    /// Creates a file; none if there is one of this name, or if the folder itself is gone.
    pub(crate) fn create(&self, name: &str) -> Result<Option<File>, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::EXIST | Errno::NOENT) => Ok(None),
            Err(errno) => Err(StoreError::io("create", self.path_of(name))(errno.into())),
        }
    }

    /// Gives a file another name; what had it is gone. Both names are durable afterwards.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        match rustix::fs::renameat(&self.fd, from, &self.fd, to) {
            Ok(()) => self.sync(),
            Err(Errno::NOENT) => Err(StoreError::GivenUp { path: self.path_of(from) }),
            Err(errno) => Err(StoreError::io("rename", self.path_of(from))(errno.into())),
        }
    }

    /// Removes a file and returns whether there was one.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, StoreError> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(StoreError::io("remove", self.path_of(name))(errno.into())),
        }
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let io = StoreError::io("make durable", &self.path);
        rustix::fs::fsync(&self.fd).map_err(|errno| io(errno.into()))
    }

    /// Returns the names in the folder, in no order. Names we cannot have given are left out.
    pub(crate) fn names(&self) -> Result<Vec<String>, StoreError> {
        let io = |errno: Errno| StoreError::io("read", &self.path)(errno.into());
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_str().ok().filter(|name| !name.starts_with('.'));
            names.extend(name.map(str::to_owned));
        }
        Ok(names)
    }
}

/// Tells whether the file system a file is on has space left for what nobody needs.
pub(crate) fn check_space(file: &File, path: PathBuf) -> Result<(), StoreError> {
    let io = |errno: Errno| StoreError::io("look at", &path)(errno.into());
    let space = Space::of(&rustix::fs::fstatvfs(file).map_err(io)?);
    if space.is_short() {
        let (free, total) = (Bytes(space.free_bytes), Bytes(space.total_bytes));
        return Err(StoreError::LittleSpace { path, free, total });
    }
    Ok(())
}

/// Removes a folder if nothing is in it.
pub(crate) fn remove_empty(path: &Path) -> Result<(), StoreError> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(errno) => Err(StoreError::io("remove", path)(errno.into())),
    }
}
