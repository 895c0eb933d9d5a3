// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Sizes and rates, with the units people write and read.

use std::fmt;
use std::time::Duration;

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

/// Why a rate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a rate; write a number with a unit: `100 MiB/s`, `1 Gbit/s`")]
pub struct RateError {
    pub text: String,
}

/// Reads `100 MB/s`, `64 MiB`, `1 Gbit/s` as bytes a second; bits are always decimal.
pub fn parse_rate(text: &str) -> Result<Bytes, RateError> {
    let wrong = || RateError { text: text.to_owned() };
    let amount = text.trim().trim_end_matches("/s");
    let Some(bits) = amount.strip_suffix("bit") else {
        return Bytes::parse(amount).map_err(|_| wrong());
    };
    let number = bits.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match &bits[number.len()..] {
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.trim().parse().map_err(|_| wrong())?;
    number.checked_mul(factor).map(|bits| Bytes(bits / 8)).ok_or_else(wrong)
}

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a duration; write a number with a unit: `300 ms`, `90s`, `10m`, `2h`")]
pub struct DurationError {
    pub text: String,
}

/// Reads `300ms`, `90 s`, `10m`, `2h`, `1h 30m`. The unit is required.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError { text: text.to_owned() };
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = rest[digits..].trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let factor_ms = match &after[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(factor_ms).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after[letters..].trim_start();
    }
    Ok(total)
}

/// Returns a duration as a person would say it: `84 ms`, `9.4 s`, `2 m 5 s`, `3 h 20 m`.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let (s, m, h) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..9_950 => format!("{}.{} s", (ms + 50) / 1_000, (ms + 50) % 1_000 / 100),
        9_950..60_000 => format!("{} s", (ms + 500) / 1_000),
        60_000..3_600_000 if s % 60 == 0 => format!("{m} m"),
        60_000..3_600_000 => format!("{m} m {} s", s % 60),
        _ if m % 60 == 0 => format!("{h} h"),
        _ => format!("{h} h {} m", m % 60),
    }
}

impl Bytes {
    /// Returns text that [`Bytes::parse`] reads back to exactly this size.
    pub fn to_exact_string(self) -> String {
        let units = [("TiB", 1 << 40), ("GiB", Self::GIB), ("MiB", Self::MIB), ("KiB", Self::KIB)];
        let fits = |&&(_, size): &&(&str, u64)| self.0 >= size && self.0.is_multiple_of(size);
        match units.iter().find(fits) {
            Some((unit, size)) => format!("{} {unit}", self.0 / size),
            None => format!("{} B", self.0),
        }
    }

    /// Returns the size in whole KiB, rounded up, as the seed counted.
    pub const fn as_kib_ceil(self) -> u64 {
        self.0.div_ceil(Self::KIB)
    }

    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
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

    #[test]
    fn exact_sizes_are_read_back() {
        let check = |bytes, expected: &str| {
            assert_eq!(Bytes(bytes).to_exact_string(), expected);
            assert_eq!(Bytes::parse(expected), Ok(Bytes(bytes)));
        };
        check(0, "0 B");
        check(1 << 30, "1 GiB");
        check(3 << 29, "1536 MiB");
        check(1025, "1025 B");
    }

    #[test]
    fn rates_are_read() {
        let check = |text, expected| assert_eq!(parse_rate(text).map(|b| b.0).ok(), expected);
        check("100 MB/s", Some(100_000_000));
        check("64MiB", Some(64 << 20));
        check("1 Gbit/s", Some(125_000_000));
        check("100Mbit", Some(12_500_000));
        check("5bit", None);
        check("fast", None);
    }

    #[test]
    fn durations_are_read_and_printed() {
        let check = |text, ms: u64| {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        };
        check("300ms", 300);
        check(" 90 s ", 90_000);
        check("1h 30m", 5_400_000);
        check("2m5s", 125_000);
        for text in ["", "5", "m", "5x", "-1s", "99999999999999999999s", "999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        let say = |ms, expected: &str| {
            assert_eq!(format_duration(Duration::from_millis(ms)), expected);
        };
        say(84, "84 ms");
        say(9_449, "9.4 s");
        say(9_951, "10 s");
        say(125_000, "2 m 5 s");
        say(1_800_000, "30 m");
        say(12_000_000, "3 h 20 m");
    }
}
