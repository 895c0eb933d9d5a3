// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The side the guest comes to.

use crate::guests::{GuestTask, Papers, parse_stored, tap_name};
use crate::migrate::carrier::end_carrier;
use crate::migrate::report::first_packet;
use crate::migrate::source::{migration_options, start_carrier};
use crate::migrate::watch::{self, Watched};
use crate::migrate::{Incoming, Journey, Role, Wire};
use whimbrel_api::migration::{MigrationResult, Mode, Phase};
use whimbrel_api::{Kind as ProblemKind, Problem};
use whimbrel_engine::{ChannelEnd, Start};
use whimbrel_handoff::effect::Event;
use whimbrel_handoff::message::{Kind, Reason};
use whimbrel_host::store::{Desired, NewGuest};
use whimbrel_link::carrier::{Config, Control, Meet, Side};
use whimbrel_link::wire::Offer;
use whimbrel_model::config::allow::allows_bridge;
use whimbrel_model::guest::{Boot, DiskSource, Guest, NetworkKind};
use whimbrel_model::problem::Kind as ModelKind;
use whimbrel_model::run_state::RunState;

whimbrel_model::codes! {
    PATH_NOT_ALLOWED = "relocation/path-not-allowed": "A disk, kernel or ramdisk of the arriving guest lies outside `allow_paths`.";
    BRIDGE_NOT_ALLOWED = "relocation/bridge-not-allowed": "The arriving guest wants a bridge outside `allow_bridges`.";
    NO_PASSPORT = "relocation/no-passport": "A running guest was offered without its passport.";
}

impl GuestTask {
    /// A peer offers this guest. The machine decides when the offer itself is read; here only the
    /// papers are laid out.
    pub(crate) async fn on_incoming(&mut self, incoming: Incoming) {
        fault_point!("receive/papers");
        let Incoming { handoff, offer, call } = incoming;
        if self.journey.as_ref().is_some_and(|journey| journey.handoff == handoff) {
            return self.on_wire(call).await;
        }
        // An offer that never came: its papers must not be taken for those of the next.
        let is_open = self.ownership.machine().handoff().is_some();
        self.journey.take_if(|journey| matches!(journey.role, Role::Target) && !is_open);
        if self.journey.is_some() || is_open {
            // The machine answers that it is busy.
            let wire = Wire::begin(self.handle.clone(), call);
            self.visitors.push(wire);
            return;
        }
        let mode = if offer.passport.is_empty() { Mode::Definition } else { Mode::Live };
        let name = self.daemon.peers.name_of(call.peer);
        let mut journey = Journey::new(handoff, call.peer, name, Role::Target, mode);
        journey.offer = Some(Box::new(offer));
        journey.wire = Some(Wire::begin(self.handle.clone(), call));
        self.journey = Some(journey);
    }

    /// Takes the guest's papers and starts its engine, paused and waiting for memory.
    pub(super) async fn start_incoming_engine(&mut self) -> Vec<Event> {
        let is_stopped = self.incoming_kind() == Some(Kind::Stopped);
        match self.prepare_incoming(is_stopped).await {
            Ok(()) if is_stopped => vec![Event::EngineReady, Event::Complete],
            Ok(()) => vec![Event::EngineReady],
            Err(problem) => {
                self.story_problem(&problem);
                self.note_problem(problem);
                vec![Event::EngineFailed]
            }
        }
    }

    fn incoming_kind(&self) -> Option<Kind> {
        self.ownership.machine().handoff().map(|handoff| handoff.kind)
    }

    async fn prepare_incoming(&mut self, is_stopped: bool) -> Result<(), Problem> {
        self.mark(Phase::Prepare);
        let Some(Journey { offer: Some(offer), handoff, peer, .. }) = &self.journey else {
            return Err(no_offer());
        };
        let (offer, handoff, peer) = (offer.clone(), *handoff, *peer);
        if self.ownership.machine().handoff().is_none_or(|open| open.id != handoff) {
            return Err(no_offer());
        }
        self.take_papers(&offer).await?;
        let papers = self.papers()?;
        self.may_bring(&papers.guest)?;
        if is_stopped {
            return Ok(());
        }
        let passport = papers.passport.clone().ok_or_else(no_passport)?;
        self.story(format!("the guest is arriving from `{}`", self.peer_name()));
        crate::balloon::make_room(&self.daemon, papers).await;
        let instance = self.launch(passport, Start::Incoming).await?;
        let mut options = migration_options(&offer);
        options.may_postcopy = self.incoming_kind() == Some(Kind::PostCopy);
        let listening = instance.receive(options.clone()).await;
        let ChannelEnd::Listen(socket) = listening.map_err(|error| Problem::of(&error))? else {
            return Err(no_offer());
        };
        let config = Config {
            handoff,
            identity: self.daemon.layout().identity(),
            peer,
            side: Side::Target,
            engine: Meet::Connect(socket),
            connections: options.connections(),
            bandwidth: None,
            way: self.way(&offer, None).await,
            is_again: false,
        };
        let carrier = start_carrier(self, &config).await?;
        self.watch_incoming(carrier);
        self.mark(Phase::Memory);
        Ok(())
    }

    fn watch_incoming(&mut self, carrier: Control) {
        let (Some(held), Some(journey)) = (&self.engine, &mut self.journey) else { return };
        let watched = Watched {
            guest: self.handle.clone(),
            handoff: journey.handoff,
            instance: held.instance.clone(),
            carrier: carrier.clone(),
        };
        journey.carrier = Some(carrier);
        journey.add_helper(tokio::spawn(watch::target(watched)).abort_handle());
    }

    /// Goes on with an engine that was already receiving when the daemon was restarted.
    pub(super) async fn watch_again(&mut self) -> Vec<Event> {
        if self.incoming_kind() == Some(Kind::Stopped) {
            return vec![Event::Complete];
        }
        let carrier = self.journey.as_ref().and_then(|journey| journey.carrier.clone());
        match (carrier, &self.engine) {
            (Some(carrier), Some(_)) => {
                self.watch_incoming(carrier);
                Vec::new()
            }
            _ => vec![Event::EngineFailed],
        }
    }

    /// Writes the arriving guest down, under a number of this host.
    async fn take_papers(&mut self, offer: &Offer) -> Result<(), Problem> {
        let guest = parse_stored("the offered definition", &offer.definition)?;
        let passport = match offer.passport.as_slice() {
            [] => None,
            json => Some(String::from_utf8_lossy(json).into_owned()),
        };
        let new = NewGuest {
            guest: self.id,
            name: guest.name.to_string(),
            definition: offer.definition.clone(),
            passport,
            autostart: guest.autostart,
            transient: offer.is_transient,
            desired: Desired::Stopped,
        };
        let row = self.daemon.store.call(move |tables| {
            // Left from an earlier stay, if it could not be removed then.
            if tables.guest(new.guest)?.is_some() {
                tables.remove_guest(new.guest)?;
            }
            tables.add_guest(&new)
        });
        let row = row.await;
        self.papers = Some(Papers::from_row(&row.map_err(|error| Problem::of(&error))?)?);
        Ok(())
    }

    /// Refuses what this host does not let in: now, or ever. The plan has said so before; this
    /// is for a peer that does not care.
    fn may_bring(&self, guest: &Guest) -> Result<(), Problem> {
        self.must_take_guests("taken")?;
        let config = self.daemon.config();
        let relocation = &config.relocation;
        for file in files_of(guest) {
            if !crate::peers_view::is_allowed(&file, &relocation.allow_paths) {
                let path = match &file {
                    DiskSource::Path(path) => path.display().to_string(),
                    DiskSource::Nfs(url) => url.clone(),
                };
                return Err(Problem::new(
                    ProblemKind::Refused,
                    PATH_NOT_ALLOWED,
                    format!("`{}` takes no guest that uses `{path}`", self.daemon.name),
                    "add its folder to `[relocation] allow_paths` on the target, then `whimbrel \
                     reload` there",
                ));
            }
        }
        for network in &guest.networks {
            if let NetworkKind::Bridge { bridge } = &network.kind
                && !allows_bridge(&relocation.allow_bridges, bridge)
            {
                return Err(Problem::new(
                    ProblemKind::Refused,
                    BRIDGE_NOT_ALLOWED,
                    format!("`{}` takes no guest on bridge `{bridge}`", self.daemon.name),
                    "add it to `[relocation] allow_bridges` on the target, then `whimbrel \
                     reload` there",
                ));
            }
        }
        Ok(())
    }

    /// The guest is ours: let its packets out and, if it ran, let it run.
    pub(super) async fn start_arrived(&mut self, run: Option<RunState>) -> Event {
        let began = std::time::Instant::now();
        let Some(run) = run else { return Event::GuestStarted };
        let Some(instance) = self.engine.as_ref().map(|held| held.instance.clone()) else {
            return Event::StartLost;
        };
        if let Err(problem) = self.join_bridges().await {
            self.story_problem(&problem);
            self.note_problem(problem);
            return Event::StartRefused;
        }
        if run == RunState::Running
            && let Err(error) = instance.resume().await
        {
            use whimbrel_model::problem::Remedy;
            let problem = Problem::of(&error);
            self.story_problem(&problem);
            self.note_problem(problem);
            let has_refused = matches!(instance.run_state().await, Ok(RunState::Paused));
            let is_its_word = error.kind() == ModelKind::Refused || has_refused;
            // What it may have run is written down before it is told to.
            return if is_its_word || !instance.has_run() {
                Event::StartRefused
            } else {
                Event::StartLost
            };
        }
        if let Some(held) = &mut self.engine {
            held.run = run;
            held.started_at = std::time::SystemTime::now();
        }
        if run == RunState::Running {
            self.measure_first_packet();
        }
        self.note_started(began.elapsed());
        Event::GuestStarted
    }

    fn measure_first_packet(&mut self) {
        let Ok(papers) = self.papers() else { return };
        let networks = papers.guest.networks.iter().enumerate();
        let taps = networks
            .filter(|(_, network)| matches!(network.kind, NetworkKind::Bridge { .. }))
            .map(|(index, _)| tap_name(papers.local_id, index))
            .collect();
        let daemon = self.daemon.clone();
        let measuring = tokio::spawn(async move { first_packet(&daemon, taps).await });
        self.first_packet = Some(measuring);
    }

    pub(super) async fn announce(&mut self) {
        let Some(held) = &self.engine else { return };
        if held.run == RunState::Running
            && let Err(error) = held.instance.announce().await
        {
            self.story_warn(format!("the network could not be told where the guest is: {error}"));
        }
    }

    pub(super) async fn engine_of_target_gone(&mut self) {
        self.engine = None;
        let problem = Problem::new(
            ProblemKind::Failed,
            "engine/gone",
            format!("the engine of the guest on `{}` ended", self.daemon.name),
            "read its last words in the log of the target, then try again",
        );
        self.note_problem(problem);
        self.tell_machine(Event::EngineFailed).await;
    }

    pub(super) async fn end_arrived(&mut self) {
        let source = self.peer_name();
        if self.is_half().await {
            self.daemon.memory.release(self.id);
            self.story(format!("the guest runs here; its memory follows from `{source}`"));
            self.follow_half();
            return self.settle().await;
        }
        self.finish_arrival().await;
    }

    /// The guest is here, and all of it.
    pub(super) async fn finish_arrival(&mut self) {
        let source = self.peer_name();
        self.mark_released();
        self.story(format!("the guest has arrived from `{source}`"));
        self.let_carrier_keep();
        let carrier = self.journey.as_mut().and_then(|journey| journey.carrier.take());
        // It has its memory now; counting the promise, too, would count it twice.
        self.daemon.memory.release(self.id);
        if let Ok(papers) = self.papers() {
            crate::balloon::note_arrived(&self.daemon, papers);
        }
        let attempt = self.journey.as_ref().map(|journey| (journey.peer, journey.handoff));
        self.end_journey(MigrationResult::Done, None).await;
        if let Some((source, handoff)) = attempt {
            // Not before that is written down: in post-copy the source may have to ask.
            if let Some(carrier) = carrier {
                fault_point!("carrier/cut");
                end_carrier(&self.daemon, &carrier, handoff).await;
            }
            self.fetch_report(source, handoff);
        }
        self.settle().await;
    }

    /// Writes down that the guest is here to stay.
    async fn settle(&mut self) {
        let desired = if self.engine.is_some() { Desired::Running } else { Desired::Stopped };
        if let Err(problem) = self.set_desired(desired).await {
            self.story_problem(&problem);
        }
        self.keep_papers_beside_disks().await;
        // A paused guest is told apart from one that merely waits for its memory.
        self.refresh_run().await;
    }

    pub(super) async fn end_declined(&mut self, reason: Reason) {
        let problem = self.journey.as_ref().and_then(|journey| journey.problem.clone());
        let why = problem.as_ref().map_or_else(|| format!("{reason:?}"), |p| p.text.clone());
        self.story_warn(format!("the guest does not come here: {why}"));
        self.daemon.memory.release(self.id);
        self.end_journey(MigrationResult::Failed, problem).await;
        self.forget_papers().await;
    }
}

/// Everything that a guest file may have opened on the host it comes to.
fn files_of(guest: &Guest) -> Vec<DiskSource> {
    let mut files: Vec<_> = guest.disks.iter().map(|disk| disk.source.clone()).collect();
    if let Boot::Kernel { kernel, ramdisk, .. } = &guest.boot {
        let paths = [Some(kernel), ramdisk.as_ref()].into_iter().flatten();
        files.extend(paths.map(|path| DiskSource::Path(path.clone())));
    }
    files
}

fn no_offer() -> Problem {
    Problem::new(
        ProblemKind::Failed,
        "migration/no-offer",
        "the conversation about the handoff was taken up without the guest's papers",
        "try again",
    )
}

fn no_passport() -> Problem {
    Problem::new(
        ProblemKind::Refused,
        NO_PASSPORT,
        "the guest runs, and its passport did not come with the offer",
        "install the same release on both hosts",
    )
}
