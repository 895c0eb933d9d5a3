// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why the daemon could not start.

use std::path::PathBuf;
use whimbrel_host::machine;
use whimbrel_model::problem::{Kind, Remedy};

whimbrel_model::codes! {
    CONFIG_UNREADABLE = "config/unreadable": "The configuration file cannot be read.";
    NO_BOOT = "daemon/no-boot-id": "The kernel does not say which boot of the host this is.";
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
    #[error("failed to read which boot of the host this is, from `{}`", machine::BOOT_ID_PATH)]
    Boot {
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
            StartError::Boot { .. } => NO_BOOT,
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
            StartError::Boot { .. } => {
                "mount `/proc` where the daemon runs: without it nobody could tell whether this \
                 host was off, and its guests are elsewhere now"
                    .to_owned()
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
