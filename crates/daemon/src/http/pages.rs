// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Operations on kept memory.

use super::Caller;
use super::answer::{Answer, OfGuest};
use super::router::App;
use axum::Json;
use axum::extract::State;
use whimbrel_api::guest::GuestRef;
use whimbrel_api::pages::{KeptMemoryList, MemoryDropped};

pub(super) async fn list(State(app): State<App>, caller: Caller) -> Answer<KeptMemoryList> {
    Ok(Json(app.backend.kept_memory(caller).await?))
}

pub(super) async fn drop_all(State(app): State<App>, caller: Caller) -> Answer<MemoryDropped> {
    drop(app, caller, None).await
}

pub(super) async fn drop_one(
    State(app): State<App>,
    caller: Caller,
    OfGuest(guest): OfGuest,
) -> Answer<MemoryDropped> {
    drop(app, caller, Some(guest)).await
}

async fn drop(app: App, caller: Caller, guest: Option<GuestRef>) -> Answer<MemoryDropped> {
    let backend = app.backend.clone();
    app.finish(async move { backend.drop_kept_memory(caller, guest).await }).await.map(Json)
}
