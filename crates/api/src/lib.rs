// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The contract: request, response and event types of the HTTP API, and its client.
//!
//! The daemon serves it on a unix socket, the command line speaks nothing else, and so can any
//! script: `curl --unix-socket /run/whimbrel/api.sock http://whimbrel/v1/guests`. What is here is
//! versioned by the path (`/v1`): fields are added, never renamed or given another meaning, and a
//! client ignores fields it does not know. Every response that is not a success carries a
//! [`Problem`].
//!
//! Numbers carry their unit in their name: `_bytes`, `_ms` (milliseconds), `_at_ms` (milliseconds
//! since 1970, UTC), `_bytes_per_second`.

#![warn(missing_docs)]

pub mod client;
pub mod console;
pub mod event;
pub mod guest;
pub mod host;
pub mod limits;
pub mod log;
pub mod migration;
pub mod openapi;
pub mod pages;
pub mod plan;
pub mod problem;
pub mod recover;

pub use client::Client;
pub use problem::{Kind, Problem};
