// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Who may send guests here: `hosts_allow`, and networks.

use std::net::IpAddr;

/// Most patterns that a list may have.
pub const PATTERNS_MAX: usize = 256;

/// The list `hosts_allow`; an empty one allows every paired host.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts {
    patterns: Vec<String>,
}

/// A network, `192.168.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("the pattern is empty")]
    Empty,
    #[error("`{pattern}` is not a regular expression: {reason}")]
    Regex { pattern: String, reason: String },
    #[error("`{text}` is not a network; write `192.168.1.0/24`")]
    Network { text: String },
    #[error("the list has {count} patterns, and at most {PATTERNS_MAX} are allowed")]
    TooMany { count: usize },
}

impl AllowedHosts {
    /// Allows every paired host.
    pub fn any() -> Self {
        Self::default()
    }

    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        Ok(Self { patterns: patterns.into_iter().map(str::to_owned).collect() })
    }

    /// The patterns as written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(String::as_str)
    }

    /// Whether the host that was pinned under `name` and calls from `address` is allowed.
    pub fn allows(&self, name: &str, address: IpAddr) -> bool {
        let address = address.to_string();
        self.patterns.is_empty()
            || self.patterns.iter().any(|pattern| *pattern == name || *pattern == address)
    }
}
