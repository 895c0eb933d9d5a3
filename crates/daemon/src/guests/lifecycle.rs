// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Starting and ending a guest's engine, and what its guest does in between.

use crate::console::{Hub, HubOptions};
use crate::guests::task::GuestTask;
use crate::guests::{GuestError, Papers, denied};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::broadcast;
use tokio::time::Instant;
use whimbrel_api::Problem;
use whimbrel_engine::{Adopt, EngineEvent, Instance, Launch, Start};
use whimbrel_host::network::TapName;
use whimbrel_host::process::scope_wrapper;
use whimbrel_host::store::Desired;
use whimbrel_model::guest::{NetworkKind, Policy};
use whimbrel_model::passport::Passport;
use whimbrel_model::run_state::RunState;

/// A guest that ends this often ...
const RESTARTS_MAX: usize = 5;
/// ... within this time is not restarted any more.
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// An engine that this task holds.
pub(crate) struct Held {
    pub(crate) instance: Arc<dyn Instance>,
    pub(crate) events: broadcast::Receiver<EngineEvent>,
    pub(crate) console: Option<Hub>,
    pub(crate) started_at: SystemTime,
    /// What the guest does, by the engine's last word.
    pub(crate) run: RunState,
}

impl Held {
    pub(crate) fn new(task: &GuestTask, instance: Arc<dyn Instance>, run: RunState) -> Self {
        let name = task.name();
        let log = task.daemon.layout().guest(task.id).run().join("console.log");
        let console =
            instance.console().map(|socket| Hub::start(HubOptions { guest: name, socket, log }));
        let events = instance.events();
        Self { instance, events, console, started_at: SystemTime::now(), run }
    }

    /// Takes hold of an engine that an earlier daemon launched.
    pub(crate) async fn found(task: &GuestTask, instance: Arc<dyn Instance>) -> Self {
        // One that does not answer is about to say that it is gone.
        let run = instance.run_state().await.unwrap_or(RunState::Paused);
        let started = whimbrel_host::process::started_at(instance.process().pid);
        let held = Self::new(task, instance, run);
        Self { started_at: started.unwrap_or(held.started_at), ..held }
    }
}

/// How a guest came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    PoweredOff,
    Crashed,
    /// The engine is gone without a word.
    EngineLost,
}

/// When this guest was restarted by itself, to notice one that cannot live.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    at: Vec<Instant>,
}

impl Restarts {
    /// Returns whether once more is allowed.
    fn again(&mut self) -> bool {
        let now = Instant::now();
        self.at.retain(|at| now.duration_since(*at) < RESTARTS_WITHIN);
        self.at.push(now);
        self.at.len() <= RESTARTS_MAX
    }
}

impl GuestTask {
    /// Starts the guest's engine and lets it run. The door has said yes already.
    pub(super) async fn boot(&mut self) -> Result<(), Problem> {
        let passport = self.cold_passport().await?;
        let instance = self.launch(passport, Start::Boot).await?;
        self.join_bridges().await?;
        instance.resume().await.map_err(|error| Problem::of(&error))?;
        // What it will touch from now on, the kernel knows.
        self.daemon.memory.release(self.id);
        if let Some(held) = &mut self.engine {
            held.run = RunState::Running;
        }
        self.set_desired(Desired::Running).await
    }

    /// Works out the passport of a cold start. What was frozen before stays, unless the definition
    /// names something else; the files it boots from are looked at anew.
    async fn cold_passport(&mut self) -> Result<Passport, Problem> {
        let papers = self.papers()?;
        let fresh = self.daemon.engine.freeze(self.id, &papers.guest).await;
        let mut fresh = fresh.map_err(|error| Problem::of(&error))?;
        if let Some(frozen) = &papers.passport {
            if papers.guest.machine.is_none() {
                fresh.machine.clone_from(&frozen.machine);
            }
            if papers.guest.cpus.model.is_none() && frozen.accelerator == fresh.accelerator {
                fresh.cpu = frozen.cpu.clone();
            }
        }
        self.papers_mut()?.passport = Some(fresh.clone());
        self.store_papers().await?;
        Ok(fresh)
    }

    /// Launches an engine, its vCPUs stopped and its taps joined to nothing.
    pub(crate) async fn launch(
        &mut self,
        passport: Passport,
        start: Start,
    ) -> Result<Arc<dyn Instance>, Problem> {
        let papers = self.papers()?.clone();
        self.daemon.memory.look(&*self.daemon.engine).await;
        self.daemon.memory.promise(&papers)?;
        let directory = self.daemon.layout().guest(self.id);
        directory.create(self.daemon.engine_ids()).map_err(|error| Problem::of(&error))?;
        let mut taps = Vec::new();
        for (index, network) in papers.guest.networks.iter().enumerate() {
            if let NetworkKind::Bridge { bridge } = &network.kind
                && !self.daemon.engine.makes_own_taps()
            {
                let tap = tap_name(papers.local_id, index);
                let made = self.daemon.network.create_tap(tap, bridge).await;
                taps.push(made.map_err(|error| Problem::of(&error))?);
            }
        }
        let name = self.name();
        let wrapper =
            scope_wrapper(&format!("whimbrel-guest-{name}"), &format!("Whimbrel guest {name}"));
        let launch = Launch {
            wrapper,
            guest: papers.guest.clone(),
            passport,
            directory: directory.run(),
            taps,
            start,
            run_as: self.daemon.run_as(),
        };
        let began = SystemTime::now();
        // Seen from outside, it is not somebody else's meanwhile.
        self.is_launching = true;
        self.publish();
        let launched = self.daemon.engine.launch(launch).await;
        self.is_launching = false;
        let instance = match launched {
            Ok(instance) => instance,
            Err(error) => {
                let denied = denied::since(&papers, began).await;
                return Err(denied.unwrap_or_else(|| Problem::of(&error)));
            }
        };
        self.engine = Some(Held::new(self, instance.clone(), RunState::Paused));
        self.has_held_engine = true;
        Ok(instance)
    }

    /// Takes over a guest that others have started. It runs, and does not notice.
    pub(super) async fn order_adopt(&mut self, papers: Papers) -> Result<(), Problem> {
        if self.engine.is_some() {
            return Err(self.not_now("adopted", "it is a guest of Whimbrel already"));
        }
        self.name_must_be_free(&papers.guest.name)?;
        self.papers = Some(papers.clone());
        self.store_papers().await?;
        self.pass_the_door().await?;
        let Papers { guest, passport, .. } = papers;
        let passport = passport.ok_or_else(|| Problem::guest_not_found(&self.id.to_string()))?;
        let directory = self.daemon.layout().guest(self.id);
        directory.create(self.daemon.engine_ids()).map_err(|error| Problem::of(&error))?;
        let adopt = Adopt { guest, passport, directory: directory.run() };
        let instance = self.daemon.engine.adopt(adopt).await;
        let instance = instance.map_err(|error| Problem::of(&error))?;
        self.engine = Some(Held::found(self, instance).await);
        self.has_held_engine = true;
        self.story("the guest was adopted as it ran");
        self.set_desired(Desired::Running).await
    }

    /// Lets the guest's packets out: its taps join their bridges.
    pub(crate) async fn join_bridges(&self) -> Result<(), Problem> {
        fault_point!("network/join");
        let papers = self.papers()?;
        for (index, network) in papers.guest.networks.iter().enumerate() {
            if let NetworkKind::Bridge { bridge } = &network.kind
                && !self.daemon.engine.makes_own_taps()
            {
                let joined = self.daemon.network.attach(tap_name(papers.local_id, index), bridge);
                joined.await.map_err(|error| Problem::of(&error))?;
            }
        }
        Ok(())
    }

    /// Ends the engine, if there is one, and everything that goes with it. Repeats until it is
    /// gone: there is nothing else to do with an engine that must not live.
    pub(crate) async fn end_engine(&mut self) {
        self.leave_half().await;
        if let Some(held) = self.engine.take() {
            if let Some(console) = &held.console {
                console.end("the guest was stopped");
            }
            while let Err(error) = held.instance.destroy().await {
                self.story_problem(&Problem::of(&error));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        self.daemon.memory.release(self.id);
    }

    /// Takes note of what the engine says. The guest is not being moved.
    pub(crate) async fn on_engine(&mut self, event: EngineEvent) {
        match event {
            EngineEvent::ShutDown => self.on_end(End::PoweredOff).await,
            EngineEvent::Panicked => self.on_end(End::Crashed).await,
            EngineEvent::Gone => self.on_end(End::EngineLost).await,
            EngineEvent::Reset => self.on_reset().await,
            EngineEvent::IoError { disk } => {
                self.refresh_run().await;
                self.story_warn(format!(
                    "disk `{disk}` failed, so the guest was stopped; `whimbrel unpause` goes on"
                ));
            }
            EngineEvent::Stopped | EngineEvent::Resumed | EngineEvent::Suspended => {
                self.refresh_run().await;
            }
            EngineEvent::Migration => {}
        }
    }

    /// Asks the engine what the guest does.
    pub(crate) async fn refresh_run(&mut self) {
        let Some(held) = &mut self.engine else { return };
        // An engine that does not answer is about to say that it is gone.
        if let Ok(run) = held.instance.run_state().await {
            held.run = run;
        }
    }

    /// The engine has reset the guest already; some guests are to end instead.
    async fn on_reset(&mut self) {
        let policy = self.papers.as_ref().map(|papers| papers.guest.on.reboot);
        match policy {
            Some(Policy::Destroy) => {
                self.story("the guest rebooted, and `on_reboot` says that it ends then");
                self.end_for_good().await;
            }
            Some(Policy::Preserve) => {
                if let Some(held) = &self.engine {
                    // If it cannot be paused it is gone, and says so itself.
                    let _ = held.instance.pause().await;
                }
                self.story("the guest rebooted, and `on_reboot` keeps it paused for a look");
                self.refresh_run().await;
            }
            Some(Policy::Restart) | None => self.story("the guest rebooted"),
        }
    }

    /// The guest has ended by itself, or was asked to.
    pub(crate) async fn on_end(&mut self, end: End) {
        if let Some(stopping) = self.stopping.take() {
            self.end_asked_for(stopping).await;
            return;
        }
        let Some(papers) = &self.papers else {
            self.end_engine().await;
            return;
        };
        let (what, key, policy) = match end {
            End::PoweredOff => ("powered off", "on_poweroff", papers.guest.on.poweroff),
            End::Crashed => ("crashed", "on_crash", papers.guest.on.crash),
            End::EngineLost => ("lost its engine", "on_crash", papers.guest.on.crash),
        };
        match policy {
            Policy::Destroy => {
                self.story(format!("the guest {what}"));
                self.end_for_good().await;
            }
            Policy::Preserve if end != End::EngineLost => {
                self.story(format!("the guest {what}, and `{key}` keeps it for a look"));
                self.refresh_run().await;
            }
            // What is gone cannot be kept.
            Policy::Preserve => {
                self.story_warn(format!("the guest {what}"));
                self.end_for_good().await;
            }
            Policy::Restart => self.restart(what, key).await,
        }
    }

    /// The engine of a guest that is ours is gone. After a boot of the host `autostart` decides,
    /// as it does for every guest then.
    pub(crate) async fn on_engine_lost(&mut self) {
        let is_autostarted = self.papers.as_ref().is_some_and(|papers| papers.guest.autostart);
        let died_in_boot = self.daemon.is_new_boot() && !self.has_held_engine;
        match (died_in_boot, is_autostarted) {
            (false, _) => self.on_end(End::EngineLost).await,
            (true, true) => {
                if let Err(problem) = self.must_take_guests("started") {
                    self.end_engine().await;
                    return self.story_problem(&problem);
                }
                self.restart("lost its engine when the host was booted", "autostart").await;
            }
            (true, false) => self.end_engine().await,
        }
    }

    async fn restart(&mut self, what: &str, key: &str) {
        self.end_engine().await;
        if !self.restarts.again() {
            let problem = GuestError::DidNotStart {
                guest: self.name().to_string(),
                times: RESTARTS_MAX,
                within: RESTARTS_WITHIN,
            };
            self.story_problem(&problem.into());
            return;
        }
        self.story(format!("the guest {what}, and `{key}` starts it again"));
        if let Err(problem) = self.start_through_the_door().await {
            self.story_problem(&problem);
        }
    }

    /// Ends the engine; a transient guest is forgotten with it.
    pub(crate) async fn end_for_good(&mut self) {
        self.end_engine().await;
        if let Err(problem) = self.set_desired(Desired::Stopped).await {
            self.story_problem(&problem);
        }
        if self.papers.as_ref().is_some_and(|papers| papers.is_transient) {
            self.forget().await;
        }
    }
}

pub(crate) fn tap_name(guest: whimbrel_model::id::LocalId, index: usize) -> TapName {
    TapName { guest, index: u8::try_from(index).expect("NETWORKS_MAX is checked") }
}
