// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Guests in doubt, and guests of a host that is gone: what is known, and what a person may say.
//!
//! Nothing here decides who owns a guest. A statement is taken to the guest's own task, which
//! passes it through the same door as every start.

use super::moves::{guest_name, target};
use crate::daemon::Daemon;
use crate::guests::{GuestError, GuestHandle, GuestView, NOTHING_TO_RECOVER, Order, Statement};
use crate::http::Caller;
use crate::story::About;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use whimbrel_api::guest::{GuestRef, GuestState};
use whimbrel_api::recover::{Choice, HostKnowledge, RecoverRequest, Recovered, Recovery};
use whimbrel_api::{Kind, Problem};
use whimbrel_handoff::ownership::Answer;
use whimbrel_host::store::{Desired, KeptRow, NewGuest};
use whimbrel_link::wire::WhoOwns;
use whimbrel_model::id::{GuestId, HostId};

whimbrel_model::codes! {
    OTHER_HOST = "recover/other-host": "A guest can be recovered only on the host that is asked.";
    NO_FENCE = "recover/no-fence": "No fence command is configured.";
    FENCE_FAILED = "recover/fence-failed": "The fence command did not say that the host is off.";
}

/// How long a fence command may take.
const FENCE_MAX: Duration = Duration::from_secs(120);

/// A guest that could be recovered.
enum Subject {
    /// It has papers on this host.
    Here(GuestHandle),
    /// Another host owned it when that was last asked, and this one keeps its papers.
    Kept(KeptRow),
}

/// What each host knows about a guest. Changes nothing.
pub(super) async fn explain(daemon: &Arc<Daemon>, guest: &GuestRef) -> Result<Recovery, Problem> {
    let mut choices = Vec::new();
    let (id, name, is_in_doubt, text, own) = match find(daemon, guest).await? {
        Subject::Here(handle) => {
            let view = handle.view();
            let (name, is_in_doubt) = (guest_name(&view), view.state == GuestState::InDoubt);
            let remark = view.remark.clone();
            let text = match is_in_doubt {
                true => format!(
                    "it is not known who owns guest `{name}`: {}",
                    remark.clone().unwrap_or_default()
                ),
                false => {
                    format!(
                        "guest `{name}` is not in doubt: it is {} on `{}`",
                        view.state, daemon.name
                    )
                }
            };
            let own = remark.unwrap_or_else(|| format!("the guest is {} here", view.state));
            choices.extend(despite_damage(&view).await);
            (handle.id, name, is_in_doubt, text, own)
        }
        Subject::Kept(row) => {
            let owner = daemon.peers.name_of(row.host);
            let text = format!("guest `{}` belongs to `{owner}`", row.name);
            let own =
                format!("its papers are kept here; `{owner}` owned it with epoch {}", row.epoch);
            (row.guest, row.name, false, text, own)
        }
    };
    let own = HostKnowledge { host: daemon.name.to_string(), is_reachable: true, text: own };
    let mut hosts = vec![own];
    for peer in daemon.peers.all() {
        let host = daemon.peers.name_of(peer).to_string();
        let answer = ask(daemon, peer, id).await;
        if answer.is_err() {
            choices.extend(what_could_be_said(daemon, &name, &host));
        }
        let is_reachable = answer.is_ok();
        let text = answer.unwrap_or_else(|reason| reason);
        hosts.push(HostKnowledge { host, is_reachable, text });
    }
    Ok(Recovery { guest: name, guest_uuid: id.to_string(), is_in_doubt, text, hosts, choices })
}

async fn ask(daemon: &Daemon, peer: HostId, guest: GuestId) -> Result<String, String> {
    let connection = daemon.peers.connect(peer).await.map_err(|problem| problem.text)?;
    let answer = connection.who_owns(WhoOwns { guest, handoff: None }).await;
    answer
        .map(|answer| crate::peers_view::say(daemon, answer))
        .map_err(|error| error.problem().text)
}

fn what_could_be_said(daemon: &Daemon, guest: &str, host: &str) -> Vec<Choice> {
    let word = Choice {
        command: format!("whimbrel recover {guest} --is-off {host}"),
        consequence: format!(
            "this host takes the guest, with its memory if that is whole here, else from its \
             disks; if `{host}` still runs it, its disks will be corrupted"
        ),
    };
    let fence = daemon.config().fence.is_some().then(|| Choice {
        command: format!("whimbrel recover {guest} --fence {host}"),
        consequence: format!("the same, once the fence command has switched `{host}` off"),
    });
    std::iter::once(word).chain(fence).collect()
}

/// What could be said of damaged records, if there are any.
async fn despite_damage(view: &GuestView) -> Option<Choice> {
    let is_beside = view.has_damaged_records().await.ok()?;
    if !is_beside && view.ownership != Some(Answer::Damaged) {
        return None;
    }
    Some(Choice {
        command: format!("whimbrel recover {} --despite-damage", guest_name(view)),
        consequence: "this host takes the guest from its disks, if no host that can be asked has \
                      it; if another one runs it, its disks will be corrupted"
            .to_owned(),
    })
}

/// Refuses to recover a guest that is well here: what came of it would be a start from its disks.
fn must_be_in_need(view: &GuestView) -> Result<(), Problem> {
    let state = view.state;
    let is_open = matches!(state, GuestState::InDoubt | GuestState::Leaving | GuestState::Arriving);
    if view.engine.is_none() || is_open {
        return Ok(());
    }
    Err(GuestError::NotInDoubt { guest: guest_name(view), state }.into())
}

/// Takes a person's word, or a fence command's, about what no message can tell.
pub(super) async fn recover(
    daemon: Arc<Daemon>,
    caller: Caller,
    guest: GuestRef,
    request: RecoverRequest,
) -> Result<Recovered, Problem> {
    if let Some(on) = request.on.as_ref().filter(|on| *on != daemon.name.as_str()) {
        return Err(Problem::new(
            Kind::Refused,
            OTHER_HOST,
            format!("this is `{}`, and the guest is to be started on `{on}`", daemon.name),
            format!("give the same command on `{on}`"),
        ));
    }
    let subject = find(&daemon, &guest).await?;
    if let Subject::Here(handle) = &subject {
        // Before anything is fenced for nothing.
        must_be_in_need(&handle.view())?;
    }
    let statement = statement(&daemon, caller, &guest, &request).await?;
    let order = Order::Recover { caller, statement };
    let handle = match subject {
        Subject::Here(handle) => {
            handle.order(order).await?;
            handle
        }
        Subject::Kept(row) => {
            let handle = bring_in(&daemon, &row).await?;
            if let Err(problem) = handle.order(order).await {
                // What could not be recovered is not defined here, either.
                handle.order(Order::Remove { caller }).await?;
                return Err(problem);
            }
            handle
        }
    };
    let guest = handle.view().summary(&daemon.name).await;
    let text = match request.is_off.or(request.fence) {
        Some(off) => {
            format!("the guest was recovered on `{}`, on the word that `{off}` is off", daemon.name)
        }
        None => format!("the guest was recovered on `{}`, despite damaged records", daemon.name),
    };
    Ok(Recovered { text, guest })
}

/// What is stated; a fence command is run before it is believed.
async fn statement(
    daemon: &Daemon,
    caller: Caller,
    guest: &GuestRef,
    request: &RecoverRequest,
) -> Result<Statement, Problem> {
    let off = match (&request.is_off, &request.fence) {
        (Some(off), _) => Some(target(daemon, off)?.host),
        (None, Some(off)) => {
            let host = target(daemon, off)?.host;
            fence(daemon, caller, off).await?;
            Some(host)
        }
        (None, None) if request.despite_damage => None,
        (None, None) => {
            return Err(Problem::new(
                Kind::Refused,
                NOTHING_TO_RECOVER,
                "nothing was stated that is not known already",
                format!("see what could be said with `whimbrel recover {guest}`"),
            ));
        }
    };
    Ok(Statement { off, despite_damage: request.despite_damage })
}

/// Finds a guest that has papers here or, failing that, the newest papers kept of another host's.
async fn find(daemon: &Daemon, guest: &GuestRef) -> Result<Subject, Problem> {
    let problem = match crate::foreign::ours(daemon, guest).await {
        Ok(handle) => return Ok(Subject::Here(handle)),
        Err(problem) => problem,
    };
    let kept = daemon.store.call(|tables| tables.kept()).await;
    let mut kept = kept.map_err(|error| Problem::of(&error))?.into_iter();
    let row = kept.find(|row| match guest {
        GuestRef::Uuid(id) => row.guest == *id,
        GuestRef::Name(name) => row.name == name.as_str(),
        GuestRef::Number(_) => false,
    });
    row.map(Subject::Kept).ok_or(problem)
}

/// Makes a guest known here by the papers that were kept of it.
async fn bring_in(daemon: &Arc<Daemon>, row: &KeptRow) -> Result<GuestHandle, Problem> {
    let guest = crate::guests::parse_stored(&row.name, &row.definition)?;
    let new = NewGuest {
        guest: row.guest,
        name: row.name.clone(),
        definition: row.definition.clone(),
        passport: row.passport.clone(),
        autostart: guest.autostart,
        transient: row.transient,
        desired: Desired::Stopped,
    };
    super::guests::define(daemon, &guest.name, new).await
}

/// Has the configured program switch a host off.
async fn fence(daemon: &Daemon, caller: Caller, host: &str) -> Result<(), Problem> {
    let Some(command) = daemon.config().fence.clone() else {
        return Err(Problem::new(
            Kind::Refused,
            NO_FENCE,
            "no fence command is configured",
            "set `[fence] command`, or make sure yourself and use `--is-off`",
        ));
    };
    let about = About { caller: Some(caller), ..About::default() };
    daemon.story.warn(&about, format!("`{}` is to switch `{host}` off", command.display()));
    match run_fence(&command, host).await {
        Ok(()) => {
            daemon.story.warn(&about, format!("`{}` says that `{host}` is off", command.display()));
            Ok(())
        }
        Err(why) => Err(Problem::new(
            Kind::Refused,
            FENCE_FAILED,
            format!("`{} {host}` {why}", command.display()),
            "look at what it printed in the daemon's own log; the guest was not touched",
        )),
    }
}

async fn run_fence(command: &Path, host: &str) -> Result<(), String> {
    let mut fence = tokio::process::Command::new(command);
    fence.arg(host).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(FENCE_MAX, fence.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("ended with {status}")),
        Ok(Err(error)) => Err(format!("could not be started: {error}")),
        Err(_) => Err(format!("did not end within {} s", FENCE_MAX.as_secs())),
    }
}
