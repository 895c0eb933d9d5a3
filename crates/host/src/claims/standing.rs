// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What an image's word means for a host that wants to start a guest from it. Pure.

use super::{Owner, Word};
use std::path::PathBuf;
use whimbrel_model::id::{Epoch, GuestId, HostId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The image belongs to nobody.
    Free,
    /// The record says what the host's own ownership file says.
    Ours,
    /// The record is older than the host's own file: a crash came before it was written.
    Behind(Owner),
    /// The record names this host, with a later epoch than its own file knows: the guest was
    /// ceded to it and it never heard, or its state directory is an old one.
    Ahead(Owner),
    /// Another host has the guest.
    Elsewhere(Owner),
    /// Another guest has the image.
    OtherGuest(Owner),
    /// The record came with a copy of the image, and says nothing about this one.
    Copied(Owner),
    /// Nobody can tell.
    Damaged { path: PathBuf, reason: String },
}

/// Judges a word for `host`, which holds `guest` with `epoch`, or knows nothing of it yet.
pub fn standing(word: &Word, guest: GuestId, host: HostId, epoch: Option<Epoch>) -> Standing {
    let owner = match word {
        Word::Nothing => return Standing::Free,
        Word::Copied { owner, .. } => return Standing::Copied(owner.clone()),
        Word::Damaged { path, reason } => {
            return Standing::Damaged { path: path.clone(), reason: reason.clone() };
        }
        Word::Owner(owner) | Word::Moved { owner, .. } => owner.clone(),
    };
    if owner.guest != guest {
        Standing::OtherGuest(owner)
    } else if epoch.is_some_and(|epoch| owner.epoch < epoch) {
        Standing::Behind(owner)
    } else if owner.host != host {
        Standing::Elsewhere(owner)
    } else if epoch == Some(owner.epoch) {
        Standing::Ours
    } else {
        Standing::Ahead(owner)
    }
}
