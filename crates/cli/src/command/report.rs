// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! `whimbrel report`

mod html;

use crate::context::{Context, End};
use crate::table::Align::{Left, Right};
use crate::table::{Table, fields};
use crate::{Done, codes, format};
use std::path::{Path, PathBuf};
use whimbrel_api::migration::{
    Bargain, MigrationResult, Mode, PageCounts, PauseParts, Report, ReportQuery,
};
use whimbrel_api::{Kind, Problem};

use super::plan::forecast_text;

/// Show what a guest's last migration cost, or list the migrations of this host.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The guest's name, its number on this host, or its uuid [default: all, as a list].
    guest: Option<String>,
    /// List all kept migrations of the guest, not only the last.
    #[arg(short, long)]
    all: bool,
    /// Write the report as one page with plots, for a browser.
    #[arg(long, value_name = "FILE", conflicts_with = "all", requires = "guest")]
    html: Option<PathBuf>,
}

pub(super) async fn run(cx: &mut Context, args: Args) -> Done {
    if let (Some(guest), false) = (&args.guest, args.all) {
        cx.about(guest);
        let report = cx.client.report(guest).await?;
        if let Some(path) = &args.html {
            write_page(path, &html::page(&report))?;
            cx.printer.say(&format!("The report is in {}.", path.display()));
        } else if cx.printer.is_json {
            cx.printer.json(&report);
        } else {
            cx.printer.data(&render(&report));
        }
        return Ok(End::Done);
    }
    let list = cx.client.reports(&ReportQuery { guest: args.guest, limit: None }).await?;
    if cx.printer.is_json {
        cx.printer.json(&list);
    } else {
        cx.printer.data(&render_list(&list.reports));
    }
    Ok(End::Done)
}

fn write_page(path: &Path, page: &str) -> Result<(), Problem> {
    std::fs::write(path, page).map_err(|error| {
        Problem::new(
            Kind::Failed,
            codes::FILE_UNWRITABLE,
            format!("the report cannot be written to `{}`: {error}", path.display()),
            "name a file in a directory that you may write to",
        )
    })
}

fn render_list(reports: &[Report]) -> String {
    let mut table = Table::new(&[
        ("Began", Left),
        ("Guest", Left),
        ("From", Left),
        ("To", Left),
        ("Result", Left),
        ("Total", Right),
        ("Pause", Right),
        ("Wire", Right),
    ]);
    for report in reports {
        table.row(vec![
            format::date(report.started_at_ms),
            report.guest.clone(),
            report.source.clone(),
            report.target.clone(),
            report.result.to_string(),
            format::ms(report.total_ms),
            report.pause_ms.map(format::ms).unwrap_or_default(),
            format::size(report.wire_bytes),
        ]);
    }
    table.render()
}

pub(crate) fn render(report: &Report) -> String {
    let mode = match report.mode {
        Mode::Live => "live",
        Mode::StopAndCopy => "stopped first",
        Mode::Definition => "definition only",
    };
    let Report { guest, source, target, result, .. } = report;
    let problem = report.problem.as_ref();
    let phases: Vec<String> = report
        .phases
        .iter()
        .map(|phase| format!("{} {}", phase.phase, format::ms(phase.duration_ms)))
        .collect();
    let memory = match report.mode {
        Mode::Definition => String::new(),
        Mode::Live | Mode::StopAndCopy => format!(
            "{} in {}, {} sent, {} on the wire",
            format::size(report.memory_bytes),
            format::count(report.round_count, "round"),
            format::size(report.transferred_bytes),
            format::size(report.wire_bytes),
        ),
    };
    let carrier = report.carrier.as_ref().map(|carrier| {
        format!("{carrier}, {}", format::count(report.channel_count.into(), "channel"))
    });
    format!("{guest}: {source} -> {target}, {mode}: {result}\n\n")
        + &fields(&[
            ("reason", problem.map(|problem| problem.text.clone()).unwrap_or_default()),
            ("code", problem.map(|problem| problem.code.clone()).unwrap_or_default()),
            ("began", format::date(report.started_at_ms)),
            ("total", format::ms(report.total_ms)),
            ("pause", pause(report)),
            (
                "promised",
                report.bargain.map(|bargain| promised(&bargain, report)).unwrap_or_default(),
            ),
            ("missed", report.miss.clone().unwrap_or_default()),
            ("forecast", compared(report)),
            ("last words", report.reason.clone().unwrap_or_default()),
            ("memory", memory),
            ("carrier", carrier.unwrap_or_default()),
            ("pages", report.pages.as_ref().map(pages).unwrap_or_default()),
            ("phases", phases.join(", ")),
            ("expected", report.forecast.as_ref().map(forecast_text).unwrap_or_default()),
            ("attempt", report.migration.clone()),
        ])
}

/// Returns `12,310 new, 90,210 held by the target`: what there was.
fn pages(pages: &PageCounts) -> String {
    let size = |count: u64| format::size(count * 4096);
    let mut parts = vec![format!("{} new", size(pages.new_count))];
    let rest = [
        (pages.held_count, "held by the target already"),
        (pages.disk_count, "read from its disks"),
        (pages.changed_count, "sent as changes"),
    ];
    let rest = rest.into_iter().filter(|(count, _)| *count > 0);
    parts.extend(rest.map(|(count, what)| format!("{} {what}", size(count))));
    if pages.resumed_count > 0 {
        let times = format::count(pages.resumed_count, "time");
        parts
            .push(format!("link made again {times}, {} twice", format::size(pages.repeated_bytes)));
    }
    parts.join(", ")
}

/// Returns `time as expected, pause longer than expected`: the forecast against the outcome.
pub(crate) fn compared(report: &Report) -> String {
    let Some(forecast) =
        report.forecast.as_ref().filter(|_| report.result == MigrationResult::Done)
    else {
        return String::new();
    };
    let parts = [
        ("time", forecast.total_ms, Some(report.total_ms)),
        ("pause", forecast.pause_ms, report.pause_ms),
        ("bytes", forecast.wire_bytes, Some(report.wire_bytes)),
    ];
    let judged = parts.into_iter().filter_map(|(what, range, seen)| {
        Some(match seen? {
            seen if seen < range.min => format!("{what} less than expected"),
            seen if seen > range.max => format!("{what} more than expected"),
            _ => format!("{what} as expected"),
        })
    });
    judged.collect::<Vec<_>>().join(", ")
}

/// Returns `pause 300 ms, 30 m, no slowdown: kept`.
fn promised(bargain: &Bargain, report: &Report) -> String {
    let slowdown = match (bargain.slowdown_percent_max, report.throttle_percent_max) {
        (0, 0 | 1) => "no slowdown".to_owned(),
        (allowed, 0 | 1) => format!("{allowed} % slowdown, not used"),
        (allowed, used) => format!("{allowed} % slowdown, {used} % used"),
    };
    let pause = format::ms(bargain.pause_ms_max);
    let deadline = format::ms(bargain.deadline_ms);
    let held = if bargain.is_held { ", held" } else { "" };
    let kept = match report.is_kept {
        Some(true) => ": kept",
        Some(false) => ": not kept",
        None => "",
    };
    format!("pause {pause}, {deadline}{held}, {slowdown}{kept}")
}

fn pause(report: &Report) -> String {
    let Some(pause_ms) = report.pause_ms else { return String::new() };
    let parts = pause_parts(report.pause, format::ms);
    let parts = if parts.is_empty() { String::new() } else { format!(" ({parts})") };
    format!("{}{parts}", format::ms(pause_ms))
}

/// Returns `last pages 41, device state 22`: the parts that were measured.
pub(crate) fn pause_parts(parts: PauseParts, format: impl Fn(u64) -> String) -> String {
    let parts = [
        ("last pages", parts.last_pages_ms),
        ("device state", parts.device_state_ms),
        ("commit", parts.commit_ms),
        ("start", parts.start_ms),
        ("first packet", parts.first_packet_ms),
    ];
    let measured = parts.into_iter().filter_map(|(name, ms)| Some((name, ms?)));
    measured.map(|(name, ms)| format!("{name} {}", format(ms))).collect::<Vec<_>>().join(", ")
}
