// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What lies beside a shared image: the owner record and the claims.
//!
//! The owner record tells everybody who owns the guest of this image. It is replaced as a whole,
//! and a slow writer can replace a newer one by an older one, so it is never the last word: a
//! **claim** is. For each epoch exactly one host can create the claim.
//!
//! # How a claim is taken
//!
//! Epochs are skipped: an offer that came to nothing has used one up. If only the newest were
//! claimed, two hosts that both mean to succeed epoch 4 could win 5 and 6. So who takes epoch *n*
//! claims every epoch after the one it succeeds ([`crate::effect::Claims`]):
//!
//! 1. For each, oldest first: create the claim exclusively, with our name in it. If it is there
//!    with our name: good, we are repeating ourselves. If *n* itself is another host's: lost to it.
//! 2. Then, for each older one that is another host's: it is void if that host has declined, or
//!    answers now that it neither owns, acquires nor receives the guest with it. Else: lost to it.
//! 3. Then look around: if the owner record or any claim is **newer** than *n*: lost to that host.
//!    (Old claims may have been cleared away; without this look a very late host could win an
//!    epoch that is long over.)
//!
//! A guest with several writable images claims each, in the order of their paths, and stops at the
//! first it loses. The owner may delete claims older than its own once its record is written.

use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

mod codec;

pub use codec::{CLAIM_BYTES, DiskRecordError, OWNER_BYTES};

/// The content of `<image>.owner`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerRecord {
    pub guest: GuestId,
    pub owner: HostId,
    pub epoch: Epoch,
    pub by: By,
}

/// Who wrote an owner record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The source, right after it ceded: the owner named may not have taken the guest yet. With
    /// it the target can go on if the source dies for good.
    Source { handoff: HandoffId, run: Option<RunState> },
    /// The owner itself.
    Owner,
}

/// The content of `<image>.claim.<epoch>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pub guest: GuestId,
    pub epoch: Epoch,
    pub host: HostId,
}
