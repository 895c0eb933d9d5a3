// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Moving guests: planned, begun, cancelled, reported.

use crate::daemon::Daemon;
use crate::foreign;
use crate::guests::GuestError;
use crate::guests::Order;
use crate::http::Caller;
use crate::migrate::{self, Asked, MoveOrder, Target, Wish};
use std::sync::Arc;
use whimbrel_api::Problem;
use whimbrel_api::guest::{GuestRef, GuestState};
use whimbrel_api::migration::{
    MigrateRequest, Migration, MigrationList, Outcome, Phase, Report, ReportList,
};
use whimbrel_api::plan::{Plan, PlanRequest};
use whimbrel_host::store::ReportRow;
use whimbrel_link::wire::CarrierKind;
use whimbrel_model::id::{GuestId, HandoffId};
use whimbrel_model::plan::OnMiss;
use whimbrel_model::units::Bytes;

whimbrel_model::codes! {
    NO_REPORT = "migration/no-report": "No migration of this guest, or none with this id, is remembered here.";
    NOT_TO_BE_HELD = "migration/not-to-be-held": "The engine chooses when to stop the guest, and cannot be held.";
    HELD_AND_STOPPED = "migration/held-and-stopped": "A guest that is stopped first would stand still for as long as it is held.";
    CARRIER_UNKNOWN = "migration/carrier-unknown": "There is no carrier of this name.";
    POSTCOPY_CARRIER = "migration/postcopy-carrier": "Post-copy needs another way for memory than the one that was asked for.";
}

pub(super) async fn plan(
    daemon: &Arc<Daemon>,
    guest: &GuestRef,
    request: &PlanRequest,
) -> Result<Plan, Problem> {
    let view = foreign::ours(daemon, guest).await?.view();
    let target = target(daemon, &request.target)?;
    let asked = Asked {
        is_stop_and_copy: request.is_stop_and_copy,
        bargain: migrate::bargain_for(
            &request.bargain,
            request.is_stop_and_copy,
            daemon.engine.kind(),
            daemon.config().bargain,
        ),
        may_miss: false,
        is_proved: request.is_proved,
        is_unprobed: request.is_unprobed,
    };
    let planned = migrate::make_plan(daemon, &view, &target, asked).await?;
    let is_live = view.state == GuestState::Running && !asked.is_stop_and_copy;
    let may_postcopy = is_live && asked.bargain.on_miss == OnMiss::Postcopy;
    Ok(Plan {
        guest: guest_name(&view),
        source: daemon.name.to_string(),
        target: target.name.to_string(),
        findings: planned.plan.findings.iter().map(migrate::finding).collect(),
        forecast: planned.plan.forecast.as_ref().map(migrate::forecast),
        carrier: Some(planned.choose(Wish::default(), may_postcopy).reason),
    })
}

pub(super) fn guest_name(view: &crate::guests::GuestView) -> String {
    view.papers.as_ref().map(|papers| papers.guest.name.to_string()).unwrap_or_default()
}

pub(super) fn target(daemon: &Daemon, name: &str) -> Result<Target, Problem> {
    daemon.peers.find(name).ok_or_else(|| Problem::host_not_found(name))
}

pub(super) async fn migrate(
    daemon: Arc<Daemon>,
    caller: Caller,
    guest: GuestRef,
    request: MigrateRequest,
) -> Result<Migration, Problem> {
    let handle = foreign::ours(&daemon, &guest).await?;
    let carrier = request.carrier.as_deref().map(carrier_named).transpose()?;
    let config = daemon.config();
    if (request.is_held || request.is_rehearsed) && request.is_stop_and_copy {
        return Err(held_and_stopped());
    }
    let engine = daemon.engine.kind();
    if (request.is_held || request.is_rehearsed) && engine.chooses_pause() {
        return Err(not_to_be_held());
    }
    let bargain =
        migrate::bargain_for(&request.bargain, request.is_stop_and_copy, engine, config.bargain);
    let may_postcopy = bargain.on_miss == OnMiss::Postcopy && !request.is_stop_and_copy;
    let is_elsewise =
        carrier == Some(CarrierKind::Tunnel) || request.channels.is_some_and(|n| n > 1);
    if may_postcopy && is_elsewise {
        return Err(not_for_postcopy());
    }
    let order = MoveOrder {
        caller,
        handoff: HandoffId(uuid::Uuid::new_v4()),
        target: target(&daemon, &request.target)?,
        is_stop_and_copy: request.is_stop_and_copy,
        bargain,
        may_miss: request.may_miss,
        is_held: request.is_held || request.is_rehearsed,
        is_rehearsed: request.is_rehearsed,
        is_unprobed: request.is_unprobed,
        wish: Wish {
            carrier,
            channels: request.channels,
            bandwidth: request
                .bandwidth_bytes_per_second
                .map(Bytes)
                .or(config.relocation.bandwidth),
        },
    };
    let handoff = order.handoff;
    handle.order(Order::Migrate(Box::new(order))).await?;
    one(&daemon, &handoff.to_string()).await
}

fn carrier_named(name: &str) -> Result<CarrierKind, Problem> {
    CarrierKind::ALL.into_iter().find(|carrier| carrier.name() == name).ok_or_else(|| {
        Problem::new(
            whimbrel_api::Kind::Usage,
            CARRIER_UNKNOWN,
            format!("there is no carrier `{name}`"),
            "say `tunnel` or `pages`, or leave `--carrier` out",
        )
    })
}

pub(super) async fn cancel(
    daemon: Arc<Daemon>,
    caller: Caller,
    guest: GuestRef,
) -> Result<Migration, Problem> {
    order_moving(&daemon, &guest, Order::Cancel { caller }).await
}

pub(super) async fn cut_over(
    daemon: Arc<Daemon>,
    caller: Caller,
    guest: GuestRef,
) -> Result<Migration, Problem> {
    order_moving(&daemon, &guest, Order::CutOver { caller }).await
}

/// Gives a guest that is being moved an order, and returns its migration as it stands then.
async fn order_moving(
    daemon: &Daemon,
    guest: &GuestRef,
    order: Order,
) -> Result<Migration, Problem> {
    let handle = foreign::ours(daemon, guest).await?;
    let moving = handle.view().moving.clone();
    let moving = moving.ok_or_else(|| GuestError::NotMoving { guest: guest.to_string() })?;
    handle.order(order).await?;
    one(daemon, &moving.migration.id).await
}

fn not_for_postcopy() -> Problem {
    Problem::new(
        whimbrel_api::Kind::Usage,
        POSTCOPY_CARRIER,
        "with `--on-miss postcopy` memory travels by the carrier `pages`, in one channel",
        "leave `--carrier` and `--channels` out, or choose another action for `--on-miss`",
    )
}

fn not_to_be_held() -> Problem {
    Problem::new(
        whimbrel_api::Kind::Usage,
        NOT_TO_BE_HELD,
        "Xen itself chooses when to stop a guest that moves, and cannot be held before that",
        "leave `--hold` or `--rehearse` out: `whimbrel plan` says what can be known before",
    )
}

fn held_and_stopped() -> Problem {
    Problem::new(
        whimbrel_api::Kind::Usage,
        HELD_AND_STOPPED,
        "a guest that is stopped first cannot be held",
        "leave out `--hold`, or `--stop-and-copy`",
    )
}

pub(super) fn current(daemon: &Daemon) -> MigrationList {
    let guests = daemon.guests.list().into_iter();
    let mut migrations: Vec<_> = guests
        .filter_map(|guest| guest.view().moving.as_ref().map(|m| (*m.migration).clone()))
        .collect();
    migrations.sort_by_key(|migration| migration.started_at_ms);
    MigrationList { migrations }
}

/// Returns a migration: one that goes on, or one of the past as its report tells it.
pub(super) async fn one(daemon: &Daemon, id: &str) -> Result<Migration, Problem> {
    if let Some(found) = current(daemon).migrations.into_iter().find(|m| m.id == id) {
        return Ok(found);
    }
    let missing = || no_report(&format!("there is no migration `{id}` here"));
    let handoff: HandoffId = id.parse().map_err(|_| missing())?;
    let row = daemon.store.call(move |tables| tables.report(handoff)).await;
    let row = row.map_err(|error| Problem::of(&error))?.ok_or_else(missing)?;
    Ok(ended(read(&row)?))
}

/// A migration of the past, as its report tells it.
fn ended(report: Report) -> Migration {
    Migration {
        id: report.migration.clone(),
        guest: report.guest.clone(),
        guest_uuid: report.guest_uuid.clone(),
        source: report.source.clone(),
        target: report.target.clone(),
        mode: report.mode,
        phase: Phase::Ended,
        started_at_ms: report.started_at_ms,
        elapsed_ms: report.total_ms,
        phases: report.phases.clone(),
        findings: Vec::new(),
        checks_passed: 0,
        forecast: report.forecast.clone(),
        bargain: report.bargain,
        miss: report.miss.clone(),
        progress: None,
        outcome: Some(Outcome { result: report.result, problem: report.problem.clone(), report }),
    }
}

fn read(row: &ReportRow) -> Result<Report, Problem> {
    serde_json::from_str(&row.report).map_err(|error| {
        no_report(&format!("the report of migration {} cannot be read: {error}", row.handoff))
    })
}

fn no_report(text: &str) -> Problem {
    Problem::new(
        whimbrel_api::Kind::Refused,
        NO_REPORT,
        text,
        "see the migrations that are remembered with `whimbrel log`",
    )
}

/// Finds the guest a report is wanted about, also one that has left.
async fn guest_of_reports(daemon: &Daemon, guest: &GuestRef) -> Result<GuestId, Problem> {
    if let Ok(handle) = daemon.guests.find(guest) {
        return Ok(handle.id);
    }
    if let GuestRef::Uuid(id) = guest {
        return Ok(*id);
    }
    super::events::guest_in_log(daemon, &guest.to_string()).await
}

pub(super) async fn report(daemon: &Daemon, guest: &GuestRef) -> Result<Report, Problem> {
    let id = guest_of_reports(daemon, guest).await?;
    let rows = daemon.store.call(move |tables| tables.reports(Some(id), 1)).await;
    let newest = rows.map_err(|error| Problem::of(&error))?.into_iter().next();
    let missing = || no_report(&format!("guest `{guest}` was never moved from or to here"));
    read(&newest.ok_or_else(missing)?)
}

pub(super) async fn reports(
    daemon: &Daemon,
    guest: Option<&GuestRef>,
    limit: u32,
) -> Result<ReportList, Problem> {
    let id = match guest {
        Some(guest) => Some(guest_of_reports(daemon, guest).await?),
        None => None,
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let rows = daemon.store.call(move |tables| tables.reports(id, limit)).await;
    let rows = rows.map_err(|error| Problem::of(&error))?;
    // A list of many is for a table; the plots are in each report.
    let brief = |row: &ReportRow| Ok(Report { samples: Vec::new(), ..read(row)? });
    Ok(ReportList { reports: rows.iter().map(brief).collect::<Result<_, Problem>>()? })
}
