// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Who runs a guest: the engines, behind one trait.
//!
//! An [`Engine`] is what a host has (QEMU, Xen); an [`Instance`] is one guest it holds. The daemon
//! knows nothing else of either. An engine talks only to the daemon beside it, over local sockets
//! of the guest's own directory; nothing here opens a network port.
//!
//! `tests/contract.rs` runs the same tests against every implementation.

mod boot_files;
mod contract;
mod error;
pub mod fake;
pub mod qemu;
pub mod xen;

pub use contract::*;
pub use error::EngineError;
