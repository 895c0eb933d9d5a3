// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What this host sees of a guest's files, as the plan wants to know it.
//!
//! Facts are measured, not judged, and measured the way the engine will meet them: whether it may
//! open a disk is asked of the kernel as the engine's own user. Storage that does not answer must
//! not hold up a plan: everything is looked at on a thread of its own, which is given up (and
//! named) when it takes too long.

mod access;
mod mounts;
mod nfs;

use crate::claims::{Beside, Place};
use crate::dirs::UserIds;
use nix::errno::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use whimbrel_model::facts::{
    BootFileFacts, BootFileState, DiskFacts, DiskPresent, DiskState, FileKind, Mark,
};
use whimbrel_model::guest::DiskSource;
use whimbrel_model::passport::BootRole;
use whimbrel_model::plan::disks::lies_in;
use whimbrel_model::units::Bytes;

/// How long one file may take to be looked at.
pub const LOOK_MAX: Duration = Duration::from_secs(5);
/// Largest kernel, ramdisk or firmware whose content is compared.
pub const BOOT_FILE_BYTES_MAX: u64 = 1 << 30;

/// Looks at disks, each for at most [`LOOK_MAX`], all at the same time. With `with_marks`, it is
/// also looked for what [`Place::leave_mark`] has left, here or on another host. Of disks on NFS
/// servers only those that lie in `nfs_allowed` are tried to be opened.
pub async fn disks(
    sources: Vec<DiskSource>,
    engine: UserIds,
    with_marks: bool,
    nfs_allowed: &[String],
) -> Vec<DiskFacts> {
    let looks = sources.into_iter().map(|source| async move {
        let of = source.clone();
        let tries_nfs = match &source {
            DiskSource::Nfs(url) => nfs_allowed.iter().any(|folder| lies_in(url, folder)),
            DiskSource::Path(_) => false,
        };
        let look = move || match &of {
            DiskSource::Nfs(url) if tries_nfs => nfs::disk(url, Some(engine)),
            DiskSource::Nfs(_) | DiskSource::Path(_) => disk(&of, engine, with_marks),
        };
        let state = within(LOOK_MAX, look).await;
        let state = state.unwrap_or_else(|| DiskState::Unknown { reason: silent(LOOK_MAX) });
        DiskFacts { source, state }
    });
    futures::future::join_all(looks).await
}

/// Looks at the files that the guest's next reboot needs, each for at most [`LOOK_MAX`].
pub async fn boot_files(files: Vec<(BootRole, PathBuf)>, engine: UserIds) -> Vec<BootFileFacts> {
    let looks = files.into_iter().map(|(role, path)| async move {
        let of = path.clone();
        let state = within(LOOK_MAX, move || boot_file(&of, engine)).await;
        let state = state.unwrap_or_else(|| BootFileState::Unreadable { reason: silent(LOOK_MAX) });
        BootFileFacts { role, path, state }
    });
    futures::future::join_all(looks).await
}

/// Runs `work` on a thread of its own, and gives both up after `limit`. A thread that hangs in a
/// dead server's mount cannot be ended; it holds nothing but itself.
async fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("look".into());
    thread.spawn(move || done.send(work())).ok()?;
    tokio::time::timeout(limit, result).await.ok()?.ok()
}

fn silent(limit: Duration) -> String {
    format!("the storage did not answer within {} s", limit.as_secs())
}

/// Looks at one disk. Blocks, for as long as the storage wishes.
fn disk(source: &DiskSource, engine: UserIds, with_mark: bool) -> DiskState {
    let unknown = |error: io::Error| DiskState::Unknown { reason: error.to_string() };
    match source {
        DiskSource::Nfs(url) => nfs::disk(url, None),
        DiskSource::Path(path) => match look(path) {
            Ok(found) => present(source, path, found, engine, with_mark).unwrap_or_else(unknown),
            Err(error) if is_absent(&error) => DiskState::Missing,
            Err(error) => unknown(error),
        },
    }
}

struct Found {
    resolved: PathBuf,
    metadata: std::fs::Metadata,
}

fn look(path: &Path) -> io::Result<Found> {
    let resolved = path.canonicalize()?;
    Ok(Found { metadata: resolved.symlink_metadata()?, resolved })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn present(
    source: &DiskSource,
    path: &Path,
    found: Found,
    engine: UserIds,
    with_mark: bool,
) -> io::Result<DiskState> {
    let Found { resolved, metadata } = found;
    let kind = match metadata.file_type() {
        kind if kind.is_file() => FileKind::File,
        kind if kind.is_block_device() => FileKind::BlockDevice,
        _ => FileKind::Other,
    };
    let size = match kind {
        FileKind::BlockDevice => File::open(&resolved)?.seek(SeekFrom::End(0))?,
        FileKind::File | FileKind::Nfs | FileKind::Other => metadata.len(),
    };
    let file_system = mounts::file_system_of(&resolved);
    let (read, write) = access::of(path, &resolved, &metadata, &file_system, engine);
    let mark = match kind {
        FileKind::File if with_mark => mark(source),
        FileKind::File | FileKind::BlockDevice | FileKind::Nfs | FileKind::Other => Mark::NotTried,
    };
    Ok(DiskState::Present(Box::new(DiskPresent {
        kind,
        size: Bytes(size),
        space: (kind == FileKind::File).then(|| free_space(&resolved)).flatten(),
        grows: (kind == FileKind::File).then(|| growth(&resolved, &metadata)).flatten(),
        is_direct: takes_direct(&resolved),
        inode: (kind == FileKind::File).then(|| metadata.ino()),
        file_system,
        mark,
        read,
        write,
        resolved,
    })))
}

fn mark(source: &DiskSource) -> Mark {
    let Ok(Beside::Place(place)) = Place::of(source) else { return Mark::NotTried };
    match place.mark() {
        Ok(Some(text)) => Mark::Found { text },
        Ok(None) => Mark::Absent,
        Err(_) => Mark::NotTried,
    }
}

fn free_space(path: &Path) -> Option<Bytes> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    #[allow(clippy::useless_conversion, reason = "these types differ between C libraries")]
    let bytes = u64::from(stat.blocks_available()).saturating_mul(stat.fragment_size().into());
    Some(Bytes(bytes))
}

/// Returns how much more an image takes of its file system once all of it was written: a raw one
/// has holes, a qcow2 one says in its header how large the disk is.
fn growth(path: &Path, metadata: &std::fs::Metadata) -> Option<Bytes> {
    const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
    const QCOW2_SIZE_AT: usize = 24;
    let mut header = Vec::new();
    File::open(path).ok()?.take(32).read_to_end(&mut header).ok()?;
    let whole = match header.split_at_checked(QCOW2_SIZE_AT) {
        Some((start, size)) if start.starts_with(&QCOW2_MAGIC) => {
            u64::from_be_bytes(size.try_into().ok()?)
        }
        _ => metadata.len(),
    };
    Some(Bytes(whole.saturating_sub(metadata.blocks().saturating_mul(512))))
}

/// Whether a file can be read past the page cache; None where it cannot be read at all.
fn takes_direct(path: &Path) -> Option<bool> {
    let flags = nix::libc::O_DIRECT | nix::libc::O_NONBLOCK;
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(_) => Some(true),
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Some(false),
        Err(_) => None,
    }
}

fn boot_file(path: &Path, engine: UserIds) -> BootFileState {
    match boot_file_digest(path, engine) {
        Ok((bytes, blake3)) => BootFileState::Present { bytes, blake3 },
        Err(error) if is_absent(&error) => BootFileState::Missing,
        Err(error) => BootFileState::Unreadable { reason: error.to_string() },
    }
}

/// Returns size and digest of a file that the engine's user may read.
fn boot_file_digest(path: &Path, engine: UserIds) -> io::Result<(u64, [u8; 32])> {
    let found = look(path)?;
    if !found.metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if found.metadata.len() > BOOT_FILE_BYTES_MAX {
        let max = Bytes(BOOT_FILE_BYTES_MAX);
        return Err(io::Error::other(format!("it is larger than {max}")));
    }
    access::may(&found.resolved, nix::unistd::AccessFlags::R_OK, engine).map_err(|error| {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EACCES) => {
                let text = format!("the engine's user (uid {}) may not read it", engine.uid);
                io::Error::new(io::ErrorKind::PermissionDenied, text)
            }
            _ => error,
        }
    })?;
    digest(&found.resolved)
}

/// Returns size and BLAKE3 digest of a file, read as it is now.
pub fn digest(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?.take(BOOT_FILE_BYTES_MAX + 1);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
    match hasher.count() {
        bytes if bytes <= BOOT_FILE_BYTES_MAX => Ok((bytes, *hasher.finalize().as_bytes())),
        _ => Err(io::Error::other(format!("it is larger than {}", Bytes(BOOT_FILE_BYTES_MAX)))),
    }
}

#[cfg(test)]
mod tests;
