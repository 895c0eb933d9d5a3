// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Room for a guest that arrives, made by guests that consented to it (`memory_min`).
//!
//! They are squeezed when the migration starts, no further than they agreed to, and only where the
//! host has not enough without it. Whenever there is room again, which is at once where the guest
//! did not come after all, they get it back, in the order of their numbers.

use crate::daemon::Daemon;
use crate::guests::{GuestView, Papers};
use crate::story::About;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use whimbrel_engine::Instance;
use whimbrel_host::machine;
use whimbrel_model::id::GuestId;
use whimbrel_model::plan::memory::{Consent, give_back, squeeze};
use whimbrel_model::units::Bytes;

/// How long guests may take to give back what they were asked for.
const SQUEEZE_MAX: Duration = Duration::from_secs(10);
/// What is asked for beyond what is missing: others use memory, too, and pages that a guest never
/// touched give nothing back. What is too much is given back at once.
const SPARE: Bytes = Bytes::mib(64);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often to look whether squeezed guests can have their memory again, if nobody says so.
const ROOM_EVERY: Duration = Duration::from_secs(5);

/// A guest that runs here and consented to be squeezed.
struct Consenting {
    id: GuestId,
    name: String,
    engine: Arc<dyn Instance>,
    size: Bytes,
    min: Bytes,
}

impl Consenting {
    fn of(view: &GuestView) -> Option<Self> {
        // One that is on its way is left alone: its balloon is part of what travels.
        if view.moving.is_some() {
            return None;
        }
        let (papers, engine) = (view.papers.as_ref()?, view.engine.clone()?);
        let memory = &papers.guest.memory;
        let name = papers.guest.name.to_string();
        Some(Self { id: view.id, name, engine, size: memory.size, min: memory.min? })
    }

    fn consent(&self) -> Consent {
        let resident = machine::resident(self.engine.process().pid).unwrap_or_default();
        Consent { size: self.size, min: self.min, resident }
    }
}

fn consenting(daemon: &Daemon) -> Vec<Consenting> {
    daemon.guests.list().iter().filter_map(|guest| Consenting::of(&guest.view())).collect()
}

/// Returns what the guests here would give back.
pub(crate) fn reclaimable(daemon: &Daemon) -> Bytes {
    Bytes(consenting(daemon).iter().map(|guest| guest.consent().gives().0).sum())
}

/// Makes room for a guest that arrives, as far as the others consented to. Whether it is enough is
/// for whoever starts its engine to see.
pub(crate) async fn make_room(daemon: &Daemon, papers: &Papers) {
    let missing = daemon.memory.claim(papers);
    if missing == Bytes(0) {
        return;
    }
    let guests = consenting(daemon);
    let consents: Vec<_> = guests.iter().map(Consenting::consent).collect();
    let asked = missing.saturating_add(SPARE);
    for (guest, target) in guests.iter().zip(squeeze(asked, &consents)) {
        if let Some(target) = target {
            let why = format!("to make room for `{}`", papers.guest.name);
            aim(daemon, guest, target, &why).await;
        }
    }
    let deadline = Instant::now() + SQUEEZE_MAX;
    while daemon.memory.claim(papers) > Bytes(0) && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
}

async fn aim(daemon: &Daemon, guest: &Consenting, target: Bytes, why: &str) {
    let about = About::default();
    if let Err(error) = guest.engine.set_memory_target(target).await {
        let name = &guest.name;
        return daemon
            .story
            .warn(&about, format!("the balloon of `{name}` does not move: {error}"));
    }
    daemon.memory.note_squeezed(guest.id, (target < guest.size).then_some(target));
    daemon
        .story
        .info(&about, format!("`{}` has {target} of {} now, {why}", guest.name, guest.size));
}

/// A guest has arrived that its last host may have squeezed.
pub(crate) fn note_arrived(daemon: &Daemon, papers: &Papers) {
    if let Some(min) = papers.guest.memory.min {
        daemon.memory.note_squeezed(papers.id, Some(min));
        daemon.memory.has_room.notify_one();
    }
}

/// Gives squeezed guests their memory again whenever there is room, for ever.
pub(crate) async fn watch(daemon: Arc<Daemon>) {
    // What the daemon before this one did to them, nobody knows.
    for guest in consenting(&daemon) {
        daemon.memory.note_squeezed(guest.id, Some(guest.min));
    }
    loop {
        // Whichever comes first.
        let _ = timeout(ROOM_EVERY, daemon.memory.has_room.notified()).await;
        give(&daemon).await;
    }
}

async fn give(daemon: &Daemon) {
    let squeezed = daemon.memory.squeezed();
    let guests = consenting(daemon);
    let waiting: Vec<_> =
        guests.iter().filter_map(|guest| Some((guest, *squeezed.get(&guest.id)?))).collect();
    for id in squeezed.keys().filter(|id| daemon.guests.get(**id).is_none()) {
        daemon.memory.note_squeezed(*id, None);
    }
    let wishes: Vec<_> = waiting.iter().map(|(guest, target)| (*target, guest.size)).collect();
    let targets = give_back(daemon.memory.room(), &wishes);
    for ((guest, _), target) in waiting.into_iter().zip(targets) {
        if let Some(target) = target {
            aim(daemon, guest, target, "as there is room again").await;
        }
    }
}
