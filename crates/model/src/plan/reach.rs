// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why a host cannot be reached, and what to do: the seed's "No route to host".

use super::{Finding, firewall};
use crate::codes;
use crate::facts::{Denial, Firewall};
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
    /// This host does not let us out: `EACCES`, `EPERM` on connect. Who says so, where it is known.
    Denied {
        denial: Option<Denial>,
    },
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
            ErrorKind::PermissionDenied => Unreachable::Denied { denial: None },
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
        Unreachable::Denied { denial } => denied(port, denial.as_ref()),
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

/// Says who keeps the connection in, and what lets it out.
fn denied(port: u16, denial: Option<&Denial>) -> (String, String) {
    let selinux = format!("`semanage port -a -t virt_migration_port_t -p tcp {port}`");
    match denial {
        Some(Denial::Selinux { record }) => {
            (format!("SELinux does not let the connection out: {record}"), selinux)
        }
        Some(Denial::Apparmor { record }) => (
            format!("AppArmor does not let the connection out: {record}"),
            "add `network inet stream,` to the profile's file in /etc/apparmor.d/local, then \
             `systemctl reload apparmor`"
                .to_owned(),
        ),
        Some(_) | None => (
            "this host does not let the connection out".to_owned(),
            format!(
                "look for the denial with `ausearch -m avc -ts recent` (SELinux: {selinux}) or in \
                 this host's firewall"
            ),
        ),
    }
}
