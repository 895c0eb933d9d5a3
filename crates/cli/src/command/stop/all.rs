// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel stop --all`: before a host goes down.
//!
//! All guests are asked at once, so the slowest of them decides how long it takes. What cannot be
//! stopped is named, and does not keep the others.

use super::request;
use crate::Done;
use crate::context::{Context, End};
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::time::{Duration, Instant};
use whimbrel_api::guest::{GuestList, GuestState, GuestSummary};
use whimbrel_api::limits::STOP_TIMEOUT_MS_DEFAULT;
use whimbrel_api::problem::code;
use whimbrel_api::{Client, Problem};

/// How often a guest that is on its way is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) is_now: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) is_forced: bool,
}

/// What became of a guest; none if it is not on this host any more.
type Stopped = Result<Option<GuestSummary>, Problem>;

pub(super) async fn run(cx: &mut Context, how: How) -> Done {
    let timeout = how.timeout.unwrap_or(Duration::from_millis(STOP_TIMEOUT_MS_DEFAULT));
    let deadline = Instant::now() + timeout;
    let client = cx.client.clone();
    let mut guests = client.guests(false).await?.guests;
    guests.retain(|guest| guest.state != GuestState::Stopped && !guest.is_foreign);
    let mut stops: FuturesUnordered<_> = guests
        .iter()
        .map(async |guest| (&guest.name, stop(&client, guest, how, deadline).await))
        .collect();
    let (mut stopped, mut kinds) = (Vec::new(), Vec::new());
    while let Some((name, outcome)) = stops.next().await {
        match outcome {
            Ok(Some(guest)) => {
                cx.printer.say(&format!("{name} is {}.", guest.state));
                stopped.push(guest);
            }
            Ok(None) => cx.printer.say(&format!("{name} is not on this host any more.")),
            Err(problem) => {
                kinds.push(problem.kind);
                cx.printer.problem(&problem);
            }
        }
    }
    if cx.printer.is_json {
        cx.printer.json(&GuestList { guests: stopped, hosts_silent: Vec::new() });
    }
    Ok(kinds.into_iter().max_by_key(|kind| kind.exit_code()).map_or(End::Done, End::Told))
}

async fn stop(client: &Client, guest: &GuestSummary, how: How, deadline: Instant) -> Stopped {
    // By uuid: the name could be another guest's by now.
    let uuid = guest.uuid.as_str();
    if how.is_forced && guest.moving_with.is_some() {
        stay(client, uuid, deadline).await;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let mut outcome = client.stop(uuid, &request(how.is_now, Some(left))).await;
    if how.is_forced && outcome.is_err() {
        outcome = client.stop(uuid, &request(true, None)).await;
    }
    let Err(problem) = outcome else { return outcome.map(Some) };
    // It may have ended by itself, or moved away, just before it was asked.
    match client.guest(uuid).await {
        Ok(found) if found.summary.state == GuestState::Stopped => Ok(Some(found.summary)),
        Err(gone) if gone.code == code::GUEST_NOT_FOUND => Ok(None),
        _ => Err(problem),
    }
}

/// Gives a guest's migration up, or sees it through where it is too late for that.
async fn stay(client: &Client, uuid: &str, deadline: Instant) {
    // Refused where it is too late; then it is awaited.
    let _ = client.cancel(uuid).await;
    while Instant::now() < deadline {
        match client.guest(uuid).await {
            Ok(found) if found.summary.moving_with.is_some() => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            _ => return,
        }
    }
}
