// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What every command has, and what ends it.

use crate::printer::Printer;
use crate::{Done, Hooks, Place};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use whimbrel_api::guest::GuestSummary;
use whimbrel_api::problem::code;
use whimbrel_api::{Client, Kind, Problem};
use whimbrel_model::similar::similar;

/// How a command ended that has nothing more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Done,
    /// Not as wished, and what there is to say was said.
    Told(Kind),
}

/// The user's wish to stop, counted only where a command asks for it.
pub(crate) struct Interrupts {
    instead: Option<mpsc::UnboundedReceiver<()>>,
    signals: Option<[Signal; 3]>,
}

impl Interrupts {
    fn new(instead: Option<mpsc::UnboundedReceiver<()>>) -> Self {
        Self { instead, signals: None }
    }

    /// Returns at the next Ctrl-C, or when the terminal or the system wants the program to end.
    /// Until this is first called, these end it at once.
    pub(crate) async fn next(&mut self) {
        if let Some(instead) = &mut self.instead {
            return match instead.recv().await {
                Some(()) => {}
                None => std::future::pending().await,
            };
        }
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let open = || kinds.map(|kind| signal(kind).expect("these can be caught"));
        let [interrupt, terminate, hangup] = self.signals.get_or_insert_with(open);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// What every command has.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) printer: Printer,
    pub(crate) hooks: Hooks,
    pub(crate) place: Place,
    pub(crate) interrupts: Interrupts,
    /// What the user typed as the name of a guest, for hints.
    typed_guest: Option<String>,
    /// The same of a host.
    typed_host: Option<String>,
}

impl Context {
    pub(crate) fn new(place: Place, hooks: Hooks, mut printer: Printer) -> Self {
        Self {
            client: Client::new(&place.socket),
            interrupts: Interrupts::new(printer.io.interrupts.take()),
            printer,
            hooks,
            place,
            typed_guest: None,
            typed_host: None,
        }
    }

    /// Says which guest the command is about, so that a wrong name gets a hint.
    pub(crate) fn about(&mut self, guest: &str) {
        self.typed_guest = Some(guest.to_owned());
    }

    /// Returns the name of the paired host that the user means: its name, or one of its addresses.
    pub(crate) async fn host_meant(&mut self, typed: &str) -> Result<String, Problem> {
        self.typed_host = Some(typed.to_owned());
        let could_be_address = typed.contains([':', '.']);
        if !could_be_address {
            return Ok(typed.to_owned());
        }
        let hosts = self.client.hosts().await?.hosts;
        let is_meant = |address: &String| {
            let (ip, _port) = address.rsplit_once(':').unwrap_or((address, ""));
            address == typed || ip.trim_matches(['[', ']']) == typed
        };
        let named = hosts.iter().find(|host| host.name == typed);
        let found = named.or_else(|| hosts.iter().find(|host| host.addresses.iter().any(is_meant)));
        Ok(found.map_or_else(|| typed.to_owned(), |host| host.name.clone()))
    }

    /// Says what became of a guest, as data where that was asked for.
    pub(crate) fn tell_guest(&mut self, guest: &GuestSummary, text: &str) -> Done {
        if self.printer.is_json {
            self.printer.json(guest);
        } else {
            self.printer.say(text);
        }
        Ok(End::Done)
    }

    /// Adds to the problem of a name that nobody has here: where that guest is, or "did you mean".
    pub(crate) async fn with_hints(&mut self, result: Done) -> Done {
        let Err(problem) = result else { return result };
        let (typed, names) = match (problem.code.as_str(), &self.typed_guest, &self.typed_host) {
            (code::GUEST_NOT_FOUND, Some(typed), _) => {
                let guests = self.guests_everywhere().await;
                if let Some(found) =
                    guests.iter().find(|guest| [&guest.name, &guest.uuid].contains(&typed))
                {
                    return Err(elsewhere(problem, found));
                }
                (typed, guests.into_iter().map(|guest| guest.name).collect())
            }
            (code::HOST_NOT_FOUND, _, Some(typed)) => (typed, self.host_names().await),
            _ => return Err(problem),
        };
        let Some(name) = similar(typed, names.iter().map(String::as_str)) else {
            return Err(problem);
        };
        let remedy = format!("did you mean `{name}`? Otherwise {}", problem.remedy);
        Err(Problem { remedy, ..problem })
    }

    async fn guests_everywhere(&self) -> Vec<GuestSummary> {
        self.client.guests(true).await.map(|list| list.guests).unwrap_or_default()
    }

    async fn host_names(&self) -> Vec<String> {
        let hosts = self.client.hosts().await.map(|list| list.hosts).unwrap_or_default();
        hosts.into_iter().filter(|host| !host.is_this_host).map(|host| host.name).collect()
    }
}

/// Says where a guest is that was looked for here.
fn elsewhere(problem: Problem, guest: &GuestSummary) -> Problem {
    let GuestSummary { name, host, state, .. } = guest;
    Problem {
        text: format!("guest `{name}` is not here but on `{host}`, where it is {state}"),
        remedy: format!(
            "say it there; to bring it here, type on `{host}`: `whimbrel migrate {name} HOST`"
        ),
        ..problem
    }
}
