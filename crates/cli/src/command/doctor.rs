// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel doctor`

use super::plan::finding_text;
use crate::context::{Context, End};
use crate::{Done, format};
use whimbrel_api::Kind;
use whimbrel_api::plan::Severity;

/// Check whether this host is fit to run guests and to take them in.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) async fn run(cx: &mut Context, _: Args) -> Done {
    let checks = cx.client.host().await?.checks;
    let count = |severity| {
        let count = checks.iter().filter(|check| check.severity == severity).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    };
    let (warning_count, blocker_count) = (count(Severity::Warning), count(Severity::Blocker));
    if cx.printer.is_json {
        cx.printer.json(&checks);
    } else {
        for check in &checks {
            let text = finding_text(cx, check);
            cx.printer.data(&text);
        }
        let verdict = match (warning_count, blocker_count) {
            (0, 0) => "This host is fit.".to_owned(),
            (warnings, 0) => {
                format!("This host is fit, with {}.", format::count(warnings, "warning"))
            }
            (_, blockers) => {
                format!("This host is not fit: {}.", format::count(blockers, "blocker"))
            }
        };
        cx.printer.data(&format!("\n{verdict}"));
    }
    Ok(if blocker_count > 0 { End::Told(Kind::Refused) } else { End::Done })
}
