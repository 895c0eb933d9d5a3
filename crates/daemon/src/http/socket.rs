// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The socket the API is served on.

use nix::unistd::{Gid, Group};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use whimbrel_model::problem::{Kind, Remedy};

/// Longest path of a unix socket, in bytes; the kernel's own limit.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The owner and the group may use the API; nobody else.
const SOCKET_MODE: u32 = 0o660;

/// The API's socket, listening. Removed from the file system when it is dropped.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    /// A user who is turned away, whatever groups it is in.
    pub(super) refused_uid: Option<u32>,
    path: PathBuf,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "the path of the API socket `{}` has {} bytes, and at most {SOCKET_PATH_BYTES_MAX} are \
         possible",
        .path.display(),
        .path.as_os_str().len()
    )]
    PathTooLong { path: PathBuf },
    #[error("another daemon already serves `{}`", .path.display())]
    InUse { path: PathBuf },
    #[error("`{}` exists and is not a socket", .path.display())]
    NotASocket { path: PathBuf },
    #[error("there is no group `{group}` on this host")]
    NoSuchGroup { group: String },
    #[error("failed to {action} the API socket `{}`", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Remedy for BindError {
    fn code(&self) -> &'static str {
        match self {
            Self::PathTooLong { .. } => "daemon/socket-path-too-long",
            Self::InUse { .. } => "daemon/already-running",
            Self::NotASocket { .. } => "daemon/not-a-socket",
            Self::NoSuchGroup { .. } => "daemon/no-such-group",
            Self::Io { .. } => "daemon/socket-not-created",
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        match self {
            Self::PathTooLong { .. } => "set a shorter `socket` in the configuration".to_owned(),
            Self::InUse { .. } => "stop the other daemon, or give this one a configuration with \
                                   another state directory and socket"
                .to_owned(),
            Self::NotASocket { path } => {
                format!("look at it, and move it away: `ls -l {}`", path.display())
            }
            Self::NoSuchGroup { group } => format!(
                "create it with `groupadd --system {group}`, or set another `group` in the \
                 configuration"
            ),
            Self::Io { .. } => "check that the directory exists and that this user may write to \
                                it"
            .to_owned(),
        }
    }
}

impl Socket {
    /// Listens on `path` for the caller's own user and, if one is named, for a group. A socket
    /// that a daemon left behind is replaced. Must be called inside a runtime.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, BindError> {
        let path = path.to_owned();
        // The name of the moment is one byte longer.
        if path.as_os_str().len() >= SOCKET_PATH_BYTES_MAX {
            return Err(BindError::PathTooLong { path });
        }
        let gid = group.map(group_id).transpose()?;
        check_free(&path)?;
        // It appears under its name only when its mode is right, and in one step.
        let new = path.with_added_extension("~");
        let failed = |action| {
            let path = path.clone();
            move |source| BindError::Io { action, path, source }
        };
        remove(&new).map_err(failed("remove the old name of"))?;
        let listener = UnixListener::bind(&new).map_err(failed("create"))?;
        std::os::unix::fs::chown(&new, None, gid.map(Gid::as_raw))
            .map_err(failed("set the group of"))?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(failed("set the mode of"))?;
        std::fs::rename(&new, &path).map_err(failed("name"))?;
        Ok(Self { listener, refused_uid: None, path })
    }

    /// Turns a user away, whatever groups it is in: what runs the guests must not command them,
    /// and its user is easily in the group of the same name.
    pub(crate) fn refusing(mut self, uid: Option<u32>) -> Self {
        self.refused_uid = uid;
        self
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // One that is left behind is replaced by the next daemon.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn group_id(group: &str) -> Result<Gid, BindError> {
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid),
        _ => Err(BindError::NoSuchGroup { group: group.to_owned() }),
    }
}

/// Makes sure that nobody serves `path` and that nothing but a socket would be replaced.
fn check_free(path: &Path) -> Result<(), BindError> {
    let path_owned = || path.to_owned();
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(BindError::NotASocket { path: path_owned() })
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            Err(BindError::InUse { path: path_owned() })
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(BindError::Io { action: "look at", path: path_owned(), source }),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The socket is closed to others, a live daemon is not displaced, a dead one's socket is, and
    /// a file that is no socket stays.
    #[tokio::test]
    async fn the_socket_is_bound_with_care() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let socket = Socket::bind(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(Socket::bind(&path, None), Err(BindError::InUse { .. })));
        drop(socket);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::bind(&path, None).unwrap());

        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path, None), Err(BindError::NotASocket { .. })));
        assert!(matches!(
            Socket::bind(&directory.path().join("x".repeat(107)), None),
            Err(BindError::PathTooLong { .. })
        ));
        assert!(matches!(
            Socket::bind(&directory.path().join("b"), Some("no-such-group-here")),
            Err(BindError::NoSuchGroup { .. })
        ));
    }
}
