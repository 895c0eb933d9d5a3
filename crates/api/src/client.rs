// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The client: one method an operation, one connection a call.
//!
//! A connection over a unix socket costs microseconds, so nothing is kept between calls and a
//! daemon that was restarted is simply found again.

mod events;

pub use events::Events;

use crate::console::{ConsoleQuery, PROTOCOL};
use crate::event::EventQuery;
use crate::guest::{
    CreateGuest, Created, EditGuest, GuestDetail, GuestList, GuestSummary, StopGuest,
};
use crate::host::{
    Baseline, HostInfo, Invitation, InviteRequest, JoinRequest, Peer, PeerList, Reloaded,
    Relocation, SetRelocation,
};
use crate::limits::{RESPONSE_BYTES_MAX, STOP_TIMEOUT_MS_DEFAULT};
use crate::log::{LogPage, LogQuery};
use crate::migration::{MigrateRequest, Migration, MigrationList, Report, ReportList};
use crate::pages::{KeptMemoryList, MemoryDropped};
use crate::plan::{Plan, PlanRequest};
use crate::problem::{Kind, Problem, code};
use crate::recover::{RecoverRequest, Recovered, Recovery};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use whimbrel_model::problem as model;

/// Longest an ordinary call waits for its answer.
const CALL_TIME_MAX: Duration = Duration::from_secs(120);
/// Longest a call waits that starts engines or asks other hosts.
const LONG_CALL_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest to wait for the daemon to accept a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a call had no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the Whimbrel daemon cannot be reached on `{}`", .socket.display())]
    NotReachable { socket: PathBuf, source: io::Error },
    #[error(
        "the Whimbrel daemon did not accept a connection on `{}` within {} s",
        .socket.display(),
        CONNECT_TIME_MAX.as_secs()
    )]
    NotAccepting { socket: PathBuf },
    #[error("this user may not use the Whimbrel daemon's socket `{}`", .socket.display())]
    NotPermitted { socket: PathBuf },
    #[error("the connection to the Whimbrel daemon ended in the middle")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the Whimbrel daemon did not answer within {seconds} s")]
    Silent { seconds: u64 },
    #[error("the Whimbrel daemon's answer cannot be read: {reason}")]
    BadAnswer { reason: String },
}

impl model::Remedy for CallError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotReachable { .. } | Self::NotAccepting { .. } => code::DAEMON_NOT_REACHABLE,
            Self::NotPermitted { .. } => code::NOT_PERMITTED,
            Self::Lost(_) | Self::Silent { .. } => code::CONNECTION_LOST,
            Self::BadAnswer { .. } => code::BAD_ANSWER,
        }
    }

    fn kind(&self) -> model::Kind {
        match self {
            Self::NotReachable { .. } | Self::NotAccepting { .. } | Self::NotPermitted { .. } => {
                model::Kind::Refused
            }
            Self::Lost(_) | Self::Silent { .. } | Self::BadAnswer { .. } => model::Kind::Failed,
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::NotReachable { .. } | Self::NotAccepting { .. } => {
                "start it with `systemctl start whimbrel` (or `whimbrel daemon`), or name its \
                 socket with `--socket`; guests go on running without it"
            }
            Self::NotPermitted { .. } => {
                "run this as root, or have an administrator add you to the group that owns the \
                 socket: `usermod -aG whimbrel USER`, then log in again"
            }
            Self::Lost(_) | Self::Silent { .. } => {
                "see what became of it with `whimbrel list` and `whimbrel log`"
            }
            Self::BadAnswer { .. } => {
                "check that the daemon and this program have the same version: `whimbrel info`, \
                 `whimbrel --version`"
            }
        }
        .to_owned()
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        Problem::of(&error)
    }
}

/// A stream of bytes to the daemon: an attached console.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Talks to the daemon on this machine.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

type Body = Full<Bytes>;

impl Client {
    /// Returns a client of the daemon that listens on `socket`. Nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Returns the path of the daemon's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn connect(&self) -> Result<UnixStream, CallError> {
        let socket = || self.socket.clone();
        let connecting = UnixStream::connect(&self.socket);
        match tokio::time::timeout(CONNECT_TIME_MAX, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(CallError::NotPermitted { socket: socket() })
            }
            Ok(Err(source)) => Err(CallError::NotReachable { socket: socket(), source }),
            Err(_) => Err(CallError::NotAccepting { socket: socket() }),
        }
    }

    /// Sends a request and returns the head of the answer; a problem if it is not a success.
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Problem> {
        let stream = TokioIo::new(self.connect().await?);
        let lost = |error: hyper::Error| CallError::Lost(error.into());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(stream).await.map_err(lost)?;
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = read_body(response).await?;
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
            let reason = format!("status {status} without a problem in it");
            CallError::BadAnswer { reason }.into()
        }))
    }

    async fn exchange(&self, request: Request<Body>, limit: Duration) -> Result<Bytes, Problem> {
        let exchange = async { Ok(read_body(self.send(request).await?).await?) };
        let silent = |_| CallError::Silent { seconds: limit.as_secs() };
        tokio::time::timeout(limit, exchange).await.map_err(silent)?
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        decode(&self.exchange(request(Method::GET, path, None), CALL_TIME_MAX).await?)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, Problem> {
        let json = serde_json::to_vec(body).expect("requests are plain data");
        decode(&self.exchange(request(method, path, Some(json)), limit).await?)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        self.call(Method::POST, path, body, LONG_CALL_TIME_MAX).await
    }

    async fn delete(&self, path: &str) -> Result<(), Problem> {
        self.exchange(request(Method::DELETE, path, None), CALL_TIME_MAX).await.map(drop)
    }
}

/// Hosts.
impl Client {
    /// Returns what this host is and has.
    pub async fn host(&self) -> Result<HostInfo, Problem> {
        self.get("/v1/host").await
    }

    /// Has the daemon read its configuration again.
    pub async fn reload(&self) -> Result<Reloaded, Problem> {
        self.post("/v1/reload", &()).await
    }

    /// Opens or closes this host for moving guests.
    pub async fn set_relocation(&self, request: SetRelocation) -> Result<Relocation, Problem> {
        self.call(Method::PUT, "/v1/relocation", &request, CALL_TIME_MAX).await
    }

    /// Returns whether this host is open for moving guests.
    pub async fn relocation(&self) -> Result<Relocation, Problem> {
        self.get("/v1/relocation").await
    }

    /// Returns this host and those paired with it.
    pub async fn hosts(&self) -> Result<PeerList, Problem> {
        self.get("/v1/hosts").await
    }

    /// Returns what fits this host and all that are paired with it.
    pub async fn baseline(&self) -> Result<Baseline, Problem> {
        self.get("/v1/baseline").await
    }

    /// Opens an invitation for another host.
    pub async fn invite(&self, request: &InviteRequest) -> Result<Invitation, Problem> {
        self.post("/v1/invitation", request).await
    }

    /// Withdraws the open invitation.
    pub async fn close_invitation(&self) -> Result<(), Problem> {
        self.delete("/v1/invitation").await
    }

    /// Pairs with the host whose invitation this is.
    pub async fn join(&self, request: &JoinRequest) -> Result<Peer, Problem> {
        self.post("/v1/hosts", request).await
    }

    /// Ends the pairing with a host.
    pub async fn forget(&self, host: &str) -> Result<(), Problem> {
        self.delete(&format!("/v1/hosts/{}", segment(host))).await
    }
}

/// Guests.
impl Client {
    /// Returns the guests of this host, or of all paired hosts.
    pub async fn guests(&self, is_all_hosts: bool) -> Result<GuestList, Problem> {
        self.get(if is_all_hosts { "/v1/guests?all_hosts=true" } else { "/v1/guests" }).await
    }

    /// Returns everything about a guest.
    pub async fn guest(&self, guest: &str) -> Result<GuestDetail, Problem> {
        self.get(&path(guest, "")).await
    }

    /// Defines a guest and, unless told otherwise, starts it.
    pub async fn create(&self, request: &CreateGuest) -> Result<Created, Problem> {
        self.post("/v1/guests", request).await
    }

    /// Replaces a guest's definition.
    pub async fn edit(&self, guest: &str, request: &EditGuest) -> Result<Created, Problem> {
        self.call(Method::PUT, &path(guest, "/definition"), request, CALL_TIME_MAX).await
    }

    /// Forgets a stopped guest's definition.
    pub async fn remove(&self, guest: &str) -> Result<(), Problem> {
        self.delete(&path(guest, "")).await
    }

    /// Starts a guest.
    pub async fn start(&self, guest: &str) -> Result<GuestSummary, Problem> {
        self.post(&path(guest, "/start"), &()).await
    }

    /// Takes over a guest that others have started.
    pub async fn adopt(&self, guest: &str) -> Result<Created, Problem> {
        self.post(&path(guest, "/adopt"), &()).await
    }

    /// Stops a guest, and waits for it.
    pub async fn stop(&self, guest: &str, request: &StopGuest) -> Result<GuestSummary, Problem> {
        let wait = Duration::from_millis(request.timeout_ms.unwrap_or(STOP_TIMEOUT_MS_DEFAULT));
        let limit = wait.saturating_add(CALL_TIME_MAX);
        self.call(Method::POST, &path(guest, "/stop"), request, limit).await
    }

    /// Asks a guest to shut down, and starts it again.
    pub async fn reboot(&self, guest: &str) -> Result<GuestSummary, Problem> {
        self.post(&path(guest, "/reboot"), &()).await
    }

    /// Pauses a guest.
    pub async fn pause(&self, guest: &str) -> Result<GuestSummary, Problem> {
        self.post(&path(guest, "/pause"), &()).await
    }

    /// Lets a paused guest go on.
    pub async fn unpause(&self, guest: &str) -> Result<GuestSummary, Problem> {
        self.post(&path(guest, "/unpause"), &()).await
    }

    /// Attaches to a guest's console; what travels then are the frames of [`crate::console`].
    pub async fn console(
        &self,
        guest: &str,
        query: &ConsoleQuery,
    ) -> Result<impl Duplex + use<>, Problem> {
        let path = with_query(&path(guest, "/console"), query);
        let mut request = request(Method::GET, &path, None);
        request
            .headers_mut()
            .insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static(PROTOCOL));
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let reason = "no upgrade to a console".to_owned();
            return Err(CallError::BadAnswer { reason }.into());
        }
        let upgraded =
            hyper::upgrade::on(response).await.map_err(|error| CallError::Lost(error.into()))?;
        Ok(TokioIo::new(upgraded))
    }
}

/// Migrations.
impl Client {
    /// Returns what a migration would meet and cost.
    pub async fn plan(&self, guest: &str, request: &PlanRequest) -> Result<Plan, Problem> {
        self.post(&path(guest, "/plan"), request).await
    }

    /// Begins a migration.
    pub async fn migrate(
        &self,
        guest: &str,
        request: &MigrateRequest,
    ) -> Result<Migration, Problem> {
        self.post(&path(guest, "/migrate"), request).await
    }

    /// Asks the guest's migration to be given up.
    pub async fn cancel(&self, guest: &str) -> Result<Migration, Problem> {
        self.post(&path(guest, "/cancel"), &()).await
    }

    /// Tells a held migration to cut over.
    pub async fn cut_over(&self, guest: &str) -> Result<Migration, Problem> {
        self.post(&path(guest, "/cutover"), &()).await
    }

    /// Returns the migrations that go on now.
    pub async fn migrations(&self) -> Result<MigrationList, Problem> {
        self.get("/v1/migrations").await
    }

    /// Returns one migration.
    pub async fn migration(&self, id: &str) -> Result<Migration, Problem> {
        self.get(&format!("/v1/migrations/{}", segment(id))).await
    }

    /// Returns the newest report about a guest.
    pub async fn report(&self, guest: &str) -> Result<Report, Problem> {
        self.get(&path(guest, "/report")).await
    }

    /// Returns old reports, newest first.
    pub async fn reports(
        &self,
        query: &crate::migration::ReportQuery,
    ) -> Result<ReportList, Problem> {
        self.get(&with_query("/v1/reports", query)).await
    }

    /// Returns what each host knows about a guest in doubt.
    pub async fn recovery(&self, guest: &str) -> Result<Recovery, Problem> {
        self.get(&path(guest, "/recovery")).await
    }

    /// Acts on a guest in doubt.
    pub async fn recover(
        &self,
        guest: &str,
        request: &RecoverRequest,
    ) -> Result<Recovered, Problem> {
        self.post(&path(guest, "/recovery"), request).await
    }
}

/// Kept memory.
impl Client {
    /// Returns the memory this host keeps of guests that have left.
    pub async fn kept_memory(&self) -> Result<KeptMemoryList, Problem> {
        self.get("/v1/pages").await
    }

    /// Drops what is kept of a guest, or of all.
    pub async fn drop_kept_memory(&self, guest: Option<&str>) -> Result<MemoryDropped, Problem> {
        let path = match guest {
            Some(guest) => format!("/v1/pages/{}", segment(guest)),
            None => "/v1/pages".to_owned(),
        };
        self.call(Method::DELETE, &path, &(), CALL_TIME_MAX).await
    }
}

/// Events and the log.
impl Client {
    /// Returns old lines of the log.
    pub async fn log(&self, query: &LogQuery) -> Result<LogPage, Problem> {
        let query = LogQuery { follow: false, ..query.clone() };
        self.get(&with_query("/v1/log", &query)).await
    }

    /// Returns old lines of the log, and then new ones as they come.
    pub async fn follow_log(&self, query: &LogQuery) -> Result<Events, Problem> {
        self.stream("/v1/log", &LogQuery { follow: true, ..query.clone() }).await
    }

    /// Returns what happens from now on.
    pub async fn events(&self, query: &EventQuery) -> Result<Events, Problem> {
        self.stream("/v1/events", query).await
    }

    async fn stream(&self, path: &str, query: &impl Serialize) -> Result<Events, Problem> {
        let request = request(Method::GET, &with_query(path, query), None);
        let head = tokio::time::timeout(CALL_TIME_MAX, self.send(request)).await;
        let silent = |_| CallError::Silent { seconds: CALL_TIME_MAX.as_secs() };
        Ok(Events::new(head.map_err(silent)??.into_body()))
    }
}

fn request(method: Method, path: &str, json: Option<Vec<u8>>) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(path).header(header::HOST, "whimbrel");
    if json.is_some() {
        builder = builder.header(header::CONTENT_TYPE, "application/json");
    }
    let body = Full::new(json.unwrap_or_default().into());
    builder.body(body).expect("paths are percent-encoded")
}

async fn read_body(response: Response<Incoming>) -> Result<Bytes, CallError> {
    let limited = Limited::new(response.into_body(), RESPONSE_BYTES_MAX);
    limited.collect().await.map(|body| body.to_bytes()).map_err(CallError::Lost)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| CallError::BadAnswer { reason: error.to_string() }.into())
}

fn path(guest: &str, rest: &str) -> String {
    format!("/v1/guests/{}{rest}", segment(guest))
}

fn with_query(path: &str, query: &impl Serialize) -> String {
    let query = serde_urlencoded::to_string(query).expect("queries are flat");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Returns `text` as one segment of a path, whatever it contains.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // A dot is legal, and `..` would be resolved away.
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    // An empty segment would name the collection.
    if out.is_empty() { "%20".to_owned() } else { out }
}

/// Returns the problem of a stream of events that ended in the middle.
fn lost(reason: &str) -> Problem {
    Problem::new(
        Kind::Failed,
        code::CONNECTION_LOST,
        format!("the event stream of the Whimbrel daemon ended: {reason}"),
        "see what became of it with `whimbrel list` and `whimbrel log`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a person types becomes one segment, never another path.
    #[test]
    fn segments_cannot_escape() {
        let check = |text, expected: &str| assert_eq!(segment(text), expected);
        check("web1", "web1");
        check("centos.5-1", "centos%2E5-1");
        check("../host", "%2E%2E%2Fhost");
        check("a?b#c", "a%3Fb%23c");
        check("ä", "%C3%A4");
        check("", "%20");
    }

    /// A socket that is not there is told as a daemon that does not run, with a remedy.
    #[tokio::test]
    async fn a_daemon_that_does_not_run_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::new(directory.path().join("api.sock"));
        let problem = client.host().await.unwrap_err();
        assert_eq!(problem.code, code::DAEMON_NOT_REACHABLE);
        assert_eq!(problem.kind, Kind::Refused);
        assert!(problem.text.contains("api.sock"), "{}", problem.text);
        assert!(problem.text.ends_with("No such file or directory (os error 2)"));
    }
}
