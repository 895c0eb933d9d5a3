// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What paired hosts may ask of this one.
//!
//! Only an authenticated stream gets here. A peer may ask about guests it is concerned with, offer
//! one, and talk about a handoff it is part of; everything it sends has passed the limits of the
//! wire types, and nothing it says changes who owns a guest except through the machine.

mod log;

use crate::backend;
use crate::daemon::Daemon;
use crate::guests::{GuestEvent, GuestTask};
use crate::http::Caller;
use crate::migrate::{self, Asker, Call, Incoming, answer_facts};
use crate::neighbours::Keepsake;
use crate::ownership::Ownership;
use crate::story::About;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use whimbrel_api::Problem;
use whimbrel_api::console::ConsoleQuery;
use whimbrel_handoff::ownership::{Answer, EngineView};
use whimbrel_link::carrier::Control;
use whimbrel_link::conn::{FrameError, Incoming as Asked, Responder};
use whimbrel_link::listener::{Arrival, CarryArrival, PairArrival};
use whimbrel_link::wire::{self, Hello, Opening, PeerStatus, Request};
use whimbrel_model::id::{GuestId, HandoffId};

whimbrel_model::codes! {
    NOTHING_CERTAIN = "ownership/nothing-certain": "A host was asked who owns a guest and cannot say.";
    NO_REPORT = "peer/no-report": "A host was asked for a report that it does not have.";
}

/// Who may wait until the guests are taken up.
const WAITING_MAX: usize = 64;

/// Serves whoever gets in through the port, for ever.
///
/// Until the guests are taken up everybody waits, but for what is carried: an engine may not answer
/// the daemon that asks it before a page has come through here.
pub(crate) async fn serve(
    daemon: Arc<Daemon>,
    mut arrivals: mpsc::Receiver<Arrival>,
    mut guests_are_known: oneshot::Receiver<()>,
) {
    let mut waiting = VecDeque::new();
    while waiting.len() < WAITING_MAX {
        tokio::select! {
            biased;
            _ = &mut guests_are_known => break,
            arrival = arrivals.recv() => match arrival {
                Some(Arrival::Carry(arrival)) => {
                    let daemon = daemon.clone();
                    tokio::spawn(async move { adopt(&daemon, arrival).await });
                }
                Some(arrival) => waiting.push_back(arrival),
                None => return,
            }
        }
    }
    if waiting.len() == WAITING_MAX {
        let _ = guests_are_known.await;
    }
    loop {
        let arrival = match waiting.pop_front() {
            Some(arrival) => arrival,
            None => match arrivals.recv().await {
                Some(arrival) => arrival,
                None => return,
            },
        };
        let daemon = daemon.clone();
        tokio::spawn(async move {
            match arrival {
                Arrival::Carry(arrival) => adopt(&daemon, arrival).await,
                Arrival::Pair(arrival) => pair(&daemon, arrival).await,
                Arrival::Refused(line) => daemon.story.warn(&About::default(), line),
                Arrival::Peer(stream) => {
                    let hello = Hello::ours(daemon.name.clone());
                    // What was not understood has been told to the peer, which has the problem.
                    match Asked::receive(stream, &hello).await {
                        Ok(asked) => answer_if_paired(&daemon, asked).await,
                        Err(error) => tracing::warn!(%error, "a peer was not understood"),
                    }
                }
            }
        });
    }
}

/// Hands a channel to the process that carries its handoff. There is none: the channel closes.
async fn adopt(daemon: &Daemon, arrival: CarryArrival) {
    fault_point!("carrier/adopt");
    let carrier = Control::new(&daemon.layout().carry(arrival.handoff));
    if let Err(error) = carrier.adopt(arrival.stream).await {
        let error = whimbrel_model::problem::chain(&error);
        tracing::warn!(from = %arrival.from, handoff = %arrival.handoff, error, "nobody carries this");
    }
}

async fn pair(daemon: &Daemon, arrival: PairArrival) {
    let about = About::default();
    let from = arrival.from;
    match daemon.peers.pair(arrival).await {
        Ok(Some(paired)) => {
            let name = paired.introduction.name;
            daemon.story.info(&about, format!("paired with `{name}` ({})", paired.words));
        }
        Ok(None) => daemon.story.warn(&about, format!("{from} wanted to pair and was refused")),
        Err(error) => {
            daemon.story.warn(&about, format!("{from} wanted to pair: {error}"));
        }
    }
}

/// Answers, but no longer than the two are paired: a console or a log may be open for days.
async fn answer_if_paired(daemon: &Arc<Daemon>, asked: Asked) {
    if asked.request == Request::Unpair {
        return answer(daemon, asked).await;
    }
    let peer = asked.responder.peer();
    tokio::select! {
        () = answer(daemon, asked) => {}
        () = daemon.peers.forgotten(peer) => tracing::info!(%peer, "forgotten in mid-sentence"),
    }
}

async fn answer(daemon: &Arc<Daemon>, asked: Asked) {
    let Asked { request, responder, .. } = asked;
    let (peer, what) = (responder.name().clone(), name(&request));
    let answered = match request {
        Request::Ping => responder.status(status(daemon).await).await,
        Request::Facts(query) => {
            let asker = Asker {
                host: responder.peer(),
                name: responder.name().clone(),
                address: responder.address().ip(),
            };
            match answer_facts(daemon, &asker, query).await {
                Ok(json) => responder.document(json).await,
                Err(problem) => responder.problem(&problem.into()).await,
            }
        }
        Request::WhoOwns(query) => match who_owns(daemon, query.guest) {
            Some(answer) => responder.owner(answer).await,
            None => responder.problem(&nothing_certain(query.guest).into()).await,
        },
        Request::Handoff(opening) => handoff(daemon, opening, responder).await,
        Request::Log(query) => log::log(daemon, query, responder).await,
        Request::Guests => {
            let json = serde_json::to_vec(&backend::own_guests(daemon).await);
            responder.document(json.expect("guests are JSON")).await
        }
        Request::Console(query) => console(daemon, query, responder).await,
        Request::Papers => papers(daemon, responder).await,
        Request::Report(query) => {
            match migrate::report_for(daemon, responder.name(), query).await {
                Some(json) => responder.document(json).await,
                None => responder.problem(&no_report(query.handoff).into()).await,
            }
        }
        Request::Measure => responder.measure().await,
        Request::Unpair => match daemon.peers.unpaired_by(responder.peer()).await {
            Ok(()) => responder.done().await,
            Err(problem) => responder.problem(&problem.into()).await,
        },
    };
    if let Err(error) = answered {
        tracing::info!(%peer, what, %error, "a peer went away before it had its answer");
    }
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Ping => "ping",
        Request::Facts(_) => "facts",
        Request::WhoOwns(_) => "who owns",
        Request::Handoff(_) => "handoff",
        Request::Log(_) => "log",
        Request::Guests => "guests",
        Request::Console(_) => "console",
        Request::Papers => "papers",
        Request::Report(_) => "report",
        Request::Unpair => "unpair",
        Request::Measure => "measure",
    }
}

async fn status(daemon: &Daemon) -> PeerStatus {
    let memory = daemon.memory.facts();
    let guests = daemon.guests.list();
    let running = guests.iter().filter(|guest| guest.view().engine.is_some()).count();
    PeerStatus {
        software: Hello::ours(daemon.name.clone()).software,
        engine: daemon.engine_in_words().await.unwrap_or_else(|| "none".to_owned()),
        memory_free: backend::room(&memory),
        memory_total: memory.total,
        guest_count: u32::try_from(running).unwrap_or(u32::MAX),
        is_in_maintenance: daemon.config().is_in_maintenance,
    }
}

/// Answers from what the guest's task last said, or, where there is none, from nothing. None while
/// nothing is certain: whoever asks then knows as much as if this host were silent.
fn who_owns(daemon: &Daemon, guest: GuestId) -> Option<Answer> {
    daemon.guests.get(guest).map_or(Some(Answer::NoRecord), |guest| guest.view().ownership)
}

fn no_report(handoff: HandoffId) -> Problem {
    Problem::new(
        whimbrel_api::Kind::Refused,
        NO_REPORT,
        format!("there is no report of migration {handoff} for this host"),
        "read what the other host knows: `whimbrel report` there",
    )
}

fn nothing_certain(guest: GuestId) -> Problem {
    Problem::new(
        whimbrel_api::Kind::InDoubt,
        NOTHING_CERTAIN,
        format!("nothing certain can be said of guest {guest} here"),
        "look at the guest on this host: `whimbrel show`",
    )
}

/// Begins the conversation about a handoff, or takes it up again.
async fn handoff(
    daemon: &Arc<Daemon>,
    opening: Opening,
    responder: Responder,
) -> Result<(), FrameError> {
    let peer = responder.peer();
    let (handle, ends) = daemon.guests.enter(opening.guest);
    if let Some(ends) = ends {
        let (ownership, effects) = Ownership::open(daemon, opening.guest, EngineView::Gone);
        let task = GuestTask::new(daemon.clone(), handle.clone(), ends, None, ownership);
        tokio::spawn(task.begin(effects));
    }
    let stream = responder.handoff().await?;
    let handoff: HandoffId = opening.handoff;
    let call = Call { peer, handoff, stream };
    let event = match opening.offer {
        Some(offer) => GuestEvent::Incoming(Box::new(Incoming { handoff, offer, call })),
        None => GuestEvent::Wire(call),
    };
    // A task that has just ended took the conversation with it; the peer dials again.
    let _ = handle.send(event).await;
    Ok(())
}

/// Sends the papers of every guest that this host owns, one a line.
async fn papers(daemon: &Arc<Daemon>, responder: Responder) -> Result<(), FrameError> {
    let mut lines = responder.lines();
    for (_, guest) in daemon.guests.owned_by(daemon.host_id()) {
        if let Some(keepsake) = Keepsake::of(&guest.view()) {
            lines.send(serde_json::to_vec(&keepsake).expect("it is JSON")).await?;
        }
    }
    lines.end().await
}

async fn console(
    daemon: &Arc<Daemon>,
    query: wire::ConsoleQuery,
    responder: Responder,
) -> Result<(), FrameError> {
    let hub = daemon.guests.get(query.guest).and_then(|guest| guest.view().console.clone());
    let Some(hub) = hub else {
        let problem = Problem::guest_not_found(&query.guest.to_string());
        return responder.problem(&problem.into()).await;
    };
    // A peer's daemon speaks for its own users; it is named by the host in the log there.
    let caller = Caller { uid: 0 };
    let wanted = ConsoleQuery {
        read_only: query.is_read_only,
        force: query.takes_over,
        follows: query.scrollback_bytes == Some(0),
        scrollback_bytes: query.scrollback_bytes,
    };
    let opened = match hub.open(caller, wanted) {
        Ok(opened) => opened,
        Err(problem) => return responder.problem(&problem.into()).await,
    };
    let mut opened = opened;
    let mut stream = responder.console().await?;
    // Whichever side ends first ends the other.
    let _ = tokio::io::copy_bidirectional(&mut opened, &mut stream).await;
    Ok(())
}
