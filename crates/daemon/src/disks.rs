// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the disks of a guest say about its owner: the records of `host` as the decisions of
//! `handoff` want them.
//!
//! File systems may hang (a dead NFS server), so all of this runs on blocking threads.

use std::collections::BTreeMap;
use whimbrel_api::Problem;
use whimbrel_handoff::disk::{By, Claim as ClaimRecord, OwnerRecord};
use whimbrel_handoff::door::{ClaimFound, Disk, Image, OwnerFound};
use whimbrel_handoff::effect::Event;
use whimbrel_host::claims::{
    Beside, Claim, ClaimError, Claimant, GuestPapers, Owner, OwnerState, Place, Word,
};
use whimbrel_model::guest::DiskSource;
use whimbrel_model::id::{GuestId, HostId};

/// What lies beside the disks of a guest.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) disk: Disk,
    /// The names of the hosts in the records, as they call themselves.
    pub(crate) owner_names: BTreeMap<HostId, String>,
}

/// An owner record with the names people know.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) record: OwnerRecord,
    pub(crate) guest_name: String,
    pub(crate) host_name: String,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClaimError> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await.expect("a panic ends the whole daemon");
    done.map_err(|error| Problem::of(&error))
}

/// Reads what lies beside the disks.
pub(crate) async fn look(disks: Vec<DiskSource>) -> Result<Found, Problem> {
    blocking(move || {
        let mut owner_names = BTreeMap::new();
        let mut images = Vec::new();
        let mut has_no_place = false;
        for disk in &disks {
            match Place::of(disk)? {
                Beside::NoPlace(_) => has_no_place = true,
                Beside::Place(place) => match image(&place, &mut owner_names) {
                    Ok(image) => images.push(image),
                    Err(_) => return Ok(Found { disk: Disk::Unreadable, owner_names }),
                },
            }
        }
        let disk = match (images.is_empty(), has_no_place) {
            (false, _) => Disk::Images(images),
            (true, true) => Disk::NoPlace,
            (true, false) => Disk::Local,
        };
        Ok(Found { disk, owner_names })
    })
    .await
}

fn image(place: &Place, names: &mut BTreeMap<HostId, String>) -> Result<Image, ClaimError> {
    let owner = match place.word()? {
        // A copy's record speaks of the original.
        Word::Nothing | Word::Copied { .. } => OwnerFound::None,
        Word::Damaged { .. } => OwnerFound::Damaged,
        Word::Owner(owner) | Word::Moved { owner, .. } => {
            names.insert(owner.host, owner.host_name.clone());
            OwnerFound::Record(OwnerRecord {
                guest: owner.guest,
                owner: owner.host,
                epoch: owner.epoch,
                by: match (owner.state, owner.handoff) {
                    (OwnerState::Ceded { run }, Some(handoff)) => By::Source { handoff, run },
                    _ => By::Owner,
                },
            })
        }
    };
    let claims = place.claims()?.into_iter().map(|(epoch, claimant)| match claimant {
        Some(Claimant { guest, host, host_name, .. }) => {
            names.entry(host).or_insert(host_name);
            ClaimFound::Claim(ClaimRecord { guest, epoch, host })
        }
        None => ClaimFound::Damaged { epoch },
    });
    Ok(Image { owner, claims: claims.collect(), is_in_use: place.is_in_use()? })
}

/// Takes an epoch on every disk that has a place for claims, in the order of their paths, and
/// stops at the first one lost.
pub(crate) async fn claim(disks: Vec<DiskSource>, claimant: Claimant) -> Event {
    let epoch = claimant.epoch;
    let claimed = blocking(move || {
        for place in places(&disks)? {
            if let Claim::Lost(holder) = place.claim(&claimant)? {
                return Ok(Some(holder.host));
            }
        }
        Ok(None)
    });
    match claimed.await {
        Ok(None) => Event::ClaimWon { epoch },
        Ok(Some(holder)) => Event::ClaimLost { epoch, holder },
        Err(problem) => {
            tracing::warn!(%problem, "a claim could not be taken");
            Event::ClaimUnavailable { epoch }
        }
    }
}

/// Replaces the owner record beside every disk, unless the one there is newer.
pub(crate) async fn record(disks: Vec<DiskSource>, owned: Owned) -> Result<(), Problem> {
    let Owned { record, guest_name, host_name } = owned;
    let (state, handoff) = match record.by {
        By::Source { handoff, run } => (OwnerState::Ceded { run }, Some(handoff)),
        By::Owner => (OwnerState::Held, None),
    };
    let owner = Owner {
        guest: record.guest,
        guest_name,
        host: record.owner,
        host_name,
        epoch: record.epoch,
        handoff,
        state,
    };
    blocking(move || {
        for place in places(&disks)? {
            let is_newer = match place.word()? {
                Word::Owner(there) | Word::Moved { owner: there, .. } => there.epoch > owner.epoch,
                Word::Nothing | Word::Copied { .. } | Word::Damaged { .. } => false,
            };
            if !is_newer {
                place.record(&owner)?;
            }
        }
        Ok(())
    })
    .await
}

pub(crate) async fn keep_papers(
    disks: Vec<DiskSource>,
    papers: GuestPapers,
) -> Result<(), Problem> {
    blocking(move || places(&disks)?.iter().try_for_each(|place| place.keep_papers(&papers))).await
}

/// Removes what cannot be read beside the disks.
pub(crate) async fn remove_damaged(disks: Vec<DiskSource>) -> Result<(), Problem> {
    blocking(move || places(&disks)?.iter().try_for_each(Place::remove_damaged)).await
}

pub(crate) async fn release(disks: Vec<DiskSource>, guest: GuestId) -> Result<(), Problem> {
    blocking(move || places(&disks)?.iter().try_for_each(|place| place.release(guest))).await
}

/// Returns the places of the disks that have one, in the order of their paths: hosts that claim
/// the same disks must meet at the first.
fn places(disks: &[DiskSource]) -> Result<Vec<Place>, ClaimError> {
    let mut places = Vec::new();
    for disk in disks {
        if let Beside::Place(place) = Place::of(disk)? {
            places.push(place);
        }
    }
    places.sort_by(|a, b| a.image().cmp(b.image()));
    Ok(places)
}
