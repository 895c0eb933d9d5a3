// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Where a daemon keeps its state: names, permissions, and the lock that keeps a second daemon out.
//!
//! ```text
//! ROOT/                        0711  root (the engine's user passes through, and sees no names)
//!   lock                       held (flock) while a daemon lives
//!   store.sqlite               definitions, passports, peers, events, reports
//!   api.sock                   unless configured elsewhere
//!   identity/                  0700
//!     cert.pem  key.pem
//!   guests/                    0711
//!     GUEST/                   0711
//!       ownership              0600  the two-slot file
//!       run/                   0700  of the user the engine runs as: sockets, console log
//!   pages/                     0700  kept memory of guests: the page store's
//!   carry/                     0700
//!     HANDOFF/                 0700  the carrying process of one migration
//! ```
//!
//! A unix socket's path must fit in 107 bytes. So nothing is nested deeper than this, and a root
//! that is too long is refused when it is opened, not when a guest first needs a socket.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use whimbrel_model::id::{GuestId, HandoffId};
use whimbrel_model::problem::{Kind, Remedy};
use whimbrel_model::units::Bytes;

/// Longest path of a unix socket, in bytes, without the final zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Longest name of a socket in a guest's `run/` or in a handoff's directory.
pub const SOCKET_NAME_BYTES_MAX: usize = 16;

/// Longest state directory: what is left of a socket's path after the longest name in it.
pub const ROOT_BYTES_MAX: usize = SOCKET_PATH_BYTES_MAX
    - "/guests/00000000-0000-0000-0000-000000000000/run/".len()
    - SOCKET_NAME_BYTES_MAX;

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    #[error("the state directory `{}` is not an absolute path", .path.display())]
    Relative { path: PathBuf },
    #[error(
        "the path of the state directory `{}` has {length} bytes, and at most {ROOT_BYTES_MAX} \
         leave room for the sockets in it",
        .path.display()
    )]
    TooLong { path: PathBuf, length: usize },
    #[error("another daemon uses the state directory `{}`", .path.display())]
    InUse { path: PathBuf },
    #[error("`{}` belongs to uid {owner}, and must belong to uid {expected}", .path.display())]
    WrongOwner { path: PathBuf, owner: u32, expected: u32 },
    #[error("`{}` may be changed by others (mode {mode:04o})", .path.display())]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("failed to {action} `{}`", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Remedy for DirError {
    fn code(&self) -> &'static str {
        match self {
            DirError::Relative { .. } => "state/not-absolute",
            DirError::TooLong { .. } => "state/path-too-long",
            DirError::InUse { .. } => "state/in-use",
            DirError::WrongOwner { .. } => "state/wrong-owner",
            DirError::TooOpen { .. } => "state/too-open",
            DirError::Io { .. } => "state/unusable",
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        match self {
            DirError::Relative { .. } => "write the whole path, beginning with `/`".into(),
            DirError::TooLong { .. } => {
                "choose a shorter path for the state directory in the config".into()
            }
            DirError::InUse { .. } => {
                "stop the other daemon, or give this one a state directory of its own".into()
            }
            DirError::WrongOwner { path, expected, .. } => {
                format!("run `chown {expected} {}`", path.display())
            }
            DirError::TooOpen { path, .. } => format!("run `chmod go-w {}`", path.display()),
            DirError::Io { path, .. } => {
                format!("make `{}` usable for the user that runs the daemon", path.display())
            }
        }
    }
}

/// A state directory that this process holds: no other daemon can open it meanwhile.
#[derive(Debug)]
pub struct StateDir {
    layout: Layout,
    /// Dropping it, or dying, lets the next daemon in.
    _lock: Flock<File>,
}

impl StateDir {
    /// Creates what is missing, checks who may write what is there, and locks it.
    pub fn open(root: &Path) -> Result<Self, DirError> {
        if !root.is_absolute() {
            return Err(DirError::Relative { path: root.to_owned() });
        }
        let length = root.as_os_str().len();
        if length > ROOT_BYTES_MAX {
            return Err(DirError::TooLong { path: root.to_owned(), length });
        }
        let layout = Layout { root: root.to_owned() };
        ensure_directory(root, 0o711)?;
        let lock = lock_file(&layout.lock(), root)?;
        ensure_directory(&layout.identity(), 0o700)?;
        ensure_directory(&layout.guests(), 0o711)?;
        ensure_directory(&layout.carries(), 0o700)?;
        Ok(Self { layout, _lock: lock })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}

/// The names in a state directory. Needs no lock: the client and a reader of the log use it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    pub fn certificate(&self) -> PathBuf {
        self.identity().join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.identity().join("key.pem")
    }

    pub fn store(&self) -> PathBuf {
        self.root.join("store.sqlite")
    }

    pub fn api_socket(&self) -> PathBuf {
        self.root.join("api.sock")
    }

    pub fn guests(&self) -> PathBuf {
        self.root.join("guests")
    }

    pub fn guest(&self, guest: GuestId) -> GuestDir {
        GuestDir { path: self.guests().join(guest.to_string()) }
    }

    /// Where engines are started for a proof, and ended again.
    pub fn proofs(&self) -> PathBuf {
        self.root.join("proofs")
    }

    /// The place of the engine that proves that a guest could come here.
    pub fn proof(&self, guest: GuestId) -> PathBuf {
        self.proofs().join(guest.to_string())
    }

    /// Creates the place of a proof's engine, for the user that the engine runs as.
    pub fn create_proof(
        &self,
        guest: GuestId,
        engine: Option<UserIds>,
    ) -> Result<PathBuf, DirError> {
        ensure_directory(&self.proofs(), 0o711)?;
        let path = self.proof(guest);
        make_directory(&path, 0o700)?;
        give(&path, engine)?;
        Ok(path)
    }

    /// Removes the place of a proof's engine that has ended.
    pub fn remove_proof(&self, guest: GuestId) -> Result<(), DirError> {
        remove(self.proof(guest))
    }

    /// Returns the guests whose proof's engine has a place here: left by a daemon that was killed.
    pub fn proof_ids(&self) -> Result<Vec<GuestId>, DirError> {
        if !self.proofs().exists() {
            return Ok(Vec::new());
        }
        Ok(uuids_in(self.proofs())?.into_iter().map(GuestId).collect())
    }

    /// Where the page store keeps what guests left.
    pub fn pages(&self) -> PathBuf {
        self.root.join("pages")
    }

    pub fn carries(&self) -> PathBuf {
        self.root.join("carry")
    }

    /// The place of the process that carries one migration.
    pub fn carry(&self, handoff: HandoffId) -> PathBuf {
        self.carries().join(handoff.to_string())
    }

    /// Creates the place of one migration's carrying process.
    pub fn create_carry(&self, handoff: HandoffId) -> Result<PathBuf, DirError> {
        let path = self.carry(handoff);
        ensure_directory(&path, 0o700)?;
        Ok(path)
    }

    /// Removes the place of a carrying process that has ended.
    pub fn remove_carry(&self, handoff: HandoffId) -> Result<(), DirError> {
        remove(self.carry(handoff))
    }

    /// Returns the guests that have a directory here, in no order. Other names are passed over.
    pub fn guest_ids(&self) -> Result<Vec<GuestId>, DirError> {
        Ok(uuids_in(self.guests())?.into_iter().map(GuestId).collect())
    }

    /// Returns the handoffs that have a carrying place here, in no order.
    pub fn carry_ids(&self) -> Result<Vec<HandoffId>, DirError> {
        Ok(uuids_in(self.carries())?.into_iter().map(HandoffId).collect())
    }

    /// Returns the bytes an unprivileged user could still write to the state's file system.
    pub fn free_space(&self) -> Result<Bytes, DirError> {
        let stat = nix::sys::statvfs::statvfs(&self.root).map_err(|errno| DirError::Io {
            action: "ask for the free space of",
            path: self.root.clone(),
            source: errno.into(),
        })?;
        #[allow(clippy::useless_conversion, reason = "these types differ between C libraries")]
        let bytes = u64::from(stat.blocks_available()).saturating_mul(stat.fragment_size().into());
        Ok(Bytes(bytes))
    }
}

/// The directory of one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDir {
    path: PathBuf,
}

/// Who an engine runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserIds {
    pub uid: u32,
    pub gid: u32,
}

impl GuestDir {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn ownership(&self) -> PathBuf {
        self.path.join("ownership")
    }

    /// The engine's own place: sockets, console log, `launch.json`.
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// The index of its disks' blocks.
    pub fn blocks(&self) -> PathBuf {
        self.path.join("blocks")
    }

    /// Creates the guest's directories; `run/` belongs to the engine's user, if it has one.
    pub fn create(&self, engine: Option<UserIds>) -> Result<(), DirError> {
        ensure_directory(&self.path, 0o711)?;
        // The ownership file makes its own name durable, which is worth nothing without this one.
        let guests = self.path.parent().unwrap_or(Path::new("/"));
        let synced = File::open(guests).and_then(|guests| guests.sync_all());
        synced.map_err(|source| DirError::Io {
            action: "make durable",
            path: self.path.clone(),
            source,
        })?;
        let run = self.run();
        make_directory(&run, 0o700)?;
        give(&run, engine)
    }

    /// Forgets the guest on this host, its ownership file last: a crash in between leaves a guest
    /// that is still known, never a directory without a word about its owner.
    pub fn remove(&self) -> Result<(), DirError> {
        remove(self.run())?;
        remove(self.ownership())?;
        remove(self.path.clone())
    }
}

/// Removes a file, or a directory and what is in it. Nothing there is fine, too.
fn remove(path: PathBuf) -> Result<(), DirError> {
    let removed = match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
        Ok(_) => std::fs::remove_file(&path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| DirError::Io { action: "remove", path, source }),
    }
}

/// Returns the names in a directory that are uuids.
fn uuids_in(path: PathBuf) -> Result<Vec<uuid::Uuid>, DirError> {
    let io = |source| DirError::Io { action: "list", path: path.clone(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<uuid::Uuid>().ok()));
    }
    Ok(found)
}

fn give(path: &Path, engine: Option<UserIds>) -> Result<(), DirError> {
    let Some(UserIds { uid, gid }) = engine else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(|source| DirError::Io {
        action: "give to the engine's user",
        path: path.to_owned(),
        source,
    })
}

fn make_directory(path: &Path, mode: u32) -> Result<(), DirError> {
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => {
            return Err(DirError::Io { action: "create", path: path.to_owned(), source });
        }
        Ok(()) => {}
    }
    Ok(())
}

/// Creates a directory that belongs to us and that only we may change, or checks that it is one.
fn ensure_directory(path: &Path, mode: u32) -> Result<(), DirError> {
    make_directory(path, mode)?;
    let io = |action| move |source| DirError::Io { action, path: path.to_owned(), source };
    let found = std::fs::symlink_metadata(path).map_err(io("look at"))?;
    if !found.is_dir() {
        return Err(io("use")(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    let expected = nix::unistd::geteuid().as_raw();
    if found.uid() != expected {
        return Err(DirError::WrongOwner { path: path.to_owned(), owner: found.uid(), expected });
    }
    let found_mode = found.mode() & 0o7777;
    if found_mode & 0o022 != 0 {
        return Err(DirError::TooOpen { path: path.to_owned(), mode: found_mode });
    }
    // An umask may have taken the bits that let the engine's user pass.
    if found_mode & mode != mode {
        let wanted = std::fs::Permissions::from_mode(found_mode | mode);
        std::fs::set_permissions(path, wanted).map_err(io("set the mode of"))?;
    }
    Ok(())
}

fn lock_file(path: &Path, root: &Path) -> Result<Flock<File>, DirError> {
    let io = |source| DirError::Io { action: "lock", path: path.to_owned(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(io)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => DirError::InUse { path: root.to_owned() },
        errno => io(errno.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_guest() -> GuestId {
        GuestId(uuid::Uuid::from_u128(7))
    }

    /// Two daemons cannot share a state directory; the lock goes with its holder.
    #[test]
    fn a_second_daemon_is_kept_out() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("state");
        let first = StateDir::open(&root).unwrap();
        assert!(matches!(StateDir::open(&root), Err(DirError::InUse { .. })));
        drop(first);
        StateDir::open(&root).unwrap();
    }

    /// Every socket of the longest allowed root fits; one byte more is refused at once.
    #[test]
    fn the_longest_root_leaves_room_for_sockets() {
        let root = PathBuf::from(format!("/{}", "r".repeat(ROOT_BYTES_MAX - 1)));
        let layout = Layout::new(&root);
        let guest = layout.guest(a_guest());
        let name = "s".repeat(SOCKET_NAME_BYTES_MAX);
        let carry = layout.carry(HandoffId(uuid::Uuid::from_u128(u128::MAX)));
        assert!(carry.join(&name).as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        assert!(guest.run().join(&name).as_os_str().len() <= SOCKET_PATH_BYTES_MAX);

        let long = PathBuf::from(format!("{}r", root.display()));
        assert!(matches!(StateDir::open(&long), Err(DirError::TooLong { .. })));
        assert!(matches!(StateDir::open(Path::new("a/b")), Err(DirError::Relative { .. })));
    }

    /// What others may write, or what is not a directory at all, is refused.
    #[test]
    fn unsafe_directories_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let open = temp.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(StateDir::open(&open), Err(DirError::TooOpen { mode: 0o777, .. })));

        let link = temp.path().join("link");
        let real = temp.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(StateDir::open(&link), Err(DirError::Io { action: "use", .. })));
    }

    /// A guest's directory comes and goes, and only real guests are listed.
    #[test]
    fn a_guest_directory_is_created_listed_and_removed() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(&temp.path().join("state")).unwrap();
        let guest = state.layout().guest(a_guest());
        guest.create(None).unwrap();
        guest.create(None).unwrap();
        std::fs::write(guest.ownership(), b"x").unwrap();
        std::fs::create_dir(state.layout().guests().join("lost+found")).unwrap();
        let handoff = HandoffId(uuid::Uuid::from_u128(1));
        state.layout().create_carry(handoff).unwrap();
        assert_eq!(state.layout().carry_ids().unwrap(), [handoff]);
        state.layout().remove_carry(handoff).unwrap();
        assert_eq!(state.layout().carry_ids().unwrap(), []);
        assert_eq!(state.layout().guest_ids().unwrap(), [a_guest()]);
        assert_eq!(guest.run().metadata().unwrap().mode() & 0o777, 0o700);
        guest.remove().unwrap();
        guest.remove().unwrap();
        assert_eq!(state.layout().guest_ids().unwrap(), []);
        assert!(state.layout().free_space().unwrap() > Bytes(0));
    }
}
