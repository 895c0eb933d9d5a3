// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The system calls that have no safe wrapper: all `unsafe` code of Whimbrel is in this file.
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use nix::libc;
use std::io;
use std::os::fd::RawFd;

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
