// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The whole way of a request: the real client, a real socket, and a backend that only says which
//! of its methods was reached.

use super::backend::ConsoleStream;
use super::*;
use async_trait::async_trait;
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use whimbrel_api::console::{ConsoleQuery, Frame, FrameReader};
use whimbrel_api::event::{Event, EventQuery, Missed};
use whimbrel_api::guest::{
    CreateGuest, Created, DefinitionFormat, EditGuest, GuestDetail, GuestList, GuestRef,
    GuestSummary, StopGuest,
};
use whimbrel_api::host::{
    Baseline, HostInfo, Invitation, InviteRequest, JoinRequest, Peer, PeerList, Reloaded,
    Relocation, SetRelocation,
};
use whimbrel_api::log::{LogPage, LogQuery};
use whimbrel_api::migration::{
    MigrateRequest, Migration, MigrationList, Report, ReportList, ReportQuery,
};
use whimbrel_api::pages::{KeptMemoryList, MemoryDropped};
use whimbrel_api::plan::{Plan, PlanRequest};
use whimbrel_api::recover::{RecoverRequest, Recovered, Recovery};
use whimbrel_api::{Client, Kind, Problem};

/// Says of most methods only that they were reached.
struct Stub {
    /// Told when a `start` begins and again when it is finished.
    started: mpsc::UnboundedSender<&'static str>,
    /// Lets a `start` finish.
    finish: Arc<Notify>,
}

fn reached<T>(method: &str) -> Result<T, Problem> {
    Err(Problem::new(Kind::Refused, format!("reached/{method}"), "a text", "a remedy"))
}

macro_rules! stub {
    ($($method:ident($($argument:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Backend for Stub {
            $(async fn $method(&self, $(_: $argument),*) -> Result<$answer, Problem> {
                reached(stringify!($method))
            })*

            async fn start(&self, _: Caller, _: GuestRef) -> Result<GuestSummary, Problem> {
                self.started.send("begun").unwrap();
                self.finish.notified().await;
                self.started.send("finished").unwrap();
                reached("start")
            }

            /// An event, and then silence.
            async fn events(
                &self,
                caller: Caller,
                query: EventQuery,
            ) -> Result<EventStream, Problem> {
                let Some(_) = query.guest else { return reached("events") };
                let event_count = u64::from(caller.uid);
                let first = futures::stream::iter([Event::Missed(Missed { event_count })]);
                Ok(first.chain(futures::stream::pending()).boxed())
            }

            /// An echo.
            async fn console(
                &self,
                _: Caller,
                guest: GuestRef,
                _: ConsoleQuery,
            ) -> Result<Box<dyn ConsoleStream>, Problem> {
                if guest.to_string() != "echo" {
                    return reached("console");
                }
                let (near, far) = tokio::io::duplex(1024);
                tokio::spawn(async move {
                    let (mut reader, mut writer) = tokio::io::split(far);
                    tokio::io::copy(&mut reader, &mut writer).await
                });
                Ok(Box::new(near))
            }
        }
    };
}

stub! {
        host(Caller) -> HostInfo;
        reload(Caller) -> Reloaded;
        relocation(Caller) -> Relocation;
        set_relocation(Caller, bool) -> Relocation;
        guests(Caller, Scope) -> GuestList;
        guest(Caller, GuestRef) -> GuestDetail;
        create(Caller, CreateGuest) -> Created;
        edit(Caller, GuestRef, EditGuest) -> Created;
        remove(Caller, GuestRef) -> ();
        adopt(Caller, GuestRef) -> Created;
        stop(Caller, GuestRef, StopGuest) -> GuestSummary;
        reboot(Caller, GuestRef) -> GuestSummary;
        pause(Caller, GuestRef) -> GuestSummary;
        unpause(Caller, GuestRef) -> GuestSummary;
        plan(Caller, GuestRef, PlanRequest) -> Plan;
        migrate(Caller, GuestRef, MigrateRequest) -> Migration;
        cancel(Caller, GuestRef) -> Migration;
        cut_over(Caller, GuestRef) -> Migration;
        migrations(Caller) -> MigrationList;
        migration(Caller, String) -> Migration;
        report(Caller, GuestRef) -> Report;
        reports(Caller, Option<GuestRef>, u32) -> ReportList;
        recovery(Caller, GuestRef) -> Recovery;
        recover(Caller, GuestRef, RecoverRequest) -> Recovered;
        kept_memory(Caller) -> KeptMemoryList;
        drop_kept_memory(Caller, Option<GuestRef>) -> MemoryDropped;
        log(Caller, LogQuery) -> LogPage;
        follow_log(Caller, LogQuery) -> EventStream;
        hosts(Caller) -> PeerList;
        baseline(Caller) -> Baseline;
        invite(Caller, InviteRequest) -> Invitation;
        close_invitation(Caller) -> ();
        join(Caller, JoinRequest) -> Peer;
        forget(Caller, String) -> ();
}

/// A server, and what its tests hold of it.
struct Lab {
    client: Client,
    started: mpsc::UnboundedReceiver<&'static str>,
    finish: Arc<Notify>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    _directory: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self::refusing(None)
    }

    fn refusing(uid: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("api.sock");
        let socket = Socket::bind(&path, None).unwrap().refusing(uid);
        let (started, started_out) = mpsc::unbounded_channel();
        let finish = Arc::new(Notify::new());
        let backend = Arc::new(Stub { started, finish: Arc::clone(&finish) });
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(socket, backend, async move {
            let _ = stopped.await;
        }));
        let client = Client::new(path);
        Self { client, started: started_out, finish, stop, server, _directory: directory }
    }

    /// Sends a request as it is and returns the answer as it is.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.client.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("no answer for 10 s")
}

/// The user that engines run as is turned away, although it may open the socket: a guest that has
/// broken out of its engine must not command the others.
#[tokio::test]
async fn engines_are_turned_away() {
    let own = nix::unistd::geteuid().as_raw();
    let lab = Lab::refusing(Some(own));
    let mut stream = UnixStream::connect(lab.client.socket()).await.unwrap();
    // Refused before or after this is written; either way nothing is answered.
    let _ = stream.write_all(b"GET /v1/host HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    assert!(
        Lab::refusing(Some(own + 1))
            .client
            .guests(false)
            .await
            .is_err_and(|problem| { problem.code != whimbrel_api::problem::code::CONNECTION_LOST })
    );
}

/// Every operation of the contract has a handler: none is answered with "no such path".
#[tokio::test]
async fn every_operation_is_served() {
    let lab = Lab::new();
    lab.finish.notify_one();
    for (method, path) in whimbrel_api::openapi::operations() {
        let path = path.replace("{guest}", "web1").replace("{host}", "beta").replace("{id}", "7");
        let request = format!("{method} {path} HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n");
        let answer = lab.raw(&request).await;
        let is_reached = answer.contains("\"code\":\"reached/");
        // Without a body or an upgrade some handlers refuse before they ask the backend.
        let is_refused = answer.contains("\"code\":\"api/bad-request\"");
        assert!(is_reached || is_refused, "{method} {path}: {answer}");
    }
}

/// Every method of the client reaches the method of the backend that it is named after, and the
/// problem comes back whole.
#[tokio::test]
async fn every_call_arrives() {
    let lab = Lab::new();
    lab.finish.notify_one();
    let client = &lab.client;
    macro_rules! check {
        ($($method:ident($($argument:expr),*) => $reached:literal;)*) => {$(
            let problem = within(client.$method($($argument),*)).await.err().unwrap();
            assert_eq!(problem.code, concat!("reached/", $reached));
            assert_eq!((problem.text.as_str(), problem.remedy.as_str()), ("a text", "a remedy"));
        )*};
    }
    check! {
        host() => "host";
        reload() => "reload";
        relocation() => "relocation";
        set_relocation(SetRelocation { is_enabled: true }) => "set_relocation";
        hosts() => "hosts";
        invite(&InviteRequest::default()) => "invite";
        close_invitation() => "close_invitation";
        join(&JoinRequest { token: "t".into() }) => "join";
        forget("beta") => "forget";
        guests(true) => "guests";
        guest("web1") => "guest";
        create(&create_request()) => "create";
        edit("7", &edit_request()) => "edit";
        remove("centos.5-1") => "remove";
        start("web1") => "start";
        adopt("web1") => "adopt";
        stop("web1", &StopGuest::default()) => "stop";
        reboot("web1") => "reboot";
        pause("web1") => "pause";
        unpause("web1") => "unpause";
        plan("web1", &PlanRequest::default()) => "plan";
        migrate("web1", &MigrateRequest::default()) => "migrate";
        cancel("web1") => "cancel";
        cut_over("web1") => "cut_over";
        migrations() => "migrations";
        migration("7") => "migration";
        report("web1") => "report";
        reports(&ReportQuery { guest: Some("web1".into()), limit: None }) => "reports";
        recovery("web1") => "recovery";
        recover("web1", &RecoverRequest::default()) => "recover";
        kept_memory() => "kept_memory";
        drop_kept_memory(None) => "drop_kept_memory";
        drop_kept_memory(Some("web1")) => "drop_kept_memory";
        log(&LogQuery::default()) => "log";
        follow_log(&LogQuery::default()) => "follow_log";
        events(&EventQuery::default()) => "events";
        console("web1", &ConsoleQuery::default()) => "console";
    }
}

fn create_request() -> CreateGuest {
    CreateGuest {
        text: "name = \"web1\"".into(),
        format: DefinitionFormat::Toml,
        file_name: "web1.toml".into(),
        base_directory: "/".into(),
        overrides: Vec::new(),
        is_transient: false,
        is_left_stopped: false,
    }
}

fn edit_request() -> EditGuest {
    EditGuest { text: String::new(), base_directory: "/".into(), replaces: None }
}

/// What is not well formed is refused by name and never reaches the backend.
#[tokio::test]
async fn bad_requests_are_named() {
    let lab = Lab::new();
    let check = async |problem: Problem, code: &str, text: &str| {
        assert_eq!(problem.code, code);
        assert!(problem.text.contains(text), "{}", problem.text);
    };
    let relative = CreateGuest { base_directory: "xen".into(), ..create_request() };
    let problem = lab.client.create(&relative).await.unwrap_err();
    check(problem, "api/bad-request", "`xen` is not absolute").await;
    let long = CreateGuest { text: " ".repeat(300 << 10), ..create_request() };
    let problem = lab.client.create(&long).await.unwrap_err();
    check(problem, "api/bad-request", "the guest file has 307200 bytes").await;
    let huge = CreateGuest { text: " ".repeat(2 << 20), ..create_request() };
    let problem = lab.client.create(&huge).await.unwrap_err();
    check(problem, "api/too-large", "more than 1048576 bytes").await;
    let problem = lab.client.guest("no/such name").await.unwrap_err();
    check(problem, "guest/not-found", "there is no guest `no/such name` here").await;

    let answer = lab.raw("GET /v2/x HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.contains("\"code\":\"api/no-such-path\""), "{answer}");
    let answer = lab.raw("PUT /v1/host HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n").await;
    assert!(answer.contains("the API has no `PUT /v1/host`"), "{answer}");
    let answer = lab.raw("nonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

/// A caller that goes away in the middle leaves no half-done work: `start` is finished.
#[tokio::test]
async fn work_is_finished_without_its_caller() {
    let mut lab = Lab::new();
    let call = tokio::spawn({
        let client = lab.client.clone();
        async move { client.start("web1").await }
    });
    assert_eq!(within(lab.started.recv()).await, Some("begun"));
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The server has seen the end of the connection once it serves another one after it.
    reached_host(&lab).await;
    lab.finish.notify_one();
    assert_eq!(within(lab.started.recv()).await, Some("finished"));
}

async fn reached_host(lab: &Lab) {
    assert_eq!(within(lab.client.host()).await.unwrap_err().code, "reached/host");
}

/// Events arrive, the caller is who the kernel says, and the end of the server is the end of the
/// stream, not an error.
#[tokio::test]
async fn events_arrive_and_end_with_the_server() {
    let lab = Lab::new();
    let query = EventQuery { guest: Some("web1".into()), migration: None };
    let mut events = within(lab.client.events(&query)).await.unwrap();
    let event_count = u64::from(nix::unistd::getuid().as_raw());
    let first = within(events.next()).await.unwrap().unwrap();
    assert_eq!(first, Event::Missed(Missed { event_count }));

    lab.stop.send(()).unwrap();
    assert!(within(events.next()).await.is_none());
    within(lab.server).await.unwrap();
    assert!(!lab.client.socket().exists());
}

/// A console is a connection of its own after the upgrade, both ways.
#[tokio::test]
async fn a_console_is_a_pair_of_streams() {
    let lab = Lab::new();
    let console = within(lab.client.console("echo", &ConsoleQuery::default())).await.unwrap();
    let (reader, mut writer) = tokio::io::split(console);
    let frame = Frame::Data("hello".into());
    within(writer.write_all(&frame.to_bytes())).await.unwrap();
    let mut frames = FrameReader::new(reader);
    assert_eq!(within(frames.next()).await.unwrap(), Some(frame));

    lab.stop.send(()).unwrap();
    assert!(within(frames.next()).await.unwrap().is_none());
    within(lab.server).await.unwrap();
}
