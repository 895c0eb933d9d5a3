// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Pairing: what it is for, and attacks on it while an invitation is open.

use crate::lab::{PATIENCE, Papers};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use whimbrel_link::identity::Identity;
use whimbrel_link::listener::{Arrival, Doors, Limits, Listener, PairArrival};
use whimbrel_link::pairing::{self, Introduction, Invitation, PairError};
use whimbrel_link::tls::{Pins, Standing};
use whimbrel_model::id::{HostId, HostName};

struct Nobody;

impl Pins for Nobody {
    fn standing(&self, _host: HostId, _from: IpAddr) -> Standing {
        Standing::Stranger
    }
}

/// A host with an open invitation.
struct Inviting {
    identity: Arc<Identity>,
    invitation: Invitation,
    listener: Listener,
    arrivals: mpsc::Receiver<Arrival>,
    address: SocketAddr,
}

impl Inviting {
    async fn new() -> Self {
        let identity = Arc::new(Papers::fresh().identity());
        let (listener, arrivals) =
            Listener::new(identity.clone(), Arc::new(Nobody), Limits::default());
        let doors = Doors { is_open_to_peers: false, is_open_to_pairing: true };
        listener.open(&["127.0.0.1:0".parse().unwrap()], doors).await.unwrap();
        let address = listener.addresses()[0];
        let invitation = Invitation::draw(identity.id(), vec![address]);
        Self { identity, invitation, listener, arrivals, address }
    }

    async fn arrival(&mut self) -> PairArrival {
        loop {
            let arrival = tokio::time::timeout(PATIENCE, self.arrivals.recv());
            match arrival.await.unwrap().unwrap() {
                Arrival::Pair(arrival) => return arrival,
                Arrival::Refused(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Hears the next that knocks, and accepts it if it may.
    async fn hear(&mut self) -> Result<pairing::Paired, PairError> {
        let arrival = self.arrival().await;
        let proven = pairing::hear(&self.identity, &self.invitation, arrival).await?;
        proven.accept(&introduction("alpha", self.address)).await
    }
}

fn introduction(name: &str, address: SocketAddr) -> Introduction {
    Introduction { name: HostName::new(name).unwrap(), addresses: vec![address] }
}

/// Two hosts pair: each has the other's certificate, and both show the same words.
#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_come_to_know_each_other() {
    let mut alpha = Inviting::new().await;
    let beta = Papers::fresh();
    let token: Invitation = alpha.invitation.token().parse().unwrap();
    let address = "192.0.2.7:8002".parse().unwrap();
    let ours = introduction("beta", address);
    let identity = beta.identity();
    let (joined, heard) =
        tokio::join!(pairing::join(&identity, &ours, &token, PATIENCE), alpha.hear());
    let (there, here) = (joined.unwrap(), heard.unwrap());
    assert_eq!(there.words, here.words);
    assert_eq!((there.host, here.host), (alpha.identity.id(), identity.id()));
    assert_eq!(here.certificate, beta.certificate.to_vec());
    assert_eq!(here.introduction, ours);
    assert_eq!(there.introduction, introduction("alpha", alpha.address));
}

/// Who knows the address but not the key, or the key of an older invitation, stays outside.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused() {
    let mut alpha = Inviting::new().await;
    let identity = Papers::fresh().identity();
    // Made by the same host, and replaced by a newer one.
    let old = Invitation::draw(alpha.identity.id(), vec![alpha.address]);
    let ours = introduction("beta", alpha.address);
    let (joined, heard) =
        tokio::join!(pairing::join(&identity, &ours, &old, PATIENCE), alpha.hear());
    assert!(matches!(heard, Err(PairError::WrongKey)), "{heard:?}");
    assert!(joined.is_err());
}

/// A host in between has its own certificate, and the token says whose it must be.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_between_is_noticed() {
    let mut mallory = Inviting::new().await;
    let alpha = Papers::fresh().id();
    let fingerprint = |host: HostId| host.to_string();
    let token = mallory.invitation.token();
    let token = token.replace(&fingerprint(mallory.identity.id()), &fingerprint(alpha));
    let identity = Papers::fresh().identity();
    let ours = introduction("beta", mallory.address);
    let token = token.parse().unwrap();
    let (joined, heard) =
        tokio::join!(pairing::join(&identity, &ours, &token, PATIENCE), mallory.hear());
    assert!(heard.is_err());
    assert!(matches!(joined, Err(PairError::AnotherHost { .. })), "{joined:?}");
}

/// A host that says it made the invitation, and does not hold its key, cannot answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_inviting_host_must_prove_itself_too() {
    let mut alpha = Inviting::new().await;
    let identity = Papers::fresh().identity();
    let ours = introduction("beta", alpha.address);
    let invitation = alpha.invitation.clone();
    let (joined, _) = tokio::join!(pairing::join(&identity, &ours, &invitation, PATIENCE), async {
        let arrival = alpha.arrival().await;
        // It has forgotten the key, and makes another.
        let forged = Invitation::draw(alpha.identity.id(), vec![alpha.address]);
        pairing::hear(&alpha.identity, &forged, arrival).await.map(drop)
    });
    assert!(joined.is_err());
}

/// Nobody pairs with itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_does_not_join_itself() {
    let alpha = Inviting::new().await;
    let ours = introduction("alpha", alpha.address);
    let joined = pairing::join(&alpha.identity, &ours, &alpha.invitation, PATIENCE).await;
    assert!(matches!(joined, Err(PairError::Itself)));
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&length.to_be_bytes()[..], message].concat()
}

/// Field 1 is the proof, 2 the name, 3 an address.
fn request(proof: &[u8], name: &[u8], addresses: usize) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
    };
    let mut message = [field(1, proof), field(2, name)].concat();
    (0..addresses).for_each(|_| message.extend(field(3, b"192.0.2.1:1")));
    frame(&message)
}

/// Whatever is said while an invitation is open, only the key helps; nothing else of the port is
/// open; and afterwards the invitation is still good.
#[tokio::test(flavor = "multi_thread")]
async fn noise_does_not_pair() {
    let mut alpha = Inviting::new().await;
    let mallory = Papers::fresh();
    let attacks: [(&str, Vec<u8>); 13] = [
        ("nothing", vec![]),
        ("a frame of 4 GiB", vec![255; 100]),
        ("a frame of 5 KiB", frame(&[0; 5 << 10])),
        ("half a frame", vec![0, 0, 0, 40, 10, 32]),
        ("an empty request", frame(&[])),
        ("garbage", frame(&[0xff; 90])),
        ("a proof of zeros", request(&[0; 32], b"beta", 1)),
        ("a proof of ones", request(&[0xff; 32], b"beta", 1)),
        ("a proof of nothing", request(&[], b"beta", 1)),
        ("half a proof", request(&[7; 16], b"beta", 1)),
        ("a proof of 33 bytes", request(&[7; 33], b"beta", 1)),
        ("a proof with 100 addresses", request(&[7; 32], b"beta", 100)),
        ("the peer protocol", crate::tls::greeting_and_ping()),
    ];
    for (name, bytes) in attacks {
        let (address, host, papers) = (alpha.address, alpha.identity.id(), &mallory);
        let attack = async move {
            let mut stream =
                crate::tls::connect_for(address, b"whimbrel-pair/1", papers).await.unwrap();
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            (answer, host)
        };
        let ((answer, _), heard) = tokio::join!(attack, alpha.hear());
        assert!(heard.is_err(), "{name}: {heard:?}");
        assert!(answer.is_empty(), "{name}: {answer:?}");
    }
    let peer = crate::tls::connect_for(alpha.address, b"whimbrel-peer/1", &mallory).await;
    assert!(peer.is_err(), "relocation is disabled");
    let identity = Papers::fresh().identity();
    let ours = introduction("beta", alpha.address);
    let invitation = alpha.invitation.clone();
    let (joined, heard) =
        tokio::join!(pairing::join(&identity, &ours, &invitation, PATIENCE), alpha.hear());
    assert!(joined.is_ok() && heard.is_ok());
    alpha.listener.open(&[], Doors::default()).await.unwrap();
    assert!(tokio::net::TcpStream::connect(alpha.address).await.is_err(), "the port is closed");
}
