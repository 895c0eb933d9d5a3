// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Tells a paired host what happened here, and what happens from then on.

use crate::daemon::Daemon;
use crate::story::from_unix_ms;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use whimbrel_api::event::Event;
use whimbrel_api::log::LogLine;
use whimbrel_host::store::EventFilter;
use whimbrel_link::conn::{FrameError, LineSink, Responder};
use whimbrel_link::wire::LogQuery;

pub(super) async fn log(
    daemon: &Arc<Daemon>,
    query: LogQuery,
    responder: Responder,
) -> Result<(), FrameError> {
    // Subscribed before the old lines are read: a line may come twice, but none is missed.
    let mut news = daemon.story.subscribe();
    let filter = EventFilter {
        guest: query.guest,
        since: (query.since_ms > 0).then(|| from_unix_ms(query.since_ms)),
        ..EventFilter::default()
    };
    let old = match daemon.story.read(filter).await {
        Ok(old) => old,
        Err(error) => {
            let problem = whimbrel_model::problem::Problem::from(&error);
            return responder.problem(&problem).await;
        }
    };
    let mut lines = responder.lines();
    for line in &old {
        send(&mut lines, line).await?;
    }
    if !query.follow {
        return lines.end().await;
    }
    let guest = query.guest.map(|guest| guest.to_string());
    loop {
        tokio::select! {
            () = lines.gone() => return Ok(()),
            event = news.recv() => match event {
                Ok(Event::Log(line)) => {
                    let is_meant = guest.is_none() || line.guest_uuid == guest;
                    if is_meant && old.last() != Some(&line) {
                        send(&mut lines, &line).await?;
                    }
                }
                Ok(_) => {}
                // The peer asks again, from the last line it has.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return lines.end().await,
            }
        }
    }
}

async fn send(lines: &mut LineSink, line: &LogLine) -> Result<(), FrameError> {
    lines.send(serde_json::to_vec(line).expect("a line is JSON")).await
}
