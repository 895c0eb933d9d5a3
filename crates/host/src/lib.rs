// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The machine: bridges and taps, disks, ownership files, the store, processes.
//!
//! Besides the engines, this is the only crate that touches Linux, and the only one with `unsafe`
//! code, kept in the smallest modules. Nothing here decides anything about a guest: it reads what
//! is, writes what it is told, and says precisely what it found. Decisions are made in `handoff`
//! and `model`, and carried out by `daemon`.
//!
//! Except for [`network`] and [`store::Store`], calls block: they are short, and the daemon runs
//! them on its blocking threads.

pub mod claims;
pub mod dirs;
pub mod facts;
#[cfg(feature = "fault-points")]
pub mod faults;
pub mod machine;
pub mod network;
pub mod ownership;
pub mod process;
pub mod security;
pub mod store;
mod sys;
