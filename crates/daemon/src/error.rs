// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why the daemon could not start.

use std::path::PathBuf;
use whimbrel_model::problem::{Kind, Remedy};

whimbrel_model::codes! {
    CONFIG_UNREADABLE = "config/unreadable": "The configuration file cannot be read.";
    NO_RUNTIME = "daemon/no-runtime": "The daemon cannot start its own threads.";
    NO_HOST_NAME = "config/no-host-name": "The machine's host name cannot be used as the name of a host.";
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("failed to read the configuration `{}`", .path.display())]
    Config {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to start the daemon's threads")]
    Runtime {
        #[source]
        source: std::io::Error,
    },
    #[error("the machine's name `{name}` cannot be used")]
    HostName {
        name: String,
        #[source]
        source: whimbrel_model::id::NameError,
    },
}

impl Remedy for StartError {
    fn code(&self) -> &'static str {
        match self {
            StartError::Config { .. } => CONFIG_UNREADABLE,
            StartError::Runtime { .. } => NO_RUNTIME,
            StartError::HostName { .. } => NO_HOST_NAME,
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        match self {
            StartError::Config { path, .. } => {
                format!(
                    "write `{}` or make it readable, or name another with `--config`",
                    path.display()
                )
            }
            StartError::Runtime { .. } => {
                "look at the limits of this host: threads and open files".to_owned()
            }
            StartError::HostName { .. } => {
                "set `name` in the configuration: letters, digits, `.`, `_` and `-`".to_owned()
            }
        }
    }
}
