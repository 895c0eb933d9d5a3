// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Performs what the machine of a guest's ownership has decided: in order, each effect finished
//! before the next begins.

use crate::guests::{End, GuestTask, MigrationEvent};
use crate::migrate::{Journey, Role};
use std::collections::VecDeque;
use whimbrel_api::Problem;
use whimbrel_api::migration::{Mode, Phase};
use whimbrel_handoff::effect::{Effect, Event, Outcome};
use whimbrel_handoff::message::{Body, Kind, Message};
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
        while let Some(effect) = waiting.pop_front() {
            tracing::debug!(guest = %self.id, state = self.ownership.machine().name(), ?effect);
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
            Effect::TakeClaim(claims) => self.take_claim(claims).await.into(),
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
            Effect::ConfirmStopped => self.confirm_stopped().await.into(),
            Effect::Mend { run } => {
                self.mend(run).await;
                Done::Quiet
            }
            // Post-copy is not offered, so nothing is ever left to drain.
            Effect::AwaitDrained => Event::Drained.into(),
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
                if let Some(held) = &self.engine {
                    // An engine that cannot be paused is gone, and says so itself.
                    let _ = held.instance.pause().await;
                }
                self.refresh_run().await;
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

    /// Sends to the peer: over the conversation about this handoff, or, about one that is history,
    /// over the one in which it was asked about.
    async fn send(&mut self, to: HostId, message: Message) {
        let ours = self.journey.as_ref().filter(|journey| journey.handoff == message.handoff);
        let wire = match ours {
            Some(journey) => journey.wire.as_ref(),
            None => self.visitors.iter().find(|wire| wire.peer == to),
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
        let effects = self.ownership.decide(|machine| machine.on_message(from, message));
        self.perform(effects).await;
    }

    /// A helper of the migration reports.
    pub(crate) async fn on_migration(&mut self, handoff: HandoffId, event: MigrationEvent) {
        if self.journey_of(handoff).is_none() {
            return;
        }
        match event {
            MigrationEvent::Planned(planned) => self.on_planned(*planned).await,
            MigrationEvent::Machine(event) => self.tell_machine(event).await,
            MigrationEvent::Dialled(Ok(wire)) => self.on_wire(wire).await,
            MigrationEvent::Dialled(Err(problem)) => self.on_no_answer(*problem).await,
            MigrationEvent::Failed(problem) => {
                self.note_problem(*problem);
                self.tell_machine(Event::EngineFailed).await;
            }
            MigrationEvent::Progress(progress) => self.on_progress(*progress),
        }
    }

    /// The peer did not answer a call. Up to the commit point there is an end to patience.
    async fn on_no_answer(&mut self, problem: Problem) {
        let Some(journey) = &mut self.journey else { return };
        let lost_for = journey.wire_lost_at.get_or_insert_with(std::time::Instant::now).elapsed();
        if lost_for < super::LINK_LOST_MAX {
            return;
        }
        journey.note_problem(problem);
        self.tell_machine(Event::PeerGone).await;
    }

    /// Ends everything of the guest on this host that could run or hold something.
    async fn destroy_copy(&mut self) {
        if let Some(console) = self.engine.as_ref().and_then(|held| held.console.as_ref())
            && let Some(journey) = self.journey.as_ref().filter(|journey| journey.is_source())
        {
            console.moved(&journey.peer_name);
        }
        self.end_engine().await;
        self.drop_carrier().await;
    }

    /// Ends the carrying process and forgets its place.
    pub(crate) async fn drop_carrier(&mut self) {
        let Some(journey) = &mut self.journey else { return };
        let Some(carrier) = journey.carrier.take() else { return };
        if let Err(error) = carrier.cut().await {
            tracing::warn!(%error, "the carrying process does not end");
        }
        if let Err(error) = self.daemon.layout().remove_carry(journey.handoff) {
            tracing::warn!(%error, "its place stays behind");
        }
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
        let directory = self.daemon.layout().carry(handoff.id);
        journey.carrier = Some(whimbrel_link::carrier::Control::new(&directory));
        self.journey = Some(journey);
        self.story("the daemon was restarted in the middle of a migration, and takes it up");
        self.call_peer(std::time::Duration::ZERO, None);
    }

    /// What came of the attempt, for people.
    async fn report(&mut self, outcome: Outcome) {
        self.ownership.note(&outcome);
        match outcome {
            Outcome::Moved { .. } => self.end_moved().await,
            Outcome::Kept { reason } => self.end_kept(reason).await,
            Outcome::Arrived { .. } => self.end_arrived().await,
            Outcome::Declined { reason } => self.end_declined(reason).await,
            Outcome::Acquired { .. } => {}
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
