// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! How two hosts come to know each other.
//!
//! ```text
//!   host that invites                        host that joins
//!   Invitation::draw -> text ---- a person ---> Invitation::parse
//!   the port opens for pairing
//!              <---- TLS, ALPN whimbrel-pair/1, both show certificates ----
//!              the joining host knows the fingerprint from the text
//!              <---- PairRequest: proof, name, addresses ------------------
//!   Proven; pin it durably
//!              ----- PairAccepted: proof, name, addresses --------------->  pin it durably
//! ```
//!
//! A proof is a keyed BLAKE3 over both certificates and a secret exported from this very TLS
//! connection: it shows that the other side holds the one-time key *and* is the end of this
//! connection, so there is nobody in between. Proofs of the two sides differ, so neither can be
//! sent back. The key itself never travels.

mod invitation;

pub use invitation::{
    Invitation, LIFETIME, OpenInvitation, TOKEN_BYTES_MAX, TokenError, WRONG_KEYS_MAX,
};

use crate::conn::connect_first;
use crate::frame::{self, FrameError, FrameReader, PAIR_FRAME_BYTES_MAX};
use crate::identity::Identity;
use crate::listener::PairArrival;
use crate::proto;
use crate::tls::{self, ALPN_PAIR, HandshakeError, Pins, Standing};
use crate::wire::WireError;
use crate::wire::convert::{self, Wire};
use crate::words;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use whimbrel_model::id::{HostId, HostName};
use whimbrel_model::problem::{Kind, Problem, Remedy};

/// How long the exchange may take once the connection stands.
pub const EXCHANGE_MAX: Duration = Duration::from_secs(10);

/// Most addresses a host may say it has.
pub const ADDRESSES_MAX: usize = 16;

const EXPORT_LABEL: &[u8] = b"EXPORTER-whimbrel-pair-1";

/// What a host tells the other about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    pub name: HostName,
    /// Where it can be reached, best first.
    pub addresses: Vec<SocketAddr>,
}

/// The other host, proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paired {
    pub host: HostId,
    pub introduction: Introduction,
    /// DER, to be pinned.
    pub certificate: Vec<u8>,
    /// What both sides show.
    pub words: String,
}

/// Why two hosts did not pair.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("cannot reach the inviting host at {}", list(.addresses))]
    Unreachable {
        addresses: Vec<SocketAddr>,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the host at {address} is not the one that made this invitation: its fingerprint is {found}"
    )]
    AnotherHost { address: SocketAddr, found: HostId },
    #[error("the TLS handshake failed")]
    Handshake(#[source] HandshakeError),
    #[error("the other host does not know the one-time key of this invitation")]
    WrongKey,
    #[error("the other host did not answer within {} s", EXCHANGE_MAX.as_secs())]
    Late,
    #[error("the connection ended too early; the invitation may be used up or have expired")]
    Ended,
    #[error("the connection failed")]
    Frame(#[source] FrameError),
    #[error("the other host said something that makes no sense")]
    Nonsense(#[source] WireError),
    #[error("this host cannot pair with itself")]
    Itself,
    /// The other host's own words.
    #[error(transparent)]
    Refused(#[from] Problem),
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

impl Remedy for PairError {
    fn code(&self) -> &'static str {
        match self {
            PairError::Unreachable { .. } => "pair/unreachable",
            PairError::AnotherHost { .. } => "pair/another-host",
            PairError::Handshake(_) => "pair/handshake",
            PairError::WrongKey => "pair/wrong-key",
            PairError::Late => "pair/late",
            PairError::Ended => "pair/ended",
            PairError::Frame(_) => "pair/lost",
            PairError::Nonsense(_) => "pair/nonsense",
            PairError::Itself => "pair/itself",
            PairError::Refused(_) => "pair/refused",
        }
    }

    fn kind(&self) -> Kind {
        Kind::Refused
    }

    fn remedy(&self) -> String {
        match self {
            PairError::Unreachable { addresses, .. } => {
                let port = addresses.first().map_or(crate::listener::PORT, SocketAddr::port);
                format!("let TCP port {port} in at the inviting host, and check the addresses")
            }
            PairError::Refused(problem) => problem.remedy.clone(),
            PairError::Itself => "run `whimbrel host join` on the other host".to_owned(),
            PairError::AnotherHost { .. }
            | PairError::Handshake(_)
            | PairError::WrongKey
            | PairError::Late
            | PairError::Ended
            | PairError::Frame(_)
            | PairError::Nonsense(_) => {
                "make a new invitation with `whimbrel host invite` and join with that".to_owned()
            }
        }
    }
}

/// Joins the host that made `invitation`. Pin what this returns.
pub async fn join(
    identity: &Identity,
    ours: &Introduction,
    invitation: &Invitation,
    deadline: Duration,
) -> Result<Paired, PairError> {
    if invitation.host() == identity.id() {
        return Err(PairError::Itself);
    }
    let unreachable = |source| {
        let addresses = invitation.addresses().to_vec();
        PairError::Unreachable { addresses, source }
    };
    let reached = tokio::time::timeout(deadline, connect_first(invitation.addresses())).await;
    let (tcp, address) = match reached {
        Ok(reached) => reached.map_err(|(error, _)| unreachable(error))?,
        Err(_) => return Err(unreachable(std::io::ErrorKind::TimedOut.into())),
    };
    let name = "pair.whimbrel".to_owned();
    let tls = tls::connect(identity, invitation.host(), ALPN_PAIR, name, tcp).await;
    let tls = tls.map_err(|error| match error {
        HandshakeError::AnotherHost { found } => PairError::AnotherHost { address, found },
        other => PairError::Handshake(other),
    })?;
    let session = tls.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first).expect("it was verified");
    let certificate = certificate.to_vec();
    let secret = export(|out| session.export_keying_material(out, EXPORT_LABEL, None))?;
    let proofs = Proofs::new(invitation, identity.id(), &secret);
    within(ask(tls, ours, invitation, certificate, proofs)).await
}

async fn ask(
    mut tls: tokio_rustls::client::TlsStream<TcpStream>,
    ours: &Introduction,
    invitation: &Invitation,
    certificate: Vec<u8>,
    proofs: Proofs,
) -> Result<Paired, PairError> {
    let request = proto::PairRequest {
        proof: proofs.joining.as_bytes().to_vec(),
        host_name: ours.name.to_string(),
        addresses: ours.addresses.iter().map(SocketAddr::to_string).collect(),
    };
    let sent = frame::send(&mut tls, &request, PAIR_FRAME_BYTES_MAX).await;
    // A host that hung up already may have left its reason.
    let mut reader = FrameReader::new(tls, PAIR_FRAME_BYTES_MAX);
    let answer = reader.next::<proto::PairAnswer>().await;
    let answer = match (answer, sent) {
        (Ok(Some(answer)), _) => answer,
        (Ok(None), Ok(())) => return Err(PairError::Ended),
        (Err(error), _) | (Ok(None), Err(error)) => return Err(PairError::Frame(error)),
    };
    match answer.answer {
        Some(proto::pair_answer::Answer::Accepted(accepted)) => {
            let proof = convert::proof(&accepted.proof).map_err(PairError::Nonsense)?;
            if proofs.inviting != proof {
                return Err(PairError::WrongKey);
            }
            let introduction = introduction(accepted.host_name, &accepted.addresses)?;
            let host = invitation.host();
            let words = words::of_pair(host, proofs.joiner);
            Ok(Paired { host, introduction, certificate, words })
        }
        Some(proto::pair_answer::Answer::Problem(problem)) => {
            Err(PairError::Refused(Problem::from_proto(problem).map_err(PairError::Nonsense)?))
        }
        None => Err(PairError::Nonsense(WireError::Missing { field: "answer" })),
    }
}

/// A joining host that holds the one-time key. Pin it, then [`accept`](Self::accept).
#[derive(Debug)]
pub struct Proven {
    pub paired: Paired,
    proof: blake3::Hash,
    tls: tokio_rustls::server::TlsStream<TcpStream>,
}

/// Hears a host that wants to pair, and checks that it holds the key of `invitation`.
pub async fn hear(
    identity: &Identity,
    invitation: &Invitation,
    arrival: PairArrival,
) -> Result<Proven, PairError> {
    let from = arrival.from.ip();
    let accepted = tls::accept(identity, Arc::new(Anybody), from, ALPN_PAIR, arrival.stream).await;
    let (tls, joiner, _) = accepted.map_err(PairError::Handshake)?;
    if joiner == identity.id() {
        return Err(PairError::Itself);
    }
    let session = tls.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first).expect("it was verified");
    let certificate = certificate.to_vec();
    let secret = export(|out| session.export_keying_material(out, EXPORT_LABEL, None))?;
    let proofs = Proofs::new(invitation, joiner, &secret);
    within(async {
        let mut reader = FrameReader::new(tls, PAIR_FRAME_BYTES_MAX);
        let request = reader.next::<proto::PairRequest>().await.map_err(PairError::Frame)?;
        let request = request.ok_or(PairError::Ended)?;
        let proof = convert::proof(&request.proof).map_err(PairError::Nonsense)?;
        if proofs.joining != proof {
            return Err(PairError::WrongKey);
        }
        let introduction = introduction(request.host_name, &request.addresses)?;
        let words = words::of_pair(identity.id(), joiner);
        let paired = Paired { host: joiner, introduction, certificate, words };
        let (tls, _) = reader.into_parts();
        Ok(Proven { paired, proof: proofs.inviting, tls })
    })
    .await
}

impl Proven {
    /// Tells the joining host that it is pinned here.
    pub async fn accept(mut self, ours: &Introduction) -> Result<Paired, PairError> {
        let answer = proto::pair_answer::Answer::Accepted(proto::PairAccepted {
            proof: self.proof.as_bytes().to_vec(),
            host_name: ours.name.to_string(),
            addresses: ours.addresses.iter().map(SocketAddr::to_string).collect(),
        });
        self.answer(answer).await?;
        Ok(self.paired)
    }

    /// Tells the joining host why not.
    pub async fn refuse(mut self, problem: &Problem) -> Result<(), PairError> {
        self.answer(proto::pair_answer::Answer::Problem(problem.to_proto())).await
    }

    async fn answer(&mut self, answer: proto::pair_answer::Answer) -> Result<(), PairError> {
        let answer = proto::PairAnswer { answer: Some(answer) };
        let sent = frame::send(&mut self.tls, &answer, PAIR_FRAME_BYTES_MAX);
        within(async { sent.await.map_err(PairError::Frame) }).await
    }
}

/// While an invitation is open, a certificate of anybody will do; the proof decides.
struct Anybody;

impl Pins for Anybody {
    fn standing(&self, _host: HostId, _from: IpAddr) -> Standing {
        Standing::Paired(HostName::new("stranger").expect("a valid name"))
    }
}

/// What each side must show. Comparing a [`blake3::Hash`] takes the same time whatever differs.
struct Proofs {
    joiner: HostId,
    joining: blake3::Hash,
    inviting: blake3::Hash,
}

impl Proofs {
    fn new(invitation: &Invitation, joiner: HostId, secret: &[u8; 32]) -> Self {
        let proof = |role: &[u8]| {
            let mut hasher = blake3::Hasher::new_keyed(&invitation.proof_key());
            hasher.update(role);
            hasher.update(&invitation.host().0);
            hasher.update(&joiner.0);
            hasher.update(secret);
            hasher.finalize()
        };
        Self { joiner, joining: proof(b"join"), inviting: proof(b"invite") }
    }
}

fn export(
    exporter: impl FnOnce([u8; 32]) -> Result<[u8; 32], rustls::Error>,
) -> Result<[u8; 32], PairError> {
    let failed = |e| PairError::Handshake(HandshakeError::Tls(std::io::Error::other(e)));
    exporter([0; 32]).map_err(failed)
}

fn introduction(name: String, addresses: &[String]) -> Result<Introduction, PairError> {
    let wrong = |field, found: String| PairError::Nonsense(WireError::Value { field, found });
    let name = convert::host_name(name).map_err(PairError::Nonsense)?;
    if addresses.len() > ADDRESSES_MAX {
        return Err(wrong("addresses", format!("{} of them", addresses.len())));
    }
    let addresses = addresses
        .iter()
        .map(|text| text.parse().map_err(|_| wrong("addresses", text.chars().take(60).collect())));
    Ok(Introduction { name, addresses: addresses.collect::<Result<_, _>>()? })
}

async fn within<T>(exchange: impl Future<Output = Result<T, PairError>>) -> Result<T, PairError> {
    tokio::time::timeout(EXCHANGE_MAX, exchange).await.unwrap_or(Err(PairError::Late))
}
