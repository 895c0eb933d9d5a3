// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Post-copy: the guest runs on the target while the rest of its memory is still at the source.
//!
//! Neither half is a guest without the other, so neither daemon ends anything: each follows its
//! engine until that says that nothing is missing any more. A link that is lost makes the guest
//! wait where it touches a page that has not come. The engines do not notice: their carrying
//! processes make the link again, for as long as it takes, with or without the daemons.
//!
//! Where the target has everything, its engine's last word tells the source's so. That may be lost
//! with the carrying process, so the target's report of the migration is as good: it is written
//! down before that process ends.
//!
//! Only where a carrying process itself was lost do the engines have to take new channels. QEMU
//! before 8.2 never comes back from a channel that is lost while it does so. So the source alone
//! decides when: its new carrying process first makes a link that leads to the target's engine, and
//! then its engine is given the channel. The target listens, again whenever that comes to nothing.
//! What is needed for it lies beside the carrying process, so that a restarted daemon can, too.
//!
//! A half whose engine ended is lost for good, and the other with it. The host it was on says so in
//! its report of the migration, which the other asks for while it misses something: the source
//! then clears away its own half, and the target ends its engine, which is a crash of the guest
//! there. The same where the guest ended by itself on the target, or was stopped.

use crate::daemon::Daemon;
use crate::guests::{GuestEvent, GuestHandle, GuestTask, MigrationEvent};
use crate::migrate::report::report_of;
use crate::migrate::source::{GUEST_ENDED, spawn_carrier};
use crate::migrate::watch::{ENGINE_ANSWER_MAX, next_look};
use crate::migrate::{Figures, Journey, Role};
use crate::story::About;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use whimbrel_api::migration::{MigrationResult, Mode, Phase};
use whimbrel_api::{Kind, Problem};
use whimbrel_engine::{ChannelEnd, EngineError, Instance, Migration};
use whimbrel_handoff::effect::Event;
use whimbrel_link::carrier::{Config, Control, Meet, Side, Status};
use whimbrel_link::wire::ReportQuery;
use whimbrel_model::id::{GuestId, GuestName, HandoffId, HostId};
use whimbrel_model::problem::chain;
use whimbrel_model::units::Bytes;

whimbrel_model::codes! {
    HALF_LOST = "migration/half-lost": "A host or an engine was lost while the guest was in two halves.";
}

/// How often to look at an engine whose guest is in two halves.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the last word of the target's engine may take to the source's, and how often to look.
const LAST_WORD_MAX: Duration = Duration::from_secs(2);
const LAST_WORD_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long two engines may take to go on over a link that is there.
const MEET_MAX: Duration = Duration::from_secs(15);

/// One half, followed until nothing is missing any more. Not by the guest's task: that may have to
/// wait for an engine, which may have to wait for new channels.
struct Half {
    daemon: Arc<Daemon>,
    guest: GuestHandle,
    name: GuestName,
    handoff: HandoffId,
    peer: HostId,
    is_source: bool,
    instance: Arc<dyn Instance>,
    carrier: Control,
    /// The other host is asked what became of its half.
    asking: Option<JoinHandle<Option<MigrationEvent>>>,
    /// Since when the engine here has all it wants.
    complete_since: Option<Instant>,
    /// It was told that the link is lost.
    is_cut: bool,
    /// A channel has ended: one of the engines is through, or gone.
    has_ended: bool,
    /// The engine has lost its channels, and this was done about it.
    again: Option<Again>,
}

/// A carrying process that was started for an engine that had lost its own.
#[derive(Clone, Copy)]
enum Again {
    /// The target's engine listens, and the process waits for the source.
    Listens,
    /// The source's process makes a link.
    Dials,
    /// The source's engine has been told of the link.
    Given { since: Instant },
}

impl Half {
    async fn follow(mut self) {
        let mut events = self.instance.events();
        loop {
            // Asked first: when the engine is done, its channels end.
            let carried = self.carrier.status().await.unwrap_or_default();
            self.note_link(&carried);
            let asked = tokio::time::timeout(ENGINE_ANSWER_MAX, self.instance.migration()).await;
            let event = match asked {
                Ok(Ok(Migration::Completed(_))) => {
                    if !self.is_last_word_said(&carried) {
                        tokio::time::sleep(LAST_WORD_LOOK_EVERY).await;
                        continue;
                    }
                    self.note_urgent(&carried);
                    Some(MigrationEvent::Whole)
                }
                Ok(Ok(Migration::Interrupted(_))) => {
                    self.join_again(&carried).await;
                    None
                }
                Ok(Ok(migration)) => {
                    self.again = None;
                    let figures = Figures { migration, carried, advice: None };
                    Some(MigrationEvent::Progress(Box::new(figures)))
                }
                // It says so itself.
                Ok(Err(EngineError::Gone { .. })) => return,
                // It is busy, or waits for a page itself.
                Ok(Err(_)) | Err(_) => None,
            };
            let event = match event {
                Some(MigrationEvent::Progress(_)) | None if self.is_alone() || event.is_none() => {
                    self.other_half().await.or(event)
                }
                event => event,
            };
            let is_over =
                matches!(event, Some(MigrationEvent::Whole | MigrationEvent::HalfLost(_)));
            if let Some(event) = event {
                let handoff = self.handoff;
                if self.guest.send(GuestEvent::Migration { handoff, event }).await.is_err() {
                    return;
                }
            }
            if is_over {
                return;
            }
            next_look(&mut events, LOOK_EVERY).await;
        }
    }

    /// Whether what carries the memory may end. The target's engine tells the source's that nothing
    /// is missing, after it has said so here.
    fn is_last_word_said(&mut self, carried: &Status) -> bool {
        let since = *self.complete_since.get_or_insert_with(Instant::now);
        self.is_source || carried.has_sent_everything() || since.elapsed() > LAST_WORD_MAX
    }

    /// Asks the other host, from time to time, whether its half is lost for good, or whole. Does
    /// not wait for the answer: it may be out of reach, and as long as it has its half it takes
    /// its time.
    async fn other_half(&mut self) -> Option<MigrationEvent> {
        if let Some(answer) = self.asking.take_if(|asking| asking.is_finished()) {
            return answer.await.ok()?;
        }
        if self.asking.is_none() {
            let (daemon, peer, handoff) = (self.daemon.clone(), self.peer, self.handoff);
            let is_source = self.is_source;
            self.asking = Some(tokio::spawn(async move {
                let query = ReportQuery { handoff, first_packet_ms: None };
                let report = report_of(&daemon, peer, query).await.ok()?;
                if is_source && report.result == MigrationResult::Done {
                    return Some(MigrationEvent::Whole);
                }
                let problem = report.problem.filter(ends_both)?;
                Some(MigrationEvent::HalfLost(Box::new(problem)))
            }));
        }
        None
    }

    /// Whether the engine here may be talking to nobody, which it is not told.
    fn is_alone(&self) -> bool {
        self.is_cut || self.has_ended
    }

    fn about(&self) -> About {
        About {
            guest: Some((self.guest.id, self.name.clone())),
            handoff: Some(self.handoff),
            caller: None,
        }
    }

    /// Of the source, which has sent them: tells of the pages that passed all others.
    fn note_urgent(&self, carried: &Status) {
        let bytes = carried.urgent.as_ref().map_or(0, |urgent| urgent.outgoing.bytes);
        if bytes > 0 {
            let bytes = Bytes(bytes);
            let text = format!("{bytes} of pages that the guest waited for went before all others");
            self.daemon.story.info(&self.about(), text);
        }
    }

    /// Tells of a link that is lost, and of one that is back.
    fn note_link(&mut self, carried: &Status) {
        let about = self.about();
        self.has_ended = carried
            .channels
            .iter()
            .any(|channel| channel.outgoing.end.is_some() || channel.incoming.end.is_some());
        let is_connected = !carried.channels.is_empty()
            && carried.problem.is_none()
            && carried.channels.iter().all(|channel| channel.is_connected);
        if !is_connected && !self.has_ended && !self.is_cut {
            self.is_cut = true;
            let text = "the link was lost in post-copy; where the guest misses a page it waits \
                        until the link is back";
            self.daemon.story.warn(&about, text.to_owned());
        } else if is_connected && self.is_cut {
            self.is_cut = false;
            self.daemon.story.info(&about, "the link is back, and memory follows again");
        }
    }

    /// The engine has lost its channels: sees to it that it gets new ones.
    async fn join_again(&mut self, carried: &Status) {
        let is_well = carried.problem.is_none() && self.carrier.is_alive().await;
        let outcome = match self.again {
            // The target waits for the source, which may be away for long.
            Some(Again::Listens) if is_well => return,
            Some(Again::Dials) if is_well && !carried.is_linked => return,
            Some(Again::Dials) if is_well => {
                self.again = Some(Again::Given { since: Instant::now() });
                self.give_link().await
            }
            // It goes on, or says that it has lost them again.
            Some(Again::Given { since }) if is_well && since.elapsed() < MEET_MAX => return,
            _ => self.start_over().await,
        };
        if let Err(why) = outcome {
            self.again = None;
            tracing::warn!(guest = %self.guest.id, why, "post-copy is not taken up yet");
        }
    }

    /// Takes the place of the carrying process.
    async fn start_over(&mut self) -> Result<(), String> {
        let config = Config::load(self.carrier.directory()).map_err(|e| chain(&e))?;
        self.carrier.cut().await.map_err(|e| chain(&e))?;
        let (engine, again) = match config.engine {
            Meet::Connect(_) => {
                let listening = self.instance.receive_again().await;
                let ChannelEnd::Listen(path) = listening.map_err(|e| chain(&e))? else {
                    return Ok(());
                };
                (Meet::Connect(path), Again::Listens)
            }
            listening @ Meet::Listen { .. } => (listening, Again::Dials),
        };
        let config = Config { engine, is_again: true, ..config };
        let spawned = spawn_carrier(&self.daemon, &self.name, &config).await;
        spawned.map_err(|problem| problem.text)?;
        self.again = Some(again);
        Ok(())
    }

    /// The source's new carrying process has reached the target's engine.
    async fn give_link(&mut self) -> Result<(), String> {
        let config = Config::load(self.carrier.directory()).map_err(|e| chain(&e))?;
        let Meet::Listen { path, .. } = config.engine else { return Ok(()) };
        let sent = self.instance.send_again(ChannelEnd::Connect(path)).await;
        sent.map_err(|e| chain(&e))
    }
}

/// Returns the handoff by which this guest is still arriving, half of it, if it is: also where its
/// engine is complete by now, and that was not written down.
pub(crate) async fn half_of(
    daemon: &Daemon,
    id: GuestId,
    instance: &dyn Instance,
) -> Option<Config> {
    let is_complete = match instance.migration().await {
        Ok(Migration::PostCopy(_) | Migration::Interrupted(_)) => false,
        Ok(Migration::Completed(_)) => true,
        _ => return None,
    };
    let run = daemon.layout().guest(id).run();
    let places = daemon.layout().carry_ids().ok()?.into_iter();
    let configs = places.filter_map(|id| Config::load(&daemon.layout().carry(id)).ok());
    let config = configs
        .filter(|config| matches!(config.side, Side::Target))
        .find(|config| matches!(&config.engine, Meet::Connect(path) if path.starts_with(&run)))?;
    let handoff = config.handoff;
    let is_over = is_complete
        && daemon.store.call(move |tables| tables.report(handoff)).await.ok()?.is_some();
    (!is_over).then_some(config)
}

impl GuestTask {
    /// The target runs the guest, and needs our half of it until nothing is missing.
    pub(super) async fn await_drained(&mut self) -> Option<Event> {
        let Some(held) = &self.engine else {
            self.lose_half();
            return Some(Event::Drained);
        };
        if matches!(held.instance.migration().await, Ok(Migration::Completed(_))) {
            return Some(Event::Drained);
        }
        self.note_runs_there();
        self.story(format!(
            "the guest runs on `{}`; the rest of its memory follows",
            self.peer_name()
        ));
        self.follow_half();
        None
    }

    /// The guest is ours and runs, and part of its memory is still at the source.
    pub(super) async fn is_half(&self) -> bool {
        let Some(held) = &self.engine else { return false };
        let migration = held.instance.migration().await;
        matches!(migration, Ok(Migration::PostCopy(_) | Migration::Interrupted(_)))
    }

    pub(super) fn follow_half(&mut self) {
        self.mark(Phase::Postcopy);
        let name = self.name();
        let (Some(held), Some(journey)) = (&self.engine, &mut self.journey) else { return };
        let half = Half {
            daemon: self.daemon.clone(),
            guest: self.handle.clone(),
            name,
            handoff: journey.handoff,
            peer: journey.peer,
            is_source: journey.is_source(),
            asking: None,
            complete_since: None,
            instance: held.instance.clone(),
            carrier: Control::new(&self.daemon.layout().carry(journey.handoff)),
            is_cut: false,
            has_ended: false,
            again: None,
        };
        journey.add_helper(tokio::spawn(half.follow()).abort_handle());
    }

    /// A daemon that was restarted finds half a guest, and goes on with it.
    pub(crate) async fn resume_half(&mut self) {
        if self.journey.is_some() || !self.ownership.machine().may_run() {
            return;
        }
        let Some(held) = &self.engine else { return };
        let Some(config) = half_of(&self.daemon, self.id, &*held.instance).await else { return };
        let name = self.daemon.peers.name_of(config.peer);
        let role = Role::Resumed { is_source: false };
        let mut journey = Journey::new(config.handoff, config.peer, name, role, Mode::Live);
        journey.carrier = Some(Control::new(&self.daemon.layout().carry(config.handoff)));
        self.journey = Some(journey);
        self.story("the daemon was restarted before all of the guest was here, and takes it up");
        self.follow_half();
    }

    /// The engine here is gone, and with it what it had not sent.
    pub(super) fn lose_half(&mut self) {
        let problem = half_lost(self.name().as_str(), self.daemon.name.as_str());
        self.note_half_lost(problem);
    }

    /// Whatever else was noted before is not why.
    fn note_half_lost(&mut self, problem: Problem) {
        if let Some(journey) = &mut self.journey {
            journey.problem = Some(problem);
        }
    }

    /// The other host has lost its half.
    pub(super) async fn on_half_lost(&mut self, problem: Problem) {
        self.note_half_lost(problem);
        match (self.journey.as_ref().is_some_and(Journey::is_source), &self.engine) {
            (true, _) => self.tell_machine(Event::Drained).await,
            // Its end is heard of as any other.
            (false, Some(held)) => {
                if let Err(error) = held.instance.destroy().await {
                    self.story_problem(&Problem::of(&error));
                    self.follow_half();
                }
            }
            (false, None) => {}
        }
    }

    /// Why there is nothing to wait for any more, where that is known.
    pub(super) fn half_that_is_lost(&self) -> Option<Problem> {
        let problem = self.journey.as_ref().and_then(|journey| journey.problem.clone());
        problem.filter(ends_both)
    }

    /// The guest ends here while part of its memory is still at the source.
    pub(crate) async fn leave_half(&mut self) {
        if !self.journey.as_ref().is_some_and(Journey::runs_here_in_postcopy) {
            return;
        }
        let (guest, source) = (self.name().to_string(), self.peer_name());
        let ended = || {
            Problem::new(
                Kind::Failed,
                GUEST_ENDED,
                format!("`{guest}` ended while part of its memory was still on `{source}`"),
                format!("see what it does now: `whimbrel show {guest}`"),
            )
        };
        let problem = self.half_that_is_lost().unwrap_or_else(ended);
        self.story_problem(&problem);
        self.drop_carrier().await;
        self.end_journey(MigrationResult::Failed, Some(problem)).await;
    }

    /// In post-copy a deadline that passes can only be told of: there is no way back.
    pub(super) fn note_deadline(&mut self) {
        let Some(journey) = self.journey.as_mut().filter(|journey| journey.is_half()) else {
            return;
        };
        let Some(order) = journey.order().filter(|order| !order.is_held) else { return };
        let deadline = order.bargain.deadline;
        if journey.progressing.is_late || journey.progressing.began().elapsed() <= deadline {
            return;
        }
        journey.progressing.is_late = true;
        let seconds = deadline.as_secs();
        self.story_warn(format!(
            "the {seconds} s it was to take are over; half of the guest has moved, so the rest \
             follows however long that takes"
        ));
    }

    /// Nothing of the guest is missing any more, or its other half is gone for good.
    pub(super) async fn on_whole(&mut self) {
        match self.journey.as_ref().is_some_and(Journey::is_source) {
            true => self.tell_machine(Event::Drained).await,
            false => self.finish_arrival().await,
        }
    }
}

/// Whether this happened to one half, so that the other is of no use any more.
fn ends_both(problem: &Problem) -> bool {
    [HALF_LOST, GUEST_ENDED].contains(&problem.code.as_str())
}

/// An engine ended while half of its guest was elsewhere.
fn half_lost(guest: &str, host: &str) -> Problem {
    Problem::new(
        Kind::Failed,
        HALF_LOST,
        format!("the engine of `{guest}` on `{host}` ended while memory was still to follow"),
        format!(
            "the guest is lost as after a crash, on the host it had gone to: `on_crash` says what \
             follows there, or start it again: `whimbrel start {guest}`"
        ),
    )
}
