// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why a host cannot be reached, and what to do: the seed's "No route to host".

use super::{Finding, firewall};
use crate::codes;
use crate::facts::Firewall;
use std::net::IpAddr;

/// What became of the attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens there.
    Refused,
    /// A router or the host's firewall said so: `EHOSTUNREACH`, `ENETUNREACH`.
    NoRoute,
    /// Nobody answered: a firewall drops, or the host is off.
    TimedOut {
        seconds: u64,
    },
    /// This host does not let us out: `EACCES`, `EPERM` on connect.
    Denied,
    /// The name has no address.
    NameUnknown,
    /// It answered, and the two did not agree on who they are.
    Tls {
        reason: String,
    },
    Other {
        reason: String,
    },
}

impl Unreachable {
    /// Tells from the error of a `connect`.
    pub fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Unreachable::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Unreachable::NoRoute,
            ErrorKind::PermissionDenied => Unreachable::Denied,
            _ => Unreachable::Other { reason: error.to_string() },
        }
    }
}

/// Returns the finding for a host that cannot be reached.
pub fn unreachable(
    target: &str,
    address: Option<IpAddr>,
    port: u16,
    why: &Unreachable,
    firewall: Option<Firewall>,
) -> Finding {
    let place = match address {
        Some(address) => std::net::SocketAddr::new(address, port).to_string(),
        None => format!("port {port}"),
    };
    let rule = firewall::open_port(firewall, port, None);
    let open = format!("on `{target}`, let TCP port {port} in: {rule}");
    let (text, remedy) = match why {
        Unreachable::Refused => (
            "connection refused: nothing listens there".to_owned(),
            format!(
                "on `{target}`: `systemctl start whimbrel`, then `whimbrel relocation enable`; \
                 until then its port is closed"
            ),
        ),
        Unreachable::NoRoute => (
            "No route to host, which is what a firewall says that rejects".to_owned(),
            format!("{open}; or mend the route: `ip route get` shows it"),
        ),
        Unreachable::TimedOut { seconds } => {
            (format!("no answer within {seconds} s: a firewall drops, or the host is off"), open)
        }
        Unreachable::Denied => (
            "this host does not let the connection out".to_owned(),
            format!(
                "look for the denial with `ausearch -m avc -ts recent` (SELinux: `semanage port -a \
                 -t virt_migration_port_t -p tcp {port}`) or in this host's firewall"
            ),
        ),
        Unreachable::NameUnknown => (
            "its name has no address".to_owned(),
            "correct the address, or pair again with `whimbrel host join`".to_owned(),
        ),
        Unreachable::Tls { reason } => (
            format!("it answered, and is not the host that was paired: {reason}"),
            format!(
                "if `{target}` was installed anew, forget it and pair again: `whimbrel host forget \
                 {target}`, then `whimbrel host join`"
            ),
        ),
        Unreachable::Other { reason } => (reason.clone(), open),
    };
    let text = format!("cannot connect to `{target}` ({place}): {text}");
    Finding::blocker(codes::PLAN_UNREACHABLE, text, remedy)
}
