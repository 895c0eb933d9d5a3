// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What can happen next, and what happens then.

use super::driver::{End, Entry, Input};
use super::{Parcel, Phase, Scope, Storage, Task, Words, World, handoff_id, host_id, host_index};
use crate::mutants;
use whimbrel_handoff::door::{self, Peer, Then};
use whimbrel_handoff::effect::{Effect, Event};
use whimbrel_handoff::message::Kind;
use whimbrel_handoff::ownership::{Answer, State};
use whimbrel_handoff::source::Source;
use whimbrel_handoff::target::Target;
use whimbrel_model::id::HostId;
use whimbrel_model::run_state::RunState;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    // The drivers at work.
    Perform(usize),
    Finish(usize, End),
    Answer(usize),
    Deliver(Parcel),
    /// A timer: try again.
    Nudge(usize),
    /// The driver notices what its engine, the disk or a peer says.
    Complete(usize),
    EngineMissing(usize),
    Drained(usize),
    /// An owner ends the engine of a guest that has ended.
    Reap(usize),
    /// A dispute about a copy that is gone is none.
    GiveUp(usize),
    OwnerSeen(usize),
    Heard(usize, usize),
    // People.
    Migrate(usize, usize),
    Cancel(usize),
    PeerGone(usize),
    Ask {
        host: usize,
        reaches: bool,
    },
    Word {
        host: usize,
        then: Then,
        reaches: bool,
    },
    Enter(usize),
    // Engines.
    Progress(usize),
    Settle(usize),
    Drain(usize),
    ResumesItself(usize),
    SendFails(usize),
    EngineDies(usize),
    GuestEnds(usize),
    // The rest of the world.
    DaemonDies(usize),
    DaemonStarts(usize),
    PowerFails(usize),
    PowerReturns(usize),
    Restore(usize),
}

impl World {
    /// Everything that can happen next.
    pub fn actions(&self, scope: &Scope, actions: &mut Vec<Action>) {
        if self.wrong.is_some() {
            return;
        }
        for host in 0..self.hosts.len() {
            self.driver_actions(scope, host, actions);
            self.engine_actions(host, actions);
            self.faults(host, actions);
        }
        for parcel in self.net.iter() {
            if self.hosts[parcel.to].node.as_ref().is_some_and(super::Node::is_idle) {
                actions.push(Action::Deliver(*parcel));
            }
        }
    }

    fn driver_actions(&self, scope: &Scope, host: usize, actions: &mut Vec<Action>) {
        let this = &self.hosts[host];
        let Some(node) = &this.node else { return };
        if !node.is_idle() {
            actions.push(Action::Perform(host));
            return;
        }
        if let Some(effect) = node.background.first() {
            actions.push(Action::Finish(host, End::Well));
            let can_fail = matches!(effect, Effect::StartEngine | Effect::StartGuest { .. });
            if self.left.engine_faults > 0 && can_fail {
                actions.push(Action::Finish(host, End::Refused));
                if matches!(effect, Effect::StartGuest { run: Some(_) }) {
                    actions.push(Action::Finish(host, End::Lost));
                }
            }
        }
        if !node.answers.is_empty() {
            actions.push(Action::Answer(host));
        }
        if node.verdict.is_some() {
            actions.push(Action::Enter(host));
        }
        self.notices(host, &node.own.state, actions);
        self.people(scope, host, &node.own.state, actions);
    }

    /// What the driver of `host` can notice.
    fn notices(&self, host: usize, state: &State, actions: &mut Vec<Action>) {
        let engine = self.hosts[host].engine;
        let phase = engine.map(|engine| engine.phase);
        match state {
            State::Source(source) => {
                actions.push(Action::Nudge(host));
                let is_stopped = source.handoff().kind == Kind::Stopped;
                if !source.has_ceded() && phase.is_none() && !is_stopped {
                    actions.push(Action::EngineMissing(host));
                }
                let is_over = matches!(phase, None | Some(Phase::Finished(_)))
                    || self.drawing_target(host).is_none();
                if matches!(source, Source::Draining { .. }) && is_over {
                    actions.push(Action::Drained(host));
                }
            }
            State::Target(target) => {
                actions.push(Action::Nudge(host));
                let is_stopped = target.handoff().kind == Kind::Stopped;
                let is_complete = matches!(phase, Some(Phase::Complete(_))) || is_stopped;
                if matches!(target, Target::Receiving { .. }) && is_complete {
                    actions.push(Action::Complete(host));
                }
                let is_missing = phase.is_none() && !is_stopped;
                if is_missing && !matches!(target, Target::Starting { .. }) {
                    actions.push(Action::EngineMissing(host));
                }
            }
            State::Acquiring { .. } => actions.push(Action::Nudge(host)),
            State::Owned { .. } if phase == Some(Phase::Stopped(RunState::ShutDown)) => {
                actions.push(Action::Reap(host));
            }
            State::Unknown | State::Damaged | State::Owned { .. } => {}
            State::Disputed { .. } if phase.is_none() => actions.push(Action::GiveUp(host)),
            State::Elsewhere { .. } | State::Disputed { .. } => {}
        }
        let is_curious = matches!(
            state,
            State::Source(Source::Ceded { .. }) | State::Target(Target::Prepared { .. })
        );
        if is_curious && self.disk.owner.is_some() {
            actions.push(Action::OwnerSeen(host));
        }
        if is_curious || matches!(state, State::Owned { .. }) {
            for other in (0..self.hosts.len()).filter(|&other| other != host) {
                if self.heard_from(other).is_some() {
                    actions.push(Action::Heard(host, other));
                }
            }
        }
    }

    /// What `other` would say of itself, if it says it owns the guest.
    pub(crate) fn heard_from(&self, other: usize) -> Option<Event> {
        match self.answer(other)? {
            Answer::Owner { owner, epoch, .. } if owner == host_id(other) => {
                Some(Event::Heard { owner, epoch })
            }
            _ => None,
        }
    }

    fn people(&self, scope: &Scope, host: usize, state: &State, actions: &mut Vec<Action>) {
        let others = || (0..self.hosts.len()).filter(move |&other| other != host);
        let engine = self.hosts[host].engine;
        if let State::Owned { .. } = state
            && self.left.migrations > 0
            && self.can_move(scope, host)
        {
            actions.extend(others().map(|other| Action::Migrate(host, other)));
        }
        let may_give_up = matches!(
            state,
            State::Source(
                Source::Offering { .. } | Source::Confirming { .. } | Source::Ceded { .. }
            ) | State::Target(
                Target::Starting { .. } | Target::Receiving { .. } | Target::Prepared { .. }
            )
        );
        if self.left.cancels > 0 && may_give_up {
            actions.push(Action::Cancel(host));
            actions.push(Action::PeerGone(host));
        }
        let is_settled = matches!(
            state,
            State::Unknown | State::Owned { .. } | State::Elsewhere { .. } | State::Disputed { .. }
        );
        if self.left.starts > 0 && engine.is_none() && is_settled {
            if self.all_answer(host) {
                actions.push(Action::Ask { host, reaches: true });
            }
            actions.push(Action::Ask { host, reaches: false });
        }
        // Without a disk to read them from, only who has heard of a guest has its papers.
        let has_papers = scope.storage != Storage::NoPlace || *state != State::Unknown;
        if self.left.words > 0 && has_papers && (engine.is_none() || !is_settled) {
            for reaches in [true, false] {
                // A true word is said about hosts that are off.
                let is_true = others().all(|other| !self.hosts[other].is_on || reaches);
                let is_needed = others().any(|other| !self.hosts[other].is_on);
                let is_word = scope.words == Words::False || (is_true && is_needed);
                if is_word && (!reaches || self.all_answer(host)) {
                    actions.push(Action::Word { host, then: Then::Boot, reaches });
                    if self.resume_is_honest(scope, host) {
                        actions.push(Action::Word { host, then: Then::Resume, reaches });
                    }
                }
            }
        }
    }

    /// Whether everybody who could answer `host` is not in the middle of things.
    fn all_answer(&self, host: usize) -> bool {
        let is_idle = |node: &super::Node| node.is_idle();
        self.hosts
            .iter()
            .enumerate()
            .all(|(other, h)| other == host || h.node.as_ref().is_none_or(is_idle))
    }

    /// Whether saying "the copy here is the newest" would be true, or does not have to be: with
    /// claims a source that wins its own is right.
    fn resume_is_honest(&self, scope: &Scope, host: usize) -> bool {
        let is_newest = self.hosts[host].engine.is_some_and(|e| e.memory == self.version);
        let is_source = matches!(
            self.own(host).map(|own| &own.state),
            Some(State::Source(Source::Ceded { .. }))
        );
        let has_claims = matches!(scope.storage, Storage::Beside { .. });
        is_newest || (is_source && has_claims) || scope.words == Words::False
    }

    fn can_move(&self, scope: &Scope, host: usize) -> bool {
        let phase = self.hosts[host].engine.map(|engine| engine.phase);
        match scope.kind {
            Kind::PreCopy | Kind::PostCopy => {
                matches!(phase, Some(Phase::Running | Phase::Stopped(_)))
            }
            Kind::Stopped => phase.is_none() && self.expected.is_none(),
        }
    }

    fn engine_actions(&self, host: usize, actions: &mut Vec<Action>) {
        let Some(engine) = self.hosts[host].engine else { return };
        let is_idle = self.hosts[host].node.as_ref().is_some_and(super::Node::is_idle);
        match engine.phase {
            Phase::Sending | Phase::SendingStopped(_) => {
                if self.receiver(host).is_some() {
                    actions.push(Action::Progress(host));
                }
                if self.left.engine_faults > 0 && is_idle {
                    actions.push(Action::SendFails(host));
                }
            }
            Phase::Switching(run) => {
                actions.push(Action::Settle(host));
                if self.left.engine_faults > 0 && run == RunState::Running {
                    actions.push(Action::ResumesItself(host));
                }
            }
            Phase::Serving(_) if self.drawing_target(host).is_some() => {
                actions.push(Action::Drain(host));
            }
            Phase::Running | Phase::Stopped(_) | Phase::Finished(_) => {}
            Phase::Serving(_) | Phase::Incoming | Phase::Complete(_) => {}
        }
        if self.left.engine_faults > 0 {
            actions.push(Action::EngineDies(host));
            let may_end = engine.phase.is_running() && is_idle;
            if may_end {
                actions.push(Action::GuestEnds(host));
            }
        }
    }

    /// Who runs on the other half of the memory that `host` still serves.
    fn drawing_target(&self, host: usize) -> Option<usize> {
        let handoff = self.hosts[host].engine?.handoff;
        self.hosts.iter().position(|h| {
            h.engine.is_some_and(|e| e.needs_source && e.has_run && e.handoff == handoff)
        })
    }

    fn faults(&self, host: usize, actions: &mut Vec<Action>) {
        let this = &self.hosts[host];
        match (this.is_on, this.node.is_some()) {
            (true, true) if self.left.daemon_deaths > 0 => actions.push(Action::DaemonDies(host)),
            (true, false) => actions.push(Action::DaemonStarts(host)),
            (false, _) => actions.push(Action::PowerReturns(host)),
            (true, true) => {}
        }
        if this.is_on && self.left.host_deaths > 0 {
            actions.push(Action::PowerFails(host));
        }
        if !this.is_on && self.left.restores > 0 && this.backup != this.slot {
            actions.push(Action::Restore(host));
        }
    }

    /// Lets one thing happen.
    pub fn act(&mut self, scope: &Scope, action: Action) {
        match action {
            Action::Perform(host) => self.perform(scope, host),
            Action::Finish(host, end) => {
                if end != End::Well {
                    self.left.engine_faults -= 1;
                }
                self.finish(scope, host, end);
            }
            Action::Answer(host) => {
                let answer = self.node_mut(host).and_then(|node| node.answers.pop_front());
                if let Some(answer) = answer {
                    self.input(scope, host, Input::Event(answer));
                }
            }
            Action::Deliver(Parcel { from, to, message }) => {
                self.input(scope, to, Input::Message { from, message });
            }
            Action::Nudge(host) => self.input(scope, host, Input::Event(Event::Nudge)),
            Action::Complete(host) => self.input(scope, host, Input::Event(Event::Complete)),
            Action::EngineMissing(host) => {
                self.input(scope, host, Input::Event(Event::EngineFailed));
            }
            Action::Drained(host) => self.input(scope, host, Input::Event(Event::Drained)),
            Action::Reap(host) => self.kill_engine(host),
            Action::GiveUp(host) => self.input(scope, host, Input::Event(Event::GiveUp)),
            Action::OwnerSeen(host) => {
                if let Some(owner) = self.disk.owner {
                    self.input(scope, host, Input::Event(Event::OwnerSeen(owner)));
                }
            }
            Action::Heard(host, other) => {
                if let Some(event) = self.heard_from(other) {
                    self.input(scope, host, Input::Event(event));
                }
            }
            Action::Migrate(..)
            | Action::Cancel(_)
            | Action::PeerGone(_)
            | Action::Ask { .. }
            | Action::Word { .. }
            | Action::Enter(_) => self.act_person(scope, action),
            Action::Progress(_)
            | Action::Settle(_)
            | Action::Drain(_)
            | Action::ResumesItself(_)
            | Action::SendFails(_)
            | Action::EngineDies(_)
            | Action::GuestEnds(_) => self.act_engine(scope, action),
            Action::DaemonDies(_)
            | Action::DaemonStarts(_)
            | Action::PowerFails(_)
            | Action::PowerReturns(_)
            | Action::Restore(_) => self.act_fault(scope, action),
        }
    }

    fn act_person(&mut self, scope: &Scope, action: Action) {
        match action {
            Action::Migrate(from, to) => self.migrate(scope, from, to),
            Action::Cancel(host) => {
                self.left.cancels -= 1;
                self.input(scope, host, Input::Event(Event::Cancelled));
            }
            Action::PeerGone(host) => {
                self.left.cancels -= 1;
                self.input(scope, host, Input::Event(Event::PeerGone));
            }
            Action::Ask { host, reaches } => {
                self.left.starts -= 1;
                self.ask(scope, host, reaches, None);
            }
            Action::Word { host, then, reaches } => {
                self.left.words -= 1;
                self.ask(scope, host, reaches, Some(then));
            }
            Action::Enter(host) => self.enter_door(scope, host),
            _ => unreachable!("only people's actions come here"),
        }
    }

    fn migrate(&mut self, scope: &Scope, from: usize, to: usize) {
        self.left.migrations -= 1;
        self.handoffs += 1;
        let run = match self.hosts[from].engine.map(|engine| engine.phase) {
            Some(Phase::Stopped(run)) => Some(run),
            Some(_) => Some(RunState::Running),
            None => None,
        };
        let Some(own) = self.own(from).cloned() else { return };
        let id = handoff_id(self.handoffs);
        if let Ok(step) = own.offer(id, host_id(to), scope.kind, run) {
            let (own, effects) = mutants::offered(scope.mutant, step);
            scope.coverage.offered(&own);
            self.enter(from, own, effects);
        }
    }

    /// Asks at the door, with an operator's word about everybody who does not answer or without.
    pub(crate) fn ask(&mut self, scope: &Scope, host: usize, reaches: bool, then: Option<Then>) {
        let Some(own) = self.own(host).cloned() else { return };
        let evidence = mutants::evidence(scope.mutant, self.evidence(scope, host, &own, reaches));
        let verdict = match then {
            None => door::start(&evidence),
            Some(then) => {
                let is_off = |host: HostId| match scope.words {
                    Words::True => !self.hosts[host_index(host)].is_on,
                    Words::False => true,
                };
                let is_named = |peer: &&Peer| match peer.answer {
                    None => is_off(peer.host),
                    // Whoever has forgotten the guest may be named, too.
                    Some(Answer::NoRecord) => true,
                    Some(Answer::Owner { owner, .. }) => owner != peer.host,
                    Some(_) => false,
                };
                let named = evidence.peers.iter().filter(is_named);
                let off: Vec<_> = named.map(|peer| peer.host).collect();
                door::recover(&evidence, door::Word { off: &off, then, ..door::Word::default() })
            }
        };
        scope.coverage.verdict(&verdict);
        let entry = Entry::of(&mutants::verdict(scope.mutant, &own, verdict));
        if let Some(node) = self.node_mut(host) {
            node.verdict = entry;
        }
    }

    pub(crate) fn enter_door(&mut self, scope: &Scope, host: usize) {
        let Some(node) = self.node_mut(host) else { return };
        let Some(entry) = node.verdict.take() else { return };
        let own = node.own.clone();
        match entry {
            Entry::Acquire { after, epoch } => {
                // Whatever is in memory anywhere is given up knowingly.
                self.crashed = self.version;
                self.input(scope, host, Input::Event(Event::Acquire { after, epoch }));
            }
            Entry::Resume => {
                self.input(scope, host, Input::Event(Event::Resume));
            }
            Entry::Start => {
                let (own, effects) = own.affirm();
                self.enter(host, own, effects);
                if let Some(node) = self.node_mut(host) {
                    node.queue.push_back(Task::Boot);
                }
            }
        }
    }

    fn act_engine(&mut self, scope: &Scope, action: Action) {
        match action {
            Action::Progress(host) => self.progress(scope, host),
            Action::Settle(host) => {
                if let Some(engine) = self.host_mut(host).engine.as_mut()
                    && let Phase::Switching(run) = engine.phase
                {
                    engine.phase = Phase::Finished(run);
                }
            }
            Action::Drain(host) => {
                if let Some(target) = self.drawing_target(host)
                    && let Some(engine) = self.host_mut(target).engine.as_mut()
                {
                    engine.needs_source = false;
                }
                if let Some(engine) = self.host_mut(host).engine.as_mut()
                    && let Phase::Serving(run) = engine.phase
                {
                    engine.phase = Phase::Finished(run);
                }
            }
            Action::ResumesItself(host) => {
                self.left.engine_faults -= 1;
                self.run(host);
            }
            Action::SendFails(host) => {
                self.left.engine_faults -= 1;
                self.input(scope, host, Input::Event(Event::EngineFailed));
            }
            Action::EngineDies(host) => {
                self.left.engine_faults -= 1;
                self.kill_engine(host);
            }
            Action::GuestEnds(host) => {
                self.left.engine_faults -= 1;
                self.end_guest(scope, host);
            }
            _ => unreachable!("only engines' actions come here"),
        }
    }

    /// All memory that is needed arrives, and the source stops.
    fn progress(&mut self, scope: &Scope, host: usize) {
        let Some(target) = self.receiver(host) else { return };
        let is_postcopy = scope.kind == Kind::PostCopy;
        let Some(engine) = self.host_mut(host).engine.as_mut() else { return };
        let run = match engine.phase {
            Phase::SendingStopped(run) => run,
            _ => RunState::Running,
        };
        engine.phase = if is_postcopy { Phase::Serving(run) } else { Phase::Switching(run) };
        let memory = engine.memory;
        if let Some(engine) = self.host_mut(target).engine.as_mut() {
            engine.phase = Phase::Complete(run);
            engine.memory = memory;
            engine.needs_source = is_postcopy;
        }
        if !mutants::target_is_held(scope.mutant) {
            self.run(target);
        }
    }

    /// The guest powers itself off; the driver of its host notices.
    fn end_guest(&mut self, scope: &Scope, host: usize) {
        let is_moving = self.own(host).is_some_and(|own| own.handoff().is_some());
        let run = RunState::ShutDown;
        if let Some(engine) = self.host_mut(host).engine.as_mut() {
            engine.phase = match engine.phase {
                Phase::Sending => Phase::SendingStopped(run),
                _ => Phase::Stopped(run),
            };
        }
        if is_moving {
            self.input(scope, host, Input::Event(Event::GuestEnded { run }));
        } else {
            // An ordinary end, of no interest here.
            self.kill_engine(host);
        }
        self.expected = None;
    }

    fn act_fault(&mut self, scope: &Scope, action: Action) {
        match action {
            Action::DaemonDies(host) => {
                self.left.daemon_deaths -= 1;
                self.host_mut(host).node = None;
            }
            Action::DaemonStarts(host) => self.start_daemon(scope, host),
            Action::PowerFails(host) => {
                self.left.host_deaths -= 1;
                self.kill_engine(host);
                let this = self.host_mut(host);
                this.node = None;
                this.is_on = false;
                this.cache = None;
            }
            Action::PowerReturns(host) => {
                let this = self.host_mut(host);
                this.is_on = true;
                this.boot += 1;
            }
            Action::Restore(host) => {
                self.left.restores -= 1;
                let this = self.host_mut(host);
                this.slot = this.backup;
                // No connection outlives the bringing back of a backup.
                std::sync::Arc::make_mut(&mut self.net).retain(|parcel| parcel.to != host);
            }
            _ => unreachable!("only faults come here"),
        }
    }
}

/// The world after one thing has happened, sharing what did not change.
pub fn after(world: &World, scope: &Scope, action: Action) -> World {
    let mut next = world.clone();
    next.act(scope, action);
    next
}
