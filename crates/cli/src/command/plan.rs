// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel plan`

use super::migrate::BargainArgs;
use crate::context::{Context, End};
use crate::printer::Style;
use crate::{Done, format};
use whimbrel_api::Kind;
use whimbrel_api::plan::{Convergence, Finding, Forecast, Plan, PlanRequest, Severity};

/// Check what a migration would meet, and forecast what it would cost. Nothing is changed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The guest's name, its number on this host, or its uuid.
    guest: String,
    /// The paired host it would go to: its name, or one of its addresses.
    host: String,
    /// Plan for stopping the guest first and copying then.
    #[arg(long)]
    stop_and_copy: bool,
    /// Start the target engine, paused, as the best proof, and end it again.
    #[arg(long)]
    prove: bool,
    /// Send no frames on the guest's bridges to see whether they reach the target.
    #[arg(long)]
    no_probe: bool,
    #[command(flatten)]
    bargain: BargainArgs,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    cx.about(&args.guest);
    let target = cx.host_meant(&args.host).await?;
    let request = PlanRequest {
        target,
        is_stop_and_copy: args.stop_and_copy,
        is_proved: args.prove,
        is_unprobed: args.no_probe,
        bargain: args.bargain.to_request(),
    };
    let plan = cx.client.plan(&args.guest, &request).await?;
    if cx.printer.is_json {
        cx.printer.json(&plan);
    } else {
        print(cx, &plan);
    }
    Ok(if plan.is_blocked() { End::Told(Kind::Refused) } else { End::Done })
}

fn print(cx: &mut Context, plan: &Plan) {
    cx.printer.data(&format!("{}: {} -> {}\n", plan.guest, plan.source, plan.target));
    for finding in &plan.findings {
        let text = finding_text(cx, finding);
        cx.printer.data(&text);
    }
    if let Some(forecast) = &plan.forecast {
        cx.printer.data(&format!("\nforecast: {}", forecast_text(forecast)));
        let ends = ends(forecast.convergence);
        cx.printer.data(&format!("          {ends}"));
        for reason in &forecast.reasons {
            cx.printer.data(&format!("          {reason}"));
        }
    }
    if let Some(carrier) = &plan.carrier {
        cx.printer.data(&format!("carrier:  {carrier}"));
    }
    let blocker_count = plan.findings.iter().filter(|f| f.severity == Severity::Blocker).count();
    if blocker_count > 0 {
        let count = format::count(blocker_count.try_into().unwrap_or(u64::MAX), "blocker");
        cx.printer.data(&format!("\n{count}: {} cannot move to {} now.", plan.guest, plan.target));
    }
}

/// Returns a finding, and its remedy and code where something is to be done.
pub(crate) fn finding_text(cx: &Context, finding: &Finding) -> String {
    let label = match finding.severity {
        Severity::Ok => "ok       ".to_owned(),
        Severity::Warning => cx.printer.paint(Style::Warning, "warning  "),
        Severity::Blocker => cx.printer.paint(Style::Error, "blocker  "),
    };
    let mut text = format!("{label}{}\n", finding.text);
    if finding.severity != Severity::Ok {
        if let Some(remedy) = finding.remedy.as_ref().filter(|remedy| !remedy.is_empty()) {
            text.push_str(&format!("         help: {remedy}\n"));
        }
        text.push_str(&format!("         code: {}\n", finding.code));
    }
    text
}

/// Returns in words whether it will end.
pub(crate) fn ends(convergence: Convergence) -> &'static str {
    match convergence {
        Convergence::Certain => "it will end as promised",
        Convergence::Likely => "it will end as promised if the guest goes on as it does",
        Convergence::Unlikely => "it will hardly end as promised: the guest writes too fast",
        Convergence::Unknown => "how much the guest writes was not measured for so short a move",
    }
}

/// Returns `9-14 s in all, pause 60-110 ms, 1.2-1.9 GiB on the wire`.
pub(crate) fn forecast_text(forecast: &Forecast) -> String {
    let total = format::range(forecast.total_ms, format::ms);
    let pause = format::range(forecast.pause_ms, format::ms);
    let bytes = format::range(forecast.wire_bytes, format::size);
    format!("{total} in all, pause {pause}, {bytes} on the wire")
}
