// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A daemon's driver: inputs to the real machines, and their effects on the world.

use super::{Engine, Parcel, Phase, Scope, Storage, World, Wrong, boot_id, host_id, host_index};
use crate::mutants::{self, Performed};
use std::collections::VecDeque;
use std::sync::Arc;
use whimbrel_handoff::disk;
use whimbrel_handoff::door::{self, Verdict};
use whimbrel_handoff::effect::{Claims, Effect, Event, Outcome};
use whimbrel_handoff::message::{Body, Kind, Message};
use whimbrel_handoff::ownership::{Answer, EngineView, Found, Ownership, State};
use whimbrel_handoff::record::Identity;
use whimbrel_model::id::{Epoch, HostId};
use whimbrel_model::run_state::RunState;

/// A daemon that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub own: Ownership,
    /// What is still to be performed, in order.
    pub queue: VecDeque<Task>,
    /// Effects under way that will be answered.
    pub background: Vec<Effect>,
    /// Answers that have not been fed yet.
    pub answers: VecDeque<Event>,
    /// What the door said; void as soon as anything changes.
    pub verdict: Option<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    Effect(Effect),
    /// Boot the guest: a start was granted.
    Boot,
}

/// A verdict that lets one in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    Start,
    Acquire { after: Epoch, epoch: Epoch },
    Resume,
}

/// Something fed to the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    Message { from: usize, message: Message },
    Event(Event),
}

/// How an effect that is answered ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    Well,
    /// The engine says no.
    Refused,
    /// The engine dies over it.
    Lost,
}

impl Node {
    pub fn new(own: Ownership) -> Self {
        Self {
            own,
            queue: VecDeque::new(),
            background: vec![],
            answers: VecDeque::new(),
            verdict: None,
        }
    }

    /// Whether the driver is ready for the next input.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Entry {
    pub fn of(verdict: &Verdict) -> Option<Self> {
        match *verdict {
            Verdict::Start { .. } => Some(Entry::Start),
            Verdict::Acquire { after, epoch } => Some(Entry::Acquire { after, epoch }),
            Verdict::Resume => Some(Entry::Resume),
            Verdict::Refused(_) | Verdict::InDoubt(_) => None,
        }
    }
}

impl World {
    /// Feeds an input to the machines of `host`.
    pub(crate) fn input(&mut self, scope: &Scope, host: usize, input: Input) {
        let Some(node) = self.node_mut(host) else { return };
        let before = node.own.clone();
        let input = match mutants::input(scope.mutant, &before, input) {
            Some(input) => input,
            None => return,
        };
        let step = match input {
            Input::Message { from, message } => before.clone().on_message(host_id(from), message),
            Input::Event(event) => before.clone().on_event(event),
        };
        let (own, effects) = mutants::step(scope.mutant, &before, &input, step);
        scope.coverage.record(&before, &input, &own, &effects);
        self.enter(host, own, effects);
    }

    /// Puts the machines of `host` into a state with effects to perform.
    pub(crate) fn enter(&mut self, host: usize, own: Ownership, effects: Vec<Effect>) {
        let Some(node) = self.node_mut(host) else { return };
        if node.own != own {
            node.verdict = None;
        }
        node.own = own;
        node.queue.extend(effects.into_iter().map(Task::Effect));
        self.perform_soft(host);
    }

    /// Starts the daemon of `host`: reads the slot and looks for the engine.
    pub(crate) fn start_daemon(&mut self, scope: &Scope, host: usize) {
        let this = &self.hosts[host];
        let identity = Identity { guest: super::GUEST, host: host_id(host) };
        let found = this.cache.or(this.slot).map_or(Found::Nothing, Found::Record);
        let engine = match this.engine {
            None => EngineView::Gone,
            Some(Engine { has_run: true, .. }) => EngineView::HasRun,
            Some(Engine { has_run: false, .. }) => EngineView::NeverRan,
        };
        let step = Ownership::recover(identity, boot_id(this.boot), found, engine);
        let (own, effects) = mutants::recovery(scope.mutant, found, engine, step);
        scope.coverage.recovery(&found, engine, &own);
        self.host_mut(host).node = Some(Node::new(own.clone()));
        self.enter(host, own, effects);
    }

    /// Performs the next effect that leaves a trace, and the traceless ones after it.
    pub(crate) fn perform(&mut self, scope: &Scope, host: usize) {
        let Some(task) = self.node_mut(host).and_then(|node| node.queue.pop_front()) else {
            return;
        };
        match task {
            Task::Boot => self.boot_if_unlocked(scope, host),
            Task::Effect(effect) => self.perform_hard(scope, host, effect),
        }
        self.perform_soft(host);
    }

    /// Sends and reports; hands what will be answered to the background.
    fn perform_soft(&mut self, host: usize) {
        loop {
            let Some(node) = self.node_mut(host) else { return };
            let Some(&Task::Effect(effect)) = node.queue.front() else { return };
            match effect {
                Effect::Send { to, message } => {
                    node.queue.pop_front();
                    let parcel = Parcel { from: host, to: host_index(to), message };
                    self.check_offer(&parcel);
                    Arc::make_mut(&mut self.net).insert(parcel);
                }
                Effect::Report(Outcome::Acquired { .. }) => {
                    node.queue.pop_front();
                    node.queue.push_back(Task::Boot);
                }
                Effect::Report(Outcome::Disputed { .. }) => {
                    node.queue.pop_front();
                    self.is_disputed = true;
                }
                Effect::Announce | Effect::Report(_) => {
                    node.queue.pop_front();
                }
                // Conditions of the engine, seen when they hold.
                Effect::WatchEngine | Effect::AwaitDrained => {
                    node.queue.pop_front();
                }
                Effect::TakeClaim(_)
                | Effect::StartEngine
                | Effect::StartGuest { .. }
                | Effect::ConfirmStopped => {
                    node.queue.pop_front();
                    node.background.push(effect);
                }
                Effect::Persist(_)
                | Effect::WriteOwner(_)
                | Effect::Transfer
                | Effect::Mend { .. }
                | Effect::DestroyCopy
                | Effect::PauseGuest
                | Effect::ApplyPolicy { .. } => return,
            }
        }
    }

    /// An epoch is on offer in one handoff only.
    fn check_offer(&mut self, parcel: &Parcel) {
        let is_offer = |parcel: &Parcel| matches!(parcel.message.body, Body::Offer { .. });
        let is_reused = is_offer(parcel)
            && self.net.iter().any(|sent| {
                is_offer(sent)
                    && sent.message.epoch == parcel.message.epoch
                    && sent.message.handoff != parcel.message.handoff
            });
        if is_reused && self.is_unambiguous {
            self.is_wrong(Wrong::EpochReused);
        }
    }

    fn perform_hard(&mut self, scope: &Scope, host: usize, effect: Effect) {
        match mutants::performed(scope.mutant, &effect) {
            Performed::AsMeant => {}
            Performed::Not => return,
            Performed::Unsynced => {
                if let Effect::Persist(record) = effect {
                    self.host_mut(host).cache = Some(record);
                }
                return;
            }
        }
        match effect {
            Effect::Persist(record) => {
                let this = self.host_mut(host);
                this.slot = Some(record);
                this.cache = None;
            }
            Effect::WriteOwner(record) => {
                if matches!(scope.storage, Storage::Beside { .. }) {
                    Arc::make_mut(&mut self.disk).write_owner(record);
                }
            }
            Effect::Transfer => self.begin_sending(host),
            Effect::Mend { run } => self.mend(scope, host, run),
            Effect::DestroyCopy => {
                // Who owns the guest and destroys its copy does so to boot it, or because it died.
                let is_ours = matches!(
                    self.own(host).map(|own| &own.state),
                    Some(State::Owned { .. } | State::Acquiring { .. })
                );
                self.drop_engine_answers(host);
                self.destroy(host, is_ours);
            }
            Effect::PauseGuest => self.pause(host),
            Effect::ApplyPolicy { ended } => self.apply_policy(host, ended),
            Effect::Send { .. }
            | Effect::Announce
            | Effect::Report(_)
            | Effect::WatchEngine
            | Effect::AwaitDrained
            | Effect::TakeClaim(_)
            | Effect::StartEngine
            | Effect::StartGuest { .. }
            | Effect::ConfirmStopped => unreachable!("performed before"),
        }
    }

    fn begin_sending(&mut self, host: usize) {
        let handoff = self.own(host).and_then(|own| own.handoff()).map(|handoff| handoff.id);
        let Some(engine) = self.host_mut(host).engine.as_mut() else { return };
        engine.handoff = handoff;
        engine.phase = match engine.phase {
            Phase::Running => Phase::Sending,
            Phase::Stopped(run) => Phase::SendingStopped(run),
            other => other,
        };
    }

    /// What was asked of an engine that is given up is never answered.
    fn drop_engine_answers(&mut self, host: usize) {
        let Some(node) = self.node_mut(host) else { return };
        node.background.retain(|effect| matches!(effect, Effect::TakeClaim(_)));
        node.answers
            .retain(|event| matches!(event, Event::ClaimWon { .. } | Event::ClaimLost { .. }));
    }

    fn mend(&mut self, scope: &Scope, host: usize, run: RunState) {
        self.drop_engine_answers(host);
        let is_locked = scope.has_locks() && self.is_locked_by_other(host);
        let Some(engine) = self.host_mut(host).engine.as_mut() else { return };
        engine.handoff = None;
        let has_ended = matches!(
            engine.phase,
            Phase::Stopped(RunState::ShutDown)
                | Phase::SendingStopped(RunState::ShutDown)
                | Phase::Switching(RunState::ShutDown)
                | Phase::Finished(RunState::ShutDown)
        );
        let was_serving = matches!(engine.phase, Phase::Serving(_));
        match run {
            // No engine brings back a guest that is half gone.
            _ if was_serving || has_ended => self.kill_engine(host),
            RunState::Running if is_locked && !engine.phase.is_running() => {
                engine.phase = Phase::Stopped(RunState::Paused);
            }
            RunState::Running => self.run(host),
            stopped => engine.phase = Phase::Stopped(stopped),
        }
    }

    fn pause(&mut self, host: usize) {
        if let Some(engine) = self.host_mut(host).engine.as_mut() {
            engine.phase = Phase::Stopped(RunState::Paused);
        }
    }

    /// Crashed guests start again; ended ones stay down.
    fn apply_policy(&mut self, host: usize, ended: Option<RunState>) {
        if !self.own(host).is_some_and(Ownership::may_run) {
            self.is_wrong(Wrong::ForeignPolicy);
        }
        self.kill_engine(host);
        self.expected = match ended {
            None => Some(RunState::Running),
            Some(_) => None,
        };
    }

    fn boot_if_unlocked(&mut self, scope: &Scope, host: usize) {
        let is_locked = scope.has_locks() && self.is_locked_by_other(host);
        let has_engine = self.hosts[host].engine.is_some();
        if is_locked || has_engine {
            return;
        }
        if !self.own(host).is_some_and(Ownership::may_run) {
            self.is_wrong(Wrong::RanUnowned);
        }
        self.boot_guest(host);
    }

    /// Ends an effect of the background and queues its answer.
    pub(crate) fn finish(&mut self, scope: &Scope, host: usize, end: End) {
        let Some(node) = self.node_mut(host) else { return };
        if node.background.is_empty() {
            return;
        }
        let effect = node.background.remove(0);
        let answer = match effect {
            Effect::TakeClaim(claims) => Some(self.take_claim(scope, host, &claims)),
            Effect::StartEngine => Some(self.start_engine(host, end)),
            Effect::StartGuest { run } => Some(self.start_guest(scope, host, run, end)),
            Effect::ConfirmStopped => Some(self.confirm(scope, host)),
            _ => None,
        };
        let heard = match answer {
            Some(Event::ClaimLost { holder, .. }) => self.heard_from(host_index(holder)),
            _ => None,
        };
        if let Some(node) = self.node_mut(host) {
            node.answers.extend(answer.into_iter().chain(heard));
        }
    }

    fn take_claim(&mut self, scope: &Scope, host: usize, claims: &Claims) -> Event {
        let epoch = claims.epoch;
        let me = host_id(host);
        if mutants::claims_are_fiction(scope.mutant) {
            return Event::ClaimWon { epoch };
        }
        let taken = match scope.storage {
            Storage::Beside { .. } => {
                let created = Arc::make_mut(&mut self.disk).create(epoch, me);
                created.and_then(|()| self.look_around(scope, me, claims).map_or(Ok(()), Err))
            }
            Storage::NoPlace => self.ask_again(scope, host, epoch).map_or(Ok(()), Err),
        };
        match taken {
            Ok(()) => Event::ClaimWon { epoch },
            Err(holder) => Event::ClaimLost { epoch, holder },
        }
    }

    /// Who else may have taken the guest, now that our claim lies there, too.
    fn look_around(&self, scope: &Scope, me: HostId, claims: &Claims) -> Option<HostId> {
        if !mutants::looks_around(scope.mutant) {
            return None;
        }
        let found: Vec<_> = self.disk.claims().collect();
        let rivals = disk::rivals(claims, me, self.disk.owner, &found);
        let is_real = |&&(host, epoch): &&(HostId, Epoch)| {
            !door::is_void(host, epoch, self.answer(host_index(host)))
        };
        rivals.iter().find(is_real).map(|&(host, _)| host)
    }

    /// Where there is no place for claims, whoever can be reached and wants the guest, too, has it.
    fn ask_again(&self, scope: &Scope, host: usize, epoch: Epoch) -> Option<HostId> {
        if !self.own(host)?.is_taking() || mutants::is_unseen(scope.mutant, self.own(host)?) {
            return None;
        }
        (0..self.hosts.len()).filter(|&other| other != host).find_map(|other| {
            let node = self.hosts[other].node.as_ref()?;
            if !node.is_idle() {
                // It would be waited for; to try again later is the same.
                return Some(host_id(other));
            }
            match node.own.answer() {
                Answer::Owner { owner, epoch: theirs, .. }
                    if owner == host_id(other) && theirs >= epoch =>
                {
                    Some(owner)
                }
                Answer::Acquiring { epoch: theirs } if theirs >= epoch => Some(host_id(other)),
                _ => None,
            }
        })
    }

    fn start_engine(&mut self, host: usize, end: End) -> Event {
        let Some(handoff) = self.own(host).and_then(|own| own.handoff()).copied() else {
            return Event::EngineFailed;
        };
        if end != End::Well {
            return Event::EngineFailed;
        }
        if handoff.kind != Kind::Stopped {
            self.host_mut(host).engine = Some(Engine::incoming(handoff.id));
        }
        Event::EngineReady
    }

    fn start_guest(
        &mut self,
        scope: &Scope,
        host: usize,
        run: Option<RunState>,
        end: End,
    ) -> Event {
        let Some(run) = run else { return Event::GuestStarted };
        let is_locked =
            scope.has_locks() && self.is_locked_by_other(host) && run == RunState::Running;
        if self.hosts[host].engine.is_none() {
            return Event::StartLost;
        }
        match end {
            End::Refused => return Event::StartRefused,
            End::Well | End::Lost if is_locked => return Event::StartRefused,
            End::Well | End::Lost => {}
        }
        if !self.own(host).is_some_and(Ownership::may_run) {
            self.is_wrong(Wrong::RanUnowned);
        }
        if run == RunState::Running {
            self.run(host);
            // On a word, a target that never heard what the guest was starts it.
            if scope.budget.words > 0 && self.expected.is_some() {
                self.expected = Some(run);
            }
        } else if let Some(engine) = self.host_mut(host).engine.as_mut() {
            engine.phase = Phase::Stopped(run);
        }
        if end == End::Lost {
            self.kill_engine(host);
            return Event::StartLost;
        }
        Event::GuestStarted
    }

    /// What the source's engine says when it is asked whether it is done.
    fn confirm(&mut self, scope: &Scope, host: usize) -> Event {
        let stopped = match self.hosts[host].engine.map(|engine| engine.phase) {
            Some(Phase::Finished(run) | Phase::Serving(run)) => Some(Some(run)),
            None if scope.kind == Kind::Stopped => Some(None),
            Some(_) | None => None,
        };
        match stopped {
            Some(run) => Event::Confirmed { run },
            None => mutants::unconfirmed(scope.mutant),
        }
    }
}
