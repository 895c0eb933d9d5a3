// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The simulation: long random lives of a few hosts, decided by a seed.
//!
//! A walk picks its scope (hosts, storage, what moves, what may break and how often) and then one
//! possible action after the other, more of the ones that get a guest moved and fewer of the ones
//! that break it. After a while faults cease, and the world must heal. The same seed is the same
//! walk, bit for bit; where one goes wrong, [`tell`] writes down its story.

use crate::coverage::{self, Coverage};
use crate::heal;
use crate::mutants::Mutant;
use crate::world::{Action, Budget, End, Phase, Scope, Storage, Words, World, Wrong, host_name};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use whimbrel_handoff::message::Kind;
use whimbrel_handoff::ownership::State;
use whimbrel_model::run_state::RunState;

/// Actions after which faults cease.
const STEPS_MAX: usize = 300;

/// What became of a walk.
pub struct Walk {
    pub seed: u64,
    pub scope: Scope,
    pub actions: Vec<Action>,
    pub wrong: Option<Wrong>,
    /// Whether the guest ended on another host than it began on.
    pub has_moved: bool,
    /// A digest of every world the walk passed through.
    pub digest: u64,
}

/// Lives one life.
pub fn walk(seed: u64, mutant: Option<Mutant>, coverage: &Coverage) -> Walk {
    let mut rng = SmallRng::seed_from_u64(seed);
    let scope = draw_scope(&mut rng, mutant, coverage);
    let mut world = World::new(&scope);
    let mut taken = Vec::new();
    let mut possible = Vec::new();
    let mut hasher = DefaultHasher::new();
    for _ in 0..STEPS_MAX {
        possible.clear();
        world.actions(&scope, &mut possible);
        let Some(action) = choose(&mut rng, &world, &possible) else { break };
        world.act(&scope, action);
        taken.push(action);
        (action, world.version, world.net.len()).hash(&mut hasher);
    }
    let healed = heal::heal(&world, &scope);
    let (wrong, end) = match healed {
        Ok(end) => (None, end),
        Err((wrong, end)) => (Some(wrong), end),
    };
    end.hash(&mut hasher);
    let has_moved = !matches!(end.own(0).map(|own| &own.state), Some(State::Owned { .. }));
    Walk { seed, scope, actions: taken, wrong, has_moved, digest: hasher.finish() }
}

fn draw_scope(rng: &mut SmallRng, mutant: Option<Mutant>, coverage: &Coverage) -> Scope {
    let storage = match rng.random_range(0..4) {
        0 => Storage::NoPlace,
        1 => Storage::Beside { has_locks: true },
        _ => Storage::Beside { has_locks: false },
    };
    let (kind, run) = match rng.random_range(0..8) {
        0 => (Kind::Stopped, None),
        1 => (Kind::PostCopy, Some(RunState::Running)),
        2 => (Kind::PreCopy, Some(RunState::Paused)),
        _ => (Kind::PreCopy, Some(RunState::Running)),
    };
    let words = if rng.random_range(0..6) == 0 { Words::False } else { Words::True };
    let is_restored = storage != Storage::NoPlace
        && words == Words::True
        && kind == Kind::PreCopy
        && rng.random_range(0..8) == 0;
    let budget = Budget {
        migrations: rng.random_range(1..=4),
        daemon_deaths: rng.random_range(0..=4),
        host_deaths: rng.random_range(0..=2),
        engine_faults: rng.random_range(0..=2),
        cancels: rng.random_range(0..=2),
        starts: rng.random_range(0..=4),
        words: rng.random_range(0..=2),
        restores: u8::from(is_restored),
    };
    let hosts = rng.random_range(2..=3);
    let coverage = coverage.clone();
    Scope { name: "a walk", hosts, storage, kind, run, words, budget, mutant, coverage }
}

/// Picks what happens next.
fn choose(rng: &mut SmallRng, world: &World, possible: &[Action]) -> Option<Action> {
    let total: u32 = possible.iter().map(|action| weight(world, action)).sum();
    if total == 0 {
        return None;
    }
    let mut at = rng.random_range(0..total);
    possible.iter().copied().find(|action| {
        let weight = weight(world, action);
        let is_it = at < weight;
        at = at.saturating_sub(weight);
        is_it
    })
}

fn weight(world: &World, action: &Action) -> u32 {
    match action {
        Action::Perform(_) | Action::Answer(_) | Action::Finish(_, End::Well) => 60,
        Action::Finish(..) => 3,
        Action::Progress(_) | Action::Settle(_) | Action::Drain(_) | Action::Complete(_) => 60,
        // Most messages arrive once, some again, a few much later.
        Action::Deliver(parcel) => {
            let is_of_last = parcel.message.handoff.0.as_u128() == u128::from(world.handoffs);
            if is_of_last { 30 } else { 6 }
        }
        Action::Enter(_) | Action::Drained(_) | Action::EngineMissing(_) | Action::Reap(_) => 20,
        Action::GiveUp(_) => 20,
        Action::DaemonStarts(_) | Action::PowerReturns(_) => 12,
        Action::Migrate(..) => 6,
        Action::Nudge(_) | Action::OwnerSeen(_) | Action::Heard(..) => 3,
        Action::Ask { .. } | Action::Word { .. } => 3,
        Action::DaemonDies(_) | Action::Restore(_) => 3,
        Action::Cancel(_) | Action::PeerGone(_) | Action::PowerFails(_) => 1,
        Action::SendFails(_) | Action::EngineDies(_) | Action::ResumesItself(_) => 1,
        Action::GuestEnds(_) => 1,
    }
}

/// Writes down a walk, a line for each thing that happened.
pub fn tell(walk: &Walk) -> String {
    let mut story = String::new();
    let Scope { hosts, storage, kind, run, words, budget, .. } = &walk.scope;
    // Writing to a string cannot fail.
    let _ = writeln!(
        story,
        "seed {}: {hosts} hosts, storage {storage:?}, {kind:?}, guest {run:?}, words {words:?}",
        walk.seed
    );
    let _ = writeln!(story, "what may happen: {budget:?}");
    let mut world = World::new(&walk.scope);
    for (number, action) in walk.actions.iter().enumerate() {
        world.act(&walk.scope, *action);
        let _ = writeln!(story, "{number:4}  {:44} {}", sentence(action), line(&world));
        if let Some(wrong) = world.wrong {
            let _ = writeln!(story, "      WRONG: {}", coverage::words(wrong));
            return story;
        }
    }
    match heal::heal(&world, &walk.scope) {
        Ok(end) => {
            let _ = writeln!(story, "      healed: {}", line(&end));
        }
        Err((wrong, end)) => {
            let _ = writeln!(story, "      healed: {}", line(&end));
            for host in 0..end.hosts.len() {
                let verdict = end.at_the_door(&walk.scope, host);
                let _ = writeln!(story, "      {} may start: {verdict:?}", host_name(host));
            }
            let _ = writeln!(story, "      beside the image: {:?}", end.disk);
            let _ = writeln!(story, "      WRONG: {}", coverage::words(wrong));
        }
    }
    story
}

/// Returns an action in words.
pub fn sentence(action: &Action) -> String {
    let name = host_name;
    match action {
        Action::Perform(h) => format!("{} does the next thing", name(*h)),
        Action::Finish(h, end) => format!("{} is done with it: {end:?}", name(*h)),
        Action::Answer(h) => format!("{} is told so", name(*h)),
        Action::Deliver(parcel) => format!(
            "{} hears {} (epoch {}) from {}",
            name(parcel.to),
            parcel.message.body.name(),
            parcel.message.epoch,
            name(parcel.from)
        ),
        Action::Nudge(h) => format!("{} tries again", name(*h)),
        Action::Complete(h) => format!("{} has all memory", name(*h)),
        Action::EngineMissing(h) => format!("{} misses its engine", name(*h)),
        Action::Drained(h) => format!("{} has sent its last page", name(*h)),
        Action::Reap(h) => format!("{} ends an engine whose guest has ended", name(*h)),
        Action::GiveUp(h) => format!("{} has nothing left to dispute", name(*h)),
        Action::OwnerSeen(h) => format!("{} reads the owner record", name(*h)),
        Action::Heard(h, g) => format!("{} asks {} who owns the guest", name(*h), name(*g)),
        Action::Migrate(h, g) => {
            format!("somebody moves the guest from {} to {}", name(*h), name(*g))
        }
        Action::Cancel(h) => format!("somebody cancels on {}", name(*h)),
        Action::PeerGone(h) => format!("{} has waited long enough", name(*h)),
        Action::Ask { host, reaches } => {
            format!("a start on {}, peers reached: {reaches}", name(*host))
        }
        Action::Word { host, then, reaches } => {
            format!("a word on {}: {then:?}, peers reached: {reaches}", name(*host))
        }
        Action::Enter(h) => format!("{} does as the door said", name(*h)),
        Action::Progress(h) => format!("the engine of {} sends everything and stops", name(*h)),
        Action::Settle(h) => format!("the engine of {} says completed", name(*h)),
        Action::Drain(h) => format!("the engine of {} sends the last page", name(*h)),
        Action::ResumesItself(h) => format!("the engine of {} RESUMES BY ITSELF", name(*h)),
        Action::SendFails(h) => format!("the engine of {} FAILS to send", name(*h)),
        Action::EngineDies(h) => format!("the engine of {} DIES", name(*h)),
        Action::GuestEnds(h) => format!("the guest on {} POWERS OFF", name(*h)),
        Action::DaemonDies(h) => format!("the daemon of {} DIES", name(*h)),
        Action::DaemonStarts(h) => format!("the daemon of {} starts", name(*h)),
        Action::PowerFails(h) => format!("{} LOSES POWER", name(*h)),
        Action::PowerReturns(h) => format!("{} has power again", name(*h)),
        Action::Restore(h) => format!("an OLD STATE directory comes back on {}", name(*h)),
    }
}

/// The world in one line: what each host believes, and what its engine does.
fn line(world: &World) -> String {
    let mut line = String::new();
    for (index, host) in world.hosts.iter().enumerate() {
        let state = match (&host.node, host.is_on) {
            (Some(node), _) => node.own.name(),
            (None, true) => "(no daemon)",
            (None, false) => "(off)",
        };
        let engine = match host.engine.map(|engine| engine.phase) {
            None => "-".to_owned(),
            Some(Phase::Running) => "RUNS".to_owned(),
            Some(phase) => format!("{phase:?}").to_lowercase(),
        };
        let _ = write!(line, "| {} {state} [{engine}] ", host_name(index));
    }
    line
}

/// Lives many lives and stops at the first that goes wrong.
pub fn many(seeds: std::ops::Range<u64>, mutant: Option<Mutant>, coverage: &Coverage) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let walk = walk(seed, mutant, coverage);
        tally.walks += 1;
        tally.steps += walk.actions.len();
        tally.moved += usize::from(walk.has_moved);
        tally.digest = tally.digest.rotate_left(1) ^ walk.digest;
        if walk.wrong.is_some() {
            tally.failed = Some(walk);
            break;
        }
    }
    tally
}

#[derive(Default)]
pub struct Tally {
    pub walks: usize,
    pub steps: usize,
    /// Lives that ended with the guest on another host.
    pub moved: usize,
    pub digest: u64,
    pub failed: Option<Walk>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed is the same life: two passes over the same seeds end with the same digest of
    /// everything that happened, and different seeds do not.
    #[test]
    fn a_seed_replays_bit_for_bit() {
        let pass = |seeds| many(seeds, None, &Coverage::default()).digest;
        assert_eq!(pass(0..300), pass(0..300));
        assert_ne!(pass(0..300), pass(300..600));
    }

    /// The story of a failing life ends with what went wrong, and tells it again the same way.
    #[test]
    fn a_failing_seed_tells_its_story() {
        let mutant = Some(Mutant::StartedEarly);
        let walk = many(0..20_000, mutant, &Coverage::default()).failed.expect("it is killed");
        let story = tell(&walk);
        assert!(story.lines().last().is_some_and(|line| line.contains("WRONG")), "{story}");
        assert_eq!(story, tell(&walk));
    }

    /// One owner, none lost, nothing left over, whatever breaks; and the walks really go places:
    /// both outcomes of a life must occur often.
    #[test]
    fn one_owner_whatever_breaks() {
        let tally = many(0..5_000, None, &Coverage::default());
        if let Some(walk) = &tally.failed {
            panic!("{}", tell(walk));
        }
        assert!(tally.moved > 500 && tally.moved < 4_500, "{} moved", tally.moved);
    }
}
