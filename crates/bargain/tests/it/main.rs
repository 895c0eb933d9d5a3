// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The controller against guests and links of every kind, in simulated time.
//!
//! Each trace is moved by the controller, and by the rules of others beside it. What comes of it is
//! `docs/bargain.md`.

mod choosing;
mod held;
mod kept;
mod missed;
mod page;
mod plot;
mod rivals;
mod traces;
mod world;
