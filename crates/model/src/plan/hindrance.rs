// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Would the guest's own engine let it go? There are devices that no engine can send.

use super::{Finding, Question};
use crate::codes;

pub(super) fn hindrances(question: &Question<'_>) -> Vec<Finding> {
    let (guest, source) = (question.guest_name(), question.source_name());
    let named = question.source.guest.hindrances.iter().map(|reason| {
        Finding::blocker(
            codes::PLAN_HINDRANCE,
            format!("the engine of `{guest}` on `{source}` cannot let it go: {reason}"),
            format!(
                "take the device it names away and restart the guest (`whimbrel edit {guest}`, \
                 `whimbrel reboot {guest}`), or move it stopped: `whimbrel stop {guest}`, then \
                 `whimbrel migrate {guest} {}`",
                question.target_name()
            ),
        )
    });
    named.collect()
}
