// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Whether an engine can start a kernel file, from its first bytes.

use crate::codes;
use crate::problem::{Kind, Remedy};
use std::path::PathBuf;

/// How much of the file the check wants to see.
pub const HEAD_BYTES: usize = 64 * 1024;

/// Why a kernel file was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    #[error("the kernel `{}` can only run paravirtualised on Xen", .path.display())]
    XenOnly { path: PathBuf },
    #[error("the kernel `{}` cannot be started: {reason}", .path.display())]
    Unusable { path: PathBuf, reason: String },
}

impl Remedy for KernelError {
    fn code(&self) -> &'static str {
        match self {
            KernelError::XenOnly { .. } => codes::KERNEL_XEN_ONLY,
            KernelError::Unusable { .. } => codes::KERNEL_UNUSABLE,
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        "give the guest a current distribution kernel (a bzImage such as `/boot/vmlinuz-*`) and its          ramdisk"
            .to_owned()
    }
}

/// Checks the first [`HEAD_BYTES`] of a kernel file (or all of it, if it is shorter).
pub fn check(path: &std::path::Path, head: &[u8]) -> Result<(), KernelError> {
    if head.is_empty() {
        let reason = "it is empty".to_owned();
        return Err(KernelError::Unusable { path: path.to_owned(), reason });
    }
    Ok(())
}
