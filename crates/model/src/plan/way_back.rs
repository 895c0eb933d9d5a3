// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Does the target reach the source, too? The guest goes home that way, and after a broken link
//! either host may have to ask the other who owns it.

use super::reach::unreachable;
use super::{Finding, Question, Severity};
use crate::codes;
use crate::facts::WayBack;
use std::net::SocketAddr;

pub(super) fn way_back(question: &Question<'_>) -> Vec<Finding> {
    let (source, target) = (question.source.host, question.target_name());
    let (address, why) = match &question.target.guest.way_back {
        None => return Vec::new(),
        Some(WayBack::Open { took_ms }) => {
            let text = format!("`{target}` reaches `{}`, too ({took_ms} ms)", source.name);
            return vec![Finding::ok(codes::PLAN_WAY_BACK, text)];
        }
        Some(WayBack::Closed { address, why }) => (address, why),
    };
    let address = address.as_ref().and_then(|text| text.parse::<SocketAddr>().ok());
    let port = address.map_or(source.relocation.port, |address| address.port());
    let ip = address.map(|address| address.ip());
    let found = unreachable(source.name.as_str(), ip, port, why, source.security.firewall);
    vec![Finding {
        severity: Severity::Warning,
        code: codes::PLAN_WAY_BACK,
        text: format!(
            "`{target}` {}; the guest could not come back from there, and if the link breaks at \
             the worst moment `{target}` could not ask who owns it",
            found.text
        ),
        remedy: found.remedy,
    }]
}
