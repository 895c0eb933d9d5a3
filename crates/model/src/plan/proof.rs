// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The best proof: the target's engine was started with exactly the guest's passport.

use super::{Finding, Question};
use crate::codes;
use crate::facts::Proof;

pub(super) fn proof(question: &Question<'_>) -> Vec<Finding> {
    let (guest, target) = (question.guest_name(), question.target_name());
    let Some(proof) = &question.target.guest.proof else { return Vec::new() };
    vec![match proof {
        Proof::Given { took_ms } => Finding::ok(
            codes::PLAN_PROOF,
            format!(
                "`{target}` started an engine for `{guest}`, paused, with exactly what `{}` froze \
                 it with, and ended it again ({took_ms} ms)",
                question.source_name()
            ),
        ),
        Proof::Failed { problem } => Finding::blocker(
            codes::PLAN_PROOF,
            format!("`{target}` could not start an engine for `{guest}`: {}", problem.text),
            problem.remedy.clone(),
        ),
    }]
}
