// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Two hosts on one machine, a real guest, and the stories they act out.
//!
//! [`lab`] makes the hosts, [`image`] the guest, [`witness`] asks the guest how it fares. The tests
//! in [`stories`] use the program as a person would: they type its commands.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program talks to a person")]

pub mod apt;
pub mod bench;
pub mod bootable;
pub mod carriers;
pub mod command;
pub mod cpio;
pub mod demo;
pub mod disk;
pub mod image;
pub mod lab;
mod libvirt;
pub mod matrix;
pub mod monitor;
pub mod plain;
pub mod qemu;
pub mod runner;
pub mod scene;
pub mod setting;
pub mod soak;
pub mod stories;
pub mod terminal;
pub mod userland;
pub mod witness;
pub mod xen;
