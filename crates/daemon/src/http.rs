// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The API server: HTTP and server-sent events on a unix socket.
//!
//! What is here knows HTTP and nothing else: it checks limits and shapes, finds out who calls, and
//! hands each operation to a [`Backend`], which knows guests and hosts and no HTTP. A connection
//! belongs to the user at its other end (`SO_PEERCRED`); who may connect at all is said by the
//! socket's owner, group and mode.

mod answer;
mod backend;
mod guests;
mod hosts;
mod pages;
mod router;
mod server;
mod socket;
mod streams;

pub use backend::{Backend, Caller, ConsoleStream, EventStream, Scope};
pub use server::serve;
pub use socket::{BindError, Socket};

#[cfg(test)]
mod tests;
