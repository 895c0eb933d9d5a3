// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Performs what the machine of a guest's ownership has decided: in order, each effect finished
//! before the next begins.

use crate::guests::{End, GuestEvent, GuestTask, MigrationEvent};
use crate::migrate::carrier::end_carrier;
use crate::migrate::{Journey, Role};
use std::collections::VecDeque;
use whimbrel_api::Problem;
use whimbrel_api::migration::{Mode, Phase};
use whimbrel_handoff::effect::{Effect, Event, Outcome};
use whimbrel_handoff::message::{Body, Kind, Message};
use whimbrel_handoff::ownership::State;
use whimbrel_handoff::source::Source;
#[cfg(feature = "fault-points")]
use whimbrel_host::faults::Passed;
use whimbrel_model::id::{HandoffId, HostId};
use whimbrel_model::run_state::RunState;

/// What performing an effect came to.
enum Done {
    /// Nothing the machine waits for.
    Quiet,
    /// Its answers, in order.
    Answers(Vec<Event>),
    /// The record may or may not be on the disk: nothing more is decided here.
    Poisoned,
}

impl From<Event> for Done {
    fn from(event: Event) -> Self {
        Done::Answers(vec![event])
    }
}

impl GuestTask {
    /// Reports to the machine, and performs what it decides.
    pub(crate) async fn tell_machine(&mut self, event: Event) {
        let effects = self.ownership.decide(|machine| machine.on_event(event));
        self.perform(effects).await;
    }

    pub(crate) async fn perform(&mut self, effects: Vec<Effect>) {
        let mut waiting = VecDeque::from(effects);
        loop {
            while let Some(effect) = waiting.pop_front() {
                let state = self.ownership.machine().name();
                tracing::debug!(guest = %self.id, state, ?effect);
                self.publish_ownership();
                #[cfg(feature = "fault-points")]
                if self.is_lost_at_fault_point(&effect).await {
                    continue;
                }
                match self.perform_one(effect).await {
                    Done::Quiet => {}
                    Done::Answers(events) => {
                        for event in events {
                            let more = self.ownership.decide(|machine| machine.on_event(event));
                            waiting.extend(more);
                        }
                    }
                    Done::Poisoned => return self.publish(),
                }
            }
            // A disputed copy of which nothing is left is none.
            if self.ownership.is_disputed() && self.engine.is_none() {
                waiting.extend(self.ownership.decide(|machine| machine.on_event(Event::GiveUp)));
            }
            if waiting.is_empty() {
                break;
            }
        }
        self.after_effects().await;
    }

    /// What follows from a decision, once it is carried out.
    async fn after_effects(&mut self) {
        if std::mem::take(&mut self.has_lost_engine) && self.ownership.machine().may_run() {
            // Boxed: a policy may start the guest again, which passes through here.
            Box::pin(self.on_engine_lost()).await;
        }
        let owner = match self.ownership.machine().state {
            // The word, or its answer, may have gone into a conversation that the other side has
            // left, as both dial after a restart: then nobody else would say it again.
            State::Source(Source::Ceded { .. }) => return self.nudge_later(),
            State::Elsewhere { owner, .. } => owner,
            _ => return,
        };
        if self.papers.is_some() && self.journey.is_none() {
            let owner = self.daemon.peers.name_of(owner);
            self.story_warn(format!("`{owner}` owns the guest now; it is forgotten here"));
            self.ownership.doubt_is_over();
            self.forget_papers().await;
        }
    }

    /// Others must hear what is decided and durable before anything else is done about it: a host
    /// that claims a guest and asks around relies on being seen.
    fn publish_ownership(&self) {
        if self.current_view().ownership != self.ownership.answer() {
            self.publish();
        }
    }

    /// Every effect is a fault point; a message may be sent twice there, or be lost, which is told.
    #[cfg(feature = "fault-points")]
    async fn is_lost_at_fault_point(&mut self, effect: &Effect) -> bool {
        let passed = whimbrel_host::faults::pass(&crate::faults::name_of(effect)).await;
        let Effect::Send { to, message } = effect else { return false };
        if passed == Passed::Repeat {
            self.send(*to, *message).await;
        }
        passed == Passed::Lose
    }

    async fn perform_one(&mut self, effect: Effect) -> Done {
        match effect {
            Effect::Persist(record) => match self.ownership.persist(&record) {
                Ok(()) => {
                    self.note_durable();
                    Done::Quiet
                }
                Err(problem) => {
                    self.story_problem(&problem);
                    Done::Poisoned
                }
            },
            Effect::Send { to, message } => {
                self.send(to, message).await;
                Done::Quiet
            }
            Effect::TakeClaim(claims) => Done::Answers(self.take_claim(claims).await),
            Effect::WriteOwner(record) => {
                self.write_owner(record).await;
                Done::Quiet
            }
            Effect::Transfer => match self.transfer().await {
                Ok(()) => Done::Quiet,
                Err(problem) => {
                    self.note_problem(problem);
                    Event::EngineFailed.into()
                }
            },
            Effect::ConfirmStopped if self.waits_for_word() => Done::Quiet,
            Effect::ConfirmStopped => self.confirm_stopped().await.into(),
            Effect::Mend { run } => {
                self.give_up_engine();
                self.mend(run).await;
                Done::Quiet
            }
            Effect::AwaitDrained => match self.await_drained().await {
                Some(event) => event.into(),
                None => Done::Quiet,
            },
            Effect::StartEngine => Done::Answers(self.start_incoming_engine().await),
            Effect::WatchEngine => Done::Answers(self.watch_again().await),
            Effect::StartGuest { run } => self.start_arrived(run).await.into(),
            Effect::Announce => {
                self.announce().await;
                Done::Quiet
            }
            Effect::DestroyCopy => {
                self.destroy_copy().await;
                Done::Quiet
            }
            Effect::PauseGuest => {
                self.pause_guest().await;
                Done::Quiet
            }
            Effect::ApplyPolicy { ended } => {
                // Boxed: a policy may start the guest again, which passes through here.
                Box::pin(self.on_end(match ended {
                    Some(RunState::ShutDown) => End::PoweredOff,
                    Some(_) => End::Crashed,
                    None => End::EngineLost,
                }))
                .await;
                Done::Quiet
            }
            Effect::Report(outcome) => {
                self.report(outcome).await;
                Done::Quiet
            }
        }
    }

    async fn pause_guest(&mut self) {
        if let Some(held) = &self.engine {
            // An engine that cannot be paused is gone, and says so itself.
            let _ = held.instance.pause().await;
        }
        self.refresh_run().await;
    }

    /// Sends to the peer: over the conversation about this handoff, or, about one that is history,
    /// over the one in which it was asked about.
    async fn send(&mut self, to: HostId, message: Message) {
        let ours = self.journey.as_ref().filter(|journey| journey.handoff == message.handoff);
        let wire = match ours {
            Some(journey) => journey.wire.as_ref(),
            // Where it asks from now: it may have left those before without our having noticed.
            None => self.visitors.iter().rfind(|wire| wire.peer == to),
        };
        let Some(wire) = wire else { return };
        let sender = wire.sender();
        if matches!(message.body, Body::Refused { .. } | Body::Returned | Body::Abort)
            && let Some(problem) = self.journey.as_ref().and_then(|j| j.problem.clone())
        {
            // The reason goes before the message that it explains. If it is lost, so is that.
            let _ = sender.problem(problem.into()).await;
        }
        if matches!(message.body, Body::Cede { .. }) {
            self.mark(Phase::Handoff);
        }
        // A lost message is repeated when the conversation is made again.
        let _ = sender.send(message).await;
    }

    /// A message of the peer arrived.
    pub(crate) async fn on_message(
        &mut self,
        from: HostId,
        message: Message,
        problem: Option<Box<Problem>>,
    ) {
        if let Some(problem) = problem
            && let Some(journey) = self.journey_of(message.handoff)
        {
            journey.note_problem(*problem);
        }
        if matches!(message.body, Body::Ready) && self.journey_of(message.handoff).is_some() {
            self.mark_arrived();
        }
        #[cfg(feature = "fault-points")]
        if crate::faults::repeats(&format!("receive/{}", message.body.name())).await {
            let effects = self.ownership.decide(|machine| machine.on_message(from, message));
            self.perform(effects).await;
        }
        let effects = self.ownership.decide(|machine| machine.on_message(from, message));
        self.perform(effects).await;
    }

    /// A helper of the migration reports.
    pub(crate) async fn on_migration(&mut self, handoff: HandoffId, event: MigrationEvent) {
        if self.journey_of(handoff).is_none() {
            return;
        }
        let of_engine = matches!(
            event,
            MigrationEvent::Machine(Event::Complete)
                | MigrationEvent::Failed(_)
                | MigrationEvent::Progress(_)
        );
        if of_engine && self.journey_of(handoff).is_some_and(|journey| journey.has_given_up_engine)
        {
            return;
        }
        match event {
            MigrationEvent::Planned(planned) => self.on_planned(*planned).await,
            MigrationEvent::Machine(Event::Nudge) => self.on_nudge().await,
            MigrationEvent::Machine(event) => self.tell_machine(event).await,
            MigrationEvent::Dialled(Ok(wire)) => self.on_wire(wire).await,
            MigrationEvent::Dialled(Err(problem)) => self.on_no_answer(*problem).await,
            MigrationEvent::Failed(problem) => {
                self.note_problem(*problem);
                self.tell_machine(Event::EngineFailed).await;
            }
            MigrationEvent::Rehearsed => self.end_rehearsal().await,
            MigrationEvent::Progress(progress) => self.on_progress(*progress),
            MigrationEvent::Whole => self.on_whole().await,
            MigrationEvent::HalfLost(problem) => self.on_half_lost(*problem).await,
        }
    }

    /// The peer did not answer a call. Up to the commit point there is an end to patience; past it
    /// the disks may know more.
    async fn on_no_answer(&mut self, problem: Problem) {
        self.look_for_owner().await;
        let Some(journey) = &mut self.journey else { return };
        let lost_for = journey.wire_lost_at.get_or_insert_with(std::time::Instant::now).elapsed();
        if lost_for < journey.link_lost_max() {
            return;
        }
        journey.note_problem(problem);
        self.tell_machine(Event::PeerGone).await;
    }

    /// What was asked of the engine in this attempt is not answered any more.
    fn give_up_engine(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.has_given_up_engine = true;
        }
    }

    /// Ends everything of the guest on this host that could run or hold something.
    async fn destroy_copy(&mut self) {
        self.give_up_engine();
        if let Some(console) = self.engine.as_ref().and_then(|held| held.console.as_ref())
            && let Some(journey) = self.journey.as_ref().filter(|journey| journey.is_source())
        {
            console.moved(&journey.peer_name);
        }
        self.end_engine().await;
        // A source destroys its copy because the guest is elsewhere.
        if self.journey.as_ref().is_some_and(Journey::is_source)
            && !self.ownership.machine().may_run()
            && self.half_that_is_lost().is_none()
        {
            self.let_carrier_keep();
        }
        self.drop_carrier().await;
    }

    /// Ends the carrying process and forgets its place.
    pub(crate) async fn drop_carrier(&mut self) {
        let Some(journey) = &mut self.journey else { return };
        let Some(carrier) = journey.carrier.take() else { return };
        fault_point!("carrier/cut");
        end_carrier(&self.daemon, &carrier, journey.handoff).await;
    }

    /// Forgets a guest that is elsewhere, but not that it is.
    pub(crate) async fn forget_papers(&mut self) {
        if self.papers.take().is_none() {
            return;
        }
        let id = self.id;
        if let Err(error) = self.daemon.store.call(move |tables| tables.remove_guest(id)).await {
            self.story_problem(&Problem::of(&error));
        }
        self.publish();
    }

    pub(crate) fn note_problem(&mut self, problem: Problem) {
        if let Some(journey) = &mut self.journey {
            journey.note_problem(problem);
        }
    }

    /// A migration that the ownership file knows of goes on after a restart of the daemon.
    pub(crate) fn resume_journey(&mut self) {
        let Some(handoff) = self.ownership.machine().handoff().copied() else { return };
        let is_source = self.ownership.is_source();
        let mode = match handoff.kind {
            Kind::PreCopy | Kind::PostCopy => Mode::Live,
            Kind::Stopped => Mode::Definition,
        };
        let name = self.daemon.peers.name_of(handoff.peer);
        let role = Role::Resumed { is_source };
        let mut journey = Journey::new(handoff.id, handoff.peer, name, role, mode);
        journey.is_postcopy = handoff.kind == Kind::PostCopy;
        let directory = self.daemon.layout().carry(handoff.id);
        journey.carrier = Some(whimbrel_link::carrier::Control::new(&directory));
        self.journey = Some(journey);
        self.story("the daemon was restarted in the middle of a migration, and takes it up");
        self.call_peer(std::time::Duration::ZERO, None);
    }

    /// Asks the machine to try again, for as long as a handoff waits for the peer's last word or is
    /// in doubt.
    fn nudge_later(&mut self) {
        let (guest, Some(journey)) = (self.handle.clone(), &mut self.journey) else { return };
        if std::mem::replace(&mut journey.is_nudge_due, true) {
            return;
        }
        let handoff = journey.handoff;
        let nudging = async move {
            tokio::time::sleep(super::DOUBT_RETRY).await;
            let event = MigrationEvent::Machine(Event::Nudge);
            // The guest may have been forgotten meanwhile.
            let _ = guest.send(GuestEvent::Migration { handoff, event }).await;
        };
        journey.add_helper(tokio::spawn(nudging).abort_handle());
    }

    async fn on_nudge(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.is_nudge_due = false;
        }
        self.tell_machine(Event::Nudge).await;
    }

    /// What came of the attempt, for people.
    async fn report(&mut self, outcome: Outcome) {
        let was = self.ownership.remark();
        self.ownership.note(&outcome);
        if matches!(outcome, Outcome::InDoubt(_)) {
            self.nudge_later();
        }
        match outcome {
            Outcome::InDoubt(_) if was == self.ownership.remark() => {}
            Outcome::Moved { .. } => self.end_moved().await,
            Outcome::Kept { reason } => self.end_kept(reason).await,
            Outcome::Arrived { .. } => self.end_arrived().await,
            Outcome::Declined { reason } => self.end_declined(reason).await,
            Outcome::Acquired { .. } => self.end_overtaken().await,
            Outcome::AcquireLost { holder } => {
                let holder = self.daemon.peers.name_of(holder);
                self.story_warn(format!("`{holder}` was faster in taking the guest"));
            }
            Outcome::Disputed { .. } | Outcome::InDoubt(_) => {
                if let Some(why) = self.ownership.remark() {
                    self.story_warn(format!("it is not known who owns the guest: {why}"));
                }
            }
        }
        self.publish();
    }
}
