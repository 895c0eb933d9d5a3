// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The domains that are none of our guests.
//!
//! `xl` is slow, so it is asked only after xenstored has said that a domain has come or gone, and
//! where there is one to be shown: of what it does just now xenstored says nothing.

use super::instance::store_failed;
use super::store::Store;
use super::xl::{self, Domain};
use crate::contract::Foreign;
use crate::error::EngineError;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use whimbrel_model::id::GuestId;

/// What xl puts behind the name of a domain that is being moved.
const MOVING: [&str; 2] = ["--incoming", "--migratedaway"];

/// Those that there were when xl was asked last.
#[derive(Debug, Default)]
pub(super) struct Domains(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    /// How often domains have come or gone.
    changes: Arc<AtomicU64>,
    /// Counts them, for as long as xenstored can be heard.
    listener: JoinHandle<()>,
    /// As of so many changes.
    seen: Option<u64>,
    ids: BTreeSet<GuestId>,
}

impl Domains {
    /// Returns the domains that are none of `ours`.
    pub(super) async fn besides(
        &self,
        ours: &BTreeSet<GuestId>,
    ) -> Result<Vec<Foreign>, EngineError> {
        let mut known = self.0.lock().await;
        let known = match &mut *known {
            Some(known) if !known.listener.is_finished() => known,
            deaf => deaf.insert(Known::listen().await?),
        };
        // Before xl is asked: what changes meanwhile is asked for once more.
        let changes = known.changes.load(Ordering::Relaxed);
        if known.seen == Some(changes) && known.ids.is_subset(ours) {
            return Ok(Vec::new());
        }
        let domains = xl::domains("").await?;
        known.ids = domains.iter().filter_map(id_of_guest).collect();
        known.seen = Some(changes);
        Ok(foreign(domains, ours))
    }
}

impl Known {
    async fn listen() -> Result<Known, EngineError> {
        let store = Store::open().await.map_err(store_failed)?;
        let mut heard = store.watch_domains().await.map_err(store_failed)?;
        let changes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&changes);
        let listener = tokio::spawn(async move {
            while heard.next().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Known { changes, listener, seen: None, ids: BTreeSet::new() })
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Returns which guest a domain is; none for the control domain, and for one that has no identity.
fn id_of_guest(domain: &Domain) -> Option<GuestId> {
    let id: GuestId = domain.id.parse().ok()?;
    (domain.number != 0 && !id.0.is_nil()).then_some(id)
}

fn foreign(domains: Vec<Domain>, ours: &BTreeSet<GuestId>) -> Vec<Foreign> {
    let foreign = domains.into_iter().filter_map(|domain| {
        let id = id_of_guest(&domain).filter(|id| !ours.contains(id))?;
        // Half of a guest that somebody moves with xl.
        let is_moving = MOVING.iter().any(|end| domain.name.ends_with(end));
        (!is_moving).then(|| Foreign {
            id,
            run: domain.run(),
            memory: domain.memory,
            cpu_count: domain.cpu_count,
            cpu_time: domain.cpu_time,
            name: domain.name,
        })
    });
    foreign.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither the control domain, nor a guest of ours, nor what is being moved, nor what has no
    /// identity.
    #[test]
    fn only_whole_guests_of_others_are_foreign() {
        let line = |name: &str, number: u32, id: &str| {
            let line = format!("{name} {number} 64 1 -b---- 4.5 {id} - -");
            xl::parse(&line).unwrap()
        };
        let id = |last: u8| format!("6f3f7a52-61c2-4b7e-9f3e-0a4f0f6a00{last:02}");
        let nil = "00000000-0000-0000-0000-000000000000";
        let domains = vec![
            line("Domain-0", 0, nil),
            line("web1", 1, &id(1)),
            line("db1", 2, &id(2)),
            line("db2--incoming", 3, &id(3)),
            line("db3--migratedaway", 4, &id(4)),
            line("odd", 5, nil),
        ];
        let ours = BTreeSet::from([id(1).parse().unwrap()]);
        let found = foreign(domains, &ours);
        let names: Vec<_> = found.iter().map(|foreign| foreign.name.as_str()).collect();
        assert_eq!(names, ["db1"]);
        assert_eq!(found[0].run, whimbrel_model::run_state::RunState::Running);
    }
}
