// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Will the guest's network be there?

use super::{Finding, Question};
use crate::codes;
use crate::config::allow::allows_bridge;
use crate::guest::NetworkKind;
use crate::similar;
use std::collections::BTreeSet;

pub(super) fn bridges(question: &Question<'_>) -> Vec<Finding> {
    let wanted: BTreeSet<_> = question
        .guest
        .networks
        .iter()
        .filter_map(|network| match &network.kind {
            NetworkKind::Bridge { bridge } => Some(bridge.as_str()),
            NetworkKind::User { .. } => None,
        })
        .collect();
    wanted.into_iter().map(|name| bridge(question, name)).collect()
}

fn bridge(question: &Question<'_>, name: &str) -> Finding {
    let target = question.target.host;
    let blocker = |text, remedy| Finding::blocker(codes::PLAN_BRIDGE, text, remedy);
    let Some(there) = target.bridges.iter().find(|bridge| bridge.name == name) else {
        let names = target.bridges.iter().map(|bridge| bridge.name.as_str());
        let hint = similar::hint(name, names.clone());
        let list: Vec<_> = names.collect();
        let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
        return blocker(
            format!("`{}` has no bridge `{name}`{hint}; its bridges: {list}", target.name),
            format!(
                "on `{}`, with the guest's subnet behind it: `ip link add {name} type bridge && ip \
                 link set {name} up`, and a port of the host added to it",
                target.name
            ),
        );
    };
    let allowed = &target.relocation.allow_bridges;
    if !allows_bridge(allowed, name) {
        return blocker(
            format!(
                "`{}` does not let arriving guests join its bridge `{name}` (`allow_bridges` \
                 there: {})",
                target.name,
                if allowed.is_empty() { "empty".to_owned() } else { allowed.join(", ") }
            ),
            format!(
                "on `{}`: add \"{name}\" to `allow_bridges` in `[relocation]` of whimbrel.toml, \
                 then `systemctl reload whimbrel`",
                target.name
            ),
        );
    }
    let here = question.source.host.bridges.iter().find(|bridge| bridge.name == name);
    let mtu = there.mtu;
    match here.map(|bridge| bridge.mtu).filter(|&here| here != mtu) {
        Some(here) => Finding::warning(
            codes::PLAN_BRIDGE,
            format!(
                "the bridge `{name}` has an MTU of {here} on `{}` and {mtu} on `{}`",
                question.source_name(),
                target.name
            ),
            format!("on `{}`: `ip link set {name} mtu {here}`", target.name),
        ),
        None => Finding::ok(
            codes::PLAN_BRIDGE,
            format!("the bridge `{name}` is there on `{}`, MTU {mtu}", target.name),
        ),
    }
}

pub(super) fn macs(question: &Question<'_>) -> Vec<Finding> {
    let target = question.target_name();
    let taken = question.target.guest.macs_taken.iter().map(|taken| {
        Finding::blocker(
            codes::PLAN_MAC,
            format!(
                "the hardware address {} of `{}` is also that of guest `{}` on `{target}`",
                taken.mac,
                question.guest_name(),
                taken.guest
            ),
            format!(
                "give one of them another: `mac` under `[[network]]` with `whimbrel edit {}` on \
                 `{target}`, and restart it",
                taken.guest
            ),
        )
    });
    taken.collect()
}

pub(super) fn user_networks(question: &Question<'_>) -> Vec<Finding> {
    let target = question.target_name();
    let is_user = |kind: &NetworkKind| matches!(kind, NetworkKind::User { .. });
    let mut findings = Vec::new();
    if question.run_state.is_some() && question.guest.networks.iter().any(|n| is_user(&n.kind)) {
        findings.push(Finding::warning(
            codes::PLAN_USER_NETWORK,
            format!(
                "`{}` has user networking: its open connections break, and it is reached through \
                 `{target}` afterwards",
                question.guest_name()
            ),
            "give it `bridge = \"…\"` in `[[network]]` where connections must survive",
        ));
    }
    findings.extend(question.target.guest.forwards_taken.iter().map(|taken| {
        Finding::blocker(
            codes::PLAN_FORWARD,
            format!(
                "{} port {} is taken on `{target}` ({}), and `{}` has it forwarded",
                taken.forward.protocol,
                taken.forward.host,
                taken.reason,
                question.guest_name()
            ),
            format!(
                "free the port on `{target}` (`ss -lntup 'sport = {}'` shows who has it)",
                taken.forward.host.port()
            ),
        )
    }));
    findings
}
