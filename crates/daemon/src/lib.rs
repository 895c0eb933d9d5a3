// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The program that stays: guests, migrations, peers, recovery, the API server.
//!
//! [`run`] starts it. What all tasks share is a [`daemon::Daemon`]; each guest has a task of its
//! own in [`guests`], which alone acts on it; [`migrate`] is what such a task does to move its
//! guest; [`peers`], [`neighbours`] and [`serve`] talk to other hosts; [`http`] and [`backend`] to
//! people.

#[macro_use]
mod faults;

mod backend;
mod balloon;
mod blocks;
mod checks;
pub mod console;
mod daemon;
mod disks;
mod error;
mod foreign;
mod guests;
mod hotplug;
pub mod http;
mod memory;
mod migrate;
mod neighbours;
mod ownership;
mod pages;
mod peers;
mod peers_view;
mod serve;
mod start;
mod story;

pub use hotplug::plug;
pub use start::{run, stored_log};
