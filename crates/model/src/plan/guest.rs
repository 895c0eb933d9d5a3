// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Is the guest free to move, and is there room for its name?

use super::{Finding, Question};
use crate::codes;
use crate::run_state::RunState;

pub(super) fn busy(question: &Question<'_>) -> Vec<Finding> {
    let name = question.guest_name();
    let dead = match question.run_state {
        Some(RunState::ShutDown) => Some("has powered itself off"),
        Some(RunState::Panicked) => Some("has panicked"),
        Some(RunState::IoError) => Some("was stopped by an error of a disk"),
        Some(RunState::Running | RunState::Paused | RunState::Suspended) | None => None,
    };
    let mut findings = Vec::new();
    if let Some(dead) = dead {
        findings.push(Finding::blocker(
            codes::PLAN_GUEST_BUSY,
            format!("guest `{name}` {dead}; its engine is kept for a look"),
            format!("`whimbrel log {name}` says why; `whimbrel stop {name} --now` ends it"),
        ));
    }
    if question.source.guest.name.is_moving || question.target.guest.name.is_moving {
        findings.push(Finding::blocker(
            codes::PLAN_GUEST_BUSY,
            format!("guest `{name}` is moving already"),
            format!("`whimbrel watch {name}` shows how far it is"),
        ));
    }
    findings
}

pub(super) fn name(question: &Question<'_>) -> Vec<Finding> {
    let (name, target) = (question.guest_name(), question.target_name());
    let facts = &question.target.guest.name;
    if let Some(other) = facts.name_taken_by.filter(|&other| other != question.id) {
        return vec![Finding::blocker(
            codes::PLAN_NAME,
            format!("`{target}` has another guest `{name}` (uuid {other})"),
            format!("rename one of them, or on `{target}`: `whimbrel rm {name}`"),
        )];
    }
    match (&facts.known_as, facts.is_active) {
        (Some(known), true) => vec![Finding::blocker(
            codes::PLAN_NAME,
            format!("`{target}` has an engine for uuid {} already, as `{known}`", question.id),
            format!("`whimbrel recover {name}` explains who owns the guest"),
        )],
        (Some(known), false) if known != &question.guest.name => vec![Finding::warning(
            codes::PLAN_NAME,
            format!("`{target}` knows this guest as `{known}`; it will be called `{name}` there"),
            "nothing needs to be done",
        )],
        (Some(_), false) => vec![Finding::ok(
            codes::PLAN_NAME,
            format!("`{target}` knows guest `{name}` from before, and it does not run there"),
        )],
        (None, _) => vec![Finding::ok(
            codes::PLAN_NAME,
            format!("the name and the uuid of `{name}` are free on `{target}`"),
        )],
    }
}
