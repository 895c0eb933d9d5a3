// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What a promised pause is worth beside an engine that chooses the pause by itself.
//!
//! Xen's libxl stops a guest after five passes, or when little is left, and is not told how long
//! that may take. The promise is kept all the same: a guest that stands still for too long is taken
//! back before it is given away. What that is likely to come to is said before.

use super::{Finding, Forecast, OnMiss, Question};
use crate::codes;
use crate::run_state::RunState;
use crate::units::format_duration;

pub(super) fn pause(question: &Question<'_>, forecast: &Forecast) -> Vec<Finding> {
    let chooses = question.passport.is_some_and(|passport| passport.engine.chooses_pause());
    let is_live = question.run_state == Some(RunState::Running) && !question.is_stop_and_copy;
    if !chooses || !is_live {
        return Vec::new();
    }
    let (guest, target) = (question.guest_name(), question.target_name());
    let (bargain, expected) = (question.bargain, forecast.pause);
    let text = format!(
        "Xen itself chooses when to stop `{guest}`: expect a pause of {} to {}",
        format_duration(expected.low),
        format_duration(expected.high)
    );
    if bargain.pause_max >= bargain.deadline {
        let text = format!("{text}; none is promised without `--max-pause`");
        return vec![Finding::ok(codes::PLAN_PAUSE, text)];
    }
    let promised = format_duration(bargain.pause_max);
    if bargain.on_miss == OnMiss::Pause {
        let text = format!("{text}; where {promised} is not enough, it takes as long as it takes");
        return vec![Finding::ok(codes::PLAN_PAUSE, text)];
    }
    if expected.high <= bargain.pause_max {
        let text = format!("{text}; at most {promised} was promised");
        return vec![Finding::ok(codes::PLAN_PAUSE, text)];
    }
    let is_certain = expected.low > bargain.pause_max;
    let text = match is_certain {
        true => format!("{text}, and at most {promised} was promised"),
        false => format!(
            "{text}; at most {promised} was promised, so it may stand still for that long, and go \
             on where it was"
        ),
    };
    let seconds = expected.high.as_secs() + 1;
    let remedy = format!(
        "promise more: `whimbrel migrate {guest} {target} --max-pause {seconds}s`; or nothing: leave \
         `--max-pause` out"
    );
    match is_certain && bargain.on_miss == OnMiss::Cancel && !question.may_miss {
        true => vec![Finding::blocker(codes::PLAN_PAUSE, text, remedy)],
        false => vec![Finding::warning(codes::PLAN_PAUSE, text, remedy)],
    }
}
