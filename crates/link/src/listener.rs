// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! The one open port, and who is behind a connection to it.
//!
//! ```text
//!   accept -> a place (global, per address) -> peek at the ClientHello -> by its ALPN:
//!      whimbrel-peer/1    handshake with pinned hosts -> Arrival::Peer
//!      whimbrel-carry/1   handed over untouched, by its server name -> Arrival::Carry
//!      whimbrel-pair/1    only while an invitation is open -> Arrival::Pair
//!      anything else      refused
//! ```
//!
//! The first bytes are only peeked at, so that a channel of a migration can be handed to the
//! process that carries it, which does the handshake itself. A refusal is one line in the log;
//! under a flood the lines are counted instead.
//!
//! While every door is shut there is no socket at all: the port is closed.

mod limits;
mod peek;
mod refusal;

pub use limits::Limits;
pub use refusal::Refusal;

use crate::conn::tune;
use crate::identity::Identity;
use crate::tls::{self, PeerStream, Pins};
use limits::{Gate, Place};
use peek::Wanted;
use refusal::Refusals;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use whimbrel_model::id::HandoffId;
use whimbrel_model::problem::{Kind, Remedy};

/// The port of the peer protocol, where the configuration names none.
pub const PORT: u16 = 8002;

/// Connections that wait for the daemon.
const QUEUE_MAX: usize = 64;

/// After a failed `accept` (out of descriptors), the next one waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which protocols are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// Relocation is enabled.
    pub is_open_to_peers: bool,
    /// An invitation is open.
    pub is_open_to_pairing: bool,
}

impl Doors {
    fn is_shut(self) -> bool {
        !self.is_open_to_peers && !self.is_open_to_pairing
    }
}

/// Somebody who may be spoken to.
#[derive(Debug)]
pub enum Arrival {
    Peer(PeerStream),
    Carry(CarryArrival),
    Pair(PairArrival),
    /// Somebody was turned away: who and why, in one line for the log.
    Refused(String),
}

/// A channel of a migration, not one byte of it read. Who sent it is not known yet: the carrying
/// process finds out.
#[derive(Debug)]
pub struct CarryArrival {
    pub handoff: HandoffId,
    pub from: SocketAddr,
    pub stream: std::net::TcpStream,
}

/// A host that wants to pair, not one byte read.
#[derive(Debug)]
pub struct PairArrival {
    pub from: SocketAddr,
    pub(crate) stream: TcpStream,
    pub(crate) _place: Place,
}

/// Why the port is not open.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

impl Remedy for ListenError {
    fn code(&self) -> &'static str {
        "relocation/cannot-listen"
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => format!(
                "see who listens there with `ss -ltnp 'sport = :{}'`, or set another \
                 `[relocation] port`",
                self.address.port()
            ),
            _ => "set `[relocation] address` to an address of this host".to_owned(),
        }
    }
}

/// The port, open or closed.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    /// The task behind each open socket.
    open: Mutex<HashMap<SocketAddr, Open>>,
}

#[derive(Debug)]
struct Open {
    local: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    identity: Arc<Identity>,
    pins: Arc<dyn Pins>,
    doors: RwLock<Doors>,
    gate: Gate,
    refusals: Refusals,
    arrivals: mpsc::Sender<Arrival>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Listener {
    /// Makes a closed port. Whoever gets in comes out of the receiver.
    pub fn new(
        identity: Arc<Identity>,
        pins: Arc<dyn Pins>,
        limits: Limits,
    ) -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, receiver) = mpsc::channel(QUEUE_MAX);
        let shared = Shared {
            identity,
            pins,
            doors: RwLock::default(),
            gate: Gate::new(limits),
            refusals: Refusals::default(),
            arrivals,
        };
        (Self { shared: Arc::new(shared), open: Mutex::default() }, receiver)
    }

    /// Opens the port on exactly these addresses, with these doors. With every door shut, or
    /// without addresses, nothing listens. If one address cannot be had, nothing changes.
    ///
    /// Connections that are already in stay.
    pub async fn open(&self, addresses: &[SocketAddr], doors: Doors) -> Result<(), ListenError> {
        let wanted = if doors.is_shut() { &[] } else { addresses };
        let mut fresh = Vec::new();
        for &address in wanted {
            if self.opened().contains_key(&address) {
                continue;
            }
            let listener = TcpListener::bind(address).await;
            fresh.push((address, listener.map_err(|source| ListenError { address, source })?));
        }
        *self.shared.doors.write().unwrap_or_else(PoisonError::into_inner) = doors;
        let closed: Vec<_> = {
            let mut opened = self.opened();
            let closed = opened.extract_if(|address, _| !wanted.contains(address)).collect();
            for (address, listener) in fresh {
                let local = listener.local_addr().unwrap_or(address);
                let task = tokio::spawn(self.shared.clone().accept(listener));
                opened.insert(address, Open { local, task });
            }
            closed
        };
        for (_, mut open) in closed {
            // Its port is closed only when the task is gone. It ends with nothing but our word.
            open.task.abort();
            let _ = (&mut open.task).await;
        }
        Ok(())
    }

    /// The addresses that are listened on, in no order; with the real port where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.opened().values().map(|open| open.local).collect()
    }

    /// How many connections were refused since the start.
    pub fn refused_count(&self) -> u64 {
        self.shared.refusals.count()
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((tcp, from)) => self.admit(tcp, from),
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, tcp: TcpStream, from: SocketAddr) {
        // IPv4 clients of a socket that serves both families count as IPv4.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let place = match self.gate.enter(from.ip()) {
            Ok(place) => place,
            Err(refusal) => return self.refuse(from, &refusal),
        };
        let shared = self.clone();
        tokio::spawn(async move {
            match shared.receive(tcp, from, place).await {
                // The receiver is gone only when the daemon ends.
                Ok(arrival) => _ = shared.arrivals.send(arrival).await,
                Err(refusal) => shared.refuse(from, &refusal),
            }
        });
    }

    /// Says so in one line. A flood is counted instead, and holds nobody up.
    fn refuse(&self, from: SocketAddr, refusal: &Refusal) {
        if let Some(line) = self.refusals.line(from, refusal) {
            // Where the queue is full the daemon has better things to do.
            let _ = self.arrivals.try_send(Arrival::Refused(line));
        }
    }

    async fn receive(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
        place: Place,
    ) -> Result<Arrival, Refusal> {
        tune(&tcp);
        let wanted = tokio::time::timeout(tls::HANDSHAKE_MAX, peek::wanted(&tcp)).await;
        let wanted = wanted.unwrap_or(Err(Refusal::Late))?;
        let doors = *self.doors.read().unwrap_or_else(PoisonError::into_inner);
        match wanted {
            Wanted::Peer if doors.is_open_to_peers => {
                let accepted = tls::accept_peer(&self.identity, self.pins.clone(), tcp, from).await;
                let mut peer = accepted.map_err(Refusal::Handshake)?;
                peer.hold(self.gate.promote(place)?);
                Ok(Arrival::Peer(peer))
            }
            Wanted::Carry(handoff) if doors.is_open_to_peers => {
                let stream = tcp.into_std().map_err(Refusal::Io)?;
                Ok(Arrival::Carry(CarryArrival { handoff, from, stream }))
            }
            Wanted::Pair if doors.is_open_to_pairing => {
                Ok(Arrival::Pair(PairArrival { from, stream: tcp, _place: place }))
            }
            Wanted::Peer | Wanted::Carry(_) => Err(Refusal::RelocationDisabled),
            Wanted::Pair => Err(Refusal::NoInvitation),
        }
    }
}
