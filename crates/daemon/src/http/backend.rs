// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! What the API can ask of the daemon.

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use whimbrel_api::Problem;
use whimbrel_api::console::ConsoleQuery;
use whimbrel_api::event::{Event, EventQuery};
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

/// Who asks: the user at the other end of the socket, recorded with every action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    pub uid: u32,
}

/// Events on their way to a client. Dropped when the client goes away; whoever fills it must bound
/// what a slow client can hold back, and say [`Event::Missed`].
pub type EventStream = BoxStream<'static, Event>;

/// A console on its way to a client, in the frames of [`whimbrel_api::console`]: one of our own
/// ([`crate::console`]) or a peer's, passed on as it is.
pub trait ConsoleStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ConsoleStream for T {}

/// One method an operation of the API.
///
/// Every method checks what it is given beyond its shape: whether the guest exists
/// ([`Problem::guest_not_found`]), whether it may be done now. A method that changes something is
/// run in a task of its own and finished also if the client goes away; one that only reads may be
/// dropped at any `await`.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    async fn host(&self, caller: Caller) -> Result<HostInfo, Problem>;
    /// Reads the configuration again.
    async fn reload(&self, caller: Caller) -> Result<Reloaded, Problem>;
    async fn relocation(&self, caller: Caller) -> Result<Relocation, Problem>;
    async fn set_relocation(&self, caller: Caller, is_enabled: bool)
    -> Result<Relocation, Problem>;

    /// The guests of this host, or of all paired hosts.
    async fn guests(&self, caller: Caller, scope: Scope) -> Result<GuestList, Problem>;
    async fn guest(&self, caller: Caller, guest: GuestRef) -> Result<GuestDetail, Problem>;
    async fn create(&self, caller: Caller, request: CreateGuest) -> Result<Created, Problem>;
    async fn edit(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: EditGuest,
    ) -> Result<Created, Problem>;
    /// Forgets the definition of a stopped guest. Never touches disks.
    async fn remove(&self, caller: Caller, guest: GuestRef) -> Result<(), Problem>;
    async fn start(&self, caller: Caller, guest: GuestRef) -> Result<GuestSummary, Problem>;
    /// Takes over a guest that others have started, while it runs.
    async fn adopt(&self, caller: Caller, guest: GuestRef) -> Result<Created, Problem>;
    /// Returns when the guest has stopped, or with a problem when its time is over.
    async fn stop(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: StopGuest,
    ) -> Result<GuestSummary, Problem>;
    async fn reboot(&self, caller: Caller, guest: GuestRef) -> Result<GuestSummary, Problem>;
    async fn pause(&self, caller: Caller, guest: GuestRef) -> Result<GuestSummary, Problem>;
    async fn unpause(&self, caller: Caller, guest: GuestRef) -> Result<GuestSummary, Problem>;
    /// Attaches to the guest's console, wherever the guest is.
    async fn console(
        &self,
        caller: Caller,
        guest: GuestRef,
        query: ConsoleQuery,
    ) -> Result<Box<dyn ConsoleStream>, Problem>;

    async fn plan(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: PlanRequest,
    ) -> Result<Plan, Problem>;
    /// Begins a migration and returns it at once; [`Backend::events`] tells the rest. A plan with
    /// a blocker ends it with [`MigrationResult::Refused`] and the problem of the first blocker.
    ///
    /// [`MigrationResult::Refused`]: whimbrel_api::migration::MigrationResult::Refused
    async fn migrate(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: MigrateRequest,
    ) -> Result<Migration, Problem>;
    /// Asks the guest's migration to be given up and returns it as it stands; it may have passed
    /// the point of no return, so only its outcome tells where the guest is.
    async fn cancel(&self, caller: Caller, guest: GuestRef) -> Result<Migration, Problem>;
    /// Tells a held migration to cut over and returns it as it stands.
    async fn cut_over(&self, caller: Caller, guest: GuestRef) -> Result<Migration, Problem>;
    /// The migrations that go on now.
    async fn migrations(&self, caller: Caller) -> Result<MigrationList, Problem>;
    /// A migration that goes on, or one of the past as its report tells it.
    async fn migration(&self, caller: Caller, id: String) -> Result<Migration, Problem>;
    /// The newest report about a guest, also if the guest is no longer here.
    async fn report(&self, caller: Caller, guest: GuestRef) -> Result<Report, Problem>;
    /// Old reports about all guests or one, newest first, at most `limit`.
    async fn reports(
        &self,
        caller: Caller,
        guest: Option<GuestRef>,
        limit: u32,
    ) -> Result<ReportList, Problem>;
    /// What each host knows about a guest in doubt. Changes nothing.
    async fn recovery(&self, caller: Caller, guest: GuestRef) -> Result<Recovery, Problem>;
    async fn recover(
        &self,
        caller: Caller,
        guest: GuestRef,
        request: RecoverRequest,
    ) -> Result<Recovered, Problem>;

    /// The memory this host keeps of guests that have left.
    async fn kept_memory(&self, caller: Caller) -> Result<KeptMemoryList, Problem>;
    /// Drops what is kept of a guest, here or gone, or of all.
    async fn drop_kept_memory(
        &self,
        caller: Caller,
        guest: Option<GuestRef>,
    ) -> Result<MemoryDropped, Problem>;

    /// Old lines of the log; `query.follow` has no meaning here.
    async fn log(&self, caller: Caller, query: LogQuery) -> Result<LogPage, Problem>;
    /// Old lines and then new ones, as [`Event::Log`].
    async fn follow_log(&self, caller: Caller, query: LogQuery) -> Result<EventStream, Problem>;
    /// What happens from now on; see [`EventQuery`] for how each stream begins.
    async fn events(&self, caller: Caller, query: EventQuery) -> Result<EventStream, Problem>;

    async fn hosts(&self, caller: Caller) -> Result<PeerList, Problem>;
    async fn baseline(&self, caller: Caller) -> Result<Baseline, Problem>;
    async fn invite(&self, caller: Caller, request: InviteRequest) -> Result<Invitation, Problem>;
    /// Withdraws the open invitation, if there is one.
    async fn close_invitation(&self, caller: Caller) -> Result<(), Problem>;
    async fn join(&self, caller: Caller, request: JoinRequest) -> Result<Peer, Problem>;
    async fn forget(&self, caller: Caller, host: String) -> Result<(), Problem>;
}

/// Whose guests are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    ThisHost,
    AllHosts,
}
