// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Whether a disk may be given to a guest while others have it: the rule of Xen's tools.
//!
//! One writer alone, or any number of readers. What this host has mounted counts like a guest. A
//! disk of mode `w!` is for guests that settle it among themselves, and is not asked about.

use std::fmt;

/// The number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) major: u64,
    pub(super) minor: u64,
}

impl Number {
    /// Reads what xenstore has: both in hexadecimal, with a colon between them.
    pub(super) fn parse(text: &str) -> Option<Number> {
        let (major, minor) = text.split_once(':')?;
        let hex = |word| u64::from_str_radix(word, 16).ok();
        Some(Number { major: hex(major)?, minor: hex(minor)? })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.major, self.minor)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// Writes, and does not ask who else does.
    Shared,
}

impl Access {
    /// Reads the mode of a backend: `r`, `w`, `w!`, and longer words of the same letters.
    pub(super) fn parse(mode: &str) -> Access {
        match (mode.contains('w'), mode.contains('!')) {
            (false, _) => Access::Read,
            (true, false) => Access::Write,
            (true, true) => Access::Shared,
        }
    }
}

/// Somebody who has a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) device: Number,
    pub(super) access: Access,
    pub(super) who: Who,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Mounted {
        at: String,
    },
    Domain {
        number: u32,
        /// It is the guest in question, or its copy that comes or goes.
        is_same: bool,
    },
}

/// Returns who is in the way.
pub(super) fn in_the_way(wanted: Access, device: Number, users: &[User]) -> Option<String> {
    let stands_in_way = |user: &&User| {
        let collides = match wanted {
            Access::Shared => false,
            Access::Write => true,
            // What is shared is shared with those that read, too.
            Access::Read => user.access == Access::Write,
        };
        collides && user.device == device && !matches!(user.who, Who::Domain { is_same: true, .. })
    };
    users.iter().find(stands_in_way).map(|user| match &user.who {
        Who::Mounted { at } => format!("this host has mounted it at `{at}`"),
        Who::Domain { number, .. } => format!("the domain {number} has it"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Read, Shared, Write};

    const DISK: Number = Number { major: 0xfe, minor: 0x10 };

    #[test]
    fn modes_are_those_of_xen() {
        for (mode, access) in [
            ("r", Read),
            ("ro", Read),
            ("w", Write),
            ("rw", Write),
            ("w!", Shared),
            ("rw!", Shared),
        ] {
            assert_eq!(Access::parse(mode), access, "{mode}");
        }
    }

    #[test]
    fn numbers_are_hexadecimal() {
        assert_eq!(Number::parse("fe:10"), Some(DISK));
        assert_eq!(DISK.to_string(), "fe:10");
        for bad in ["", "fe", "fe:", "x:1"] {
            assert_eq!(Number::parse(bad), None, "{bad}");
        }
    }

    /// Who wants it how, who has it how, and whether that is in the way.
    #[test]
    fn one_writer_or_many_readers() {
        let mounted = |access| (access, Who::Mounted { at: "/srv".to_owned() });
        let other = |access| (access, Who::Domain { number: 4, is_same: false });
        let same = |access| (access, Who::Domain { number: 5, is_same: true });
        let cases = [
            (Write, mounted(Write), true),
            (Write, mounted(Read), true),
            (Read, mounted(Write), true),
            (Read, mounted(Read), false),
            (Write, other(Write), true),
            (Write, other(Read), true),
            (Write, other(Shared), true),
            (Read, other(Write), true),
            (Read, other(Read), false),
            (Read, other(Shared), false),
            // Nobody is in its own way, such as a guest that arrives beside its copy that goes.
            (Write, same(Write), false),
            (Read, same(Write), false),
            // Those who settle it among themselves.
            (Shared, other(Write), false),
            (Shared, mounted(Write), false),
        ];
        for (wanted, (access, who), expected) in cases {
            let user = User { device: DISK, access, who };
            let elsewhere = User { device: Number { major: 7, minor: 0 }, ..user.clone() };
            let found = in_the_way(wanted, DISK, &[elsewhere.clone(), user.clone()]);
            assert_eq!(found.is_some(), expected, "{wanted:?} {user:?}");
            assert_eq!(in_the_way(wanted, DISK, &[elsewhere]), None);
        }
    }
}
