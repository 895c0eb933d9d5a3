// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the API can ask of the daemon, answered.
//!
//! The methods of [`Backend`] stay one line each; what they do is in the modules beside, one a
//! subject. An operation that changes something runs in a task of its own, so that a client that
//! goes away in the middle leaves nothing half done.

mod events;
mod guests;
mod hosts;
mod moves;
mod recovery;

pub(crate) use guests::{accelerator_name, define, detail_of, engine_name, own as own_guests};
pub(crate) use hosts::{reload, room};

use crate::daemon::Daemon;
use crate::http::{Backend, Caller, ConsoleStream, EventStream, Scope};
use async_trait::async_trait;
use std::sync::Arc;
use whimbrel_api::Problem;
use whimbrel_api::console::ConsoleQuery;
use whimbrel_api::event::EventQuery;
use whimbrel_api::guest::{
    CreateGuest, Created, EditGuest, GuestDetail, GuestList, GuestRef, GuestSummary, StopGuest,
};
use whimbrel_api::host::{
    Baseline, HostInfo, Invitation, InviteRequest, JoinRequest, Peer, PeerList, Reloaded,
    Relocation,
};
use whimbrel_api::log::{LogPage, LogQuery};
use whimbrel_api::migration::{MigrateRequest, Migration, MigrationList, Report, ReportList};
use whimbrel_api::pages::{KeptMemoryList, MemoryDropped};
use whimbrel_api::plan::{Plan, PlanRequest};
use whimbrel_api::recover::{RecoverRequest, Recovered, Recovery};

/// The daemon, as the API sees it.
#[derive(Clone, Debug)]
pub(crate) struct Front(pub(crate) Arc<Daemon>);

/// Runs `work` to its end, whether or not anybody waits for it.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work).await.expect("a panic ends the whole daemon")
}

#[async_trait]
impl Backend for Front {
    async fn host(&self, _: Caller) -> Result<HostInfo, Problem> {
        hosts::info(&self.0).await
    }

    async fn reload(&self, caller: Caller) -> Result<Reloaded, Problem> {
        finish(hosts::reload(self.0.clone(), caller)).await
    }

    async fn relocation(&self, _: Caller) -> Result<Relocation, Problem> {
        Ok(hosts::relocation(&self.0).await)
    }

    async fn set_relocation(
        &self,
        caller: Caller,
        is_enabled: bool,
    ) -> Result<Relocation, Problem> {
        finish(hosts::set_relocation(self.0.clone(), caller, is_enabled)).await
    }

    async fn guests(&self, _: Caller, scope: Scope) -> Result<GuestList, Problem> {
        guests::list(&self.0, scope).await
    }

    async fn guest(&self, _: Caller, guest: GuestRef) -> Result<GuestDetail, Problem> {
        guests::detail(&self.0, &guest).await
    }

    async fn create(&self, caller: Caller, request: CreateGuest) -> Result<Created, Problem> {
        finish(guests::create(self.0.clone(), caller, request)).await
    }

    async fn edit(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: EditGuest,
    ) -> Result<Created, Problem> {
        finish(guests::edit(self.0.clone(), caller, guest, request)).await
    }

    async fn remove(&self, caller: Caller, guest: GuestRef) -> Result<(), Problem> {
        finish(guests::remove(self.0.clone(), caller, guest)).await
    }

    async fn start(&self, caller: Caller, guest: GuestRef) -> Result<GuestSummary, Problem> {
        let order = crate::guests::Order::Start { caller };
        finish(guests::order(self.0.clone(), guest, order)).await
    }

    async fn adopt(&self, caller: Caller, guest: GuestRef) -> Result<Created, Problem> {
        finish(crate::foreign::adopt(self.0.clone(), caller, guest)).await
    }

    async fn stop(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: StopGuest,
    ) -> Result<GuestSummary, Problem> {
        finish(guests::stop(self.0.clone(), caller, guest, request)).await
    }

    async fn reboot(&self, caller: Caller, guest: GuestRef) -> Result<GuestSummary, Problem> {
        let order = crate::guests::Order::Reboot { caller };
        finish(guests::order(self.0.clone(), guest, order)).await
    }

    async fn pause(&self, caller: Caller, guest: GuestRef) -> Result<GuestSummary, Problem> {
        let order = crate::guests::Order::Pause { caller };
        finish(guests::order(self.0.clone(), guest, order)).await
    }

    async fn unpause(&self, caller: Caller, guest: GuestRef) -> Result<GuestSummary, Problem> {
        let order = crate::guests::Order::Unpause { caller };
        finish(guests::order(self.0.clone(), guest, order)).await
    }

    async fn console(
        &self,
        caller: Caller,
        guest: GuestRef,
        query: ConsoleQuery,
    ) -> Result<Box<dyn ConsoleStream>, Problem> {
        guests::console(&self.0, caller, &guest, query).await
    }

    async fn plan(
        &self,
        _: Caller,
        guest: GuestRef,
        request: PlanRequest,
    ) -> Result<Plan, Problem> {
        moves::plan(&self.0, &guest, &request).await
    }

    async fn migrate(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: MigrateRequest,
    ) -> Result<Migration, Problem> {
        finish(moves::migrate(self.0.clone(), caller, guest, request)).await
    }

    async fn cancel(&self, caller: Caller, guest: GuestRef) -> Result<Migration, Problem> {
        finish(moves::cancel(self.0.clone(), caller, guest)).await
    }

    async fn cut_over(&self, caller: Caller, guest: GuestRef) -> Result<Migration, Problem> {
        finish(moves::cut_over(self.0.clone(), caller, guest)).await
    }

    async fn migrations(&self, _: Caller) -> Result<MigrationList, Problem> {
        Ok(moves::current(&self.0))
    }

    async fn migration(&self, _: Caller, id: String) -> Result<Migration, Problem> {
        moves::one(&self.0, &id).await
    }

    async fn report(&self, _: Caller, guest: GuestRef) -> Result<Report, Problem> {
        moves::report(&self.0, &guest).await
    }

    async fn reports(
        &self,
        _: Caller,
        guest: Option<GuestRef>,
        limit: u32,
    ) -> Result<ReportList, Problem> {
        moves::reports(&self.0, guest.as_ref(), limit).await
    }

    async fn recovery(&self, _: Caller, guest: GuestRef) -> Result<Recovery, Problem> {
        recovery::explain(&self.0, &guest).await
    }

    async fn recover(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: RecoverRequest,
    ) -> Result<Recovered, Problem> {
        finish(recovery::recover(self.0.clone(), caller, guest, request)).await
    }

    async fn kept_memory(&self, _: Caller) -> Result<KeptMemoryList, Problem> {
        crate::pages::list(&self.0).await
    }

    async fn drop_kept_memory(
        &self,
        caller: Caller,
        guest: Option<GuestRef>,
    ) -> Result<MemoryDropped, Problem> {
        finish(crate::pages::drop_kept(self.0.clone(), caller, guest)).await
    }

    async fn log(&self, _: Caller, query: LogQuery) -> Result<LogPage, Problem> {
        events::log(&self.0, &query).await
    }

    async fn follow_log(&self, _: Caller, query: LogQuery) -> Result<EventStream, Problem> {
        events::follow_log(&self.0, &query).await
    }

    async fn events(&self, _: Caller, query: EventQuery) -> Result<EventStream, Problem> {
        events::follow(&self.0, &query).await
    }

    async fn hosts(&self, _: Caller) -> Result<PeerList, Problem> {
        hosts::list(&self.0).await
    }

    async fn baseline(&self, _: Caller) -> Result<Baseline, Problem> {
        crate::peers_view::baseline(&self.0).await
    }

    async fn invite(&self, caller: Caller, request: InviteRequest) -> Result<Invitation, Problem> {
        finish(hosts::invite(self.0.clone(), caller, request)).await
    }

    async fn close_invitation(&self, _: Caller) -> Result<(), Problem> {
        finish(hosts::close_invitation(self.0.clone())).await
    }

    async fn join(&self, caller: Caller, request: JoinRequest) -> Result<Peer, Problem> {
        finish(hosts::join(self.0.clone(), caller, request)).await
    }

    async fn forget(&self, caller: Caller, host: String) -> Result<(), Problem> {
        finish(hosts::forget(self.0.clone(), caller, host)).await
    }
}
