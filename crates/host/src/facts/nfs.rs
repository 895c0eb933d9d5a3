// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Disks that only an engine can open: on NFS servers that it talks to itself.
//!
//! Whether the engine may, nobody can tell but the server, and it judges by the user who asks. So
//! `qemu-io`, which opens images like QEMU does, is run as the engine's user; it reads and writes
//! nothing. Where it is not installed, the answer is that nobody knows.

use crate::dirs::UserIds;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use whimbrel_model::facts::{Access, Denial, DiskPresent, DiskState, FileKind, FileSystem, Mark};
use whimbrel_model::units::Bytes;

/// How long a server may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long it may take to open an image, in seconds: a client of NFS tries for ever.
const OPEN_SECONDS_MAX: &str = "2";
const NFS_PORT: u16 = 2049;

/// Looks at a disk on a server: whether it is there, and open to the engine's user, if one is
/// named.
pub(super) fn disk(url: &str, engine: Option<UserIds>) -> DiskState {
    let rest = url.strip_prefix("nfs://").unwrap_or(url);
    let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
    if let Err(reason) = connect(server) {
        let reason = format!("the server `{server}` does not answer on port {NFS_PORT}: {reason}");
        return DiskState::Unknown { reason };
    }
    let untried = || Access::Unknown { reason: "only the engine can try it".to_owned() };
    let tried = engine.map(|engine| {
        let write = open(url, engine, true);
        // Who may write may read, and no second look is needed.
        let read =
            if write == Access::Granted { Access::Granted } else { open(url, engine, false) };
        let write = only_readable(&read, write);
        (read, write)
    });
    let (read, write) = tried.unwrap_or_else(|| (untried(), untried()));
    DiskState::Present(Box::new(DiskPresent {
        kind: FileKind::Nfs,
        size: Bytes(0),
        space: None,
        grows: None,
        is_direct: None,
        resolved: Path::new("/").join(path),
        file_system: FileSystem {
            kind: "nfs".to_owned(),
            source: server.to_owned(),
            mount_point: PathBuf::from("/"),
        },
        inode: None,
        mark: Mark::NotTried,
        read,
        write,
    }))
}

fn connect(server: &str) -> Result<(), String> {
    let server = server.trim_start_matches('[').trim_end_matches(']');
    let addresses = (server, NFS_PORT).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut reason = "it has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(_) => return Ok(()),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

/// Opens an image as the engine's user, and closes it.
fn open(url: &str, engine: UserIds, is_writing: bool) -> Access {
    let own = nix::unistd::geteuid();
    let mut command = Command::new("timeout");
    command.arg(OPEN_SECONDS_MAX);
    if own.is_root() && engine.uid != 0 {
        command.args(["setpriv", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
        command.args([format!("--reuid={}", engine.uid), format!("--regid={}", engine.gid)]);
        command.arg("--");
    }
    command.args(["qemu-io", "-f", "raw"]);
    command.args((!is_writing).then_some("-r")).args(["-c", "quit", url]);
    let ran = command.stdin(Stdio::null()).env("LC_ALL", "C").output();
    match ran {
        Ok(ran) => read_answer(&ran, engine),
        Err(error) => Access::Unknown { reason: format!("`timeout` does not run: {error}") },
    }
}

/// A server need not say whether it is the export or the file that may only be read.
fn only_readable(read: &Access, write: Access) -> Access {
    match (read, write) {
        (Access::Granted, Access::Denied(Denial::Server { .. })) => {
            let reason = "it may be read, and not written: by its mode, or as its export is \
                          read-only";
            Access::Denied(Denial::Server { reason: reason.to_owned() })
        }
        (_, write) => write,
    }
}

/// Reads what came of an attempt. The server's own words come through as names of the protocol.
fn read_answer(ran: &Output, engine: UserIds) -> Access {
    if ran.status.success() {
        return Access::Granted;
    }
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let words = ["ACCES", "Permission denied", "ERR_PERM", "not permitted", "ROFS", "Read-only"];
    if words.iter().any(|word| said.contains(word)) {
        return Access::Denied(match engine.uid {
            0 => Denial::RootSquash,
            _ => Denial::Server { reason: "permission denied".to_owned() },
        });
    }
    let reason = match ran.status.code() {
        Some(124) => format!("the server did not let it be opened within {OPEN_SECONDS_MAX} s"),
        Some(126 | 127) => "`qemu-io` (package `qemu-utils`) is not installed".to_owned(),
        _ => said.lines().last().unwrap_or("`qemu-io` failed").to_owned(),
    };
    Access::Unknown { reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    const GUEST: UserIds = UserIds { uid: 990, gid: 990 };
    const ROOT: UserIds = UserIds { uid: 0, gid: 0 };

    fn answer(code: i32, said: &str, engine: UserIds) -> Access {
        let status = std::process::ExitStatus::from_raw(code << 8);
        read_answer(&Output { status, stdout: Vec::new(), stderr: said.into() }, engine)
    }

    #[test]
    fn what_the_server_says_is_told_apart() {
        let denied = |reason: &str| Access::Denied(Denial::Server { reason: reason.to_owned() });
        assert_eq!(answer(0, "", GUEST), Access::Granted);
        let refused = "qemu-io: can't open device nfs://s/a: Failed to open file: \
                       open call failed with \"NFS: ACCESS of /a failed with NFS3ERR_ACCES(-13)\"";
        assert_eq!(answer(1, refused, GUEST), denied("permission denied"));
        assert_eq!(answer(1, refused, ROOT), Access::Denied(Denial::RootSquash));
        let read_only = answer(1, "Failed to open file: NFS3ERR_ROFS(-30)", GUEST);
        assert_eq!(read_only, denied("permission denied"));
        let only_readable = only_readable(&Access::Granted, read_only);
        let Access::Denied(Denial::Server { reason }) = only_readable else { panic!() };
        assert!(reason.contains("its export is read-only"), "{reason}");
        for (code, word) in [(124, "within 2 s"), (127, "qemu-utils"), (1, "no route")] {
            let Access::Unknown { reason } = answer(code, "no route", GUEST) else { panic!() };
            assert!(reason.contains(word), "{reason}");
        }
    }
}
