// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What stands in the way and says so elsewhere: SELinux, AppArmor, firewalls.
//!
//! An engine that is denied a file by SELinux or AppArmor only hears "permission denied"; the
//! reason is in the audit log or in the kernel's. It is looked for there, best effort and within
//! bounds. What is found is evidence for a finding; what is not found proves nothing.

mod denials;
mod firewall;

use crate::dirs::UserIds;
use nix::unistd::AccessFlags;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;
use whimbrel_model::facts::{Denial, Firewall, SecurityFacts};

use denials::Subject;

/// How much of the end of the audit log is read.
const AUDIT_BYTES_MAX: u64 = 1 << 20;
/// Most records of the kernel's log that are read.
const KERNEL_RECORDS_MAX: usize = 20_000;
/// Longest record of the kernel's log; longer ones it does not give.
const KERNEL_RECORD_BYTES_MAX: usize = 8 << 10;

/// Returns what guards this host. Blocks for a moment: it asks `nft`, where that is installed.
pub fn facts(engine: UserIds) -> SecurityFacts {
    let first = |path: &str| std::fs::read_to_string(path).ok()?.chars().next();
    SecurityFacts {
        is_selinux_enforcing: first("/sys/fs/selinux/enforce") == Some('1'),
        is_apparmor_enabled: first("/sys/module/apparmor/parameters/enabled") == Some('Y'),
        firewall: firewall::detect(),
        may_handle_faults: first("/proc/sys/vm/unprivileged_userfaultfd") == Some('1'),
        has_fault_device: may_open_fault_device(engine),
    }
}

/// Returns the firewall of this host. Blocks for a moment: it asks `nft`.
pub fn firewall() -> Option<Firewall> {
    firewall::detect()
}

/// Whether the engine's user may handle page faults through the device.
fn may_open_fault_device(user: UserIds) -> bool {
    let device = Path::new("/dev/userfaultfd");
    let asked = crate::sys::as_user(user, move || {
        crate::sys::access(device, AccessFlags::R_OK | AccessFlags::W_OK)
    });
    matches!(asked, Ok(Ok(())))
}

/// Returns why a file was denied since then, if SELinux or AppArmor has said so.
pub fn denial_of_file(path: &Path, inode: Option<u64>, since: SystemTime) -> Option<Denial> {
    newest(&Subject::File { path, inode }, since)
}

/// Returns why a TCP port was denied since then, if SELinux or AppArmor has said so.
pub fn denial_of_port(port: u16, since: SystemTime) -> Option<Denial> {
    newest(&Subject::Port(port), since)
}

fn newest(subject: &Subject<'_>, since: SystemTime) -> Option<Denial> {
    [audit_log(), kernel_log()].iter().find_map(|log| denials::newest(log, subject, since))
}

/// Returns the end of the audit log, where there is one.
fn audit_log() -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open("/var/log/audit/audit.log")?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(AUDIT_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(AUDIT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// Returns the kernel's log, where we may read it.
fn kernel_log() -> String {
    let mut log = String::new();
    let nonblocking = nix::libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/kmsg");
    let Ok(mut file) = opened else { return log };
    let mut record = vec![0; KERNEL_RECORD_BYTES_MAX];
    for _ in 0..KERNEL_RECORDS_MAX {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => log.push_str(&String::from_utf8_lossy(&record[..length])),
            // EPIPE: the oldest records were overwritten meanwhile, and the next one follows.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both logs and all guards can be asked on any host, and say nothing about what never was.
    #[test]
    fn any_host_can_be_asked() {
        let _ = facts(UserIds { uid: 65_534, gid: 65_534 });
        let never = Path::new("/nowhere/never-denied.img");
        assert_eq!(denial_of_file(never, None, SystemTime::UNIX_EPOCH), None);
        if File::open("/dev/kmsg").is_ok() {
            assert!(!kernel_log().is_empty());
        } else {
            println!("SKIPPED: the kernel's log needs root");
        }
    }
}
