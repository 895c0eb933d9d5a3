// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Names and numbers that must not be confused with each other.

use std::fmt;
use std::str::FromStr;

/// Longest name of a guest or a host, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// The identity of a guest for all its life, on every host: the uuid its engine and its firmware
/// know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestId(pub uuid::Uuid);

/// One attempt to move a guest; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandoffId(pub uuid::Uuid);

/// How often the guest has changed owner. A host may run a guest only while it holds the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// The identity of a host: the SHA-256 of its certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub [u8; 32]);

/// The number of a guest on one host, as `list` shows it. Never used twice on that host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalId(pub u32);

/// The name of a guest: letters, digits, `.`, `_`, `-`, not digits only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestName(String);

/// The name of a host, as paired hosts know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name cannot be empty")]
    Empty,
    #[error("the name `{name}` has {length} bytes, and at most {NAME_BYTES_MAX} are allowed")]
    TooLong { name: String, length: usize },
    #[error("the name `{name}` contains `{found}`; letters, digits, `.`, `_` and `-` are allowed")]
    BadCharacter { name: String, found: char },
    #[error("the name `{name}` begins with `{found}`; it must begin with a letter or a digit")]
    BadStart { name: String, found: char },
    #[error("the name `{name}` consists of digits only, so it would be mistaken for an id")]
    DigitsOnly { name: String },
}

fn check_name(name: &str) -> Result<(), NameError> {
    let Some(first) = name.chars().next() else { return Err(NameError::Empty) };
    let owned = || name.to_owned();
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { name: owned(), length: name.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(found) = name.chars().find(|&c| !allowed(c)) {
        return Err(NameError::BadCharacter { name: owned(), found });
    }
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::BadStart { name: owned(), found: first });
    }
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(NameError::DigitsOnly { name: owned() });
    }
    Ok(())
}

macro_rules! name_type {
    ($name:ident) => {
        impl $name {
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check_name(&name)?;
                Ok(Self(name))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
name_type!(GuestName);
name_type!(HostName);

macro_rules! uuid_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    };
}
uuid_type!(GuestId);
uuid_type!(HandoffId);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Epoch {
    /// Returns the epoch that follows.
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a guest moves fewer than 2^64 times"))
    }
}

impl fmt::Display for LocalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(GuestName::new("centos.5-1").is_ok());
        assert_eq!(GuestName::new(""), Err(NameError::Empty));
        assert!(matches!(GuestName::new("17"), Err(NameError::DigitsOnly { .. })));
        assert!(matches!(GuestName::new("-a"), Err(NameError::BadStart { .. })));
        assert!(matches!(GuestName::new("a/b"), Err(NameError::BadCharacter { found: '/', .. })));
        assert!(matches!(GuestName::new("x".repeat(64)), Err(NameError::TooLong { .. })));
    }
}
