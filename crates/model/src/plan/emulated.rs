// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Does the engine's emulator keep every write of a running guest?
//!
//! An emulator marks a page as written, and then writes it: a page that is sent in between arrives
//! without the write, and is not sent again. Processors that run the guest themselves have no such
//! gap, and a guest that stands still writes nothing.

use super::{Finding, Question};
use crate::codes;
use crate::passport::Accelerator;
use crate::run_state::RunState;

pub(super) fn emulated(question: &Question<'_>) -> Vec<Finding> {
    let Some(passport) = question.passport else { return Vec::new() };
    let is_emulated = passport.accelerator == Accelerator::Tcg;
    let is_running = question.run_state == Some(RunState::Running);
    if !is_emulated || !is_running || question.is_stop_and_copy {
        return Vec::new();
    }
    let (guest, target) = (question.guest_name(), question.target_name());
    vec![Finding::warning(
        codes::PLAN_EMULATED,
        format!(
            "`{guest}` is emulated (TCG), on `{}` as it would be on `{target}`: an emulator can, \
             rarely, lose a write of a guest that runs while it moves",
            question.source_name()
        ),
        format!("`whimbrel migrate {guest} {target} --stop-and-copy`, where no write may be lost"),
    )]
}
