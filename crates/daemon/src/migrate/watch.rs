// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Watches memory travel: a helper on either side that asks engine and carrier how it goes, and
//! tells the guest's task.
//!
//! An engine that sends its last pages may not answer before they have arrived, so the carrier's
//! word decides about stalls: it always answers.

use crate::guests::{GuestEvent, GuestHandle, MigrationEvent};
use crate::migrate::STALL_MAX;
use crate::migrate::bargain::{self, Keeper};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use whimbrel_api::{Kind, Problem};
use whimbrel_bargain::{Advice, Step};
use whimbrel_engine::{EngineEvent, Instance, Migration, Tuning};
use whimbrel_handoff::effect::Event;
use whimbrel_link::carrier::{Control, End, Status};
use whimbrel_model::id::HandoffId;
use whimbrel_model::run_state::RunState;

whimbrel_model::codes! {
    ENGINE_FAILED = "migration/engine-failed": "The engine gave the migration up.";
    LINK_FAILED = "migration/link-failed": "The connection that carries the memory broke.";
    STALLED = "migration/stalled": "Nothing moved for too long while the guest stood still.";
    NOT_AS_OFFERED = "relocation/not-as-offered": "What the source sent is another guest than it had offered.";
    CARRIER_GONE = "migration/carrier-gone": "The process that carries the memory ended.";
}

/// How often to tell while memory travels.
const TELL_EVERY: Duration = Duration::from_millis(190);
/// How often to look while the guest stands still, when every moment counts.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(1);
/// How long an engine may take to say how it goes before the carrier is asked alone.
pub(super) const ENGINE_ANSWER_MAX: Duration = Duration::from_secs(1);
/// A look may cost this part of the time until the next: where processors are slow, asking how it
/// goes must not be what they are busy with.
const LOOKS_PART: u32 = 10;
/// However long a look took, the next is not later.
const LOOK_LATE_MAX: Duration = Duration::from_millis(500);
/// A link over which nothing came for longer may be lost.
const LINK_QUIET_MAX: Duration = Duration::from_secs(1);
/// How long a finished target may take to say so.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long the reason of a target that gave up may be on its way.
const REASON_MAX: Duration = Duration::from_secs(5);

/// What a watcher looks at.
pub(super) struct Watched {
    pub(super) guest: GuestHandle,
    pub(super) handoff: HandoffId,
    pub(super) instance: Arc<dyn Instance>,
    pub(super) carrier: Control,
}

/// How the engine and the carrier stand, as the task is told.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) migration: Migration,
    pub(crate) carried: Status,
    /// What follows for the bargain, at the source while memory travels.
    pub(crate) advice: Option<Advice>,
}

impl Watched {
    async fn tell(&self, event: MigrationEvent) -> bool {
        self.guest.send(GuestEvent::Migration { handoff: self.handoff, event }).await.is_ok()
    }

    async fn fail(&self, code: &str, text: String, remedy: &str) {
        let problem = Problem::new(Kind::Failed, code, text, remedy);
        self.tell(MigrationEvent::Failed(Box::new(problem))).await;
    }

    /// Asks the carrier, and ends the attempt where it says that nothing more will come.
    async fn carried(&self) -> Option<Status> {
        let status = match self.carrier.status().await {
            Ok(status) => status,
            Err(error) => {
                let text = whimbrel_model::problem::chain(&error);
                self.fail(CARRIER_GONE, text, "try again").await;
                return None;
            }
        };
        if let Some(problem) = &status.problem {
            let remedy = "look at the network between the two hosts, then try again";
            self.fail(LINK_FAILED, problem.clone(), remedy).await;
            return None;
        }
        Some(status)
    }

    /// An engine that does not answer is about to switch, or is gone: others notice.
    async fn retune(&self, tuning: Tuning) {
        let _ = tokio::time::timeout(ENGINE_ANSWER_MAX, self.instance.retune(tuning)).await;
    }

    /// Lets the keeper of the bargain look, and follows its advice. Returns none where that was to
    /// give up.
    async fn advised(
        &self,
        keeper: &mut Keeper,
        migration: &Migration,
        carried: &Status,
    ) -> Option<Option<Advice>> {
        let Some(seen) = keeper.seen(migration) else { return Some(None) };
        let asked = tokio::time::timeout(ENGINE_ANSWER_MAX, self.instance.run_state()).await;
        let is_running = !matches!(asked, Ok(Ok(RunState::Paused | RunState::IoError)));
        let (advice, tuning) = keeper.look(seen, carried, is_running);
        if let (Step::Cancel, Some(miss)) = (advice.step, &advice.miss) {
            self.tell(MigrationEvent::Failed(Box::new(bargain::missed(miss)))).await;
            return None;
        }
        if let Some(tuning) = tuning {
            self.retune(tuning).await;
        }
        // The way back ends there: not over a link that is silent just now.
        if advice.step == Step::Postcopy && carried.idle < LINK_QUIET_MAX {
            let _ = tokio::time::timeout(ENGINE_ANSWER_MAX, self.instance.enter_postcopy()).await;
        }
        Some(Some(advice))
    }

    async fn migration(&self) -> Option<Migration> {
        let asked = tokio::time::timeout(ENGINE_ANSWER_MAX, self.instance.migration()).await;
        asked.ok()?.ok()
    }
}

/// Watches the source until its engine has finished, and then for the word of the target.
///
/// The carrying process of a post-copy hides from the engine here that the other one is gone: it
/// would wait for ever. Of all others the engine, or the target, says why it gave up.
pub(super) async fn source(watched: Watched, mut keeper: Keeper, is_postcopy: bool) {
    let mut events = watched.instance.events();
    let mut told_at = None::<Instant>;
    loop {
        let looking = Instant::now();
        let Some(carried) = watched.carried().await else { return };
        let migration = watched.migration().await;
        if is_stalled(migration.as_ref(), &carried, keeper.stall_max()) {
            return stalled(&watched, &carried).await;
        }
        match migration {
            Some(Migration::Failed { reason }) => return gave_up(&watched, reason).await,
            Some(migration)
                if is_postcopy
                    && is_refused(&carried)
                    && !matches!(migration, Migration::Completed(_)) =>
            {
                let text = "the engine on the target takes no more of it".to_owned();
                return watched.fail(ENGINE_FAILED, text, "the guest runs on; try again").await;
            }
            Some(migration) => {
                let Some(advice) = watched.advised(&mut keeper, &migration, &carried).await else {
                    return;
                };
                let is_over = matches!(
                    migration,
                    Migration::Completed(_) | Migration::PostCopy(_) | Migration::Interrupted(_)
                );
                let is_due = told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
                if is_due || !matches!(migration, Migration::Active(_)) {
                    told_at = Some(Instant::now());
                    let figures = Figures { migration, carried, advice };
                    if !watched.tell(MigrationEvent::Progress(Box::new(figures))).await {
                        return;
                    }
                }
                if is_over {
                    break;
                }
            }
            None => {}
        }
        let every = thinned(keeper.look_every(), looking.elapsed());
        tokio::select! {
            () = next_look(&mut events, every) => {}
            () = keeper.until_word() => {}
        }
    }
    keeper.word().await;
    // The attempt ends this helper. If it still lives then, the target has never said a word.
    tokio::time::sleep(READY_MAX).await;
    let text = format!("the target did not confirm within {} s", READY_MAX.as_secs());
    watched.fail(STALLED, text, "look at the log of the target, then try again").await;
}

/// The engine here has failed. Where that came of the other end's closing, the target knows why,
/// and its word ends this helper.
async fn gave_up(watched: &Watched, reason: String) {
    let Some(carried) = watched.carried().await else { return };
    if is_refused(&carried) {
        tokio::time::sleep(REASON_MAX).await;
    }
    let text = format!("the engine gave the migration up: {reason}");
    watched.fail(ENGINE_FAILED, text, "the guest runs on; try again").await;
}

/// How long to wait for the next look after one that took so long. Where every moment counts, none
/// is left out.
fn thinned(every: Duration, took: Duration) -> Duration {
    if every < TELL_EVERY { every } else { every.max((took * LOOKS_PART).min(LOOK_LATE_MAX)) }
}

/// Waits for the engine to speak, but not for long.
pub(super) async fn next_look(
    events: &mut tokio::sync::broadcast::Receiver<EngineEvent>,
    every: Duration,
) {
    let deadline = Instant::now() + every;
    loop {
        match tokio::time::timeout_at(deadline, events.recv()).await {
            Ok(Ok(EngineEvent::Migration | EngineEvent::Stopped)) | Err(_) => return,
            Ok(Ok(_)) => {}
            // Gone or too fast: the next look tells.
            Ok(Err(_)) => return tokio::time::sleep_until(deadline).await,
        }
    }
}

/// The target's engine is gone, or has closed its channel.
fn is_refused(carried: &Status) -> bool {
    carried.channels.iter().any(|channel| channel.outgoing.end == Some(End::Stopped))
}

/// While the guest runs a slow link is only slow. While it stands still it is a stall.
fn is_stalled(migration: Option<&Migration>, carried: &Status, most: Duration) -> bool {
    let stands_still = matches!(migration, None | Some(Migration::Switching(_)));
    stands_still && carried.idle > most
}

async fn stalled(watched: &Watched, carried: &Status) {
    let text =
        format!("nothing moved for {} s while the guest stood still", carried.idle.as_secs());
    watched.fail(STALLED, text, "look at the network between the two hosts, then try again").await;
}

/// The guest was judged by its offer, and another one came.
async fn not_as_offered(watched: &Watched, what: String) {
    let text = format!("what the source sends is not the guest that it offered: {what}");
    let remedy = "if somebody changed the domain with `xl` there, change its definition to match and \
                  restart it; if nobody did, do not trust that host: `whimbrel host forget`";
    let problem = Problem::new(Kind::Refused, NOT_AS_OFFERED, text, remedy);
    watched.tell(MigrationEvent::Failed(Box::new(problem))).await;
}

/// Watches the target until everything has arrived, complete and equal.
pub(super) async fn target(watched: Watched) {
    let mut events = watched.instance.events();
    loop {
        let looking = Instant::now();
        let Some(carried) = watched.carried().await else { return };
        match watched.migration().await {
            Some(Migration::Completed(_)) => break,
            // Everything but memory, which will follow.
            Some(Migration::PostCopy(_)) => {
                watched.tell(MigrationEvent::Machine(Event::Complete)).await;
                return;
            }
            Some(Migration::Failed { reason }) => {
                let text = format!("the engine on the target gave up: {reason}");
                return watched.fail(ENGINE_FAILED, text, "the guest runs on; try again").await;
            }
            Some(Migration::NotAsOffered { what }) => return not_as_offered(&watched, what).await,
            Some(migration) => {
                let figures = Figures { migration, carried, advice: None };
                if !watched.tell(MigrationEvent::Progress(Box::new(figures))).await {
                    return;
                }
            }
            None => {}
        }
        next_look(&mut events, thinned(TELL_EVERY, looking.elapsed())).await;
    }
    let deadline = Instant::now() + STALL_MAX;
    while Instant::now() < deadline {
        let Some(carried) = watched.carried().await else { return };
        if carried.has_received_everything() {
            watched.tell(MigrationEvent::Machine(Event::Complete)).await;
            return;
        }
        tokio::time::sleep(LOOK_CLOSELY_EVERY).await;
    }
    let text = "the engine on the target has everything, and the carrying process not".to_owned();
    watched.fail(STALLED, text, "try again").await;
}
