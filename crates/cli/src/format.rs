// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Sizes, times and rates as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::macros::format_description;
use whimbrel_api::plan::Range;
use whimbrel_model::units::{Bytes, format_duration};

pub(crate) fn size(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

pub(crate) fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", Bytes(bytes_per_second))
}

pub(crate) fn ms(milliseconds: u64) -> String {
    format_duration(Duration::from_millis(milliseconds))
}

/// Returns `9 s to 14 s`, or just `9 s` where both ends read the same.
pub(crate) fn range(range: Range, format: impl Fn(u64) -> String) -> String {
    let (min, max) = (format(range.min), format(range.max));
    match (min.split_once(' '), max.split_once(' ')) {
        _ if min == max => min,
        (Some((number, unit)), Some((_, unit_max))) if unit == unit_max => {
            format!("{}-{max}", number.trim_end_matches(".0"))
        }
        _ => format!("{min} to {max}"),
    }
}

/// Returns `2026-11-22 21:04:05Z`: UTC, since the lines of several hosts are read together.
pub(crate) fn date(at_ms: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    moment(at_ms).and_then(|at| at.format(&format).ok()).unwrap_or_else(|| "?".to_owned())
}

/// The same with milliseconds.
pub(crate) fn date_exact(at_ms: u64) -> String {
    let format =
        format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]Z");
    moment(at_ms).and_then(|at| at.format(&format).ok()).unwrap_or_else(|| "?".to_owned())
}

fn moment(at_ms: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000).ok()
}

pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Returns `1 guest`, `3 guests`.
pub(crate) fn count(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Returns seconds with one digit, as `list` shows processor time.
pub(crate) fn seconds(milliseconds: u64) -> String {
    let tenths = (milliseconds + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_their_unit_once() {
        let check = |min, max, expected: &str| {
            assert_eq!(range(Range { min, max }, ms), expected);
        };
        check(60, 110, "60-110 ms");
        check(9_000, 14_000, "9-14 s");
        check(900, 1_400, "900 ms to 1.4 s");
        check(2_000, 105_000, "2.0 s to 1 m 45 s");
        check(61_000, 105_000, "1 m 1 s to 1 m 45 s");
        check(84, 84, "84 ms");
    }

    #[test]
    fn dates_are_utc() {
        assert_eq!(date(1_213_199_162_000), "2008-06-11 15:46:02Z");
        assert_eq!(date_exact(1_213_199_162_007), "2008-06-11 15:46:02.007Z");
        assert_eq!(date(u64::MAX), "?");
        assert_eq!(seconds(82_649), "82.6");
    }
}
