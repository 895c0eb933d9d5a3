// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a host keeps of the memory of guests between two visits: files.
//!
//! ```text
//! STATE/pages/                  0700
//!   GUEST/                      0700  one folder per guest, named by its uuid
//!     image                     0600  of a guest that left: sealed with a key that left with it
//!     held                      0600  of a guest that came: what the image at its last host has,
//!                                     and the key of that image
//!     parts                     0600  beside `held`: digests of the parts of those pages
//!     image-ID.unfinished       being written, in handoff ID; so are `held-ID.unfinished` and
//!                               `parts-ID.unfinished`
//! ```
//!
//! Three rules:
//!
//! - **Nothing here is needed.** A file that is absent, damaged, altered or of another visit costs
//!   bytes on the wire. Callers go on without it, and whoever needs the space may take it.
//! - **Nothing here is wrong.** An image opens only with its key; a page is compared with its
//!   digest each time it is read. It is right, or it is lost.
//! - **A file is whole or unfinished.** It is written under another name, made durable, and then
//!   renamed, so a crash at any instant leaves the older file or the newer one.
//!
//! Of the disks of guests that are here, [`blocks`] makes and reads an index; it lies elsewhere.
//!
//! What the files mean is decided by `whimbrel_pages`; here they are only kept, and [`policy`]
//! says for how long. Nothing here is asynchronous: the carrying process and the daemon call from
//! threads that may wait for a disk.

#![forbid(unsafe_code)]

mod about;
pub mod blocks;
mod error;
mod files;
mod folder;
mod held;
mod image;
mod parts;
pub mod policy;
mod shelf;
mod store;
#[cfg(test)]
mod tests;

pub use about::About;
pub use error::{Damage, StoreError};
pub use folder::{Folder, HeldSummary, KeptImage};
pub use held::{Held, HeldError};
pub use image::ImageFile;
pub use parts::{HeldParts, PartsFile};
pub use shelf::ImageShelf;
pub use store::{Dropped, Entry, PageStore, Room};
