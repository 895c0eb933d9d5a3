// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! May the engine's user open a file, and if not, why not?

use crate::dirs::UserIds;
use nix::errno::Errno;
use nix::unistd::AccessFlags;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use whimbrel_model::facts::{Access, Denial, FileSystem};

/// How old the word of SELinux or AppArmor may be to be about the question just asked.
const JUST_NOW: Duration = Duration::from_secs(5);

/// Asks the kernel whether a user may do something with a file: with its parents' and its own
/// permissions, access lists, the mount and, on NFS, the server's opinion.
pub(super) fn may(path: &Path, what: AccessFlags, user: UserIds) -> io::Result<()> {
    let path = path.to_owned();
    crate::sys::as_user(user, move || crate::sys::access(&path, what))?
}

/// Returns whether the engine's user may read and write a file.
pub(super) fn of(
    path: &Path,
    resolved: &Path,
    metadata: &Metadata,
    file_system: &FileSystem,
    engine: UserIds,
) -> (Access, Access) {
    let file = FileView { path, resolved, metadata, file_system, engine };
    let read = file.access(AccessFlags::R_OK);
    let write = match file.access(AccessFlags::W_OK) {
        // The records beside the image are written by root, whoever the engine is.
        Access::Granted if file.is_root_squashed() => Access::Denied(Denial::RootSquash),
        write => write,
    };
    (read, write)
}

struct FileView<'a> {
    /// As the guest file has it, perhaps through symbolic links.
    path: &'a Path,
    resolved: &'a Path,
    metadata: &'a Metadata,
    file_system: &'a FileSystem,
    engine: UserIds,
}

impl FileView<'_> {
    fn access(&self, what: AccessFlags) -> Access {
        // Through the path as it is written: each folder on the way counts.
        let Err(error) = may(self.path, what, self.engine) else { return Access::Granted };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EROFS) => Access::Denied(Denial::ReadOnlyMount),
            Some(Errno::EACCES | Errno::EPERM) => Access::Denied(self.denial(what)),
            _ => Access::Unknown { reason: error.to_string() },
        }
    }

    fn denial(&self, what: AccessFlags) -> Denial {
        if let Some(path) = self.closed_folder() {
            return Denial::Folder { path };
        }
        let (uid, gid, mode) = (self.metadata.uid(), self.metadata.gid(), self.metadata.mode());
        if self.engine.uid == 0 && self.is_nfs() {
            return Denial::RootSquash;
        }
        let bits = match self.engine {
            UserIds { uid: engine, .. } if engine == uid => mode >> 6,
            UserIds { gid: engine, .. } if engine == gid => mode >> 3,
            UserIds { .. } => mode,
        };
        let wanted = u32::from(what.contains(AccessFlags::R_OK)) * 0o4
            + u32::from(what.contains(AccessFlags::W_OK)) * 0o2;
        if bits & wanted != wanted {
            return Denial::Mode { uid, gid, mode: mode & 0o7777 };
        }
        // The bits would let it in, so something else has said no just now, and may have said why.
        let just_now = SystemTime::now() - JUST_NOW;
        let inode = Some(self.metadata.ino());
        if let Some(denial) = crate::security::denial_of_file(self.path, inode, just_now) {
            return denial;
        }
        let reason = if self.is_nfs() {
            format!("the NFS server `{}` refuses it", self.file_system.source)
        } else {
            format!("an access list may forbid it (mode {:04o})", mode & 0o7777)
        };
        Denial::Other { reason }
    }

    /// Returns the first folder on the way that the engine's user may not enter.
    fn closed_folder(&self) -> Option<PathBuf> {
        let folders = |path: &Path| {
            let mut folders: Vec<_> = path.ancestors().skip(1).map(Path::to_owned).collect();
            folders.reverse();
            folders
        };
        let mut on_the_way = folders(self.path).into_iter().chain(folders(self.resolved));
        on_the_way.find(|folder| may(folder, AccessFlags::X_OK, self.engine).is_err())
    }

    fn is_nfs(&self) -> bool {
        self.file_system.kind.starts_with("nfs")
    }

    /// Whether the daemon, as root, may not write beside the image on an NFS server.
    fn is_root_squashed(&self) -> bool {
        let folder = self.resolved.parent().unwrap_or(Path::new("/"));
        let what = AccessFlags::W_OK | AccessFlags::X_OK;
        self.is_nfs() && crate::sys::access(folder, what).is_err()
    }
}
