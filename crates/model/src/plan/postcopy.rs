// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What it means, and needs, that a guest may run on the target before its memory is there.

use super::engine::version_numbers;
use super::{Finding, OnMiss, Question};
use crate::codes;
use crate::facts::{SecurityFacts, UserFacts};

/// The first QEMU that takes page faults through `/dev/userfaultfd`.
const DEVICE_SINCE: [u32; 2] = [8, 0];

/// Returns what would let an engine of this version handle the page faults of its guests, where the
/// kernel does not let it.
pub fn hindrance(security: &SecurityFacts, user: &UserFacts, version: &str) -> Option<String> {
    let uses_device = version_numbers(version).as_slice() >= DEVICE_SINCE.as_slice();
    let may = security.may_handle_faults || uses_device && security.has_fault_device;
    if may || user.uid == 0 {
        return None;
    }
    Some(match uses_device {
        true => format!(
            "`setfacl -m u:{}:rw /dev/userfaultfd`, and in /etc/udev/rules.d a rule that gives it \
             to that user at boot",
            user.name
        ),
        false => "`sysctl -w vm.unprivileged_userfaultfd=1`, and the same setting in a file of \
                  /etc/sysctl.d for the next boot"
            .to_owned(),
    })
}

pub(super) fn postcopy(question: &Question<'_>) -> Vec<Finding> {
    let is_asked = question.bargain.on_miss == OnMiss::Postcopy && question.run_state.is_some();
    let Some(engine) = question.target_engine().filter(|_| is_asked) else { return Vec::new() };
    let (guest, target) = (question.guest_name(), question.target.host);
    let user = &target.engine_user;
    let Some(remedy) = hindrance(&target.security, user, &engine.version) else {
        return vec![Finding::warning(
            codes::PLAN_POSTCOPY,
            format!(
                "with `--on-miss postcopy`, `{guest}` may run on `{}` before its memory is there: \
                 from its handing over until then, losing either host or engine loses what runs",
                target.name
            ),
            "choose `cancel`, `pause` or `throttle` for a guest that must not be lost",
        )];
    };
    vec![Finding::blocker(
        codes::PLAN_POSTCOPY,
        format!(
            "post-copy needs that `{}`, as whom QEMU {} runs on `{}`, may handle page faults \
             (userfaultfd), and the kernel does not let it",
            user.name, engine.version, target.name
        ),
        format!("on `{}`: {remedy}", target.name),
    )]
}
