// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Watches which paired hosts can be reached. When one can be reached again it is asked about
//! every guest that this host believes to own: an operator may have said meanwhile that this host
//! was off, and the guest may run there.

use crate::daemon::Daemon;
use crate::guests::GuestEvent;
use futures::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use whimbrel_handoff::ownership::Answer;
use whimbrel_link::wire::WhoOwns;
use whimbrel_model::id::{GuestId, HostId};

/// How often hosts are called.
const CALL_EVERY: Duration = Duration::from_secs(2);
/// How long a host may take to answer all that it is asked.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Watches, for ever.
pub(crate) async fn watch(daemon: Arc<Daemon>) {
    let mut reachable = BTreeSet::new();
    loop {
        let calls = daemon.peers.all().into_iter().map(|host| {
            let (daemon, is_known) = (&daemon, reachable.contains(&host));
            async move {
                let met = async {
                    if is_known { is_there(daemon, host).await } else { meet(daemon, host).await }
                };
                let is_met = tokio::time::timeout(ANSWER_MAX, met).await.unwrap_or(false);
                is_met.then_some(host)
            }
        });
        reachable = join_all(calls).await.into_iter().flatten().collect();
        tokio::time::sleep(CALL_EVERY).await;
    }
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
    is_there(daemon, host).await
}

async fn ask(daemon: &Daemon, host: HostId, guest: GuestId) -> Option<Answer> {
    let connection = daemon.peers.connect(host).await.ok()?;
    connection.who_owns(WhoOwns { guest, handoff: None }).await.ok()
}
