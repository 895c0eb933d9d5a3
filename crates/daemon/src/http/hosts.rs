// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Operations on this host and on those paired with it.

use super::Caller;
use super::answer::{Answer, Body, Refusal, Segment};
use super::router::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use whimbrel_api::host::{
    Baseline, HostInfo, Invitation, InviteRequest, JoinRequest, Peer, PeerList, Reloaded,
    Relocation, SetRelocation,
};
use whimbrel_api::limits::TOKEN_BYTES_MAX;
use whimbrel_api::problem::code;
use whimbrel_api::{Kind, Problem};

pub(super) async fn host(State(app): State<App>, caller: Caller) -> Answer<HostInfo> {
    Ok(Json(app.backend.host(caller).await?))
}

pub(super) async fn reload(State(app): State<App>, caller: Caller) -> Answer<Reloaded> {
    let backend = app.backend.clone();
    app.finish(async move { backend.reload(caller).await }).await.map(Json)
}

pub(super) async fn relocation(State(app): State<App>, caller: Caller) -> Answer<Relocation> {
    Ok(Json(app.backend.relocation(caller).await?))
}

pub(super) async fn set_relocation(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<SetRelocation>,
) -> Answer<Relocation> {
    let backend = app.backend.clone();
    app.finish(async move { backend.set_relocation(caller, request.is_enabled).await })
        .await
        .map(Json)
}

pub(super) async fn hosts(State(app): State<App>, caller: Caller) -> Answer<PeerList> {
    Ok(Json(app.backend.hosts(caller).await?))
}

pub(super) async fn baseline(State(app): State<App>, caller: Caller) -> Answer<Baseline> {
    Ok(Json(app.backend.baseline(caller).await?))
}

pub(super) async fn invite(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<InviteRequest>,
) -> Answer<Invitation> {
    let backend = app.backend.clone();
    app.finish(async move { backend.invite(caller, request).await }).await.map(Json)
}

pub(super) async fn close_invitation(
    State(app): State<App>,
    caller: Caller,
) -> Result<StatusCode, Refusal> {
    let backend = app.backend.clone();
    app.finish(async move { backend.close_invitation(caller).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn join(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<JoinRequest>,
) -> Answer<Peer> {
    if request.token.len() > TOKEN_BYTES_MAX {
        let text = format!("the token has more than {TOKEN_BYTES_MAX} bytes");
        let remedy = "give what `whimbrel host invite` printed, and nothing else";
        return Err(Problem::new(Kind::Usage, code::TOO_LARGE, text, remedy).into());
    }
    let backend = app.backend.clone();
    app.finish(async move { backend.join(caller, request).await }).await.map(Json)
}

pub(super) async fn forget(
    State(app): State<App>,
    caller: Caller,
    Segment(host): Segment,
) -> Result<StatusCode, Refusal> {
    let backend = app.backend.clone();
    app.finish(async move { backend.forget(caller, host).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
