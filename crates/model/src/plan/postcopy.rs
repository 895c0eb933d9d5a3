// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What it means, and needs, that a guest may run on the target before its memory is there.

use super::engine::version_numbers;
use super::{Finding, OnMiss, Question};
use crate::codes;
use crate::facts::{EngineFacts, SecurityFacts, UserFacts};

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

/// The machine types of earlier QEMUs end the urgent channel in a way that can break its last page.
const MACHINE_ENDS_WELL_SINCE: [u32; 2] = [8, 0];

/// Returns whether the pages that a guest of this machine type waits for may have a channel of
/// their own on the way to this engine.
pub fn has_urgent_channel(target: &EngineFacts, machine: &str) -> bool {
    let (_, version) = machine.rsplit_once('-').unwrap_or_default();
    let ends_well = version_numbers(version).as_slice() >= MACHINE_ENDS_WELL_SINCE.as_slice();
    ends_well && target.has_urgent_channel
}

pub(super) fn postcopy(question: &Question<'_>) -> Vec<Finding> {
    let is_asked = question.bargain.on_miss == OnMiss::Postcopy && question.run_state.is_some();
    let Some(engine) = question.target_engine().filter(|_| is_asked) else { return Vec::new() };
    let (guest, target) = (question.guest_name(), question.target.host);
    if engine.kind.chooses_pause() {
        return vec![Finding::blocker(
            codes::PLAN_POSTCOPY,
            format!("Xen has no post-copy: `{guest}` cannot run before its memory is there"),
            "choose `cancel` or `pause` for `--on-miss`",
        )];
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// Machine types carry the version from which they are the same; what has none is not trusted.
    #[test]
    fn the_urgent_channel_ends_well_or_is_not_used() {
        let can = EngineFacts { has_urgent_channel: true, ..sample::engine_facts() };
        for machine in ["pc-q35-8.0", "pc-q35-10.0", "pc-i440fx-9.2"] {
            assert!(has_urgent_channel(&can, machine), "{machine}");
        }
        for machine in ["pc-q35-7.2", "pc-q35-2.12", "q35", "microvm", ""] {
            assert!(!has_urgent_channel(&can, machine), "{machine}");
        }
        let cannot = EngineFacts { has_urgent_channel: false, ..can };
        assert!(!has_urgent_channel(&cannot, "pc-q35-10.0"));
    }
}
