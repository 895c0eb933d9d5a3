// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The system calls that have no safe wrapper: all `unsafe` code of Whimbrel is in this file.
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use nix::libc;
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
