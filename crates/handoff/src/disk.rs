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
//! Epochs are skipped: an offer that came to nothing has used one up. So two hosts that both mean
//! to succeed epoch 4 may claim 5 and 6, and both would win. Who takes epoch *n* after epoch *m*
//! ([`crate::effect::Claims`]) therefore
//!
//! 1. creates the claim of *n* exclusively, with its name in it. If it is there with our name:
//!    good, we are repeating ourselves. With another: lost to that host.
//! 2. Only then it looks around, and has **lost** to any other host that
//!    - holds a claim newer than *m*, unless that is void: the host has declined it, or answers
//!      now that it neither owns nor acquires nor receives the guest with it;
//!    - is named by an owner record newer than *m* that it wrote itself, unless declined;
//!    - is named by any owner record newer than *n*.
//!
//! ([`rivals`] lists them.) First create, then look: of two that contend, the later to look sees
//! the other. Both may lose;
//! then both try again with newer epochs, and find each other's old claims void. A claim that was
//! cleared away was older than its clearer's record, which the look finds instead.
//!
//! A guest with several writable images claims each, in the order of their paths, and stops at the
//! first it loses. The owner (nobody else, and not the source that cedes) may delete claims older
//! than its own once its record is written.

use crate::effect::Claims;
use whimbrel_model::id::{Epoch, GuestId, HandoffId, HostId};
use whimbrel_model::run_state::RunState;

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

/// The content of `<image>.claim.<inode>.<epoch>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pub guest: GuestId,
    pub epoch: Epoch,
    pub host: HostId,
}

/// The second half of taking a claim: who may have taken the guest since the epoch we succeed, by
/// what lies beside one image now that our own claim lies there, too. The claim is won if each of
/// them is [void](crate::door::is_void).
pub fn rivals(
    ours: &Claims,
    me: HostId,
    owner: Option<OwnerRecord>,
    claims: &[Claim],
) -> Vec<(HostId, Epoch)> {
    let is_declined = |host, epoch| ours.declined.is_some_and(|(by, to)| by == host && epoch <= to);
    let claims = claims.iter().map(|claim| (claim.host, claim.epoch));
    let newer_claims = claims.filter(|&(_, epoch)| epoch > ours.after);
    let owner = owner.filter(|record| match record.by {
        By::Owner => record.epoch > ours.after,
        // Nobody has taken that yet; who does will have claimed it.
        By::Source { .. } => record.epoch > ours.epoch,
    });
    let newer_owner = owner.map(|record| (record.owner, record.epoch));
    newer_claims
        .chain(newer_owner)
        .filter(|&(host, epoch)| host != me && !is_declined(host, epoch))
        .collect()
}
