// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Will the guest's UEFI find its variables? They travel with the memory of a guest that has an
//! engine, and stay behind where only the definition moves.

use super::{Finding, Question};
use crate::codes;
use crate::facts::UefiFacts;

pub(super) fn variables(question: &Question<'_>) -> Vec<Finding> {
    let Some(here) = &question.source.guest.uefi else { return Vec::new() };
    let (guest, source, target) =
        (question.guest_name(), question.source_name(), question.target_name());
    let finding = match (here, question.target.guest.uefi.as_ref()) {
        (_, Some(UefiFacts::Missing { reason })) => Finding::blocker(
            codes::PLAN_UEFI,
            format!(
                "`{guest}` has UEFI, and `{target}` has nothing to keep its variables in: {reason}"
            ),
            format!("on `{target}`: `apt install ovmf` (or this distribution's package)"),
        ),
        (_, None) => Finding::warning(
            codes::PLAN_UEFI,
            format!("`{target}` has not said whether it can keep the UEFI variables of `{guest}`"),
            "run the same version of Whimbrel on both hosts",
        ),
        (UefiFacts::Variables { is_own: true, .. }, Some(UefiFacts::Variables { .. }))
            if question.run_state.is_none() =>
        {
            Finding::warning(
                codes::PLAN_UEFI,
                format!(
                    "`{guest}` is stopped: what its UEFI remembers (boot entries, keys) stays on \
                     `{source}`, and it begins with empty variables on `{target}`"
                ),
                format!(
                    "move it while it runs, and they travel with its memory: `whimbrel start \
                     {guest}`, then `whimbrel migrate {guest} {target}`"
                ),
            )
        }
        (
            UefiFacts::Variables { bytes: ours, is_own: true },
            Some(UefiFacts::Variables { bytes: theirs, .. }),
        ) if ours != theirs => Finding::blocker(
            codes::PLAN_UEFI,
            format!(
                "the UEFI variables of `{guest}` take {ours} bytes on `{source}`, and {theirs} on \
                 `{target}`: its memory would not fit there"
            ),
            "install the same firmware package on both hosts",
        ),
        (UefiFacts::Variables { .. } | UefiFacts::Missing { .. }, Some(_)) => Finding::ok(
            codes::PLAN_UEFI,
            format!("the UEFI variables of `{guest}` find their place on `{target}`"),
        ),
    };
    vec![finding]
}
