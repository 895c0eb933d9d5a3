// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The side the guest leaves.

use crate::daemon::Daemon;
use crate::guests::GuestError;
use crate::guests::{GuestEvent, GuestTask, MigrationEvent};
use crate::migrate::bargain::Keeper;
use crate::migrate::carrier::Choice;
use crate::migrate::watch::{self, Watched};
use crate::migrate::{Asked, Journey, MoveOrder, Planned, Role, STALL_MAX, make_plan_for_move};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_api::event::{Event as ApiEvent, GuestGone};
use whimbrel_api::migration::{MigrationResult, Mode, Phase};
use whimbrel_api::{Kind as ProblemKind, Problem};
use whimbrel_bargain::Terms;
use whimbrel_engine::{ChannelEnd, EngineEvent, Migration, MigrationOptions, Tuning};
use whimbrel_handoff::effect::Event;
use whimbrel_handoff::message::{Kind, Reason};
use whimbrel_link::carrier::{self, Config, Meet, Side};
use whimbrel_link::wire::Offer;
use whimbrel_model::id::GuestName;
use whimbrel_model::run_state::RunState;

whimbrel_model::codes! {
    CANCELLED = "migration/cancelled": "A person cancelled the migration; the guest is where it was.";
    TARGET_REFUSED = "migration/target-refused": "The target would not take the guest.";
    TARGET_LOST = "migration/target-lost": "The target stopped answering before the guest was handed over.";
    GUEST_ENDED = "migration/guest-ended": "The guest powered off or crashed while it was being moved.";
    INTERRUPTED = "migration/interrupted": "A daemon was restarted in the middle, so the attempt was given up.";
    OVERTAKEN = "migration/overtaken": "An operator's word ended a handoff in doubt.";
    FAILED = "migration/failed": "The migration was given up; the guest is where it was.";
    CARRIER_FAILED = "migration/carrier-failed": "The process that carries the memory could not be started.";
}

/// How long an engine may take to answer a cancellation before its sockets are closed.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);
/// The same where post-copy may have begun: QEMU 7.2 comes back from that only while they are open.
const POSTCOPY_CANCEL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the source's engine may be behind the target's in having finished.
const CONFIRM_MAX: Duration = Duration::from_secs(5);
const RESUME_AGAIN_AFTER: Duration = Duration::from_millis(100);
const CONFIRM_LOOK_EVERY: Duration = Duration::from_millis(1);

impl GuestTask {
    pub(crate) async fn order_migrate(&mut self, order: MoveOrder) -> Result<(), Problem> {
        fault_point!("receive/order");
        if self.journey.is_some() {
            return Err(self.not_now("moved", "it is being moved already: `whimbrel watch`"));
        }
        if self.stopping.is_some() {
            return Err(self.not_now("moved", "it was asked to shut down; wait for that"));
        }
        self.ownership.must_own(&self.name())?;
        let mode = match (&self.engine, order.is_stop_and_copy) {
            (None, _) => Mode::Definition,
            (Some(_), true) => Mode::StopAndCopy,
            (Some(_), false) => Mode::Live,
        };
        let target = order.target.clone();
        let role = Role::Planning(Box::new(order.clone()));
        let mut journey = Journey::new(order.handoff, target.host, target.name.clone(), role, mode);
        journey.caller = Some(order.caller);
        let (daemon, guest) = (self.daemon.clone(), self.handle.clone());
        let (view, name) = (self.current_view(), self.name().to_string());
        let planning = async move {
            // Not in the guest's own task: a dead file server would keep that from everything else.
            let planned = match view.has_damaged_records().await {
                // No host could claim it.
                Ok(true) => Err(GuestError::RecordDamaged { guest: name }.into()),
                Ok(false) => {
                    let asked = Asked {
                        is_stop_and_copy: order.is_stop_and_copy,
                        bargain: order.bargain,
                        may_miss: order.may_miss,
                        // Its engine is started before anything is copied, and stays.
                        is_proved: false,
                        is_unprobed: order.is_unprobed,
                    };
                    make_plan_for_move(&daemon, &view, &order.target, asked).await
                }
                Err(problem) => Err(problem),
            };
            let event = MigrationEvent::Planned(Box::new(planned));
            // The guest may have been forgotten meanwhile.
            let _ = guest.send(GuestEvent::Migration { handoff: order.handoff, event }).await;
        };
        journey.add_helper(tokio::spawn(planning).abort_handle());
        self.journey = Some(journey);
        self.story(format!("the guest is to move to `{}`", target.name));
        self.send_migration();
        Ok(())
    }

    /// The plan is made: refuse, or offer the guest to the target.
    pub(super) async fn on_planned(&mut self, planned: Result<Planned, Problem>) {
        fault_point!("receive/plan");
        let Some(journey) = &mut self.journey else { return };
        let Role::Planning(order) = &journey.role else { return };
        let order = order.clone();
        let planned = match planned {
            Ok(planned) => planned,
            Err(problem) => return self.refuse_journey(problem).await,
        };
        journey.progressing.note_plan(&planned.plan);
        if let Some(problem) = planned.plan.problem() {
            return self.refuse_journey(problem.into()).await;
        }
        journey.link_rate = [planned.rate, order.wish.bandwidth].into_iter().flatten().min();
        journey.dirty_before = planned.dirty_rate;
        journey.switchover = planned.switchover;
        let runs = self.engine.as_ref().is_some_and(|held| held.run == RunState::Running);
        journey.is_postcopy = runs && order.may_postcopy();
        let is_postcopy = journey.is_postcopy;
        let choice = planned.choose(order.wish, is_postcopy);
        let offer = match self.offer_papers(&order, &choice) {
            Ok(offer) => offer,
            Err(problem) => return self.refuse_journey(problem).await,
        };
        let (kind, run) = match &self.engine {
            Some(held) if is_postcopy => (Kind::PostCopy, Some(held.run)),
            Some(held) => (Kind::PreCopy, Some(held.run)),
            None => (Kind::Stopped, None),
        };
        let offered = self
            .ownership
            .try_decide(|machine| machine.offer(order.handoff, order.target.host, kind, run));
        let effects = match offered {
            Ok(effects) => effects,
            Err(error) => {
                let why = error.to_string();
                let guest = self.name().to_string();
                return self.refuse_journey(GuestError::InDoubt { guest, why }.into()).await;
            }
        };
        if let Some(journey) = &mut self.journey {
            journey.role = Role::Source(order);
            journey.offer = Some(Box::new(offer.clone()));
        }
        self.mark(Phase::Prepare);
        self.perform(effects).await;
        self.call_peer(Duration::ZERO, Some(offer));
    }

    fn offer_papers(&self, order: &MoveOrder, choice: &Choice) -> Result<Offer, Problem> {
        let papers = self.papers()?;
        let passport = papers.passport.as_ref().map(whimbrel_model::passport::file::to_json);
        Ok(Offer {
            definition: papers.definition(),
            passport: passport.unwrap_or_default().into_bytes(),
            channels: choice.channels,
            is_compressed: choice.channels > 1,
            is_stop_and_copy: order.is_stop_and_copy,
            bandwidth: order.wish.bandwidth,
            pause_max: order.bargain.pause_max,
            is_transient: papers.is_transient,
            carrier: choice.carrier,
            has_urgent_channel: choice.has_urgent_channel,
        })
    }

    /// The target waits: begin to send.
    pub(super) async fn transfer(&mut self) -> Result<(), Problem> {
        let Some(journey) = &self.journey else { return Ok(()) };
        let Role::Source(order) = &journey.role else { return Ok(()) };
        let (Some(held), Some(offer)) = (&self.engine, &journey.offer) else {
            return Ok(());
        };
        let mut options = migration_options(offer);
        options.may_throttle = order.may_throttle();
        options.may_postcopy = journey.is_postcopy;
        let passport = self.papers.as_ref().and_then(|papers| papers.passport.as_ref());
        let dirty_before = journey.dirty_before;
        let terms = order.terms(self.name().to_string(), offer.bandwidth, passport);
        let switchover = journey.switchover.unwrap_or(terms.switchover);
        let terms = Terms { dirty_before, switchover, link_rate: journey.link_rate, ..terms };
        let began = journey.progressing.began();
        let keeper = Keeper::new(terms.clone(), began, journey.word.subscribe());
        options.tuning = keeper.tuning();
        let (instance, handoff, target) =
            (held.instance.clone(), journey.handoff, order.target.clone());
        let socket = self.daemon.layout().guest(self.id).run().join("migrate.sock");
        let config = Config {
            handoff,
            identity: self.daemon.layout().identity(),
            peer: target.host,
            side: Side::Source { addresses: target.addresses },
            engine: Meet::Listen { path: socket.clone(), owner: self.daemon.engine_owner() },
            connections: options.connections(),
            bandwidth: offer.bandwidth.map(|bytes| bytes.0),
            way: self.way(offer, journey.link_rate).await,
            is_again: false,
        };
        let carrier = start_carrier(self, &config).await?;
        if let Some(journey) = &mut self.journey {
            journey.carrier = Some(carrier.clone());
            journey.terms = Some(terms);
        }
        let sent = instance.send(options, ChannelEnd::Connect(socket)).await;
        sent.map_err(|error| Problem::of(&error))?;
        self.mark(Phase::Memory);
        let guest = self.handle.clone();
        let is_postcopy = self.journey.as_ref().is_some_and(|journey| journey.is_postcopy);
        let watched = Watched { guest, handoff, instance, carrier };
        let watching = watch::source(watched, keeper, is_postcopy);
        let helper = tokio::spawn(watching).abort_handle();
        if let Some(journey) = &mut self.journey {
            journey.add_helper(helper);
        }
        Ok(())
    }

    /// Whether the engine is, now and by its own word, stopped for good with everything sent.
    pub(super) async fn confirm_stopped(&mut self) -> Event {
        let Some(journey) = &self.journey else { return Event::Unconfirmed };
        let Some(held) = &self.engine else {
            return if journey.mode == Mode::Definition {
                Event::Confirmed { run: None }
            } else {
                Event::Unconfirmed
            };
        };
        let Some(carrier) = &journey.carrier else { return Event::Unconfirmed };
        let deadline = Instant::now() + CONFIRM_MAX;
        while Instant::now() < deadline {
            let asked = tokio::time::timeout_at(deadline, held.instance.migration()).await;
            match asked {
                Ok(Ok(Migration::Completed(progress))) => {
                    // One that is gone has counted nothing, and waiting will not change that.
                    let Ok(carried) = carrier.status().await else { return Event::Unconfirmed };
                    if carried.has_sent_everything() {
                        let run = held.run;
                        if self.has_stood_too_long() {
                            return Event::Unconfirmed;
                        }
                        self.note_completed(&progress, Some(carried));
                        return Event::Confirmed { run: Some(run) };
                    }
                }
                // The target waits in it, and ours stands still for good.
                Ok(Ok(Migration::PostCopy(_) | Migration::Interrupted(_)))
                    if journey.is_postcopy =>
                {
                    return Event::Confirmed { run: Some(held.run) };
                }
                Ok(Ok(Migration::Active(_) | Migration::Switching(_))) => {}
                _ => return Event::Unconfirmed,
            }
            tokio::time::sleep(CONFIRM_LOOK_EVERY).await;
        }
        Event::Unconfirmed
    }

    /// Brings the engine back to what the guest was before the attempt.
    pub(super) async fn mend(&mut self, run: RunState) {
        let Some(held) = &self.engine else {
            // Nothing to mend: the guest has crashed, and is ours.
            self.drop_carrier().await;
            self.has_lost_engine = true;
            return;
        };
        let instance = held.instance.clone();
        let carrier = self.journey.as_ref().and_then(|journey| journey.carrier.clone());
        let is_postcopy = self.journey.as_ref().is_some_and(|journey| journey.is_postcopy);
        let patience = if is_postcopy { POSTCOPY_CANCEL_PATIENCE } else { CANCEL_PATIENCE };
        let ended = cancel_with_patience(&*instance, carrier.as_ref(), patience).await;
        if let Err(problem) = &ended {
            self.story_warn(format!("the engine did not take back the migration: {problem}"));
        }
        self.drop_carrier().await;
        if run == RunState::Running {
            let now = instance.run_state().await;
            // What has ended by itself is for its policies, which hear of it next.
            let is_still = matches!(now, Ok(RunState::Paused | RunState::Suspended));
            if is_still && let Err(error) = resume_again(&*instance, is_postcopy).await {
                self.story_problem(&Problem::of(&error));
                if is_postcopy {
                    self.end_stuck(&*instance).await;
                }
            }
            // Switches may have seen the target's tap meanwhile; wrong ports heal at once.
            let _ = instance.announce().await;
        }
        self.refresh_run().await;
    }

    /// QEMU 7.2 does not always come back from a post-copy that did not begin, and what it holds
    /// will never run again. Its end is heard of as a crash.
    async fn end_stuck(&self, instance: &dyn whimbrel_engine::Instance) {
        self.story_warn("its engine does not come back from post-copy, and is ended".to_owned());
        if let Err(error) = instance.destroy().await {
            self.story_problem(&Problem::of(&error));
        }
    }

    pub(crate) async fn order_cancel(&mut self) -> Result<(), Problem> {
        let guest = self.name().to_string();
        let Some(journey) = &mut self.journey else {
            return Err(GuestError::NotMoving { guest }.into());
        };
        if self.ownership.has_ceded() {
            let target = journey.peer_name.to_string();
            return Err(GuestError::TooLate { guest, target }.into());
        }
        journey.is_cancelled = true;
        if matches!(journey.role, Role::Planning(_)) {
            self.end_journey(MigrationResult::Cancelled, Some(cancelled(&guest))).await;
            return Ok(());
        }
        journey.note_problem(cancelled(&guest));
        self.tell_machine(Event::Cancelled).await;
        Ok(())
    }

    /// The plan said no, or the guest could not be offered: nothing was begun.
    async fn refuse_journey(&mut self, problem: Problem) {
        self.story_problem(&problem);
        self.end_journey(MigrationResult::Refused, Some(problem)).await;
    }

    pub(super) async fn end_kept(&mut self, reason: Reason) {
        let guest = self.name();
        let cancelled = self.journey.as_ref().is_some_and(|journey| journey.is_cancelled);
        let told = self.journey.as_ref().and_then(|journey| journey.problem.clone());
        if told.is_none() && self.journey.as_ref().is_some_and(|journey| journey.has_rehearsed) {
            self.story("the guest stays here, as before the rehearsal");
            return self.end_journey(MigrationResult::Rehearsed, None).await;
        }
        let problem = told.unwrap_or_else(|| kept(&guest, self.peer_name(), reason));
        let result = match (cancelled, problem.kind) {
            (true, _) => MigrationResult::Cancelled,
            (false, ProblemKind::Refused) => MigrationResult::Refused,
            (false, _) => MigrationResult::Failed,
        };
        self.story_warn(format!("the guest stays here: {}", problem.text));
        self.end_journey(result, Some(problem)).await;
    }

    /// An operator's word has taken the guest out of an open handoff.
    pub(super) async fn end_overtaken(&mut self) {
        let Some(journey) = &self.journey else { return };
        let (guest, other) = (self.name().to_string(), journey.peer_name.to_string());
        let problem = Problem::new(
            ProblemKind::Failed,
            OVERTAKEN,
            format!("guest `{guest}` was recovered while `{other}` was silent about the handoff"),
            format!("see what it does now: `whimbrel show {guest}`"),
        );
        self.end_journey(MigrationResult::Failed, Some(problem)).await;
    }

    /// The guest is on the target, and nothing of it is left here but the memory of that.
    pub(super) async fn end_moved(&mut self) {
        let target = self.peer_name();
        let name = self.name().to_string();
        self.mark_released();
        match self.half_that_is_lost() {
            None => {
                self.story(format!("the guest now runs on `{target}`"));
                self.end_journey(MigrationResult::Done, None).await;
            }
            Some(problem) => {
                self.story_problem(&problem);
                self.end_journey(MigrationResult::Failed, Some(problem)).await;
            }
        }
        self.forget_papers().await;
        self.daemon.story.send(ApiEvent::GuestGone(GuestGone {
            uuid: self.id.to_string(),
            name,
            moved_to: Some(target.to_string()),
        }));
    }

    /// What the engine says while the guest moves.
    pub(crate) async fn on_engine_while_moving(&mut self, event: EngineEvent) {
        let has_begun = self.ownership.machine().handoff().is_some();
        let is_source = self.journey.as_ref().is_some_and(Journey::is_source);
        if self.journey.as_ref().is_some_and(Journey::runs_here_in_postcopy) {
            if event == EngineEvent::Gone && self.half_that_is_lost().is_none() {
                self.lose_half();
            }
            // If it ends, that ends the journey, too.
            return self.on_engine(event).await;
        }
        if !has_begun || !is_source {
            // Still only planned, or not ours to judge: an arriving engine has no guest yet.
            match event {
                EngineEvent::Gone if !is_source => self.engine_of_target_gone().await,
                event if is_source => self.on_engine(event).await,
                _ => {}
            }
            return;
        }
        let ended = match event {
            EngineEvent::ShutDown => RunState::ShutDown,
            EngineEvent::Panicked => RunState::Panicked,
            EngineEvent::Gone => return self.engine_of_source_gone().await,
            EngineEvent::IoError { .. } => return self.change_run(RunState::IoError).await,
            EngineEvent::Suspended => return self.change_run(RunState::Suspended).await,
            EngineEvent::Stopped => {
                // The guest stands still to be handed over, or was paused by a person.
                let is_held = self.journey.as_ref().is_some_and(Journey::is_held);
                if is_held && self.lost_hold().await {
                    return;
                }
                if !is_held && !self.ownership.has_ceded() {
                    self.note_stopped();
                }
                return;
            }
            EngineEvent::Reset | EngineEvent::Resumed | EngineEvent::Migration => return,
        };
        let guest = self.name();
        self.note_problem(kept(&guest, self.peer_name(), Reason::GuestEnded));
        self.change_run(ended).await;
        self.tell_machine(Event::GuestEnded { run: ended }).await;
    }

    async fn change_run(&mut self, run: RunState) {
        if let Some(held) = &mut self.engine {
            held.run = run;
        }
        if !matches!(run, RunState::ShutDown | RunState::Panicked) {
            self.tell_machine_run(run).await;
        }
    }

    pub(crate) async fn tell_machine_run(&mut self, run: RunState) {
        if self.journey.is_some() {
            self.tell_machine(Event::RunChanged { run }).await;
        }
    }

    /// The source's engine died. Before the commit point that is a crash of the guest, here.
    async fn engine_of_source_gone(&mut self) {
        let has_ceded = self.ownership.has_ceded();
        let guest = self.name();
        self.engine = None;
        if has_ceded {
            // In post-copy nothing more can follow from here.
            if self.journey.as_ref().is_some_and(Journey::is_half) {
                self.lose_half();
            }
            return self.tell_machine(Event::Drained).await;
        }
        self.note_problem(kept(&guest, self.peer_name(), Reason::GuestEnded));
        // Mending finds that there is none, and the policies speak.
        self.tell_machine(Event::EngineFailed).await;
    }

    /// Refuses what would change a guest that is just being handed over.
    pub(crate) fn must_not_be_ceding(&self, action: &'static str) -> Result<(), Problem> {
        let stands_still = self
            .journey
            .as_ref()
            .is_some_and(|journey| journey.progressing.phase() >= Phase::Switch);
        if self.journey.as_ref().is_some_and(Journey::runs_here_in_postcopy) {
            return Ok(());
        }
        let is_held = self.journey.as_ref().is_some_and(|journey| journey.waits_for_word);
        if is_held {
            let instead =
                "it is held for its handing over: `whimbrel cutover`, or `whimbrel cancel`";
            return Err(self.not_now(action, instead));
        }
        if stands_still || self.ownership.has_ceded() {
            return Err(self.not_now(action, "it is just being handed over; wait a moment"));
        }
        Ok(())
    }

    pub(crate) fn peer_name(&self) -> String {
        self.journey.as_ref().map(|journey| journey.peer_name.to_string()).unwrap_or_default()
    }
}

pub(super) fn migration_options(offer: &Offer) -> MigrationOptions {
    MigrationOptions {
        channels: offer.channels,
        is_compressed: offer.is_compressed,
        tuning: Tuning {
            bandwidth: offer.bandwidth,
            pause_max: offer.pause_max,
            throttle_percent: 0,
        },
        is_stop_and_copy: offer.is_stop_and_copy,
        may_throttle: false,
        may_postcopy: false,
        has_urgent_channel: offer.has_urgent_channel,
    }
}

/// Starts the carrying process of the journey under way.
pub(super) async fn start_carrier(
    task: &GuestTask,
    config: &Config,
) -> Result<carrier::Control, Problem> {
    fault_point!("carrier/start");
    let spawned = spawn_carrier(&task.daemon, &task.name(), config).await;
    spawned.inspect_err(|_| {
        // Nobody else will know of its place.
        if let Err(error) = task.daemon.layout().remove_carry(config.handoff) {
            tracing::warn!(%error, "the place of a carrying process stays behind");
        }
    })
}

/// Starts a carrying process. Where that fails, its place stays.
pub(super) async fn spawn_carrier(
    daemon: &Daemon,
    guest: &GuestName,
    config: &Config,
) -> Result<carrier::Control, Problem> {
    let made = daemon.layout().create_carry(config.handoff);
    let directory = made.map_err(|error| Problem::of(&error))?;
    // Not by its name: an upgrade may have put another version there, or nothing yet.
    let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let description = format!("Whimbrel migration of guest {guest}");
    let wrapper = whimbrel_host::process::scope_wrapper("whimbrel-carry", &description);
    let spawned = carrier::spawn(&program, &wrapper, &directory, config).await;
    spawned.map_err(|error| {
        Problem::new(
            ProblemKind::Failed,
            CARRIER_FAILED,
            whimbrel_model::problem::chain(&error),
            "correct the cause and try again; the guest was not touched",
        )
    })
}

/// Cancels a migration out of `instance`. An engine in the middle of its last pages answers only
/// once its sockets are closed, so patience has an end and then the carrier is cut.
async fn cancel_with_patience(
    instance: &dyn whimbrel_engine::Instance,
    carrier: Option<&carrier::Control>,
    patience: Duration,
) -> Result<Migration, Problem> {
    let cancelling = instance.cancel();
    tokio::pin!(cancelling);
    if let Ok(ended) = tokio::time::timeout(patience, &mut cancelling).await {
        return ended.map_err(|error| Problem::of(&error));
    }
    if let Some(carrier) = carrier {
        // It may be gone already; the sockets are closed then, too.
        let _ = carrier.cut().await;
    }
    let late = tokio::time::timeout(STALL_MAX, cancelling).await;
    late.map_err(|_| {
        Problem::new(ProblemKind::Failed, FAILED, "the engine does not answer", "look at its host")
    })?
    .map_err(|error| Problem::of(&error))
}

/// Lets the guest go on. In post-copy the target's engine holds its disks, until it is ended.
async fn resume_again(
    instance: &dyn whimbrel_engine::Instance,
    is_postcopy: bool,
) -> Result<(), whimbrel_engine::EngineError> {
    let deadline = Instant::now() + STALL_MAX;
    loop {
        let resumed = instance.resume().await;
        if resumed.is_ok() || !is_postcopy || Instant::now() >= deadline {
            return resumed;
        }
        tokio::time::sleep(RESUME_AGAIN_AFTER).await;
    }
}

fn cancelled(guest: &str) -> Problem {
    Problem::new(
        ProblemKind::Failed,
        CANCELLED,
        format!("the migration of `{guest}` was cancelled; the guest stays where and as it was"),
        format!("start it again whenever you like: `whimbrel migrate {guest}`"),
    )
}

/// Says why the guest stays, where nobody has said it better.
fn kept(guest: &GuestName, target: String, reason: Reason) -> Problem {
    let again = format!("try again: `whimbrel migrate {guest} {target}`");
    let (code, text, remedy) = match reason {
        Reason::Cancelled => return cancelled(guest.as_str()),
        Reason::PeerGone => (
            TARGET_LOST,
            format!("`{target}` stopped answering before guest `{guest}` was handed over"),
            format!("look whether `{target}` is up (`whimbrel host list`), then {again}"),
        ),
        Reason::GuestEnded => (
            GUEST_ENDED,
            format!("guest `{guest}` ended while it was being moved"),
            format!("see what it does now: `whimbrel show {guest}`"),
        ),
        Reason::Restarted => (
            INTERRUPTED,
            format!("a daemon was restarted while guest `{guest}` was being moved"),
            again,
        ),
        Reason::PeerRefused | Reason::Stale | Reason::Busy | Reason::ClaimLost => (
            TARGET_REFUSED,
            format!("`{target}` would not take guest `{guest}`"),
            format!("read why in the log of both hosts: `whimbrel log {guest}`"),
        ),
        Reason::Failed => {
            (FAILED, format!("the migration of guest `{guest}` to `{target}` failed"), again)
        }
    };
    Problem::new(ProblemKind::Failed, code, text, remedy)
}
