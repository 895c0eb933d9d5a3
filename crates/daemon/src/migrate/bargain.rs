// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What was promised of a migration: agreed on, kept while memory travels, and held until the word.
//!
//! What serves the promise is decided in `whimbrel_bargain`; here its looks are taken and its
//! advice is followed. A guest that stands still is held at the commit: its engine has nothing left
//! to send, but nobody has given anything away yet.

use crate::guests::{GuestError, GuestEvent, GuestTask, MigrationEvent};
use crate::migrate::{Journey, MoveOrder, STALL_MAX, ms};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use whimbrel_api::migration as api;
use whimbrel_api::{Kind, Problem};
use whimbrel_bargain::{Advice, Controller, Look, Miss, Terms, stands_too_long};
use whimbrel_engine::{Migration, Progress, Tuning};
use whimbrel_handoff::effect::Event;
use whimbrel_link::carrier::Status;
use whimbrel_model::passport::{Accelerator, EngineKind, Passport};
use whimbrel_model::plan::{Bargain, OnMiss};
use whimbrel_model::run_state::RunState;
use whimbrel_model::units::Bytes;

whimbrel_model::codes! {
    MISSED = "migration/bargain-missed": "What was promised of the migration cannot be kept, and it was to be cancelled then.";
    HOLD_LOST = "migration/hold-lost": "The engine could not be kept from switching over before the word; the guest is where it was.";
}

/// What a switchover costs besides the last pages, before the first one between two hosts.
const SWITCHOVER: Duration = Duration::from_millis(40);
/// How often to look while memory travels.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// While a guest of Xen stands still, its devices are plugged in on the target, and nothing
/// travels: by scripts, each of which may take many seconds on a busy host.
const PLUG_MAX: Duration = Duration::from_secs(90);

/// Returns what is asked for, and what was configured where nothing is.
///
/// Of an engine that chooses its pause by itself, no pause is promised unless it is asked for, and
/// none of a guest that is to be stopped for all the time: as long as the migration may take.
pub(crate) fn bargain_for(
    request: &api::BargainRequest,
    is_stop_and_copy: bool,
    engine: EngineKind,
    configured: Bargain,
) -> Bargain {
    let time = |ms: Option<u64>, otherwise| ms.map_or(otherwise, Duration::from_millis);
    let deadline = time(request.deadline_ms, configured.deadline);
    let pause_max = match engine.chooses_pause() {
        true if is_stop_and_copy => deadline,
        true => time(request.pause_ms_max, deadline),
        false => time(request.pause_ms_max, configured.pause_max),
    };
    Bargain {
        pause_max,
        deadline,
        slowdown_percent_max: request
            .slowdown_percent_max
            .map_or(configured.slowdown_percent_max, |percent| percent.min(99)),
        on_miss: request.on_miss.map_or(configured.on_miss, |on_miss| match on_miss {
            api::OnMiss::Cancel => OnMiss::Cancel,
            api::OnMiss::Pause => OnMiss::Pause,
            api::OnMiss::Throttle => OnMiss::Throttle,
            api::OnMiss::Postcopy => OnMiss::Postcopy,
        }),
    }
}

impl MoveOrder {
    /// Whether the guest may ever be slowed down.
    pub(super) fn may_throttle(&self) -> bool {
        let is_asked = self.bargain.slowdown_percent_max > 0;
        !self.is_stop_and_copy && (is_asked || self.bargain.on_miss == OnMiss::Throttle)
    }

    /// Whether the guest may run on the target before its memory is there.
    pub(super) fn may_postcopy(&self) -> bool {
        !self.is_stop_and_copy && self.bargain.on_miss == OnMiss::Postcopy
    }

    pub(super) fn promise(&self) -> api::Bargain {
        let Bargain { pause_max, deadline, slowdown_percent_max, on_miss } = self.bargain;
        api::Bargain {
            pause_ms_max: ms(pause_max),
            deadline_ms: ms(deadline),
            slowdown_percent_max,
            on_miss: match on_miss {
                OnMiss::Cancel => api::OnMiss::Cancel,
                OnMiss::Pause => api::OnMiss::Pause,
                OnMiss::Throttle => api::OnMiss::Throttle,
                OnMiss::Postcopy => api::OnMiss::Postcopy,
            },
            is_held: self.is_held,
        }
    }

    pub(super) fn terms(
        &self,
        guest: String,
        bandwidth: Option<Bytes>,
        passport: Option<&Passport>,
    ) -> Terms {
        Terms {
            guest,
            bargain: self.bargain,
            switchover: SWITCHOVER,
            bandwidth,
            link_rate: None,
            dirty_before: None,
            is_held: self.is_held,
            is_emulated: passport.is_some_and(|it| it.accelerator == Accelerator::Tcg),
            can_throttle: self.may_throttle(),
            chooses_pause: passport.is_some_and(|it| it.engine.chooses_pause()),
        }
    }
}

/// Looks at a migration for the controller, and turns its advice into what the engine is told.
pub(super) struct Keeper {
    controller: Controller,
    tuning: Tuning,
    chooses_pause: bool,
    began: Instant,
    word: watch::Receiver<bool>,
}

impl Keeper {
    pub(super) fn new(terms: Terms, began: Instant, word: watch::Receiver<bool>) -> Self {
        let chooses_pause = terms.chooses_pause;
        let controller = Controller::new(terms);
        let (pause_max, bandwidth) = controller.first();
        Self {
            controller,
            tuning: Tuning { bandwidth, pause_max, throttle_percent: 0 },
            chooses_pause,
            began,
            word,
        }
    }

    /// What the engine is told just now.
    pub(super) fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// Returns what there is to look at, while that is of use.
    pub(super) fn seen<'a>(&self, migration: &'a Migration) -> Option<&'a Progress> {
        match migration {
            Migration::Active(seen) => Some(seen),
            Migration::Switching(seen) if self.chooses_pause => Some(seen),
            _ => None,
        }
    }

    /// How long nothing may move while the guest stands still.
    pub(super) fn stall_max(&self) -> Duration {
        if self.chooses_pause { PLUG_MAX } else { STALL_MAX }
    }

    /// How soon to look again.
    pub(super) fn look_every(&self) -> Duration {
        if self.controller.is_held() { whimbrel_bargain::LOOK_EVERY } else { LOOK_EVERY }
    }

    /// Takes a look. Returns the advice, and the tuning where that has changed.
    pub(super) fn look(
        &mut self,
        seen: &Progress,
        carried: &Status,
        is_running: bool,
    ) -> (Advice, Option<Tuning>) {
        let elapsed = self.began.elapsed();
        if *self.word.borrow() {
            self.controller.cut_over(elapsed);
        }
        let is_lost = |channel: &whimbrel_link::carrier::ChannelStatus| {
            channel.pages.is_some() && !channel.is_connected
        };
        let look = Look {
            elapsed,
            round: seen.round,
            remaining: seen.remaining,
            rate: seen.rate,
            dirty_rate: seen.dirty_rate,
            throttle_percent: seen.throttle_percent,
            is_link_up: !carried.channels.iter().any(is_lost),
            is_running,
            stood: seen.pause.stopped.map_or(Duration::ZERO, |at| at.elapsed().unwrap_or_default()),
        };
        let advice = self.controller.look(&look);
        tracing::trace!(?look, ?advice);
        let tuning = Tuning {
            bandwidth: advice.bandwidth,
            pause_max: advice.allowance,
            throttle_percent: advice.throttle_percent,
        };
        let is_new = std::mem::replace(&mut self.tuning, tuning) != tuning;
        (advice, is_new.then_some(tuning))
    }

    /// Returns once the word was given, or at once where none is waited for.
    pub(super) async fn word(&mut self) {
        if self.controller.is_held() {
            self.until_word().await;
        }
    }

    /// Returns as soon as the word is given; never where it was, or nobody waits for it.
    pub(super) async fn until_word(&mut self) {
        if !self.controller.is_held() || self.word.wait_for(|is_given| *is_given).await.is_err() {
            std::future::pending::<()>().await;
        }
        self.controller.cut_over(self.began.elapsed());
    }
}

/// The end of an attempt whose bargain cannot be kept.
pub(super) fn missed(miss: &Miss) -> Problem {
    Problem::new(Kind::Failed, MISSED, miss.text.clone(), miss.remedy.clone())
}

impl Journey {
    /// What was promised, where there is anything to promise.
    pub(super) fn promise(&self) -> Option<api::Bargain> {
        let order = self.order().filter(|_| self.mode != api::Mode::Definition);
        order.map(MoveOrder::promise)
    }
}

impl GuestTask {
    /// Whether a guest that is about to be given away has stood still for as long as was promised.
    pub(super) fn has_stood_too_long(&mut self) -> bool {
        let Some(journey) = &self.journey else { return false };
        let Some(terms) = journey.terms.as_ref().filter(|terms| terms.chooses_pause) else {
            return false;
        };
        let elapsed = journey.progressing.began().elapsed();
        let stood = journey.progressing.stood();
        let Some(miss) = stands_too_long(terms, elapsed, stood) else { return false };
        self.note_problem(missed(&miss));
        true
    }

    pub(crate) async fn order_cut_over(&mut self) -> Result<(), Problem> {
        let guest = self.name().to_string();
        let Some(journey) = &mut self.journey else {
            return Err(GuestError::NotMoving { guest }.into());
        };
        if !journey.is_held() || journey.is_rehearsal() {
            return Err(GuestError::NotHeld { guest }.into());
        }
        journey.word.send_replace(true);
        let waits = std::mem::take(&mut journey.waits_for_word);
        self.story("the migration was told to cut over");
        if waits {
            let event = self.confirm_stopped().await;
            self.tell_machine(event).await;
        }
        Ok(())
    }

    /// Whether the handing over has to wait for the word; it is taken up with that.
    pub(super) fn waits_for_word(&mut self) -> bool {
        let Some(journey) = &mut self.journey else { return false };
        let is_held = journey.is_held();
        if is_held && !std::mem::replace(&mut journey.waits_for_word, true) {
            self.story("everything is on the target; the guest waits for `whimbrel cutover`");
            self.send_migration();
            self.note_held();
        }
        is_held
    }

    /// It could be cut over now. That is as far as a rehearsal goes.
    pub(super) fn note_held(&mut self) {
        let Some(journey) = &mut self.journey else { return };
        if !journey.is_rehearsal() || std::mem::replace(&mut journey.has_rehearsed, true) {
            return;
        }
        // An event of its own: this may be in the middle of an effect.
        let (guest, handoff) = (self.handle.clone(), journey.handoff);
        let telling = async move {
            let event = MigrationEvent::Rehearsed;
            // The guest may have been forgotten meanwhile.
            let _ = guest.send(GuestEvent::Migration { handoff, event }).await;
        };
        journey.add_helper(tokio::spawn(telling).abort_handle());
    }

    pub(super) async fn end_rehearsal(&mut self) {
        if self.ownership.has_ceded() {
            return;
        }
        self.story("the rehearsal is over: everything was ready for the handing over");
        self.tell_machine(Event::Cancelled).await;
    }

    /// The engine has stopped a guest that is held. Returns whether that was its own doing: then
    /// the attempt is given up, and the guest goes on.
    pub(super) async fn lost_hold(&mut self) -> bool {
        let Some(held) = &self.engine else { return false };
        let has_run = held.run == RunState::Running;
        // Events that were missed look like this one, too.
        let runs = matches!(held.instance.run_state().await, Ok(RunState::Running));
        if !has_run || runs {
            return false;
        }
        let guest = self.name();
        self.note_problem(Problem::new(
            Kind::Failed,
            HOLD_LOST,
            format!("`{guest}` wrote so little that its engine could not be held back"),
            format!("move it without `--hold`: `whimbrel migrate {guest} {}`", self.peer_name()),
        ));
        self.tell_machine(Event::EngineFailed).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts that take seconds are no reason to give up where nobody has asked for a pause.
    #[test]
    fn on_xen_a_pause_is_promised_where_it_is_asked_for() {
        let configured = Bargain::default();
        let pause = |asked, is_stop_and_copy, engine| {
            let request = api::BargainRequest { pause_ms_max: asked, ..Default::default() };
            bargain_for(&request, is_stop_and_copy, engine, configured).pause_max
        };
        let second = Duration::from_secs(1);
        for (engine, otherwise) in
            [(EngineKind::Qemu, configured.pause_max), (EngineKind::Xen, configured.deadline)]
        {
            assert_eq!(pause(Some(1000), false, engine), second);
            assert_eq!(pause(None, false, engine), otherwise);
        }
        assert_eq!(pause(Some(1000), true, EngineKind::Xen), configured.deadline);
    }
}
