// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How a TCP connection between hosts begins, and how it notices that the other end is gone.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::net::TcpStream;

/// The next address is tried when the one before has not answered for this long.
pub(super) const STAGGER: Duration = Duration::from_millis(300);

/// A link that carries nothing is probed after this long, and this often.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_COUNT: u32 = 3;

/// How long sent bytes may stay unacknowledged before the link counts as cut.
const UNACKNOWLEDGED_MS_MAX: u32 = 10_000;

/// Sets what every connection between hosts has: no delay for small messages, and an end for a
/// half-open one. A kernel that refuses an option leaves a link that notices later; no reason to
/// do without.
pub(crate) fn tune(socket: impl AsFd) {
    let socket = socket.as_fd();
    let outcomes = [
        sockopt::set_tcp_nodelay(socket, true),
        sockopt::set_socket_keepalive(socket, true),
        sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE),
        sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL),
        sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT),
        sockopt::set_tcp_user_timeout(socket, UNACKNOWLEDGED_MS_MAX),
    ];
    for error in outcomes.into_iter().filter_map(Result::err) {
        tracing::debug!(%error, "a socket option was refused");
    }
}

/// Connects to the first address that answers. An address that swallows packets holds the others up
/// for a moment only. Without an answer, the error is that of the address that was tried first.
pub(crate) async fn connect_first(
    addresses: &[SocketAddr],
) -> Result<(TcpStream, SocketAddr), (io::Error, Option<SocketAddr>)> {
    let mut attempts: FuturesUnordered<_> = (0u32..)
        .zip(addresses)
        .map(|(index, &address)| async move {
            tokio::time::sleep(STAGGER * index).await;
            (index, address, TcpStream::connect(address).await)
        })
        .collect();
    let mut first: Option<(u32, SocketAddr, io::Error)> = None;
    while let Some((index, address, outcome)) = attempts.next().await {
        match outcome {
            Ok(tcp) => {
                tune(&tcp);
                return Ok((tcp, address));
            }
            Err(error) if first.as_ref().is_none_or(|(known, ..)| index < *known) => {
                first = Some((index, address, error));
            }
            Err(_) => {}
        }
    }
    match first {
        Some((_, address, error)) => Err((error, Some(address))),
        None => Err((io::ErrorKind::AddrNotAvailable.into(), None)),
    }
}
