// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The system calls that have no safe wrapper: all `unsafe` code of Whimbrel is in this file.
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use crate::dirs::UserIds;
use nix::libc;
use nix::unistd::AccessFlags;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

nix::ioctl_read!(fs_ioc_getflags, b'f', 1, libc::c_long);
nix::ioctl_write_ptr!(fs_ioc_setflags, b'f', 2, libc::c_long);

/// Adds flags (`chattr`) to a file, where the file system knows them.
pub(crate) fn add_inode_flags(file: RawFd, flags: u32) {
    // The kernel reads and writes an `int`, though the request says `long`.
    let mut value: libc::c_long = 0;
    // SAFETY: `value` is at least as large as what the kernel writes, and outlives the call.
    if unsafe { fs_ioc_getflags(file, &raw mut value) }.is_err() {
        return;
    }
    value |= libc::c_long::from(flags);
    // SAFETY: the kernel only reads from `value`, which outlives the call.
    let _ = unsafe { fs_ioc_setflags(file, &raw const value) };
}

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);

/// Makes an open `/dev/net/tun` the tap of this name.
pub(crate) fn set_tap(tun: RawFd, name: &str, flags: libc::c_int) -> io::Result<()> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an `ifreq` of zeros is valid: it has only integers, arrays and a union of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // The flags are 16 bits; the highest is the sign of what C calls a `short`.
    let [low, high, ..] = flags.to_le_bytes();
    request.ifr_ifru.ifru_flags = i16::from_le_bytes([low, high]);
    // SAFETY: the kernel reads and writes only the request, which outlives the call, and whose
    // name ends with a zero.
    unsafe { tun_set_iff(tun, &raw const request) }?;
    Ok(())
}

/// Opens a socket for whole Ethernet frames of one type.
pub(crate) fn packet_socket(ethertype: u16) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes three integers and touches no memory of ours.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(ethertype.to_be())) };
    let socket = nix::errno::Errno::result(socket)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Asks the kernel whether something keeps its clock right.
pub(crate) fn is_clock_kept() -> io::Result<bool> {
    // SAFETY: a `timex` of zeros is valid (it has only integers), and asks without changing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads and writes only `timex`, which outlives the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    nix::errno::Errno::result(state)?;
    Ok(state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0)
}

/// Takes hold of a process.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let descriptor = nix::errno::Errno::result(descriptor)?;
    let descriptor = RawFd::try_from(descriptor).expect("descriptors are small");
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

pub(crate) fn pidfd_send_signal(pidfd: RawFd, signal: libc::c_int) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the kernel accepts a null `info`, and touches no other memory of ours.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, no_info, 0) };
    nix::errno::Errno::result(sent)?;
    Ok(())
}

/// Lets a task wait until a descriptor is readable. Needs a tokio runtime.
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor all its life, also when it is moved.
    let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
    Ok(registered?)
}

/// Runs `work` with another user's rights to files, on a thread of its own: rights belong to
/// threads, and the thread takes them with it.
pub(crate) fn as_user<T: Send + 'static>(
    user: UserIds,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let own = nix::unistd::geteuid();
    if own.as_raw() == user.uid {
        return Ok(work());
    }
    if !own.is_root() {
        let text = format!("only root can look as uid {}", user.uid);
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let thread = std::thread::Builder::new().name("look as user".into());
    let thread = thread.spawn(move || {
        become_user(user)?;
        Ok(work())
    })?;
    thread.join().expect("a panic in the thread has ended the process")
}

fn become_user(user: UserIds) -> io::Result<()> {
    let no_groups = std::ptr::null::<libc::gid_t>();
    // SAFETY: the bare system call changes only this thread, and reads no list of length 0.
    nix::errno::Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, 0, no_groups) })?;
    // The two calls below report the former ids, not errors: what counts is the second look.
    nix::unistd::setfsgid(user.gid.into());
    nix::unistd::setfsuid(user.uid.into());
    let now = nix::unistd::setfsuid(user.uid.into());
    if now.as_raw() != user.uid {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

/// Asks whether this thread may do something with a file, with the rights it has now.
pub(crate) fn access(path: &Path, what: AccessFlags) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let (directory, effective) = (libc::AT_FDCWD, libc::AT_EACCESS);
    let call = libc::SYS_faccessat2;
    // SAFETY: the kernel only reads the path, which ends with a zero and outlives the call.
    let answer = unsafe { libc::syscall(call, directory, path.as_ptr(), what.bits(), effective) };
    nix::errno::Errno::result(answer)?;
    Ok(())
}
