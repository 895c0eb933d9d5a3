// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Can the two hosts talk, and do both want to?

use super::{Finding, Question};
use crate::codes;

/// Clocks that differ by less are as good as equal.
const CLOCK_SKEW_MS_MAX: u64 = 1_000;

pub(super) fn protocol(question: &Question<'_>) -> Vec<Finding> {
    let (source, target) = (question.source.host, question.target.host);
    let min = source.protocol.min.max(target.protocol.min);
    let max = source.protocol.max.min(target.protocol.max);
    let versions = format!(
        "`{}` runs Whimbrel {}, `{}` runs {}",
        source.name, source.version, target.name, target.version
    );
    vec![match min <= max {
        true => Finding::ok(codes::PLAN_PROTOCOL, format!("{versions}: both speak protocol {max}")),
        false => Finding::blocker(
            codes::PLAN_PROTOCOL,
            format!(
                "{versions}: protocols {}-{} and {}-{} have none in common",
                source.protocol.min, source.protocol.max, target.protocol.min, target.protocol.max
            ),
            "upgrade Whimbrel on the older host; its guests keep running".to_owned(),
        ),
    }]
}

pub(super) fn relocation(question: &Question<'_>) -> Vec<Finding> {
    let sides = [question.source, question.target];
    let disabled: Vec<_> = sides
        .iter()
        .filter(|side| !side.host.relocation.is_enabled)
        .map(|side| side.host)
        .collect();
    if disabled.is_empty() {
        return vec![Finding::ok(codes::PLAN_RELOCATION, "relocation is enabled on both hosts")];
    }
    let blocked = disabled.into_iter().map(|host| {
        Finding::blocker(
            codes::PLAN_RELOCATION,
            format!("relocation is disabled on `{}`, as it is by default", host.name),
            format!("on `{}`: `whimbrel relocation enable`", host.name),
        )
    });
    blocked.collect()
}

pub(super) fn allowed(question: &Question<'_>) -> Vec<Finding> {
    let (source, target) = (question.source_name(), question.target.host);
    let list = &target.relocation.hosts_allow;
    let rule = match list.is_empty() {
        true => "`hosts_allow` is empty there: every paired host may".to_owned(),
        false => format!("`hosts_allow` there is: {}", list.join(" ")),
    };
    vec![match target.relocation.is_asker_allowed {
        true => Finding::ok(
            codes::PLAN_ALLOWED,
            format!("`{source}` may send guests to `{}` ({rule})", target.name),
        ),
        false => Finding::blocker(
            codes::PLAN_ALLOWED,
            format!("`{source}` may not send guests to `{}` ({rule})", target.name),
            format!(
                "on `{}`: add \"{source}\" to `hosts_allow` in `[relocation]` of whimbrel.toml, \
                 then `systemctl reload whimbrel`",
                target.name
            ),
        ),
    }]
}

pub(super) fn maintenance(question: &Question<'_>) -> Vec<Finding> {
    let target = question.target.host;
    if !target.is_in_maintenance {
        return Vec::new();
    }
    vec![Finding::blocker(
        codes::PLAN_MAINTENANCE,
        format!("`{}` is in maintenance: its operator wants no guests to come", target.name),
        format!(
            "choose another host: `whimbrel host list`; or on `{}`: take `maintenance = true` out \
             of `[host]` in whimbrel.toml, then `whimbrel reload`",
            target.name
        ),
    )]
}

pub(super) fn link(question: &Question<'_>) -> Vec<Finding> {
    // A definition travels over any link.
    if question.run_state.is_none() {
        return Vec::new();
    }
    let (guest, target, link) = (question.guest_name(), question.target_name(), question.link);
    let place = link.address.map(|address| format!(" ({address})")).unwrap_or_default();
    let took = link.round_trip.map(|trip| trip.as_secs_f64() * 1000.0);
    let took = took.map(|ms| format!(", and an answer takes {ms:.1} ms")).unwrap_or_default();
    vec![match link.rate {
        Some(rate) => Finding::ok(
            codes::PLAN_LINK,
            format!("the way to `{target}`{place} carries {rate}/s{took}"),
        ),
        None => Finding::warning(
            codes::PLAN_LINK,
            format!(
                "what the way to `{target}`{place} carries could not be measured within a \
                 second{took}: the forecast is a guess"
            ),
            format!("`whimbrel plan {guest} {target}` again when both hosts have less to do"),
        ),
    }]
}

pub(super) fn clock(question: &Question<'_>) -> Vec<Finding> {
    let Some(ahead) = question.link.clock_ahead_ms else { return Vec::new() };
    let (source, target) = (question.source_name(), question.target_name());
    let skew = ahead.unsigned_abs();
    let direction = if ahead >= 0 { "ahead of" } else { "behind" };
    let text = format!("the clock of `{target}` is {skew} ms {direction} that of `{source}`");
    vec![match skew <= CLOCK_SKEW_MS_MAX {
        true => Finding::ok(codes::PLAN_CLOCK, text),
        false => Finding::warning(
            codes::PLAN_CLOCK,
            format!("{text}, and the guest's clock will jump with it"),
            "let both hosts follow one time server: `timedatectl set-ntp true`",
        ),
    }]
}
