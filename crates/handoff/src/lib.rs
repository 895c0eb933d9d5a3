// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Who owns a guest: the state machines of a handoff. Pure.

mod bytes;
pub mod disk;
pub mod door;
pub mod effect;
mod history;
pub mod message;
pub mod ownership;
pub mod record;
pub mod source;
pub mod target;
