// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The lines of a guest that paired hosts write, as they come.

use crate::daemon::Daemon;
use futures::StreamExt as _;
use futures::stream::{self, Stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use whimbrel_api::log::LogLine;
use whimbrel_link::wire::LogQuery;
use whimbrel_model::id::{GuestId, HostId};

/// A host that went away is asked again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const LINES_WAITING_MAX: usize = 64;

/// Follows the logs of all paired hosts, each from the newest line in `known` on.
pub(crate) fn follow(
    daemon: &Arc<Daemon>,
    guest: GuestId,
    known: &[LogLine],
) -> impl Stream<Item = LogLine> + Send + use<> {
    let newest = known.iter().map(|line| line.at_ms).max().unwrap_or(0);
    let hosts = daemon.peers.all().into_iter().map(|host| {
        let name = daemon.peers.name_of(host).to_string();
        let theirs: Vec<_> = known.iter().filter(|line| line.host == name).cloned().collect();
        let since_ms = theirs.iter().map(|line| line.at_ms).max().unwrap_or(newest);
        let (lines, news) = mpsc::channel(LINES_WAITING_MAX);
        let follower = Follower { daemon: daemon.clone(), guest, host, since_ms, theirs, lines };
        tokio::spawn(follower.run());
        ReceiverStream::new(news).boxed()
    });
    stream::select_all(hosts)
}

/// Follows one host, for as long as somebody listens.
struct Follower {
    daemon: Arc<Daemon>,
    guest: GuestId,
    host: HostId,
    since_ms: u64,
    /// Lines of this host that were told already and may come again.
    theirs: Vec<LogLine>,
    lines: mpsc::Sender<LogLine>,
}

impl Follower {
    async fn run(mut self) {
        let listener = self.lines.clone();
        tokio::select! {
            () = listener.closed() => {}
            () = self.ask_for_ever() => {}
        }
    }

    async fn ask_for_ever(&mut self) {
        loop {
            // A host that is down now may be up later; its silence was told with the old lines.
            let _ = self.ask_once().await;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn ask_once(&mut self) -> Option<()> {
        let query = LogQuery { guest: Some(self.guest), since_ms: self.since_ms, follow: true };
        let connection = self.daemon.peers.connect(self.host).await.ok()?;
        let mut lines = connection.log(query).await.ok()?;
        while let Some(json) = lines.next().await.ok()? {
            let Ok(line) = serde_json::from_slice::<LogLine>(&json) else { continue };
            if self.theirs.contains(&line) {
                continue;
            }
            if line.at_ms > self.since_ms {
                self.since_ms = line.at_ms;
                self.theirs.clear();
            }
            self.theirs.push(line.clone());
            self.lines.send(line).await.ok()?;
        }
        Some(())
    }
}
