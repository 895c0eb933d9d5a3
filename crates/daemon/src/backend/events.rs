// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What happened, and what happens: the log and the event stream.

use crate::daemon::Daemon;
use crate::foreign;
use crate::http::EventStream;
use crate::peers_view;
use crate::story::from_unix_ms;
use futures::StreamExt;
use futures::stream;
use std::sync::Arc;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use whimbrel_api::Problem;
use whimbrel_api::event::{Event, EventQuery, Missed};
use whimbrel_api::guest::GuestRef;
use whimbrel_api::limits::LOG_LINES_MAX;
use whimbrel_api::log::{LogPage, LogQuery};
use whimbrel_api::migration::Migration;
use whimbrel_host::store::EventFilter;
use whimbrel_model::id::GuestId;

/// Returns the lines of this host and, where a guest is named, of the hosts it has been on.
pub(super) async fn log(daemon: &Arc<Daemon>, query: &LogQuery) -> Result<LogPage, Problem> {
    let guest = match &query.guest {
        Some(name) => Some(guest_in_log(daemon, name).await?),
        None => None,
    };
    let limit = query.limit.unwrap_or(LOG_LINES_MAX).min(LOG_LINES_MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let filter = EventFilter {
        guest,
        since: query.since_at_ms.map(from_unix_ms),
        limit: Some(limit),
        ..EventFilter::default()
    };
    let own = daemon.story.read(filter).await.map_err(|error| Problem::of(&error))?;
    let mut page = LogPage { lines: own, hosts_silent: Vec::new() };
    if let Some(guest) = guest {
        peers_view::add_log(daemon, guest, query.since_at_ms, &mut page).await;
    }
    // Stable: lines of one host stay in the order they were written.
    page.lines.sort_by_key(|line| line.at_ms);
    let surplus = page.lines.len().saturating_sub(limit);
    page.lines.drain(..surplus);
    Ok(page)
}

/// Finds the guest a person means: one that is here, or one that the log still remembers.
pub(super) async fn guest_in_log(daemon: &Daemon, name: &str) -> Result<GuestId, Problem> {
    let missing = || Problem::guest_not_found(name);
    let wanted: GuestRef = name.parse().map_err(|_| missing())?;
    if let Ok(guest) = daemon.guests.find(&wanted) {
        return Ok(guest.id);
    }
    if let GuestRef::Uuid(id) = wanted {
        return Ok(id);
    }
    let rows = daemon.store.call(|tables| tables.events(&EventFilter::default())).await;
    let rows = rows.map_err(|error| Problem::of(&error))?;
    let mut newest_first = rows.iter().rev();
    let found = newest_first.find(|row| row.guest_name.as_deref() == Some(name));
    found.and_then(|row| row.guest).ok_or_else(missing)
}

pub(super) async fn follow_log(
    daemon: &Arc<Daemon>,
    query: &LogQuery,
) -> Result<EventStream, Problem> {
    // Subscribed before the old lines are read: a line may come twice, but none is missed.
    let news = live(daemon);
    let page = log(daemon, query).await?;
    let guest = match &query.guest {
        Some(name) => Some(guest_in_log(daemon, name).await?),
        None => None,
    };
    let of_peers = match guest {
        Some(guest) => peers_view::follow(daemon, guest, &page.lines).map(Event::Log).boxed(),
        None => stream::empty().boxed(),
    };
    let last = page.lines.iter().rfind(|line| line.host == daemon.name.as_str()).cloned();
    let old = stream::iter(page.lines.into_iter().map(Event::Log));
    let wanted = guest.map(|guest| guest.to_string());
    let news = news.filter_map(move |event| {
        let keep = match &event {
            Event::Log(line) => {
                Some(line) != last.as_ref() && (wanted.is_none() || line.guest_uuid == wanted)
            }
            Event::Missed(_) => true,
            _ => false,
        };
        std::future::ready(keep.then_some(event))
    });
    Ok(old.chain(stream::select(news, of_peers)).boxed())
}

pub(super) async fn follow(
    daemon: &Arc<Daemon>,
    query: &EventQuery,
) -> Result<EventStream, Problem> {
    let news = live(daemon);
    if let Some(id) = &query.migration {
        return migration(daemon, id, news).await;
    }
    let Some(name) = &query.guest else { return Ok(news) };
    let missing = || Problem::guest_not_found(name);
    let guest = foreign::ours(daemon, &name.parse().map_err(|_| missing())?).await?;
    let view = guest.view();
    let summary = view.summary(&daemon.name).await.ok_or_else(missing)?;
    let (uuid, name) = (summary.uuid.clone(), summary.name.clone());
    let moving = view.moving.as_ref().map(|moving| (*moving.migration).clone());
    let first = std::iter::once(Event::Guest(summary))
        .chain(moving.map(|migration| Event::Migration(Box::new(migration))));
    let about_it = move |event: &Event| match event {
        Event::Guest(guest) => guest.uuid == uuid,
        Event::GuestGone(gone) => gone.uuid == uuid,
        Event::Migration(migration) => migration.guest_uuid == uuid,
        Event::Log(line) => line.guest.as_deref() == Some(&name),
        Event::Missed(_) => true,
        Event::Paired(_) => false,
    };
    let news = news.filter(move |event| std::future::ready(about_it(event)));
    Ok(stream::iter(first).chain(news).boxed())
}

/// One migration, from how it stands to its outcome.
async fn migration(
    daemon: &Arc<Daemon>,
    id: &str,
    news: EventStream,
) -> Result<EventStream, Problem> {
    let now = super::moves::one(daemon, id).await?;
    let is_over = now.outcome.is_some();
    let first = stream::iter([Event::Migration(Box::new(now))]);
    if is_over {
        return Ok(first.boxed());
    }
    let id = id.to_owned();
    let its = news.filter_map(move |event| {
        let its = match event {
            Event::Migration(migration) if migration.id == id => Some(migration),
            _ => None,
        };
        std::future::ready(its)
    });
    Ok(first.chain(until_outcome(its)).boxed())
}

/// Ends the stream after the event that carries the outcome.
fn until_outcome(
    its: impl stream::Stream<Item = Box<Migration>> + Send + 'static,
) -> impl stream::Stream<Item = Event> + Send {
    its.scan(false, |is_over, migration| {
        if *is_over {
            return std::future::ready(None);
        }
        *is_over = migration.outcome.is_some();
        std::future::ready(Some(Event::Migration(migration)))
    })
    .scan(false, |was_last, event| {
        let goes_on = !*was_last;
        *was_last = matches!(&event, Event::Migration(migration) if migration.outcome.is_some());
        std::future::ready(goes_on.then_some(event))
    })
}

fn live(daemon: &Daemon) -> EventStream {
    BroadcastStream::new(daemon.story.subscribe())
        .map(|event| match event {
            Ok(event) => event,
            Err(BroadcastStreamRecvError::Lagged(event_count)) => {
                Event::Missed(Missed { event_count })
            }
        })
        .boxed()
}
