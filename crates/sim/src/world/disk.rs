// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What lies beside the shared image.

use std::collections::BTreeMap;
use whimbrel_handoff::disk::{By, Claim, OwnerRecord};
use whimbrel_model::id::{Epoch, HostId};

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SharedDisk {
    pub owner: Option<OwnerRecord>,
    pub claims: BTreeMap<Epoch, HostId>,
}

impl SharedDisk {
    pub fn owned_by(owner: OwnerRecord) -> Self {
        Self { owner: Some(owner), claims: BTreeMap::from([(owner.epoch, owner.owner)]) }
    }

    /// Creates a claim exclusively, or names who holds it.
    pub fn create(&mut self, epoch: Epoch, host: HostId) -> Result<(), HostId> {
        let holder = *self.claims.entry(epoch).or_insert(host);
        if holder == host { Ok(()) } else { Err(holder) }
    }

    /// Every claim, oldest first.
    pub fn claims(&self) -> impl Iterator<Item = Claim> {
        self.claims.iter().map(|(&epoch, &host)| Claim { guest: super::GUEST, epoch, host })
    }

    /// Replaces the owner record, unless the one there is newer; the owner clears old claims.
    pub fn write_owner(&mut self, record: OwnerRecord) {
        let is_newer = |there: OwnerRecord| {
            there.epoch > record.epoch || there.epoch == record.epoch && there.by == By::Owner
        };
        if self.owner.is_some_and(is_newer) {
            return;
        }
        self.owner = Some(record);
        if record.by == By::Owner {
            self.claims = self.claims.split_off(&record.epoch);
        }
    }
}
