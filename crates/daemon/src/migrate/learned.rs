// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What earlier migrations of a guest between two hosts took, read from the reports that are kept.

use crate::daemon::Daemon;
use std::time::Duration;
use whimbrel_api::migration::{MigrationResult, Mode, Phase, Report};
use whimbrel_link::wire::CarrierKind;
use whimbrel_model::facts::Learned;
use whimbrel_model::id::{GuestId, HostName};
use whimbrel_model::plan::Span;
use whimbrel_model::units::Bytes;

/// The newest so many reports are looked at: a guest's habits change.
const REPORTS_READ_MAX: usize = 16;

/// What decides how much of an engine's stream crosses the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) carrier: CarrierKind,
    pub(super) is_held: bool,
}

pub(super) async fn learned(
    daemon: &Daemon,
    guest: GuestId,
    target: &HostName,
    way: Way,
) -> Learned {
    let read = daemon.store.call(move |tables| tables.reports(Some(guest), REPORTS_READ_MAX)).await;
    // Without them the forecast is only wider.
    let rows = read.unwrap_or_default();
    let reports = rows.iter().filter_map(|row| serde_json::from_str::<Report>(&row.report).ok());
    let pair = [daemon.name.as_str(), target.as_str()];
    let of_pair = |report: &Report| {
        pair.iter().all(|host| [&report.source[..], &report.target].contains(host))
    };
    let reports: Vec<_> = reports.filter(of_pair).collect();
    from_reports(&reports, way)
}

/// Of migrations that moved a guest's memory.
fn from_reports(reports: &[Report], way: Way) -> Learned {
    let has_moved = |report: &&Report| {
        report.result == MigrationResult::Done
            && report.mode != Mode::Definition
            && report.transferred_bytes > 0
    };
    let moved: Vec<_> = reports.iter().filter(has_moved).collect();
    let all = || moved.iter().copied();
    let rates = all().filter_map(|report| {
        let seconds = memory_ms(report) as f64 / 1e3;
        (seconds > 0.0).then(|| report.transferred_bytes as f64 / seconds)
    });
    Learned {
        count: moved.len(),
        around: span(all().map(|report| report.total_ms.saturating_sub(memory_ms(report)))),
        switchover: span(all().filter_map(|report| {
            Some(report.pause_ms?.saturating_sub(report.pause.last_pages_ms.unwrap_or(0)))
        })),
        pause: span(all().filter_map(|report| report.pause_ms)),
        sent_times: share(all().map(|report| (report.transferred_bytes, report.memory_bytes))),
        wire_share: share(
            all()
                .filter(|report| way == Way::of(report))
                .map(|report| (report.wire_bytes, report.transferred_bytes)),
        ),
        engine_rate: rates.reduce(f64::max).map(bytes),
    }
}

impl Way {
    fn of(report: &Report) -> Self {
        let is_pages = report.carrier.as_deref() == Some(CarrierKind::Pages.name());
        Self {
            carrier: if is_pages { CarrierKind::Pages } else { CarrierKind::Tunnel },
            is_held: report.pages.as_ref().is_some_and(|pages| pages.visited_count > 0),
        }
    }
}

fn memory_ms(report: &Report) -> u64 {
    let memory = report.phases.iter().find(|time| time.phase == Phase::Memory);
    memory.map_or(0, |time| time.duration_ms)
}

fn span(times_ms: impl Iterator<Item = u64>) -> Option<Span<Duration>> {
    let times: Vec<_> = times_ms.map(Duration::from_millis).collect();
    Some(Span { low: *times.iter().min()?, high: *times.iter().max()? })
}

fn share(parts: impl Iterator<Item = (u64, u64)>) -> Option<Span<f64>> {
    let shares =
        parts.filter(|(_, whole)| *whole > 0).map(|(part, whole)| part as f64 / whole as f64);
    shares
        .map(|share| Span { low: share, high: share })
        .reduce(|all, one| Span { low: all.low.min(one.low), high: all.high.max(one.high) })
}

#[expect(clippy::cast_possible_truncation, reason = "a rate is not exact to the byte")]
fn bytes(size: f64) -> Bytes {
    Bytes(size as u64)
}
