// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a host can find out before a start.

use super::{Scope, Storage, World, host_id};
use whimbrel_handoff::door::{self, ClaimFound, Disk, Evidence, Image, OwnerFound, Peer, Verdict};
use whimbrel_handoff::ownership::{Answer, Ownership};

impl World {
    /// What `host` sees if it can, or cannot, reach the others.
    pub(crate) fn evidence<'a>(
        &self,
        scope: &Scope,
        host: usize,
        own: &'a Ownership,
        reaches: bool,
    ) -> Evidence<'a> {
        let disk = match scope.storage {
            Storage::NoPlace => Disk::NoPlace,
            Storage::Beside { has_locks } => {
                let is_in_use = has_locks && self.is_locked_by_other(host);
                Disk::Images(vec![self.image(is_in_use)])
            }
        };
        let others = (0..self.hosts.len()).filter(|&other| other != host);
        let peers = others
            .map(|other| Peer {
                host: host_id(other),
                answer: if reaches { self.answer(other) } else { None },
                is_keeper: true,
            })
            .collect();
        Evidence { own, disk, peers }
    }

    /// What the door would tell a start on `host`, in a healed world.
    pub fn at_the_door(&self, scope: &Scope, host: usize) -> Option<Verdict> {
        let own = self.own(host)?;
        Some(door::start(&self.evidence(scope, host, own, true)))
    }

    fn image(&self, is_in_use: bool) -> Image {
        Image {
            owner: self.disk.owner.map_or(OwnerFound::None, OwnerFound::Record),
            claims: self.disk.claims().map(ClaimFound::Claim).collect(),
            is_in_use,
        }
    }

    /// What the daemon of `host` answers, if there is one and it is not in the middle of things.
    pub(crate) fn answer(&self, host: usize) -> Option<Answer> {
        let node = self.hosts[host].node.as_ref()?;
        node.is_idle().then(|| node.own.answer())
    }
}
