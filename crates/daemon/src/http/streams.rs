// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What is not one answer: events, the log as it grows, consoles.

use super::answer::{Ask, OfGuest, Refusal};
use super::router::{App, stopped};
use super::{Caller, ConsoleStream, EventStream};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use whimbrel_api::console::{ConsoleQuery, PROTOCOL};
use whimbrel_api::event::{Event, EventQuery};
use whimbrel_api::limits::{LOG_LINES_DEFAULT, LOG_LINES_MAX, SCROLLBACK_BYTES_MAX};
use whimbrel_api::log::LogQuery;
use whimbrel_api::problem::code;
use whimbrel_api::{Kind, Problem};

/// How often something is sent on a stream where nothing happens.
const HEARTBEAT_TIME: Duration = Duration::from_secs(15);

pub(super) async fn log(
    State(app): State<App>,
    caller: Caller,
    Ask(mut query): Ask<LogQuery>,
) -> Result<Response, Refusal> {
    query.limit = Some(query.limit.unwrap_or(LOG_LINES_DEFAULT).min(LOG_LINES_MAX));
    if query.follow {
        let lines = app.backend.follow_log(caller, query).await?;
        return Ok(stream(lines, app.stop));
    }
    Ok(Json(app.backend.log(caller, query).await?).into_response())
}

pub(super) async fn events(
    State(app): State<App>,
    caller: Caller,
    Ask(query): Ask<EventQuery>,
) -> Result<Response, Refusal> {
    let events = app.backend.events(caller, query).await?;
    Ok(stream(events, app.stop))
}

fn stream(events: EventStream, stop: watch::Receiver<bool>) -> Response {
    let encoded =
        events.take_until(Box::pin(stopped(stop))).map(|event| Ok::<_, Infallible>(encode(&event)));
    Sse::new(encoded).keep_alive(KeepAlive::new().interval(HEARTBEAT_TIME)).into_response()
}

fn encode(event: &Event) -> axum::response::sse::Event {
    let json = serde_json::to_string(event).expect("events are plain data");
    axum::response::sse::Event::default().event(event.kind()).data(json)
}

pub(super) async fn console(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
    Ask(mut query): Ask<ConsoleQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    if !asks_for_console(request.headers()) {
        return Err(no_upgrade().into());
    }
    query.scrollback_bytes = query.scrollback_bytes.map(|bytes| bytes.min(SCROLLBACK_BYTES_MAX));
    let console = app.backend.console(caller, guest, query).await?;
    tokio::spawn(pass_on(request, console, app.stop));
    let upgrade = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, upgrade).into_response())
}

fn asks_for_console(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|protocol| protocol.as_bytes() == PROTOCOL.as_bytes())
}

fn no_upgrade() -> Problem {
    Problem::new(
        Kind::Usage,
        code::BAD_REQUEST,
        format!("a console needs the headers `Connection: upgrade` and `Upgrade: {PROTOCOL}`"),
        "attach with `whimbrel console GUEST`",
    )
}

/// Passes frames on, in both directions, until one side ends or the server does.
async fn pass_on(
    request: Request,
    mut console: Box<dyn ConsoleStream>,
    stop: watch::Receiver<bool>,
) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let mut client = TokioIo::new(upgraded);
    tokio::select! {
        // An error is a side that went away, which is how consoles end.
        _ = tokio::io::copy_bidirectional(&mut client, &mut console) => {}
        () = stopped(stop) => {}
    }
}
