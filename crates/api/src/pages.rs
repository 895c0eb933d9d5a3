// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Memory that a host keeps of guests that have left it, so that little travels when they return.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a host keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptMemoryList {
    /// Whether this host keeps memory at all.
    pub is_kept: bool,
    /// By the guests' uuids.
    pub images: Vec<KeptMemory>,
    /// The space they take together, in bytes.
    pub bytes: u64,
    /// The space they may take together, in bytes.
    pub budget_bytes: u64,
    /// The space of images that are being written by migrations that go on, in bytes.
    pub unfinished_bytes: u64,
}

/// The memory of one guest that has left, sealed with a key that left with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptMemory {
    /// The guest's name when it left. Absent where the image is damaged, and about to be dropped.
    pub guest: Option<String>,
    /// The guest's uuid.
    pub guest_uuid: String,
    /// The host it went to, which has the key. Absent where the image is damaged.
    pub went_to: Option<String>,
    /// When it left.
    pub created_at_ms: u64,
    /// When the image is dropped, if space is not needed before.
    pub expires_at_ms: u64,
    /// How much of the guest's memory the image has, in bytes. Absent where it is damaged.
    pub memory_bytes: Option<u64>,
    /// The space it takes, in bytes.
    pub bytes: u64,
}

/// What was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryDropped {
    /// Memory of guests that had left.
    pub image_count: u32,
    /// The space it took, in bytes.
    pub bytes: u64,
    /// Keys of memory that other hosts keep of guests that are here: nobody can open it any more.
    pub key_count: u32,
}

/// Memory of a guest that is here, kept by the host it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptElsewhere {
    /// That host.
    pub host: String,
    /// When the guest left it.
    pub kept_at_ms: u64,
    /// How much of the guest's memory is kept, in bytes.
    pub memory_bytes: u64,
}
