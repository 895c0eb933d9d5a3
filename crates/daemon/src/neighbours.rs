// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Watches which paired hosts can be reached, and keeps what must be known when one is gone.
//!
//! When a host can be reached again it is asked about every guest that this one believes to own:
//! an operator may have said meanwhile that this host was off, and the guest may run there. And
//! every host that can be reached is asked now and then for the papers of its guests, by which
//! they can be started elsewhere.

use crate::daemon::Daemon;
use crate::guests::{GuestEvent, GuestView};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use whimbrel_handoff::ownership::Answer;
use whimbrel_host::store::KeptRow;
use whimbrel_link::wire::WhoOwns;
use whimbrel_model::id::{Epoch, GuestId, HostId};

/// How often hosts are called.
const CALL_EVERY: Duration = Duration::from_secs(2);
/// How long a host may take to answer all that it is asked.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How often a host is asked for the papers of its guests.
const KEEP_EVERY: Duration = Duration::from_secs(20);
/// Most guests of one host whose papers are kept.
const KEPT_MAX: usize = 1000;

/// The papers of one guest, as its owner gives them away.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keepsake {
    guest: uuid::Uuid,
    epoch: u64,
    /// TOML.
    definition: String,
    /// JSON, once there is one.
    passport: Option<String>,
    is_transient: bool,
}

impl Keepsake {
    /// Returns the papers of a guest that this host owns.
    pub(crate) fn of(view: &GuestView) -> Option<Self> {
        let (Some(papers), Some(Answer::Owner { epoch, .. })) = (&view.papers, view.ownership)
        else {
            return None;
        };
        let row = papers.to_row();
        Some(Self {
            guest: view.id.0,
            epoch: epoch.0,
            definition: row.definition,
            passport: row.passport,
            is_transient: row.transient,
        })
    }

    fn into_row(self, host: HostId) -> Option<KeptRow> {
        // What cannot be read could not be started, either.
        let guest = crate::guests::parse_stored("kept papers", &self.definition).ok()?;
        Some(KeptRow {
            host,
            guest: GuestId(self.guest),
            name: guest.name.to_string(),
            epoch: Epoch(self.epoch),
            definition: self.definition,
            passport: self.passport,
            transient: self.is_transient,
            kept_at: SystemTime::now(),
        })
    }
}

/// What was asked of a host since it can be reached.
#[derive(Clone, Copy, Default)]
struct Contact {
    /// It has said something certain about every guest owned here.
    has_met: bool,
    /// When it was last asked for its papers.
    kept_at: Option<Instant>,
}

/// Watches, for ever.
pub(crate) async fn watch(daemon: Arc<Daemon>) {
    let mut reachable: BTreeMap<HostId, Contact> = BTreeMap::new();
    daemon.guests.settled().await;
    loop {
        let calls = daemon.peers.all().into_iter().map(|host| {
            let (daemon, before) = (&daemon, reachable.get(&host).copied().unwrap_or_default());
            async move {
                let called = tokio::time::timeout(ANSWER_MAX, call(daemon, host, before)).await;
                Some((host, called.ok()??))
            }
        });
        reachable = join_all(calls).await.into_iter().flatten().collect();
        tokio::time::sleep(CALL_EVERY).await;
    }
}

/// Calls a host. Returns nothing if it does not answer.
async fn call(daemon: &Daemon, host: HostId, before: Contact) -> Option<Contact> {
    let kept_at = match before.kept_at {
        Some(kept_at) if kept_at.elapsed() < KEEP_EVERY => {
            is_there(daemon, host).await.then_some(kept_at)?
        }
        _ => keep_papers(daemon, host).await?,
    };
    let has_met = before.has_met || meet(daemon, host).await;
    Some(Contact { has_met, kept_at: Some(kept_at) })
}

/// Keeps the papers of all guests that a host owns now. Returns when it was asked; nothing if it
/// does not answer.
async fn keep_papers(daemon: &Daemon, host: HostId) -> Option<Instant> {
    let asked_at = Instant::now();
    let mut lines = daemon.peers.connect(host).await.ok()?.papers().await.ok()?;
    let mut rows = Vec::new();
    while let Some(line) = lines.next().await.ok()? {
        if rows.len() < KEPT_MAX
            && let Ok(keepsake) = serde_json::from_slice::<Keepsake>(&line)
        {
            rows.extend(keepsake.into_row(host));
        }
    }
    let kept = daemon.store.call(move |tables| tables.replace_kept(host, &rows)).await;
    if let Err(error) = kept {
        tracing::warn!(%error, "the papers of another host's guests could not be kept");
    }
    Some(asked_at)
}

async fn is_there(daemon: &Daemon, host: HostId) -> bool {
    match daemon.peers.connect(host).await {
        Ok(connection) => connection.ping().await.is_ok(),
        Err(_) => false,
    }
}

/// Asks a host that was not there about every guest owned here. Returns whether it has answered
/// for all of them.
async fn meet(daemon: &Daemon, host: HostId) -> bool {
    for (guest, handle) in daemon.guests.owned_by(daemon.host_id()) {
        let Some(answer) = ask(daemon, host, guest).await else { return false };
        if let Answer::Owner { owner, epoch, .. } = answer
            && owner == host
        {
            // A guest that was forgotten meanwhile is nobody's concern.
            let _ = handle.send(GuestEvent::Heard { owner, epoch }).await;
        }
    }
    true
}

async fn ask(daemon: &Daemon, host: HostId, guest: GuestId) -> Option<Answer> {
    let connection = daemon.peers.connect(host).await.ok()?;
    connection.who_owns(WhoOwns { guest, handoff: None }).await.ok()
}
