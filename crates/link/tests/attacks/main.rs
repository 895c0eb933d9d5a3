// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! A hundred kinds of attack on the port. Each is refused, not one stranger's byte of the peer
//! protocol is parsed, and after each the host still serves the peer it is paired with.

#![allow(clippy::unwrap_used, reason = "a test program")]

mod lab;
mod paired;
mod pairing;
mod raw;
mod tls;

use lab::{Lab, PATIENCE};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use whimbrel_link::listener::Doors;

/// Attacks by somebody who holds no key of a paired host.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let lab = Lab::new().await;
    let mut count = 0;
    for attack in raw::attacks() {
        lab.strike(&attack.name, raw::strike(&lab, &attack)).await;
        count += 1;
    }
    for attack in tls::attacks(&lab) {
        let name = attack.name.clone();
        lab.strike(&name, tls::strike(&lab, attack)).await;
        count += 1;
    }
    assert!(count >= 100, "{count}");
    assert!(lab.listener.refused_count() >= 90, "{}", lab.listener.refused_count());
}

/// Strangers that hold a connection open and say nothing, or a hello byte by byte, are let go after
/// the handshake's time; meanwhile they take only their own address's places.
#[tokio::test(flavor = "multi_thread")]
async fn slow_strangers_are_let_go() {
    let lab = Lab::new().await;
    let hello = tls::a_hello();
    let mut idle = Vec::new();
    for index in 0..40usize {
        let socket = TcpSocket::new_v4().unwrap();
        // Half of them are one attacker; the rest have an address each.
        let last = if index % 2 == 0 { 2 } else { 3 + u8::try_from(index).unwrap() };
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        let mut stream = socket.connect(lab.address).await.unwrap();
        // None, or a part, or all of a hello.
        let said = hello.len() * (index % 5) / 4;
        let _ = stream.write_all(&hello[..said]).await;
        idle.push(stream);
    }
    assert!(lab.is_served().await, "others are kept out");
    let began = Instant::now();
    for mut stream in idle {
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "one is still there after {:?}", began.elapsed());
    }
    assert!(lab.is_served().await);
    assert_eq!(lab.seen.peers.load(Ordering::SeqCst), 2);
}

/// A thousand connections from one address: most are refused at once, none gets in, and the friend,
/// from its own address, is served all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_does_not_drown_the_friend() {
    let lab = Lab::new().await;
    let mut flood = Vec::new();
    for round in 0..10 {
        for _ in 0..100 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
            flood.push(socket.connect(lab.address).await.unwrap());
        }
        assert!(lab.is_served().await, "in round {round}");
    }
    assert!(lab.listener.refused_count() >= 900, "{}", lab.listener.refused_count());
    drop(flood);
    assert_eq!(lab.seen.requests.load(Ordering::SeqCst), 10);
}

/// A port that is closed is closed: there is no socket, whatever certificate one has.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_closed() {
    let lab = Lab::new().await;
    let here = [lab.address];
    lab.listener.open(&here, Doors::default()).await.unwrap();
    assert!(!lab.is_served().await);
    assert!(TcpStream::connect(lab.address).await.is_err());
    let doors = Doors { is_open_to_peers: true, is_open_to_pairing: false };
    lab.listener.open(&here, doors).await.unwrap();
    assert!(lab.is_served().await);
}
