// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Are the bridges of both hosts one network segment? The source speaks, the target listens.

use super::{Finding, Question};
use crate::codes;
use crate::facts::{Heard, SegmentFacts};

pub(super) fn segments(question: &Question<'_>) -> Vec<Finding> {
    let there = question.target.guest.segments.iter();
    there.map(|there| segment(question, there)).collect()
}

fn segment(question: &Question<'_>, there: &SegmentFacts) -> Finding {
    let (source, target) = (question.source_name(), question.target_name());
    let bridge = &there.bridge;
    let spoken = question.source.guest.segments.iter().find(|here| here.bridge == *bridge);
    let untried = |host: &str, reason: &str| {
        Finding::warning(
            codes::PLAN_SEGMENT,
            format!(
                "nobody can tell whether the bridges `{bridge}` of `{source}` and `{target}` are \
                 one network: `{host}` could not try it ({reason})"
            ),
            format!("on both hosts: `bridge link show` names the ports of `{bridge}`"),
        )
    };
    match (spoken.map(|here| &here.heard), &there.heard) {
        (_, Heard::Frames) => Finding::ok(
            codes::PLAN_SEGMENT,
            format!("frames from the bridge `{bridge}` of `{source}` reach that of `{target}`"),
        ),
        (Some(Heard::NotTried { reason }), _) => untried(source, reason),
        (_, Heard::NotTried { reason }) => untried(target, reason),
        (_, Heard::Silence { waited_ms }) => Finding::blocker(
            codes::PLAN_SEGMENT,
            format!(
                "the bridges `{bridge}` of `{source}` and `{target}` are not one network: of the \
                 frames that `{source}` sent from its own for {waited_ms} ms, none reached \
                 `{target}`"
            ),
            format!(
                "join a port of the same network to both (`bridge link show` names them); where \
                 a switch filters frames of the type 0x88b5: `whimbrel migrate {} {target} \
                 --no-probe`",
                question.guest_name()
            ),
        ),
    }
}
