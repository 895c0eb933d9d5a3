// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Whether an engine has an image open for writing, by the locks that QEMU takes on it: open file
//! description locks, which hosts see of each other where the file system carries them (NFS 4).

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::io;
use std::path::Path;

/// The byte that stands for the right to write: `RAW_LOCK_PERM_BASE` plus the bit number of
/// `BLK_PERM_WRITE`, in QEMU's `block/file-posix.c`. Holders lock it shared.
const WRITE_BYTE: libc::off_t = 100 + 1;

/// Returns whether somebody holds the image for writing.
pub(super) fn is_held(image: &Path) -> io::Result<bool> {
    let file = File::open(image)?;
    let mut lock = libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).expect("it is small"),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("it is small"),
        l_start: WRITE_BYTE,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lock as QEMU takes it is seen, one on another byte is not, and none after it is let go.
    #[test]
    fn the_lock_of_a_writer_is_seen() {
        let image = tempfile::NamedTempFile::new().unwrap();
        let take = |start| {
            let holder = File::options().read(true).write(true).open(image.path()).unwrap();
            let lock = libc::flock {
                l_type: libc::F_RDLCK.try_into().unwrap(),
                l_whence: libc::SEEK_SET.try_into().unwrap(),
                l_start: start,
                l_len: 1,
                l_pid: 0,
            };
            fcntl(&holder, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
            holder
        };
        let reader = take(100);
        assert!(!is_held(image.path()).unwrap());
        let writer = take(101);
        assert!(is_held(image.path()).unwrap());
        drop(writer);
        assert!(!is_held(image.path()).unwrap());
        drop(reader);
    }
}
