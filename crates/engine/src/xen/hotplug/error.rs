// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why a device could not be plugged in. Xen's tools print it, and `whimbrel` after them.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum HotplugError {
    #[error("`XENBUS_PATH` is `{path}`, which is no disk and no network card")]
    NoDevice { path: String },
    #[error("`{command}` is nothing that Xen's tools ask for")]
    Unknown { command: String },
    #[error("failed to {action} xenstore")]
    Store {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("there is no `{key}`")]
    Missing { key: String },
    #[error("`{path}` is no block device")]
    NotBlock { path: PathBuf },
    #[error("failed to {action} `{path}`")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is in use: {by}; end that, or give the disk `read_only = true` at both")]
    Busy { path: PathBuf, by: String },
    #[error("the card `{link}` could not be set up")]
    Network {
        link: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl HotplugError {
    pub(super) fn store(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| HotplugError::Store { action, source }
    }

    /// All of it, with what lies behind it.
    pub fn text(&self) -> String {
        whimbrel_model::problem::chain(self)
    }

    /// The word for it in xenstore.
    pub(super) fn status(&self) -> &'static str {
        if matches!(self, HotplugError::Busy { .. }) { "busy" } else { "error" }
    }
}
