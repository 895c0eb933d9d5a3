// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Bridges and taps of the network namespace the daemon runs in.
//!
//! A tap is not persistent: the engine holds its descriptor, so it outlives the daemon and is gone
//! with the engine.

use std::fmt;
use std::os::fd::OwnedFd;
use whimbrel_model::id::LocalId;

/// A handle to the network of this namespace.
#[derive(Clone, Debug)]
pub struct Network {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub is_up: bool,
    /// With the spanning tree protocol on, a new port is deaf for twice the forward delay.
    pub has_stp: bool,
}

/// The name of a tap: `wbIDnINDEX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TapName {
    pub guest: LocalId,
    /// The n-th network card of the guest.
    pub index: u8,
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wb{}n{}", self.guest, self.index)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("there is no bridge `{bridge}`")]
    NoBridge { bridge: String },
    #[error("the kernel refused to {action} `{link}`")]
    Refused {
        action: &'static str,
        link: String,
        #[source]
        source: std::io::Error,
    },
}

impl Network {
    /// Opens the network. Needs a tokio runtime.
    pub fn open() -> Result<Self, NetworkError> {
        Ok(Self {})
    }

    pub async fn bridges(&self) -> Result<Vec<Bridge>, NetworkError> {
        Err(unsupported("list", "bridges"))
    }

    pub async fn bridge(&self, name: &str) -> Result<Bridge, NetworkError> {
        Err(unsupported("look at", name))
    }

    /// Creates a tap with the MTU of `bridge`, up, and joined to nothing yet.
    pub async fn create_tap(&self, name: TapName, bridge: &str) -> Result<OwnedFd, NetworkError> {
        let _ = bridge;
        Err(unsupported("create", &name.to_string()))
    }

    /// Joins a tap to a bridge. Joined already: fine.
    pub async fn attach(&self, name: TapName, bridge: &str) -> Result<(), NetworkError> {
        let _ = bridge;
        Err(unsupported("attach", &name.to_string()))
    }

    /// Takes a tap off its bridge. Gone, or on none: fine.
    pub async fn detach(&self, name: TapName) -> Result<(), NetworkError> {
        Err(unsupported("detach", &name.to_string()))
    }

    /// Returns the taps that carry our names.
    pub async fn taps(&self) -> Result<Vec<TapName>, NetworkError> {
        Err(unsupported("list", "taps"))
    }

    /// Deletes a tap that was left over. Gone already: fine.
    pub async fn delete(&self, name: TapName) -> Result<(), NetworkError> {
        Err(unsupported("delete", &name.to_string()))
    }
}

fn unsupported(action: &'static str, link: &str) -> NetworkError {
    let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
    NetworkError::Refused { action, link: link.to_owned(), source }
}
