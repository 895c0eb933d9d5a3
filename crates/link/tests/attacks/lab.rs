// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A host under attack, its one peer, and everybody else.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use whimbrel_link::conn::{Dialer, Incoming, PeerAddress};
use whimbrel_link::identity::Identity;
use whimbrel_link::listener::{Arrival, Doors, Limits, Listener};
use whimbrel_link::tls::{Pins, Standing};
use whimbrel_link::wire::{Hello, PeerStatus, Request};
use whimbrel_model::id::{HostId, HostName};
use whimbrel_model::units::Bytes;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate and its key, as an attacker might combine them.
pub(crate) struct Papers {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Clone for Papers {
    fn clone(&self) -> Self {
        Papers { certificate: self.certificate.clone(), key: self.key.clone_key() }
    }
}

impl Papers {
    pub(crate) fn new(params: CertificateParams, key: &KeyPair) -> Self {
        let certificate = params.self_signed(key).unwrap().der().clone();
        Papers { certificate, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    pub(crate) fn fresh() -> Self {
        Self::new(CertificateParams::default(), &KeyPair::generate().unwrap())
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::join(self.certificate.clone(), self.key.clone_key()).unwrap()
    }

    pub(crate) fn id(&self) -> HostId {
        self.identity().id()
    }
}

struct Board {
    friend: HostId,
    forgotten: HostId,
    unlisted: HostId,
}

impl Pins for Board {
    fn standing(&self, host: HostId, _from: IpAddr) -> Standing {
        let name = |name: &str| HostName::new(name).unwrap();
        match host {
            host if host == self.friend => Standing::Paired(name("friend")),
            host if host == self.forgotten => Standing::Forgotten(name("forgotten")),
            host if host == self.unlisted => Standing::NotAllowed(name("unlisted")),
            _ => Standing::Stranger,
        }
    }
}

/// What came through the port.
#[derive(Default)]
pub(crate) struct Seen {
    /// Streams of authenticated peers.
    pub(crate) peers: AtomicUsize,
    /// Requests that were understood.
    pub(crate) requests: AtomicUsize,
    pub(crate) carried: AtomicUsize,
    pub(crate) pairings: AtomicUsize,
}

pub(crate) struct Lab {
    pub(crate) listener: Listener,
    pub(crate) address: SocketAddr,
    pub(crate) host: HostId,
    pub(crate) friend: Papers,
    pub(crate) forgotten: Papers,
    pub(crate) unlisted: Papers,
    pub(crate) seen: Arc<Seen>,
    dialer: Dialer,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let papers = Papers::fresh();
        let [friend, forgotten, unlisted] = [(); 3].map(|()| Papers::fresh());
        let board =
            Board { friend: friend.id(), forgotten: forgotten.id(), unlisted: unlisted.id() };
        let identity = Arc::new(papers.identity());
        let (listener, mut arrivals) = Listener::new(identity, Arc::new(board), Limits::default());
        let doors = Doors { is_open_to_peers: true, is_open_to_pairing: false };
        listener.open(&["127.0.0.1:0".parse().unwrap()], doors).await.unwrap();
        let address = listener.addresses()[0];
        let seen = Arc::new(Seen::default());
        let witness = seen.clone();
        tokio::spawn(async move {
            while let Some(arrival) = arrivals.recv().await {
                tokio::spawn(serve(arrival, witness.clone()));
            }
        });
        let hello = Hello::ours(HostName::new("friend").unwrap());
        let dialer = Dialer::new(Arc::new(friend.identity()), hello);
        let host = papers.id();
        Self { listener, address, host, friend, forgotten, unlisted, seen, dialer }
    }

    /// The friend asks something, from an address of its own.
    pub(crate) async fn is_served(&self) -> bool {
        let name = HostName::new("victim").unwrap();
        let peer = PeerAddress { host: self.host, name, addresses: vec![self.address] };
        match self.dialer.connect(&peer, PATIENCE).await {
            Ok(connection) => connection.ping().await.is_ok(),
            Err(_) => false,
        }
    }

    /// Lets a stranger attack, and checks that nothing came of it.
    pub(crate) async fn strike(&self, name: &str, attack: impl Future<Output = ()>) {
        let count = || {
            let seen = &self.seen;
            [&seen.peers, &seen.requests, &seen.carried, &seen.pairings]
                .map(|count| count.load(Ordering::SeqCst))
        };
        let before = count();
        let ended = tokio::time::timeout(PATIENCE, attack).await;
        assert!(ended.is_ok(), "{name}: the attacker was neither refused nor let go");
        assert_eq!(count(), before, "{name}: something got in");
        assert!(self.is_served().await, "{name}: the friend is not served any more");
    }
}

async fn serve(arrival: Arrival, seen: Arc<Seen>) {
    let add = |count: &AtomicUsize| _ = count.fetch_add(1, Ordering::SeqCst);
    match arrival {
        Arrival::Carry(_) => add(&seen.carried),
        Arrival::Pair(_) => add(&seen.pairings),
        Arrival::Refused(_) => {}
        Arrival::Peer(stream) => {
            add(&seen.peers);
            let hello = Hello::ours(HostName::new("victim").unwrap());
            let Ok(incoming) = Incoming::receive(stream, &hello).await else { return };
            add(&seen.requests);
            if incoming.request == Request::Ping {
                let status = PeerStatus {
                    software: "test".to_owned(),
                    engine: "none".to_owned(),
                    memory_free: Bytes(1),
                    memory_total: Bytes(2),
                    guest_count: 0,
                    is_in_maintenance: false,
                };
                let _ = incoming.responder.status(status).await;
            }
        }
    }
}
