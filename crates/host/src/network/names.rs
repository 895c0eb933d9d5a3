// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Names of taps: `wbIDnINDEX`, at most 14 of the 15 bytes a link's name may have.

use std::fmt;
use std::str::FromStr;
use whimbrel_model::id::LocalId;

/// The name of a guest's tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TapName {
    pub guest: LocalId,
    /// The n-th network card of the guest; there are fewer than ten.
    pub index: u8,
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wb{}n{}", self.guest, self.index)
    }
}

/// The name is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a guest's tap")]
pub struct NotATap;

impl FromStr for TapName {
    type Err = NotATap;

    fn from_str(text: &str) -> Result<Self, NotATap> {
        let (guest, index) =
            text.strip_prefix("wb").and_then(|rest| rest.split_once('n')).ok_or(NotATap)?;
        let name = TapName {
            guest: LocalId(guest.parse().map_err(|_| NotATap)?),
            index: index.parse().map_err(|_| NotATap)?,
        };
        // `wb01n0` and `wb+1n0` would be read, too, but never written.
        if name.to_string() == text { Ok(name) } else { Err(NotATap) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whimbrel_model::guest::NETWORKS_MAX;

    /// Names are read back, fit the kernel's limit, and others are not taken for ours.
    #[test]
    fn names_are_written_and_read() {
        let name = TapName { guest: LocalId(12), index: 3 };
        assert_eq!(name.to_string(), "wb12n3");
        assert_eq!("wb12n3".parse(), Ok(name));
        let index = u8::try_from(NETWORKS_MAX - 1).unwrap();
        let longest = TapName { guest: LocalId(u32::MAX), index }.to_string();
        assert!(longest.len() <= 15, "{longest}");
        for other in ["tap0", "wb", "wb1", "wb1n", "wbn1", "wb01n0", "wb+1n0", "wb1n0x", "wb1n-0"] {
            assert_eq!(other.parse::<TapName>(), Err(NotATap), "{other}");
        }
    }
}
