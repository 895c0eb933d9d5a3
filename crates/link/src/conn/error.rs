// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Why a peer could not be asked, or did not answer.

use crate::frame::FrameError;
use crate::tls::HandshakeError;
use crate::wire::WireError;
use std::io;
use std::net::SocketAddr;
use whimbrel_model::codes;
use whimbrel_model::id::{HostId, HostName};
use whimbrel_model::plan::reach::{Unreachable, unreachable};
use whimbrel_model::plan::{Finding, Severity};
use whimbrel_model::problem::{Kind, Problem, Remedy, chain};

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no address of `{host}` is known")]
    NoAddress { host: HostName },
    #[error(
        "`{host}` refuses connections at {address}: relocation is disabled there, or no daemon runs"
    )]
    Closed {
        host: HostName,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot reach `{host}` at {address}")]
    Unreachable {
        host: HostName,
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("`{host}` did not answer at {address} within {seconds} s")]
    Silent { host: HostName, address: SocketAddr, seconds: u64 },
    #[error("at {address} answers another host than `{host}`: its fingerprint is {found}")]
    AnotherHost { host: HostName, address: SocketAddr, found: HostId },
    #[error(
        "`{host}` does not let this host in: it has forgotten it, or its `hosts_allow` does not \
         list it"
    )]
    NotAllowed { host: HostName },
    #[error("`{host}` closed the connection during the handshake")]
    Handshake {
        host: HostName,
        #[source]
        source: HandshakeError,
    },
    #[error(
        "`{host}` speaks versions {min} to {max} of the peer protocol ({software}), and this host \
         others"
    )]
    Version { host: HostName, min: u32, max: u32, software: String },
    #[error("the connection to `{host}` failed")]
    Frame {
        host: HostName,
        #[source]
        source: FrameError,
    },
    #[error("`{host}` said something that makes no sense")]
    Nonsense {
        host: HostName,
        #[source]
        source: WireError,
    },
}

impl Remedy for ConnectError {
    fn code(&self) -> &'static str {
        match self {
            ConnectError::NoAddress { .. } => "peer/no-address",
            ConnectError::Closed { .. } => "peer/closed",
            ConnectError::Unreachable { .. } => "peer/unreachable",
            ConnectError::Silent { .. } => "peer/silent",
            ConnectError::AnotherHost { .. } => "peer/another-host",
            ConnectError::NotAllowed { .. } => "peer/not-allowed",
            ConnectError::Handshake { .. } => "peer/handshake",
            ConnectError::Version { .. } => "peer/version",
            ConnectError::Frame { .. } => "peer/lost",
            ConnectError::Nonsense { .. } => "peer/nonsense",
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        match self {
            ConnectError::NoAddress { .. } | ConnectError::AnotherHost { .. } => {
                "pair again: `whimbrel host invite` there and `whimbrel host join` here".to_owned()
            }
            ConnectError::Closed { host, .. } => {
                format!("on `{host}`, start the daemon and run `whimbrel relocation enable`")
            }
            ConnectError::Unreachable { host, address, .. }
            | ConnectError::Silent { host, address, .. } => format!(
                "check the network and that the firewall of `{host}` lets TCP port {} in",
                address.port()
            ),
            ConnectError::NotAllowed { host } => format!(
                "on `{host}`, look at `whimbrel host list` and `hosts_allow`; its log says which \
                 of the two it was"
            ),
            ConnectError::Handshake { host, .. } => {
                format!("look at the log of `{host}`: it says why")
            }
            ConnectError::Version { .. } => "install the same release on both hosts".to_owned(),
            ConnectError::Frame { .. } => "try again once the link is stable".to_owned(),
            ConnectError::Nonsense { .. } => {
                "install the same release on both hosts; if they have it, report this".to_owned()
            }
        }
    }
}

impl ConnectError {
    /// What a plan says of a host that cannot be asked.
    pub fn finding(&self) -> Finding {
        match self {
            ConnectError::Closed { host, .. }
            | ConnectError::Unreachable { host, .. }
            | ConnectError::Silent { host, .. }
            | ConnectError::AnotherHost { host, .. } => {
                let (address, why) = self.fact();
                let address = address.expect("these four have tried one");
                unreachable(host.as_str(), Some(address.ip()), address.port(), &why, None)
            }
            ConnectError::NotAllowed { .. } => self.as_finding(codes::PLAN_ALLOWED),
            ConnectError::Version { .. } => self.as_finding(codes::PLAN_PROTOCOL),
            ConnectError::NoAddress { .. }
            | ConnectError::Handshake { .. }
            | ConnectError::Frame { .. }
            | ConnectError::Nonsense { .. } => self.as_finding(codes::PLAN_UNREACHABLE),
        }
    }

    /// What a fact says of a host that cannot be reached: where it was looked for, and why not.
    pub fn fact(&self) -> (Option<SocketAddr>, Unreachable) {
        match self {
            ConnectError::Closed { address, .. } => (Some(*address), Unreachable::Refused),
            ConnectError::Unreachable { address, source, .. } => {
                (Some(*address), Unreachable::of(source))
            }
            ConnectError::Silent { address, seconds, .. } => {
                (Some(*address), Unreachable::TimedOut { seconds: *seconds })
            }
            ConnectError::AnotherHost { address, found, .. } => {
                let reason = format!("its fingerprint is {found}");
                (Some(*address), Unreachable::Tls { reason })
            }
            ConnectError::NoAddress { .. } => (None, Unreachable::NameUnknown),
            ConnectError::NotAllowed { .. }
            | ConnectError::Version { .. }
            | ConnectError::Handshake { .. }
            | ConnectError::Frame { .. }
            | ConnectError::Nonsense { .. } => (None, Unreachable::Other { reason: chain(self) }),
        }
    }

    fn as_finding(&self, code: &'static str) -> Finding {
        Finding { severity: Severity::Blocker, code, text: chain(self), remedy: self.remedy() }
    }
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The peer's own words.
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection to `{host}` was lost")]
    Lost {
        host: HostName,
        #[source]
        source: FrameError,
    },
    #[error("`{host}` closed the connection without an answer")]
    Ended { host: HostName },
    #[error("`{host}` did not answer within {seconds} s")]
    Silent { host: HostName, seconds: u64 },
    #[error("`{host}` said something that makes no sense")]
    Nonsense {
        host: HostName,
        #[source]
        source: WireError,
    },
    #[error("`{host}` answered something else than was asked")]
    OffTopic { host: HostName },
}

impl RequestError {
    /// Returns the problem as a person sees it: the peer's own where it named one.
    pub fn problem(&self) -> Problem {
        match self {
            RequestError::Problem(problem) => problem.clone(),
            RequestError::Connect(error) => Problem::from(error),
            other => Problem {
                kind: Kind::Failed,
                code: other.code().to_owned(),
                text: whimbrel_model::problem::chain(other),
                remedy: other.remedy(),
            },
        }
    }

    fn code(&self) -> &'static str {
        match self {
            RequestError::Problem(_) => "peer/problem",
            RequestError::Connect(error) => error.code(),
            RequestError::Lost { .. } | RequestError::Ended { .. } => "peer/lost",
            RequestError::Silent { .. } => "peer/silent",
            RequestError::Nonsense { .. } | RequestError::OffTopic { .. } => "peer/nonsense",
        }
    }

    fn remedy(&self) -> String {
        match self {
            RequestError::Problem(problem) => problem.remedy.clone(),
            RequestError::Connect(error) => error.remedy(),
            RequestError::Lost { .. } | RequestError::Ended { .. } => {
                "try again; the log of the other host may say why".to_owned()
            }
            RequestError::Silent { host, .. } => {
                format!("look at the load and the log of `{host}`")
            }
            RequestError::Nonsense { .. } | RequestError::OffTopic { .. } => {
                "install the same release on both hosts; if they have it, report this".to_owned()
            }
        }
    }
}
