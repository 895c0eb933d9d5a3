// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Operations on guests and on their migrations.

use super::answer::{Answer, Ask, Body, OfGuest, Refusal, Segment, guest};
use super::router::App;
use super::{Caller, Scope};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use whimbrel_api::guest::{
    CreateGuest, Created, EditGuest, GuestDetail, GuestList, GuestQuery, GuestSummary, StopGuest,
};
use whimbrel_api::limits::{DEFINITION_BYTES_MAX, OVERRIDES_MAX, REPORTS_MAX, STOP_TIMEOUT_MS_MAX};
use whimbrel_api::migration::{
    MigrateRequest, Migration, MigrationList, Report, ReportList, ReportQuery,
};
use whimbrel_api::plan::{Plan, PlanRequest};
use whimbrel_api::problem::code;
use whimbrel_api::recover::{RecoverRequest, Recovered, Recovery};
use whimbrel_api::{Kind, Problem};

pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Ask(query): Ask<GuestQuery>,
) -> Answer<GuestList> {
    let scope = if query.all_hosts { Scope::AllHosts } else { Scope::ThisHost };
    Ok(Json(app.backend.guests(caller, scope).await?))
}

pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<GuestDetail> {
    Ok(Json(app.backend.guest(caller, guest).await?))
}

pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<CreateGuest>,
) -> Answer<Created> {
    check_definition(&request.text, &request.base_directory)?;
    if request.overrides.len() > OVERRIDES_MAX {
        let text = format!("{} overrides; at most {OVERRIDES_MAX}", request.overrides.len());
        return Err(unacceptable(text));
    }
    let backend = app.backend.clone();
    app.finish(async move { backend.create(caller, request).await }).await.map(Json)
}

pub(super) async fn edit(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
    Body(request): Body<EditGuest>,
) -> Answer<Created> {
    check_definition(&request.text, &request.base_directory)?;
    let backend = app.backend.clone();
    app.finish(async move { backend.edit(caller, guest, request).await }).await.map(Json)
}

fn check_definition(text: &str, base_directory: &str) -> Result<(), Refusal> {
    if text.len() > DEFINITION_BYTES_MAX {
        let bytes = text.len();
        return Err(unacceptable(format!(
            "the guest file has {bytes} bytes, and at most {DEFINITION_BYTES_MAX} are allowed"
        )));
    }
    if !base_directory.starts_with('/') {
        let text = format!("`{base_directory}` is not absolute, so it cannot be a base directory");
        return Err(unacceptable(text));
    }
    Ok(())
}

fn unacceptable(text: String) -> Refusal {
    Refusal(Problem::new(Kind::Usage, code::BAD_REQUEST, text, "correct the request"))
}

pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Result<StatusCode, Refusal> {
    let backend = app.backend.clone();
    app.finish(async move { backend.remove(caller, guest).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn start(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<GuestSummary> {
    let backend = app.backend.clone();
    app.finish(async move { backend.start(caller, guest).await }).await.map(Json)
}

pub(super) async fn adopt(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<Created> {
    let backend = app.backend.clone();
    app.finish(async move { backend.adopt(caller, guest).await }).await.map(Json)
}

pub(super) async fn stop(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
    Body(mut request): Body<StopGuest>,
) -> Answer<GuestSummary> {
    request.timeout_ms = request.timeout_ms.map(|timeout| timeout.min(STOP_TIMEOUT_MS_MAX));
    let backend = app.backend.clone();
    app.finish(async move { backend.stop(caller, guest, request).await }).await.map(Json)
}

pub(super) async fn reboot(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<GuestSummary> {
    let backend = app.backend.clone();
    app.finish(async move { backend.reboot(caller, guest).await }).await.map(Json)
}

pub(super) async fn pause(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<GuestSummary> {
    let backend = app.backend.clone();
    app.finish(async move { backend.pause(caller, guest).await }).await.map(Json)
}

pub(super) async fn unpause(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<GuestSummary> {
    let backend = app.backend.clone();
    app.finish(async move { backend.unpause(caller, guest).await }).await.map(Json)
}

pub(super) async fn plan(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
    Body(request): Body<PlanRequest>,
) -> Answer<Plan> {
    let backend = app.backend.clone();
    app.finish(async move { backend.plan(caller, guest, request).await }).await.map(Json)
}

pub(super) async fn migrate(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
    Body(request): Body<MigrateRequest>,
) -> Answer<Migration> {
    let backend = app.backend.clone();
    app.finish(async move { backend.migrate(caller, guest, request).await }).await.map(Json)
}

pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<Migration> {
    let backend = app.backend.clone();
    app.finish(async move { backend.cancel(caller, guest).await }).await.map(Json)
}

pub(super) async fn cut_over(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<Migration> {
    let backend = app.backend.clone();
    app.finish(async move { backend.cut_over(caller, guest).await }).await.map(Json)
}

pub(super) async fn migrations(State(app): State<App>, caller: Caller) -> Answer<MigrationList> {
    Ok(Json(app.backend.migrations(caller).await?))
}

pub(super) async fn migration(
    State(app): State<App>,
    caller: Caller,
    Segment(id): Segment,
) -> Answer<Migration> {
    Ok(Json(app.backend.migration(caller, id).await?))
}

pub(super) async fn report(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<Report> {
    Ok(Json(app.backend.report(caller, guest).await?))
}

pub(super) async fn reports(
    State(app): State<App>,
    caller: Caller,
    Ask(query): Ask<ReportQuery>,
) -> Answer<ReportList> {
    let of = query.guest.as_deref().map(guest).transpose()?;
    let limit = query.limit.unwrap_or(REPORTS_MAX).min(REPORTS_MAX);
    Ok(Json(app.backend.reports(caller, of, limit).await?))
}

pub(super) async fn recovery(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<Recovery> {
    Ok(Json(app.backend.recovery(caller, guest).await?))
}

pub(super) async fn recover(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
    Body(request): Body<RecoverRequest>,
) -> Answer<Recovered> {
    let backend = app.backend.clone();
    app.finish(async move { backend.recover(caller, guest, request).await }).await.map(Json)
}
