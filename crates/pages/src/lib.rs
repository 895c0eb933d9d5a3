// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How memory travels: stream parsers, page records, codecs, flow control. Pure.
//!
//! ```text
//! source engine                                                                target engine
//!      |  bytes                                                              bytes  ^
//!      v                                                                            |
//!   split  -->  sender  -->  frame  ===== a connection =====>  frame  -->  receiver
//!  (pages)   (same, delta,  (numbered,                                     |     ^
//!             new; codec)    kept)    <===== acks ==========              put   get
//!                                                                          v     |
//!                                                                          shelf, image
//! ```
//!
//! - [`split`] finds the pages in an engine's stream; what it does not understand is opaque.
//! - [`sender`] decides for each page how it travels and keeps what is not acknowledged.
//! - [`receiver`] rebuilds **the exact bytes**, compared with the source's digest batch by batch,
//!   so nothing above can harm a guest: a mistake costs an attempt, never a byte.
//! - [`window`] and [`codec`] do the arithmetic: how much may be under way, how it is packed.
//! - [`shelf`] is what the target holds of the guest, [`image`] is how a host keeps it between two
//!   visits; [`blocks`] is what both find on the guest's disks.
//!
//! Nothing here does I/O or reads a clock: the carrying process calls, and says what time it took.

#![forbid(unsafe_code)]

pub mod batch;
pub mod blocks;
pub mod codec;
pub mod digest;
pub mod frame;
pub mod image;
pub mod parts;
mod patch;
pub mod receiver;
pub mod sender;
pub mod shelf;
pub mod split;
mod varint;
pub mod window;
