// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The limits of the contract, by name.

/// Largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Largest response body that the client reads at once, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// Largest single event of a stream, in bytes.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Largest guest file, in bytes.
pub const DEFINITION_BYTES_MAX: usize = 256 << 10;
/// Most `key=value` overrides of one guest file.
pub const OVERRIDES_MAX: usize = 64;
/// Most lines of the log in one answer.
pub const LOG_LINES_MAX: u32 = 10_000;
/// Lines of the log in one answer when nothing else was asked for.
pub const LOG_LINES_DEFAULT: u32 = 1_000;
/// Most old reports in one answer.
pub const REPORTS_MAX: u32 = 100;
/// Moments that a report tells of.
pub const SAMPLES_MAX: usize = 240;
/// Longest a graceful stop waits, in milliseconds.
pub const STOP_TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// How long a graceful stop waits when nothing else was asked for, in milliseconds.
pub const STOP_TIMEOUT_MS_DEFAULT: u64 = 2 * 60 * 1000;
/// Most scrollback a console sends, in bytes.
pub const SCROLLBACK_BYTES_MAX: u32 = 256 << 10;
/// Scrollback a console sends when nothing else was asked for, in bytes.
pub const SCROLLBACK_BYTES_DEFAULT: u32 = 16 << 10;
/// Longest pairing token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
