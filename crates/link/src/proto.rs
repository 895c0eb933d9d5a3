// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The generated messages. Nothing outside of [`crate::wire`] and [`crate::frame`] sees them.

#![allow(
    unreachable_pub,
    clippy::large_enum_variant,
    clippy::doc_lazy_continuation,
    reason = "prost writes this"
)]

include!(concat!(env!("OUT_DIR"), "/whimbrel.peer.v1.rs"));
