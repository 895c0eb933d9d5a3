// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What lies beside the shared image.

use std::collections::BTreeMap;
use whimbrel_handoff::disk::{By, OwnerRecord};
use whimbrel_handoff::effect::Claims;
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

    /// Takes claims as `whimbrel_handoff::disk` describes it, or names who holds them.
    pub fn take(
        &mut self,
        claims: &Claims,
        host: HostId,
        is_void: impl Fn(Epoch, HostId) -> bool,
        looks_around: bool,
    ) -> Result<(), HostId> {
        let Claims { after, epoch, .. } = *claims;
        let holder = *self.claims.entry(epoch).or_insert(host);
        if holder != host {
            return Err(holder);
        }
        if !looks_around {
            return Ok(());
        }
        let others = self.claims.range(after.next()..);
        let rival = others.filter(|&(_, &other)| other != host);
        if let Some((_, &holder)) = rival.into_iter().find(|&(&e, &h)| !is_void(e, h)) {
            return Err(holder);
        }
        match self.owner {
            Some(owner) if owner.owner == host => Ok(()),
            Some(owner) if owner.epoch > epoch => Err(owner.owner),
            Some(OwnerRecord { owner, epoch, by: By::Owner, .. })
                if epoch > after && !is_void(epoch, owner) =>
            {
                Err(owner)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Replaces the owner record, unless the one there is newer; the owner clears old claims.
    pub fn write_owner(&mut self, record: OwnerRecord) {
        if self.owner.is_some_and(|there| there.epoch > record.epoch) {
            return;
        }
        self.owner = Some(record);
        if record.by == By::Owner {
            self.claims = self.claims.split_off(&record.epoch);
        }
    }
}
