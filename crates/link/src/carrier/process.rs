// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The life of a carrying process.
//!
//! It opens channels strictly in the engine's order: channel n only once both ends of n-1 are
//! connected, because some engines take the first connection they get for the main one. The first
//! channel that is lost ends them all; a stream of pages makes its link again instead. It ends when
//! its daemon has said so and the channels are through, or when there was neither a channel nor a
//! word of a daemon for [`ABANDONED_AFTER`].

mod urgent;

use super::channel::{self, CarryError};
use super::config::{Config, Meet, Side, Way};
use super::control::STATUS_FILE;
use super::frames::{Frame, Open, OpenWay, Parser, REASON_BYTES_MAX, VERSION};
use super::meter::Meter;
use super::pages::begin::{self, Begin, Known};
use super::pages::keeper::{Keeper, Moved};
use super::pages::{Coming, LinkWay, Links, Stream};
use super::server;
use super::status::Status;
use super::throttle::Throttle;
use crate::conn::{connect_first, tune};
use crate::identity::Identity;
use crate::tls::{self, ALPN_CARRY};
use bytes::BytesMut;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_rustls::TlsStream;
use urgent::Urgent;
use whimbrel_model::problem::chain;

/// A process that nobody needs ends after this long.
const ABANDONED_AFTER: Duration = Duration::from_secs(600);
/// How long the peer may take to accept a connection, and then to open a channel.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Connections that may be in their handshake at once.
const HANDSHAKES_MAX: usize = 8;
/// The kernel's buffer between this process and the engine that receives.
const ENGINE_BUFFER: usize = 128 << 10;
/// How long the engine may take to be connected to.
const ENGINE_MAX: Duration = Duration::from_secs(5);
/// How long a channel waits for the one before it to be open.
const TURN_MAX: Duration = Duration::from_secs(10);
/// What is read from a connection at once: a few records.
const LINK_BUFFER: usize = 128 << 10;
const NOT_ASKED: &str = "the other side answered something else than was asked";

/// Rustls alone reads 4 KiB at a time, and a record is four times as long.
pub(super) type Link = TlsStream<BufReader<TcpStream>>;

/// A connection that is open, and what was read from it behind the greeting.
pub(super) type Connection = (Link, BytesMut);

/// Connections that may wait for a stream: one that joins it, and of those that take the place of
/// a lost one only the newest is of use.
const COMING_MAX: usize = 4;

/// One carrying process.
pub(super) struct Carrier {
    config: Config,
    identity: Identity,
    directory: PathBuf,
    throttle: Arc<Throttle>,
    state: Mutex<State>,
    /// Something in `state` has changed.
    changed: Notify,
    handshakes: Arc<Semaphore>,
}

struct State {
    /// In their order.
    channels: Vec<Arc<Meter>>,
    /// A channel is being opened.
    is_opening: bool,
    /// There is a link, and the engine is to come.
    is_linked: bool,
    running: usize,
    /// Keeps the guest's memory, or what is known of it.
    keeper: Option<Keeper>,
    /// Where a stream of pages waits for connections that go on with it, or join it.
    coming: Option<mpsc::Sender<Coming>>,
    urgent: Option<Urgent>,
    /// The address of the peer that answered last.
    best: Option<SocketAddr>,
    problem: Option<String>,
    is_closing: bool,
    /// When a daemon last said something, or a channel last ran.
    needed: Instant,
}

impl Carrier {
    pub(super) fn new(config: Config, identity: Identity, directory: &Path) -> Arc<Self> {
        let state = State {
            channels: Vec::new(),
            is_opening: false,
            is_linked: false,
            running: 0,
            keeper: None,
            coming: None,
            urgent: None,
            best: None,
            problem: None,
            is_closing: false,
            needed: Instant::now(),
        };
        Arc::new(Self {
            throttle: Arc::new(Throttle::new(config.bandwidth)),
            config,
            identity,
            directory: directory.to_owned(),
            state: Mutex::new(state),
            changed: Notify::new(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until it is no longer needed. The engine's socket and the control socket exist when
    /// `ready` is called.
    pub(super) async fn run(
        self: Arc<Self>,
        ready: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let control = server::bind(&self.directory)?;
        let engine = self.listen_for_engine()?;
        ready()?;
        tokio::spawn(server::serve(self.clone(), control));
        if let Some(listener) = engine {
            tokio::spawn(self.clone().open_from_engine(listener));
        }
        self.until_done().await;
        // Without the word that the guest has moved, nothing of it is kept.
        drop(self.lock().keeper.take());
        let status = self.status();
        write_status(&self.directory, &status)?;
        if let Meet::Listen { path, .. } = &self.config.engine {
            let _ = std::fs::remove_file(path);
        }
        server::unbind(&self.directory);
        Ok(())
    }

    fn listen_for_engine(&self) -> io::Result<Option<UnixListener>> {
        let Meet::Listen { path, owner } = &self.config.engine else { return Ok(None) };
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        if let &Some((uid, gid)) = owner {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))?;
        }
        Ok(Some(listener))
    }

    async fn until_done(&self) {
        loop {
            let changed = self.changed.notified();
            let left = {
                let state = self.lock();
                let is_idle = state.running == 0 && !state.is_opening;
                if is_idle && (state.is_closing || state.needed.elapsed() >= ABANDONED_AFTER) {
                    return;
                }
                match is_idle {
                    true => ABANDONED_AFTER.saturating_sub(state.needed.elapsed()),
                    false => ABANDONED_AFTER,
                }
            };
            let _ = tokio::time::timeout(left, changed).await;
        }
    }

    // What the daemon asks.

    pub(super) fn heard_from_daemon(&self) {
        self.lock().needed = Instant::now();
    }

    pub(super) fn status(&self) -> Status {
        let state = self.lock();
        let expected = usize::try_from(self.config.connections).unwrap_or(usize::MAX);
        let idle = state.channels.iter().map(|meter| meter.last_byte().elapsed()).min();
        Status {
            channels: state.channels.iter().map(|meter| meter.status()).collect(),
            urgent: state.urgent.as_ref().map(Urgent::status),
            channel_count: self.config.connections,
            is_linked: state.is_linked,
            is_finished: state.channels.len() == expected
                && state.channels.iter().all(|meter| meter.has_ended()),
            problem: state.problem.clone(),
            idle: idle.unwrap_or_default(),
            round_trip: state.channels.iter().filter_map(|m| m.shortest_round_trip()).min(),
        }
    }

    pub(super) fn set_bandwidth(&self, bytes_per_second: Option<u64>) {
        self.throttle.set(bytes_per_second);
    }

    pub(super) fn close(&self) {
        self.lock().is_closing = true;
        self.changed.notify_waiters();
    }

    /// The guest has moved: what was kept of its memory becomes durable.
    pub(super) async fn keep(&self, moved: Moved) -> Result<(), String> {
        let keeper = self.lock().keeper.take();
        match keeper {
            Some(keeper) => keeper.keep(moved).await,
            None => Err("nothing was to be kept".to_owned()),
        }
    }

    pub(super) fn cut(&self) {
        self.lose("the daemon ended it".to_owned());
        self.close();
    }

    /// Ends every channel, because of `problem`.
    fn lose(&self, problem: String) {
        let mut state = self.lock();
        if state.problem.is_none() {
            tracing::warn!(problem, "the attempt is over");
            state.problem = Some(problem);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Returns once a channel that waits for nobody but a late peer is not needed any more.
    async fn released(&self, meter: &Meter) {
        loop {
            let changed = self.changed.notified();
            if self.lock().is_closing && meter.has_ended() {
                return;
            }
            changed.await;
        }
    }

    async fn lost(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().problem.is_some() {
                return;
            }
            changed.await;
        }
    }

    // The source.

    /// Opens a channel for each connection of the engine, in order.
    async fn open_from_engine(self: Arc<Self>, listener: UnixListener) {
        for channel in 0..self.config.connections {
            let outcome = tokio::select! {
                outcome = self.open_next(&listener, channel) => outcome,
                () = self.lost() => return,
            };
            if let Err(problem) = outcome {
                return self.lose(format!("channel {channel} was not opened: {problem}"));
            }
        }
        tokio::select! {
            outcome = self.open_urgent_from_engine(&listener) => if let Err(problem) = outcome {
                self.lose(format!("the urgent channel was not opened: {problem}"));
            },
            () = self.lost() => {}
        }
    }

    async fn open_next(
        self: &Arc<Self>,
        listener: &UnixListener,
        channel: u32,
    ) -> Result<(), String> {
        if !self.config.is_again {
            let (engine, _) = listener.accept().await.map_err(|e| chain(&e))?;
            let _turn = self.turn();
            let opened = self.open(channel).await?;
            return self.begin(opened, engine);
        }
        let _turn = self.turn();
        let opened = self.open(channel).await?;
        self.lock().is_linked = true;
        let (engine, _) = listener.accept().await.map_err(|e| chain(&e))?;
        self.begin(opened, engine)
    }

    /// Opens a channel at the target, whose engine is connected then.
    async fn open(&self, channel: u32) -> Result<Opened, String> {
        let known = match &self.config.way {
            Way::Tunnel => None,
            Way::Pages(pages) => Some(Known::load(pages, &self.config).await),
        };
        let way = known.as_ref().map_or(OpenWay::Tunnel, Known::way);
        let (answer, connection) = self.open_link(channel, way).await.map_err(words)?;
        Ok(Opened { known, answer, connection })
    }

    /// Connects the engine here to a channel.
    fn begin(self: &Arc<Self>, opened: Opened, engine: UnixStream) -> Result<(), String> {
        let Opened { known, answer, connection } = opened;
        match (&self.config.way, known, answer) {
            (Way::Tunnel, None, Frame::Ready) => self.start(connection, engine),
            (Way::Pages(pages), Some(known), Frame::Shelf(shelf)) => {
                let (begin, keeper) = known.begin(engine, pages, shelf, self.throttle.clone());
                let way = LinkWay::Dial { carrier: self.clone(), way: OpenWay::Resume };
                let links = Links::new(way, pages);
                self.start_stream(begin, keeper, connection, links);
            }
            _ => return Err(NOT_ASKED.to_owned()),
        }
        Ok(())
    }

    /// Makes a new link for a stream, instead of the others or besides them.
    pub(super) async fn link_for_pages(&self, way: OpenWay) -> Result<Connection, NoLink> {
        match self.open_link(0, way).await? {
            (Frame::Ready, connection) => Ok(connection),
            _ => Err(NoLink::Refused(NOT_ASKED.to_owned())),
        }
    }

    /// Connects to the peer, says what for, and returns its answer.
    async fn open_link(&self, channel: u32, way: OpenWay) -> Result<(Frame, Connection), NoLink> {
        let Side::Source { addresses } = &self.config.side else {
            return Err(NoLink::Refused("only a source opens channels".to_owned()));
        };
        // The address that answered once is the one for the rest, while it does.
        let best = self.lock().best;
        let candidates: Vec<SocketAddr> = best.iter().chain(addresses).copied().collect();
        let (tcp, address) = connect(&candidates).await?;
        self.lock().best = Some(address);
        let tcp = BufReader::with_capacity(LINK_BUFFER, tcp);
        let name = tls::carry_name(self.config.handoff);
        let link = tls::connect(&self.identity, self.config.peer, ALPN_CARRY, name, tcp).await;
        let mut link = Link::Client(link.map_err(|e| chain(&e))?);
        let open = Frame::Open(Open {
            version: VERSION,
            channel: u16::try_from(channel).expect("there are few channels"),
            channels: u16::try_from(self.config.connections).expect("there are few channels"),
            handoff: self.config.handoff,
            way,
        });
        send(&mut link, &open).await.map_err(|e| chain(&e))?;
        match greeting(&mut link).await? {
            (Frame::Refused { reason }, _) => Err(NoLink::Refused(reason)),
            (answer, rest) => Ok((answer, (link, rest))),
        }
    }

    // The target.

    /// Takes a connection from the daemon that asked for this handoff.
    pub(super) fn adopt(self: &Arc<Self>, tcp: std::net::TcpStream) {
        let Ok(place) = self.handshakes.clone().try_acquire_owned() else {
            return tracing::warn!("refused a connection: too many are in their handshake");
        };
        let carrier = self.clone();
        tokio::spawn(async move {
            let _place = place;
            // One that comes after the end is told so: it is a lost link that was made again.
            let is_late = carrier.lock().problem.is_some();
            tokio::select! {
                outcome = carrier.receive(tcp) => {
                    if let Err(reason) = outcome {
                        // Anybody can come here who has seen the handoff's name on the wire: no
                        // reason to end the attempt.
                        tracing::warn!(reason, "refused a connection");
                    }
                }
                () = carrier.lost(), if !is_late => {}
            }
        });
    }

    async fn receive(self: &Arc<Self>, tcp: std::net::TcpStream) -> Result<(), String> {
        tcp.set_nonblocking(true).map_err(|e| chain(&e))?;
        let tcp = TcpStream::from_std(tcp).map_err(|e| chain(&e))?;
        tune(&tcp);
        let tcp = BufReader::with_capacity(LINK_BUFFER, tcp);
        let link = tls::accept_exactly(&self.identity, self.config.peer, ALPN_CARRY, tcp).await;
        let mut link = Link::Server(link.map_err(|e| chain(&e))?);
        let (frame, rest) = greeting(&mut link).await?;
        let Frame::Open(open) = frame else {
            return Err("it did not open a channel".to_owned());
        };
        // From here on it is the peer who speaks, and an error is an error of the attempt.
        if matches!(open.way, OpenWay::Resume | OpenWay::Join) {
            return self.receive_for_pages(&open, link, rest).await;
        }
        if open.way == OpenWay::Urgent {
            return self.receive_urgent(&open, (link, rest)).await;
        }
        let (path, _turn) = self.take_turn().await?;
        let opened = match self.check(&open) {
            Ok(()) => connect_engine(&path).await,
            Err(problem) => Err(problem),
        };
        let outcome = match opened {
            Ok(engine) => self.receive_channel(&open.way, (link, rest), engine).await,
            Err(reason) => refuse(link, reason).await,
        };
        if let Err(problem) = &outcome {
            self.lose(format!("channel {} was not opened: {problem}", open.channel));
        }
        outcome
    }

    async fn receive_channel(
        self: &Arc<Self>,
        way: &OpenWay,
        (mut link, rest): Connection,
        engine: UnixStream,
    ) -> Result<(), String> {
        match (way, &self.config.way) {
            (OpenWay::Pages { known, kept }, Way::Pages(pages)) => {
                let shelf = begin::open_shelf(pages, known.clone()).await;
                send(&mut link, &begin::describe(&*shelf)).await.map_err(|e| chain(&e))?;
                let throttle = self.throttle.clone();
                let (begin, keeper) =
                    begin::target(engine, pages, shelf, kept.clone(), &self.config, throttle);
                let (coming, links) = mpsc::channel(COMING_MAX);
                self.lock().coming = Some(coming);
                let links = Links::new(LinkWay::Wait(links), pages);
                self.start_stream(begin, keeper, (link, rest), links);
            }
            (OpenWay::Tunnel, Way::Tunnel) => {
                send(&mut link, &Frame::Ready).await.map_err(|e| chain(&e))?;
                self.start((link, rest), engine);
            }
            _ => return refuse(link, "this side was told of another carrier".to_owned()).await,
        }
        Ok(())
    }

    /// Gives a new link to the stream of pages that has lost its own, or wants others besides.
    async fn receive_for_pages(
        &self,
        open: &Open,
        mut link: Link,
        rest: BytesMut,
    ) -> Result<(), String> {
        let coming = self.lock().coming.clone();
        match coming {
            Some(coming) if open.handoff == self.config.handoff && !coming.is_closed() => {
                let connection = if open.way == OpenWay::Join {
                    // The stream itself says that it is ready: what it says before is in order.
                    Coming::Joins((link, rest))
                } else {
                    send(&mut link, &Frame::Ready).await.map_err(|e| chain(&e))?;
                    Coming::Resumes((link, rest))
                };
                let outcome = coming.try_send(connection);
                outcome.map_err(|_| "too many links came for one stream".to_owned())
            }
            _ => refuse(link, "there is no stream here to go on with".to_owned()).await,
        }
    }

    /// Takes the turn to open a channel: one at a time. The source opens the next as soon as it
    /// hears that one is ready, which may be before the turn for that is over here.
    async fn take_turn(self: &Arc<Self>) -> Result<(PathBuf, Turn), String> {
        let Meet::Connect(path) = &self.config.engine else {
            return Err("the engine here connects, and nobody connects to it".to_owned());
        };
        let taking = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let mut state = self.lock();
                    if state.is_closing || state.problem.is_some() {
                        return None;
                    }
                    if !std::mem::replace(&mut state.is_opening, true) {
                        return Some(Turn(self.clone()));
                    }
                }
                changed.await;
            }
        };
        let taken = tokio::time::timeout(TURN_MAX, taking).await.ok().flatten();
        let turn = taken.ok_or_else(|| "a channel came out of turn".to_owned())?;
        Ok((path.clone(), turn))
    }

    /// The turn of the source, which alone opens its channels.
    fn turn(self: &Arc<Self>) -> Turn {
        self.lock().is_opening = true;
        Turn(self.clone())
    }

    /// Checks that this is the next channel. The reason goes to the peer.
    fn check(&self, open: &Open) -> Result<(), String> {
        let (next, connections) = (self.lock().channels.len(), self.config.connections);
        let &Open { version, channel, channels, handoff, .. } = open;
        if version != VERSION {
            Err(format!("this side speaks version {VERSION}, and was asked for {version}"))
        } else if handoff != self.config.handoff {
            Err(format!("this side carries {}", self.config.handoff))
        } else if u32::from(channels) != connections {
            Err(format!("this side expects {connections} channels, and was offered {channels}"))
        } else if usize::from(channel) != next || u32::from(channel) >= connections {
            Err(format!("channel {channel} came where {next} was expected"))
        } else {
            Ok(())
        }
    }

    // Either.

    fn start(self: &Arc<Self>, (link, buffer): Connection, engine: UnixStream) {
        let meter = Arc::new(Meter::new(Instant::now()));
        let throttle = self.throttle.clone();
        let carrying = channel::carry(link, buffer, engine, meter.clone(), throttle);
        self.start_channel(meter, carrying);
    }

    fn start_stream(
        self: &Arc<Self>,
        begin: Begin,
        keeper: Option<Keeper>,
        connection: Connection,
        links: Links,
    ) {
        self.lock().keeper = keeper;
        let meter = begin.meter.clone();
        self.start_channel(meter, Stream::new(begin).run(Some(connection), links));
    }

    fn start_channel(
        self: &Arc<Self>,
        meter: Arc<Meter>,
        carrying: impl Future<Output = Result<(), CarryError>> + Send + 'static,
    ) {
        let mut state = self.lock();
        let number = state.channels.len();
        state.channels.push(meter.clone());
        drop(state);
        self.attend(format!("channel {number}"), meter, carrying);
    }

    /// Carries what is called `name` until it ends, or the attempt does.
    fn attend(
        self: &Arc<Self>,
        name: String,
        meter: Arc<Meter>,
        carrying: impl Future<Output = Result<(), CarryError>> + Send + 'static,
    ) {
        self.lock().running += 1;
        let carrier = self.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = carrying => outcome,
                // Dropping it closes the engine's socket.
                () = carrier.lost() => Ok(()),
                () = carrier.released(&meter) => Ok(()),
            };
            carrier.ended(&name, outcome);
        });
    }

    fn ended(&self, name: &str, outcome: Result<(), CarryError>) {
        if let Err(error) = outcome {
            self.lose(format!("{name}: {}", chain(&error)));
        }
        let mut state = self.lock();
        state.running -= 1;
        state.needed = Instant::now();
        drop(state);
        self.changed.notify_waiters();
    }
}

/// The turn to open a channel; dropping it lets the next one in.
struct Turn(Arc<Carrier>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().is_opening = false;
        self.0.changed.notify_waiters();
    }
}

/// A channel that is open at the target, and that no engine here is connected to yet.
struct Opened {
    known: Option<Known>,
    answer: Frame,
    connection: Connection,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLink {
    /// Not now; perhaps later.
    #[error("{0}")]
    Unreachable(String),
    /// The peer was reached, and does not want it.
    #[error("{0}")]
    Refused(String),
}

fn words(problem: NoLink) -> String {
    problem.to_string()
}

impl From<String> for NoLink {
    fn from(problem: String) -> Self {
        NoLink::Unreachable(problem)
    }
}

/// Says no to the peer, and why; the reason is the outcome here, too.
async fn refuse(mut link: Link, reason: String) -> Result<(), String> {
    let refused = Frame::Refused { reason: reason.clone() };
    let _ = send(&mut link, &refused).await;
    Err(reason)
}

async fn connect(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), String> {
    match tokio::time::timeout(CONNECT_MAX, connect_first(addresses)).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err((error, Some(address)))) => Err(format!("{address}: {error}")),
        Ok(Err((_, None))) => Err("no address of the other host is known".to_owned()),
        Err(_) => Err("the other host did not answer".to_owned()),
    }
}

async fn connect_engine(path: &Path) -> Result<UnixStream, String> {
    let connected = tokio::time::timeout(ENGINE_MAX, UnixStream::connect(path)).await;
    match connected {
        Ok(Ok(engine)) => {
            // What waits here waits behind everything else: the engine's acceptance should mean
            // that it is about to read.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(&engine, ENGINE_BUFFER);
            Ok(engine)
        }
        Ok(Err(error)) => Err(format!("the engine at `{}`: {error}", path.display())),
        Err(_) => Err(format!("the engine at `{}` does not accept", path.display())),
    }
}

async fn send(link: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    link.write_all(&bytes).await?;
    link.flush().await
}

/// Reads the first frame, with a deadline, and what came behind it.
async fn greeting(link: &mut (impl AsyncRead + Unpin)) -> Result<(Frame, BytesMut), String> {
    let mut buffer = BytesMut::with_capacity(2 * REASON_BYTES_MAX);
    let mut parser = Parser::default();
    let read = tokio::time::timeout(CONNECT_MAX, async {
        loop {
            if let Some(frame) = parser.next(&mut buffer).map_err(|e| chain(&e))? {
                return Ok(frame);
            }
            match link.read_buf(&mut buffer).await {
                Ok(0) => return Err("the other side closed the connection".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(chain(&error)),
            }
        }
    });
    let frame = read.await.map_err(|_| "the other side did not answer".to_owned())??;
    Ok((frame, buffer))
}

/// Leaves the last status for a daemon that asks later.
fn write_status(directory: &Path, status: &Status) -> io::Result<()> {
    let fresh = directory.join("status.new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(status.to_json().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, directory.join(STATUS_FILE))
}
