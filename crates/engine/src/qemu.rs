// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! QEMU, driven over its monitor (QMP).

use std::path::PathBuf;
use whimbrel_model::passport::Accelerator;

/// Which QEMU to use, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuConfig {
    pub binary: PathBuf,
    /// Where its firmware lies, if not where it was built for (`-L`).
    pub data_dir: Option<PathBuf>,
    /// Overrules the choice between KVM and TCG.
    pub accelerator: Option<Accelerator>,
}

impl Default for QemuConfig {
    fn default() -> Self {
        QemuConfig {
            binary: PathBuf::from("qemu-system-x86_64"),
            data_dir: None,
            accelerator: None,
        }
    }
}
