// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the crate promises, seen from outside.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

mod golden;
mod journey;
mod malformed;
mod streams;
