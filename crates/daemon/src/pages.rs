// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Memory that is kept of guests that have left: kept within bounds, and gone with its guest.
//!
//! The carrying processes write it and read it. The daemon has no key, so all it can do is to say
//! what there is, and to drop it.

use crate::daemon::Daemon;
use crate::http::Caller;
use crate::story::About;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::MissedTickBehavior;
use whimbrel_api::Problem;
use whimbrel_api::guest::GuestRef;
use whimbrel_api::pages::{KeptElsewhere, KeptMemory, KeptMemoryList, MemoryDropped};
use whimbrel_model::id::{GuestId, GuestName, HandoffId, HostId};
use whimbrel_model::units::Bytes;
use whimbrel_page_store::{Dropped, Entry, HeldSummary, PageStore, StoreError};

whimbrel_model::codes! {
    NOTHING_KEPT = "pages/nothing-kept": "No memory of this guest is kept on this host.";
}

/// How often it is looked whether something must go.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Of the guests' pages, as they are counted.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// Sweeps, now and every minute.
pub(crate) async fn watch(daemon: Arc<Daemon>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sweep(&daemon).await;
    }
}

/// Drops what has expired, what is too much, and what no carrying process writes any more.
pub(crate) async fn sweep(daemon: &Daemon) {
    let (policy, layout) = (daemon.pages_policy(), daemon.layout().clone());
    let swept = with_store(daemon, move |store| {
        store.sweep(SystemTime::now(), &policy, |image| {
            // A carrying process has its place for as long as it lives.
            layout.carry(HandoffId(uuid::Uuid::from_bytes(image.0))).exists()
        })
    });
    match swept.await {
        Ok(dropped) => dropped.iter().for_each(|dropped| tell(daemon, dropped)),
        Err(problem) => daemon.story.problem(&About::default(), &problem.into()),
    }
}

fn tell(daemon: &Daemon, dropped: &Dropped) {
    let name = dropped.guest_name.clone().or_else(|| name_here(daemon, dropped.guest));
    let about = About { guest: name.map(|name| (dropped.guest, name)), ..About::default() };
    let of = about.guest.as_ref().map_or_else(|| dropped.guest.to_string(), |(_, n)| n.to_string());
    let what = match dropped.is_image {
        true => format!("the memory kept of {of}, {}, was dropped", Bytes(dropped.bytes)),
        false => format!("what was known of the memory kept of {of} elsewhere was dropped"),
    };
    daemon.story.info(&about, format!("{what}: {}", dropped.why));
}

fn name_here(daemon: &Daemon, guest: GuestId) -> Option<GuestName> {
    daemon.guests.get(guest)?.view().papers.as_ref().map(|papers| papers.guest.name.clone())
}

/// Removes all that is kept of a guest here: its image, and the key of an image elsewhere, which
/// nobody can open then.
pub(crate) async fn wipe(daemon: &Daemon, guest: GuestId) -> Result<(), Problem> {
    with_store(daemon, move |store| store.folder(guest).wipe()).await
}

/// Returns what this host knows of an image that `keeper` keeps of a guest that is here.
pub(crate) async fn held(daemon: &Daemon, guest: GuestId, keeper: HostId) -> Option<HeldSummary> {
    if !daemon.config().pages.is_kept {
        return None;
    }
    // Without it the guest moves as if it had never been there.
    let held = with_store(daemon, move |store| store.folder(guest).held_summary()).await.ok()?;
    held.filter(|held| held.keeper == keeper)
}

/// Returns how large an image that begins now may be; none where there is no room.
pub(crate) async fn room_for_image(daemon: &Daemon) -> Option<u64> {
    let policy = daemon.pages_policy();
    match with_store(daemon, move |store| store.room_for_image(&policy)).await {
        Ok(room) => {
            room.dropped.iter().for_each(|dropped| tell(daemon, dropped));
            Some(room.bytes_max).filter(|bytes| *bytes > 0)
        }
        Err(problem) => {
            daemon.story.problem(&About::default(), &problem.into());
            None
        }
    }
}

/// What is kept of guests that have left.
pub(crate) async fn list(daemon: &Daemon) -> Result<KeptMemoryList, Problem> {
    let policy = daemon.pages_policy();
    let expire_ms = u64::try_from(policy.expire.as_millis()).unwrap_or(u64::MAX);
    let (entries, space) = with_store(daemon, |store| Ok((store.list()?, store.space()?))).await?;
    let unfinished_bytes = entries.iter().map(|entry| entry.unfinished_bytes).sum();
    let image = |entry: Entry| {
        let image = entry.image?;
        let about = image.about.as_ref();
        Some(KeptMemory {
            guest: about.map(|about| about.guest.to_string()),
            guest_uuid: entry.guest.to_string(),
            went_to: about.map(|about| about.went_to.to_string()),
            created_at_ms: image.created_unix_ms,
            expires_at_ms: image.created_unix_ms.saturating_add(expire_ms),
            memory_bytes: about.map(|about| about.pages * PAGE_BYTES),
            bytes: image.bytes,
        })
    };
    let images: Vec<_> = entries.into_iter().filter_map(image).collect();
    let bytes = images.iter().map(|image| image.bytes).sum();
    Ok(KeptMemoryList {
        is_kept: daemon.config().pages.is_kept,
        images,
        bytes,
        budget_bytes: policy.budget_bytes(space, bytes + unfinished_bytes),
        unfinished_bytes,
    })
}

/// Drops what is kept of a guest, here or gone, or of all. What is being written is left alone.
pub(crate) async fn drop_kept(
    daemon: Arc<Daemon>,
    caller: Caller,
    wanted: Option<GuestRef>,
) -> Result<MemoryDropped, Problem> {
    let here = wanted.as_ref().and_then(|wanted| daemon.guests.find(wanted).ok());
    let here = here.map(|handle| handle.id);
    let typed = wanted.as_ref().map(GuestRef::to_string);
    let dropped = with_store(&daemon, move |store| {
        let mut dropped = Vec::new();
        for entry in store.list()? {
            let is_kept = entry.image.is_some() || entry.held.is_some();
            if is_kept && wanted.as_ref().is_none_or(|wanted| is_meant(&entry, wanted, here)) {
                let folder = store.folder(entry.guest);
                folder.drop_image()?;
                folder.drop_held()?;
                dropped.push(entry);
            }
        }
        Ok(dropped)
    })
    .await?;
    let mut sum = MemoryDropped::default();
    for entry in dropped {
        sum.image_count += u32::from(entry.image.is_some());
        sum.bytes += entry.image.as_ref().map_or(0, |image| image.bytes);
        sum.key_count += u32::from(entry.held.is_some());
        let left = entry.image.and_then(|image| image.about).map(|about| about.guest);
        let name = left.or_else(|| name_here(&daemon, entry.guest));
        let guest = name.map(|name| (entry.guest, name));
        let about = About { guest, caller: Some(caller), handoff: None };
        daemon.story.info(&about, "what was kept of its memory was dropped, as was said");
    }
    match typed {
        Some(guest) if sum == MemoryDropped::default() => Err(nothing_kept(&guest)),
        _ => Ok(sum),
    }
}

fn is_meant(entry: &Entry, wanted: &GuestRef, here: Option<GuestId>) -> bool {
    let left = entry.image.as_ref().and_then(|image| image.about.as_ref());
    match wanted {
        _ if here == Some(entry.guest) => true,
        GuestRef::Uuid(guest) => entry.guest == *guest,
        GuestRef::Name(name) => left.is_some_and(|about| about.guest == *name),
        GuestRef::Number(_) => false,
    }
}

fn nothing_kept(guest: &str) -> Problem {
    Problem::new(
        whimbrel_api::Kind::Refused,
        NOTHING_KEPT,
        format!("no memory of `{guest}` is kept here"),
        "see what is kept: `whimbrel pages list`",
    )
}

/// What the host that a guest came from keeps of its memory, as far as is known here.
pub(crate) async fn kept_elsewhere(daemon: &Daemon, guest: GuestId) -> Option<KeptElsewhere> {
    let held = with_store(daemon, move |store| store.folder(guest).held_summary());
    // What cannot be read is of no use, and goes with the next sweep.
    let held = held.await.ok()??;
    Some(KeptElsewhere {
        host: daemon.peers.name_of(held.keeper).to_string(),
        kept_at_ms: held.saved_unix_ms,
        memory_bytes: held.pages * PAGE_BYTES,
    })
}

/// Lets a thread wait for the disk.
async fn with_store<T: Send + 'static>(
    daemon: &Daemon,
    work: impl FnOnce(&PageStore) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let store = daemon.pages.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.expect("a panic ends the whole daemon").map_err(|error| Problem::of(&error))
}
