// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The life of one guest on one host: the task that owns it.
//!
//! ```text
//!   orders of people ──┐
//!   engine events ─────┤                       ┌─> engine: launch, pause, resume, end
//!   peers' messages ───┼─> one event at a time ┼─> ownership: record, claim, messages
//!   deadlines ─────────┘                       └─> the view everyone else reads
//! ```
//!
//! Nothing else starts, stops or moves this guest. What takes long (memory that travels, a peer
//! that is silent) is watched by helpers that report back as events, so the task itself is never
//! busy for longer than the engine needs to answer.

use crate::daemon::Daemon;
use crate::guests::error::GuestError;
use crate::guests::lifecycle::{End, Held, Restarts};
use crate::guests::order::{GuestEvent, Order, Reply, Stop};
use crate::guests::{GuestHandle, GuestView, Moving, Papers, TaskEnds};
use crate::http::Caller;
use crate::migrate::{Journey, Wire};
use crate::ownership::Ownership;
use crate::story::About;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use whimbrel_api::Problem;
use whimbrel_api::event::{Event, GuestGone};
use whimbrel_api::guest::GuestState;
use whimbrel_engine::EngineEvent;
use whimbrel_handoff::effect::{Effect, Event as MachineEvent};
use whimbrel_host::store::Desired;
use whimbrel_model::id::{GuestId, GuestName};
use whimbrel_model::run_state::RunState;

/// The task of one guest, and everything it owns.
pub(crate) struct GuestTask {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) id: GuestId,
    /// How others reach this task, and helpers report to it.
    pub(crate) handle: GuestHandle,
    events: mpsc::Receiver<GuestEvent>,
    view: watch::Sender<Arc<GuestView>>,
    /// None where the guest is only remembered.
    pub(crate) papers: Option<Papers>,
    pub(crate) engine: Option<Held>,
    pub(crate) ownership: Ownership,
    /// The migration that goes on, in or out.
    pub(crate) journey: Option<Journey>,
    pub(crate) stopping: Option<Stopping>,
    pub(super) restarts: Restarts,
    /// Who gave the order that is being carried out, for the log.
    pub(crate) caller: Option<Caller>,
    /// Conversations about handoffs that are not under way here: the past answers them.
    pub(crate) visitors: Vec<Wire>,
    /// Found while effects are performed, and dealt with after them.
    pub(crate) has_lost_engine: bool,
    /// How long a guest that has just arrived took to be heard on the network.
    pub(crate) first_packet: Option<tokio::task::JoinHandle<Option<Duration>>>,
    /// This daemon has held an engine of the guest: if there is none, it died in this boot.
    pub(crate) has_held_engine: bool,
    is_edit_pending: bool,
    /// Its engine is being started.
    pub(super) is_launching: bool,
    /// The host has booted, and this guest was known before.
    pub(crate) has_host_booted: bool,
    is_over: bool,
}

/// A guest that was asked to shut down.
pub(crate) struct Stopping {
    deadline: Instant,
    waited: Duration,
    is_reboot: bool,
    reply: Reply,
}

/// What the loop woke up for.
enum Wake {
    Event(GuestEvent),
    Engine(EngineEvent),
    StopDeadline,
    /// Nobody can reach this task any more.
    Over,
}

impl GuestTask {
    pub(crate) fn new(
        daemon: Arc<Daemon>,
        handle: GuestHandle,
        ends: TaskEnds,
        papers: Option<Papers>,
        ownership: Ownership,
    ) -> Self {
        Self {
            daemon,
            id: handle.id,
            handle,
            events: ends.events,
            view: ends.view,
            papers,
            engine: None,
            ownership,
            journey: None,
            stopping: None,
            restarts: Restarts::default(),
            caller: None,
            visitors: Vec::new(),
            has_lost_engine: false,
            first_packet: None,
            has_held_engine: false,
            is_edit_pending: false,
            is_launching: false,
            has_host_booted: false,
            is_over: false,
        }
    }

    /// Takes up what an earlier daemon left, then looks after the guest. The guest is shown as
    /// soon as this returns: whoever asks a daemon that has just started finds it.
    pub(crate) fn begin(mut self, effects: Vec<Effect>) -> impl Future<Output = ()> {
        self.resume_journey();
        self.publish();
        self.go_on(effects)
    }

    async fn go_on(mut self, effects: Vec<Effect>) {
        self.perform(effects).await;
        self.resume_half().await;
        self.after_restart().await;
        self.run().await;
    }

    /// Looks after the guest until it is forgotten.
    async fn run(mut self) {
        self.publish();
        while !self.is_over {
            let wake = self.wait().await;
            self.caller = None;
            match wake {
                Wake::Event(event) => self.on_event(event).await,
                Wake::Engine(event) if self.journey.is_some() => {
                    fault_point!("event/{}", crate::faults::head(&event));
                    self.on_engine_while_moving(event).await;
                }
                Wake::Engine(event) => self.on_engine(event).await,
                Wake::StopDeadline => self.on_stop_deadline(),
                Wake::Over => break,
            }
            self.publish();
        }
        self.daemon.guests.leave(self.id);
    }

    async fn wait(&mut self) -> Wake {
        let deadline = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let engine = async {
            match &mut self.engine {
                Some(held) => next_engine_event(&mut held.events).await,
                None => std::future::pending().await,
            }
        };
        let stop = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What the engine says comes first: an order sees the guest as it is.
            biased;
            event = engine => Wake::Engine(event),
            event = self.events.recv() => event.map_or(Wake::Over, Wake::Event),
            () = stop => Wake::StopDeadline,
        }
    }

    async fn on_event(&mut self, event: GuestEvent) {
        match event {
            GuestEvent::Order { order, reply } => self.on_order(order, reply).await,
            GuestEvent::Wire(wire) => self.on_wire(wire).await,
            GuestEvent::Incoming(incoming) => self.on_incoming(*incoming).await,
            GuestEvent::Message { from, message, problem } => {
                self.on_message(from, message, problem).await;
            }
            GuestEvent::WireLost { peer, wire, problem } => {
                self.on_wire_lost(peer, wire, problem).await;
            }
            GuestEvent::Heard { owner, epoch } => {
                self.tell_machine(MachineEvent::Heard { owner, epoch }).await;
            }
            GuestEvent::Migration { handoff, event } => self.on_migration(handoff, event).await,
        }
    }

    async fn on_order(&mut self, order: Order, reply: Reply) {
        let result = match order {
            Order::Define { papers } => {
                self.papers = Some(*papers);
                Ok(())
            }
            Order::Start { caller } => {
                self.caller = Some(caller);
                self.order_start().await
            }
            Order::Adopt { caller, papers } => {
                self.caller = Some(caller);
                self.order_adopt(*papers).await
            }
            Order::Stop { caller, how } => {
                self.caller = Some(caller);
                match how {
                    Stop::Now => self.order_stop_now().await,
                    Stop::Within(within) => return self.ask_to_stop(within, false, reply).await,
                }
            }
            Order::Reboot { caller } => {
                self.caller = Some(caller);
                return self.ask_to_stop(REBOOT_WITHIN, true, reply).await;
            }
            Order::Pause { caller } => {
                self.caller = Some(caller);
                self.order_pause().await
            }
            Order::Unpause { caller } => {
                self.caller = Some(caller);
                self.order_unpause().await
            }
            Order::Edit { caller, papers } => {
                self.caller = Some(caller);
                self.order_edit(*papers).await
            }
            Order::Remove { caller } => {
                self.caller = Some(caller);
                self.order_remove().await
            }
            Order::Migrate(order) => {
                self.caller = Some(order.caller);
                self.order_migrate(*order).await
            }
            Order::Cancel { caller } => {
                self.caller = Some(caller);
                self.order_cancel().await
            }
            Order::CutOver { caller } => {
                self.caller = Some(caller);
                self.order_cut_over().await
            }
            Order::Recover { caller, statement } => {
                self.caller = Some(caller);
                self.order_recover(statement).await
            }
        };
        // Who waits for the answer must see what it brought.
        self.publish();
        reply.send(result);
    }

    async fn order_start(&mut self) -> Result<(), Problem> {
        self.must_be_still("started")?;
        if self.engine.is_some() {
            return Err(self.not_now("started", "`whimbrel unpause` lets a paused guest go on"));
        }
        self.must_take_guests("started")?;
        self.start_through_the_door().await?;
        self.story("the guest was started");
        Ok(())
    }

    /// Refuses what would bring one more guest to a host that is to be emptied.
    pub(crate) fn must_take_guests(&self, action: &'static str) -> Result<(), Problem> {
        if !self.daemon.config().is_in_maintenance {
            return Ok(());
        }
        let (guest, host) = (self.name().to_string(), self.daemon.name.to_string());
        Err(GuestError::InMaintenance { guest, host, action }.into())
    }

    /// Starts the guest if this host owns it, or may take it.
    pub(super) async fn start_through_the_door(&mut self) -> Result<(), Problem> {
        self.pass_the_door().await?;
        self.is_edit_pending = false;
        let booted = self.boot().await;
        if booted.is_err() {
            self.end_engine().await;
        }
        booted
    }

    async fn order_stop_now(&mut self) -> Result<(), Problem> {
        self.may_end_here("stopped")?;
        if self.engine.is_none() {
            return Err(self.not_now("stopped", "it is stopped already"));
        }
        if self.ownership.is_disputed() {
            self.story("the copy of the guest here was given up");
            self.end_engine().await;
            // The machine gives it up for good once there is none.
            self.perform(Vec::new()).await;
            return Ok(());
        }
        self.story("the guest was stopped like by a power cut");
        if let Some(stopping) = self.stopping.take() {
            stopping.reply.send(Ok(()));
        }
        self.end_for_good().await;
        Ok(())
    }

    async fn ask_to_stop(&mut self, within: Duration, is_reboot: bool, reply: Reply) {
        let action = if is_reboot { "rebooted" } else { "stopped" };
        let asked = self.ask_to_power_down(action).await;
        if let Err(problem) = asked {
            return reply.send(Err(problem));
        }
        if let Some(earlier) = self.stopping.take() {
            earlier.reply.send(Err(self.not_now(action, "somebody else asked for it again")));
        }
        let deadline = Instant::now() + within;
        self.stopping = Some(Stopping { deadline, waited: within, is_reboot, reply });
        // It may have ended already: then the order is done with the event that waits for us.
    }

    async fn ask_to_power_down(&mut self, action: &'static str) -> Result<(), Problem> {
        self.may_end_here(action)?;
        let Some(held) = &self.engine else {
            return Err(self.not_now(action, "start it with `whimbrel start`"));
        };
        match held.run {
            RunState::Running | RunState::Suspended => {
                held.instance.power_down().await.map_err(|error| Problem::of(&error))
            }
            RunState::Paused | RunState::IoError => Err(self.not_now(
                action,
                "let it go on with `whimbrel unpause`, or end it with `whimbrel stop --now`",
            )),
            RunState::ShutDown | RunState::Panicked => {
                Err(self.not_now(action, "end its engine with `whimbrel stop --now`"))
            }
        }
    }

    /// The guest ended as it was asked to.
    pub(super) async fn end_asked_for(&mut self, stopping: Stopping) {
        if stopping.is_reboot {
            self.end_engine().await;
            let started = self.start_through_the_door().await;
            self.story("the guest was rebooted");
            self.publish();
            return stopping.reply.send(started);
        }
        self.story("the guest was shut down");
        self.end_for_good().await;
        self.publish();
        stopping.reply.send(Ok(()));
    }

    fn on_stop_deadline(&mut self) {
        if let Some(stopping) = self.stopping.take() {
            let guest = self.name().to_string();
            let error = GuestError::DidNotShutDown { guest, waited: stopping.waited };
            stopping.reply.send(Err(error.into()));
        }
    }

    async fn order_pause(&mut self) -> Result<(), Problem> {
        let Some(held) = self.engine.as_ref().filter(|held| held.run == RunState::Running) else {
            return Err(self.not_now("paused", "only a running guest can be paused"));
        };
        self.must_not_be_ceding("paused")?;
        held.instance.pause().await.map_err(|error| Problem::of(&error))?;
        self.note_run(RunState::Paused).await;
        self.story("the guest was paused");
        Ok(())
    }

    async fn order_unpause(&mut self) -> Result<(), Problem> {
        let can = |run| matches!(run, RunState::Paused | RunState::IoError);
        let Some(held) = self.engine.as_ref().filter(|held| can(held.run)) else {
            return Err(self.not_now("unpaused", "only a paused guest can go on"));
        };
        self.must_not_be_ceding("unpaused")?;
        self.ownership.must_own(&self.name())?;
        held.instance.resume().await.map_err(|error| Problem::of(&error))?;
        self.note_run(RunState::Running).await;
        self.story("the guest goes on");
        Ok(())
    }

    async fn order_edit(&mut self, papers: Papers) -> Result<(), Problem> {
        self.must_be_still("edited")?;
        self.name_must_be_free(&papers.guest.name)?;
        self.papers = Some(papers);
        self.store_papers().await?;
        self.is_edit_pending = self.engine.is_some();
        self.story("the definition was edited");
        Ok(())
    }

    pub(super) fn name_must_be_free(&self, name: &GuestName) -> Result<(), Problem> {
        match self.daemon.guests.named(name).filter(|other| other.id != self.id) {
            None => Ok(()),
            Some(other) => {
                let (name, other) = (name.to_string(), other.id.to_string());
                Err(GuestError::NameTaken { name, other }.into())
            }
        }
    }

    async fn order_remove(&mut self) -> Result<(), Problem> {
        if self.engine.is_some() || self.journey.is_some() {
            let guest = self.name().to_string();
            return Err(GuestError::StillHere { guest, state: self.state() }.into());
        }
        self.story("the definition was forgotten; its disks were not touched");
        self.forget().await;
        Ok(())
    }

    /// Forgets the guest on this host: papers, number, ownership, and its word beside its disks.
    pub(super) async fn forget(&mut self) {
        if self.ownership.is_elsewhere() {
            // Another host owns it: what is known of that must be kept.
            return self.forget_papers().await;
        }
        if let Err(problem) = crate::pages::wipe(&self.daemon, self.id).await {
            self.story_problem(&problem);
        }
        if let Err(problem) = self.release_ownership().await {
            self.story_problem(&problem);
        }
        let id = self.id;
        if let Err(error) = self.daemon.store.call(move |tables| tables.remove_guest(id)).await {
            self.story_problem(&Problem::of(&error));
        }
        let name = self.name().to_string();
        self.papers = None;
        self.is_over = true;
        self.daemon.story.send(Event::GuestGone(GuestGone {
            uuid: self.id.to_string(),
            name,
            moved_to: None,
        }));
    }

    /// Refuses what would disturb a migration.
    fn must_be_still(&self, action: &'static str) -> Result<(), Problem> {
        match &self.journey {
            None => Ok(()),
            Some(_) => Err(self.not_now(
                action,
                "wait for the migration to end (`whimbrel watch`), or cancel it \
                 (`whimbrel cancel`)",
            )),
        }
    }

    /// A guest that runs here may end here, also while part of it is elsewhere.
    fn may_end_here(&self, action: &'static str) -> Result<(), Problem> {
        match &self.journey {
            Some(journey) if journey.runs_here_in_postcopy() => Ok(()),
            _ => self.must_be_still(action),
        }
    }

    pub(crate) fn not_now(&self, action: &'static str, instead: &str) -> Problem {
        let guest = self.name().to_string();
        let instead = instead.to_owned();
        GuestError::NotNow { guest, state: self.state(), action, instead }.into()
    }

    /// Takes note of what a person made of the guest.
    async fn note_run(&mut self, run: RunState) {
        if let Some(held) = &mut self.engine {
            held.run = run;
        }
        self.tell_machine_run(run).await;
    }

    pub(crate) fn papers(&self) -> Result<&Papers, Problem> {
        self.papers.as_ref().ok_or_else(|| Problem::guest_not_found(&self.id.to_string()))
    }

    pub(crate) fn papers_mut(&mut self) -> Result<&mut Papers, Problem> {
        let id = self.id;
        self.papers.as_mut().ok_or_else(|| Problem::guest_not_found(&id.to_string()))
    }

    /// Writes the papers to the store, and beside the disks for the day this host is gone.
    pub(crate) async fn store_papers(&self) -> Result<(), Problem> {
        let papers = self.papers()?;
        let row = papers.to_row();
        let stored = self.daemon.store.call(move |tables| tables.update_guest(&row)).await;
        stored.map_err(|error| Problem::of(&error))?;
        self.keep_papers_beside_disks().await;
        Ok(())
    }

    pub(crate) async fn set_desired(&mut self, desired: Desired) -> Result<(), Problem> {
        let Some(papers) = &mut self.papers else { return Ok(()) };
        papers.desired = desired;
        let id = self.id;
        let stored = self.daemon.store.call(move |tables| tables.set_desired(id, desired)).await;
        stored.map_err(|error| Problem::of(&error))
    }

    /// Returns the guest's name; for a guest without papers, one made of its id.
    pub(crate) fn name(&self) -> GuestName {
        match &self.papers {
            Some(papers) => papers.guest.name.clone(),
            None => GuestName::new(format!("guest-{}", self.id)).expect("a uuid makes a name"),
        }
    }

    pub(crate) fn about(&self) -> About {
        About {
            guest: Some((self.id, self.name())),
            handoff: self.journey.as_ref().map(|journey| journey.handoff),
            caller: self.caller,
        }
    }

    pub(crate) fn story(&self, text: impl Into<String>) {
        self.daemon.story.info(&self.about(), text);
    }

    pub(crate) fn story_warn(&self, text: impl Into<String>) {
        self.daemon.story.warn(&self.about(), text);
    }

    pub(crate) fn story_problem(&self, problem: &Problem) {
        self.daemon.story.problem(&self.about(), &problem.clone().into());
    }

    pub(crate) fn state(&self) -> GuestState {
        if self.ownership.is_in_doubt() {
            return GuestState::InDoubt;
        }
        if let Some(state) = self.journey.as_ref().and_then(Journey::state) {
            return state;
        }
        match &self.engine {
            None => GuestState::Stopped,
            Some(_) if self.stopping.is_some() => GuestState::Stopping,
            Some(held) => held.run.into(),
        }
    }

    /// Tells everyone who looks how the guest is now.
    pub(crate) fn publish(&self) {
        let view = GuestView {
            id: self.id,
            papers: self.papers.clone().map(Arc::new),
            state: self.state(),
            engine: self.engine.as_ref().map(|held| held.instance.clone()),
            is_launching: self.is_launching,
            started_at: self.engine.as_ref().map(|held| held.started_at),
            console: self.engine.as_ref().and_then(|held| held.console.clone()),
            moving: self.journey.as_ref().map(|journey| Moving {
                with: journey.peer_name.to_string(),
                migration: Arc::new(journey.migration(self)),
            }),
            is_edit_pending: self.is_edit_pending,
            remark: self.ownership.remark(),
            ownership: self.ownership.answer(),
        };
        let was = self.view.send_replace(Arc::new(view));
        if was.state != self.state() || was.papers.is_none() {
            self.announce_view();
        }
    }

    /// Sends the guest to the event stream, once the summary is made.
    fn announce_view(&self) {
        let (view, daemon) = (self.view.borrow().clone(), self.daemon.clone());
        tokio::spawn(async move {
            if let Some(summary) = view.summary(&daemon.name).await {
                daemon.story.send(Event::Guest(summary));
            }
        });
    }

    /// What the guest did while no daemon looked.
    async fn after_restart(&mut self) {
        if self.journey.is_some() || self.papers.is_none() {
            return;
        }
        let desired = self.papers.as_ref().map(|papers| papers.desired);
        match self.engine.as_ref().map(|held| held.run) {
            Some(RunState::ShutDown) => self.on_end(End::PoweredOff).await,
            Some(RunState::Panicked) => self.on_end(End::Crashed).await,
            Some(_) => self.story("the daemon was restarted, and looks after the guest again"),
            // A host that was booted ended every engine; `autostart` says what follows.
            None if desired == Some(Desired::Running) && !self.daemon.is_new_boot() => {
                self.on_end(End::EngineLost).await;
            }
            None if self.starts_with_host() => {
                if let Err(problem) = self.start_with_host().await {
                    self.story_problem(&problem);
                }
            }
            None => {}
        }
    }

    async fn start_with_host(&mut self) -> Result<(), Problem> {
        self.must_take_guests("started")?;
        self.story("the host has booted, and `autostart` starts the guest");
        self.start_through_the_door().await
    }

    fn starts_with_host(&self) -> bool {
        let wants = self.papers.as_ref().is_some_and(|papers| papers.guest.autostart);
        wants && self.has_host_booted
    }

    /// What everybody else sees of the guest just now.
    pub(crate) fn current_view(&self) -> Arc<GuestView> {
        self.view.borrow().clone()
    }
}

/// How long a guest may take to shut down for a reboot.
const REBOOT_WITHIN: Duration = Duration::from_secs(120);

async fn next_engine_event(events: &mut broadcast::Receiver<EngineEvent>) -> EngineEvent {
    match events.recv().await {
        Ok(event) => event,
        Err(broadcast::error::RecvError::Closed) => EngineEvent::Gone,
        // The engine is asked for its state after every event, so none is missed for good.
        Err(broadcast::error::RecvError::Lagged(_)) => EngineEvent::Stopped,
    }
}
