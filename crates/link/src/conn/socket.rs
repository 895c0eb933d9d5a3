// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How a TCP connection between hosts notices that the other end is gone.

use rustix::net::sockopt;
use std::os::fd::AsFd;
use std::time::Duration;

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
