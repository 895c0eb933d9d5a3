// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Sizes and rates, with the units people write and read.

use std::fmt;

/// A number of bytes. Printed in the largest binary unit that keeps it readable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Why a size was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size; write a number with a unit: `512 MiB`, `4G`, `100 MB`")]
pub struct SizeError {
    pub text: String,
}

impl Bytes {
    pub const KIB: u64 = 1 << 10;
    pub const MIB: u64 = 1 << 20;
    pub const GIB: u64 = 1 << 30;

    /// Returns `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count * Self::MIB)
    }

    /// Returns the size in whole MiB, rounded up.
    pub const fn as_mib_ceil(self) -> u64 {
        self.0.div_ceil(Self::MIB)
    }

    /// Reads `512M`, `512 MiB`, `4G`, `100 MB`. A bare letter is binary, as everywhere in this
    /// field; only `kB`, `MB`, `GB`, `TB` are decimal. The unit is required.
    pub fn parse(text: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError { text: text.to_owned() };
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = trimmed.split_at(split);
        let factor: u64 = match unit.trim() {
            "B" => 1,
            "K" | "k" | "KiB" => 1 << 10,
            "M" | "m" | "MiB" => 1 << 20,
            "G" | "g" | "GiB" => 1 << 30,
            "T" | "t" | "TiB" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let Some((unit, size)) = UNITS.into_iter().find(|&(_, size)| self.0 >= size) else {
            return write!(f, "{} B", self.0);
        };
        let tenths = (u128::from(self.0) * 10 + u128::from(size) / 2) / u128::from(size);
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10),
            _ if tenths >= 1000 => write!(f, "{} {unit}", (tenths + 5) / 10),
            digit => write!(f, "{}.{digit} {unit}", tenths / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text, expected| assert_eq!(Bytes::parse(text).map(|b| b.0).ok(), expected);
        check("512M", Some(512 << 20));
        check(" 4 GiB ", Some(4 << 30));
        check("100 MB", Some(100_000_000));
        check("512", None);
        check("-1M", None);
        check("99999999999999999999G", None);
        check("18446744073709551615T", None);
    }

    #[test]
    fn sizes_are_printed() {
        let check = |bytes, expected: &str| assert_eq!(Bytes(bytes).to_string(), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(512 << 20, "512 MiB");
        check(3 << 29, "1.5 GiB");
        check((1 << 30) - 1, "1024 MiB");
    }
}
