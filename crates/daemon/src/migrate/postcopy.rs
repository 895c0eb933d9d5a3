// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Post-copy: the guest runs on the target while the rest of its memory is still at the source.
//!
//! Neither half is a guest without the other, so neither daemon ends anything: each follows its
//! engine until that says that nothing is missing any more. A link that is lost makes the guest
//! wait where it touches a page that has not come. Then each side gives its engine a new carrying
//! process, by itself and again until both meet: the target listens, the source goes on sending.
//! What is needed for it lies beside the carrying process, so that a restarted daemon can, too.

use crate::daemon::Daemon;
use crate::guests::{GuestEvent, GuestHandle, GuestTask, MigrationEvent};
use crate::migrate::source::start_carrier;
use crate::migrate::watch::next_look;
use crate::migrate::{Figures, Journey, Role};
use std::sync::Arc;
use std::time::{Duration, Instant};
use whimbrel_api::migration::{Mode, Phase};
use whimbrel_api::{Kind, Problem};
use whimbrel_engine::{ChannelEnd, EngineError, Instance, Migration};
use whimbrel_handoff::effect::Event;
use whimbrel_link::carrier::{Config, Control, Meet, Side};
use whimbrel_model::id::{GuestId, HandoffId};
use whimbrel_model::problem::chain;

whimbrel_model::codes! {
    HALF_LOST = "migration/half-lost": "A host or an engine was lost while the guest was in two halves.";
}

/// How often to look at an engine whose guest is in two halves.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the other side may take to come to a new carrying process, before there is another.
const MEET_MAX: Duration = Duration::from_secs(15);

/// Follows one half until nothing is missing any more.
async fn follow(
    guest: GuestHandle,
    handoff: HandoffId,
    instance: Arc<dyn Instance>,
    carrier: Option<Control>,
) {
    let mut events = instance.events();
    loop {
        let event = match instance.migration().await {
            Ok(Migration::Completed(_)) | Err(EngineError::Gone { .. }) => MigrationEvent::Whole,
            Ok(Migration::Interrupted(_)) => MigrationEvent::Interrupted,
            Ok(migration) => {
                let carried = match &carrier {
                    Some(carrier) => carrier.status().await.unwrap_or_default(),
                    None => Default::default(),
                };
                MigrationEvent::Progress(Box::new(Figures { migration, carried, advice: None }))
            }
            // It is busy, or about to say that it is gone.
            Err(_) => {
                next_look(&mut events, LOOK_EVERY).await;
                continue;
            }
        };
        let is_over = matches!(event, MigrationEvent::Whole);
        if guest.send(GuestEvent::Migration { handoff, event }).await.is_err() || is_over {
            return;
        }
        next_look(&mut events, LOOK_EVERY).await;
    }
}

/// Returns the handoff by which this guest is still arriving, half of it, if it is.
pub(crate) async fn half_of(
    daemon: &Daemon,
    id: GuestId,
    instance: &dyn Instance,
) -> Option<Config> {
    let is_half = matches!(
        instance.migration().await,
        Ok(Migration::PostCopy(_) | Migration::Interrupted(_))
    );
    if !is_half {
        return None;
    }
    let run = daemon.layout().guest(id).run();
    let places = daemon.layout().carry_ids().ok()?.into_iter();
    let configs = places.filter_map(|id| Config::load(&daemon.layout().carry(id)).ok());
    configs
        .filter(|config| matches!(config.side, Side::Target))
        .find(|config| matches!(&config.engine, Meet::Connect(path) if path.starts_with(&run)))
}

impl GuestTask {
    /// The target runs the guest, and needs our half of it until nothing is missing.
    pub(super) async fn await_drained(&mut self) -> Option<Event> {
        let Some(held) = &self.engine else {
            self.story_warn("the half of the guest that was still here is lost");
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
        let (Some(held), Some(journey)) = (&self.engine, &mut self.journey) else { return };
        let following = follow(
            self.handle.clone(),
            journey.handoff,
            held.instance.clone(),
            journey.carrier.clone(),
        );
        journey.add_helper(tokio::spawn(following).abort_handle());
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
        self.story("the daemon was restarted while memory follows the guest, and takes it up");
        self.follow_half();
    }

    /// An engine has lost its channels in post-copy: give it new ones.
    pub(super) async fn join_again(&mut self) {
        let Some(journey) = &mut self.journey else { return };
        let Some(carrier) = journey.carrier.clone() else { return };
        let waits = journey.joined_at.is_some_and(|at| at.elapsed() < MEET_MAX);
        let is_well = matches!(carrier.status().await, Ok(status) if status.problem.is_none());
        if waits && is_well && carrier.is_alive().await {
            return;
        }
        let is_first = journey.joined_at.replace(Instant::now()).is_none();
        if is_first {
            self.story_warn("the link was lost in post-copy; the guest waits until it is back");
        }
        if let Err(why) = self.give_channels(&carrier).await {
            tracing::warn!(guest = %self.id, why, "post-copy is not taken up yet");
        }
    }

    async fn give_channels(&mut self, carrier: &Control) -> Result<(), String> {
        let config = Config::load(carrier.directory()).map_err(|e| chain(&e))?;
        carrier.cut().await.map_err(|e| chain(&e))?;
        let Some(instance) = self.engine.as_ref().map(|held| held.instance.clone()) else {
            return Ok(());
        };
        let config = match &config.engine {
            Meet::Connect(_) => {
                let listening = instance.receive_again().await;
                let ChannelEnd::Listen(path) = listening.map_err(|e| chain(&e))? else {
                    return Ok(());
                };
                Config { engine: Meet::Connect(path), ..config }
            }
            Meet::Listen { .. } => config,
        };
        start_carrier(self, &config).await.map_err(|problem| problem.text)?;
        if let Meet::Listen { path, .. } = config.engine {
            let sent = instance.send_again(ChannelEnd::Connect(path)).await;
            sent.map_err(|e| chain(&e))?;
        }
        Ok(())
    }

    /// Nothing of the guest is missing any more, or its other half is gone for good.
    pub(super) async fn on_whole(&mut self) {
        match self.journey.as_ref().is_some_and(Journey::is_source) {
            true => self.tell_machine(Event::Drained).await,
            false => self.finish_arrival().await,
        }
    }
}

/// The engine here ended while half of its guest was elsewhere.
pub(super) fn half_lost(guest: &str, host: &str) -> Problem {
    Problem::new(
        Kind::Failed,
        HALF_LOST,
        format!("the engine of `{guest}` on `{host}` ended while memory was still to follow"),
        format!("the guest is lost as after a crash; start it again: `whimbrel start {guest}`"),
    )
}
