// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a guest, a host and a plan are.
//!
//! Everything here is data and the rules that data must keep; nothing here does I/O, reads a clock
//! or draws a random number. What people write (`*.toml`, the classic `*.cfg`) is parsed into *raw*
//! types and then *checked* into the types of this crate; a value of a checked type is valid by
//! construction. Checked types are not `Serialize`: files, the wire, the store and the API each
//! have their own versioned types and convert.

pub mod codes;
pub mod config;
pub mod facts;
pub mod guest;
pub mod id;
pub mod json;
pub mod passport;
pub mod plan;
pub mod problem;
pub mod run_state;
#[cfg(test)]
mod sample;
pub mod similar;
pub mod text_file;
pub mod units;
