// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Mutual TLS 1.3 between hosts that have pinned each other.
//!
//! There is no authority and no name to believe: a host is its certificate, byte for byte
//! ([`HostId`]). The verifiers here compare exactly that, and still check the signature that
//! proves the key. Dates are not looked at: a pin is valid until it is forgotten, and a host with
//! a wrong clock must still be able to give a guest away. There is no resumption and no early
//! data, so every connection is a full proof and a forgotten host is out at once.
//!
//! A [`PeerStream`] exists only after all of that: whoever has one talks to a paired host.

use crate::identity::{Identity, host_id_of};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, SignatureScheme, SupportedCipherSuite,
};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use whimbrel_model::id::{HandoffId, HostId, HostName};

/// One request between paired hosts.
pub const ALPN_PEER: &[u8] = b"whimbrel-peer/1";
/// One channel of a migration between two carrying processes.
pub const ALPN_CARRY: &[u8] = b"whimbrel-carry/1";
/// Two hosts that are about to pair.
pub const ALPN_PAIR: &[u8] = b"whimbrel-pair/1";

/// How long a handshake may take, from the first byte to the last.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// What this host thinks of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Paired(HostName),
    /// Paired, but `hosts_allow` does not list it.
    NotAllowed(HostName),
    /// Was paired once.
    Forgotten(HostName),
    Stranger,
}

/// Who is paired with this host. Asked once in every handshake.
pub trait Pins: Send + Sync + 'static {
    fn standing(&self, host: HostId, from: IpAddr) -> Standing;
}

/// A connection whose other end has proved to be a paired host. Only this module makes one.
#[derive(Debug)]
pub struct PeerStream {
    peer: HostId,
    name: HostName,
    address: SocketAddr,
    tls: Box<TlsStream<TcpStream>>,
    /// The place among the connections this host serves at once.
    place: Option<OwnedSemaphorePermit>,
}

impl PeerStream {
    pub fn peer(&self) -> HostId {
        self.peer
    }

    /// The name this host knows the peer by.
    pub fn name(&self) -> &HostName {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps a place among the connections served at once for as long as the stream lives.
    pub(crate) fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// Why a handshake did not end with a known peer.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the certificate is not one of a paired host")]
    Stranger { host: HostId },
    #[error("the host `{name}` was forgotten")]
    Forgotten { name: HostName },
    #[error("the host `{name}` is paired, and `hosts_allow` does not list it")]
    NotAllowed { name: HostName },
    #[error("another host answers there: its fingerprint is {found}")]
    AnotherHost { found: HostId },
    #[error("the handshake took longer than {} s", HANDSHAKE_MAX.as_secs())]
    Late,
    #[error("the other end speaks another protocol")]
    WrongProtocol,
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
}

/// Proves this host to a peer that has connected, and the peer to this host.
pub(crate) async fn accept_peer(
    identity: &Identity,
    pins: Arc<dyn Pins>,
    tcp: TcpStream,
    address: SocketAddr,
) -> Result<PeerStream, HandshakeError> {
    let (tls, peer, name) = accept(identity, pins, address.ip(), ALPN_PEER, tcp).await?;
    Ok(PeerStream { peer, name, address, tls: Box::new(TlsStream::Server(tls)), place: None })
}

/// Proves this host to the peer it has connected to, and the peer to this host.
pub(crate) async fn connect_peer(
    identity: &Identity,
    peer: HostId,
    name: HostName,
    tcp: TcpStream,
    address: SocketAddr,
) -> Result<PeerStream, HandshakeError> {
    let tls = connect(identity, peer, ALPN_PEER, "peer.whimbrel".to_owned(), tcp).await?;
    Ok(PeerStream { peer, name, address, tls: Box::new(TlsStream::Client(tls)), place: None })
}

/// Connects to exactly `peer`, for the protocol `alpn`.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    identity: &Identity,
    peer: HostId,
    alpn: &[u8],
    server_name: String,
    tcp: S,
) -> Result<tokio_rustls::client::TlsStream<S>, HandshakeError> {
    let found = Arc::new(OnceLock::new());
    let verifier = PinnedServer { peer, found: found.clone(), provider: provider() };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(identity.credentials());
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    let server_name = ServerName::try_from(server_name).expect("the names of this crate are valid");
    let outcome = within(TlsConnector::from(Arc::new(config)).connect(server_name, tcp)).await;
    match (outcome, found.get()) {
        (_, Some(&found)) if found != peer => Err(HandshakeError::AnotherHost { found }),
        (Ok(tls), _) if tls.get_ref().1.alpn_protocol() != Some(alpn) => {
            Err(HandshakeError::WrongProtocol)
        }
        (outcome, _) => outcome,
    }
}

/// Accepts exactly `peer`, for the protocol `alpn`.
pub(crate) async fn accept_exactly<S: AsyncRead + AsyncWrite + Unpin>(
    identity: &Identity,
    peer: HostId,
    alpn: &[u8],
    tcp: S,
) -> Result<tokio_rustls::server::TlsStream<S>, HandshakeError> {
    let nowhere = IpAddr::from([0, 0, 0, 0]);
    let (tls, _, _) = accept(identity, Arc::new(Only(peer)), nowhere, alpn, tcp).await?;
    Ok(tls)
}

/// Accepts whom `pins` call paired, for the protocol `alpn`, and says who it is.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    identity: &Identity,
    pins: Arc<dyn Pins>,
    from: IpAddr,
    alpn: &[u8],
    tcp: S,
) -> Result<(tokio_rustls::server::TlsStream<S>, HostId, HostName), HandshakeError> {
    let verdict = Arc::new(OnceLock::new());
    let verifier = PinnedClients { pins, from, verdict: verdict.clone(), provider: provider() };
    let config = server_config(identity, Arc::new(verifier), alpn);
    let outcome = within(TlsAcceptor::from(config).accept(tcp)).await;
    match (outcome, verdict.get()) {
        (Ok(tls), Some((host, Standing::Paired(name)))) => {
            // Rustls lets a client pass that offers no protocol at all.
            if tls.get_ref().1.alpn_protocol() != Some(alpn) {
                return Err(HandshakeError::WrongProtocol);
            }
            Ok((tls, *host, name.clone()))
        }
        (Err(error), Some((_, Standing::Paired(_))) | None) => Err(error),
        (_, Some((host, standing))) => Err(refused(*host, standing)),
        (Ok(_), None) => unreachable!("rustls asks the verifier before it accepts"),
    }
}

/// One host and nobody else.
struct Only(HostId);

impl Pins for Only {
    fn standing(&self, host: HostId, _from: IpAddr) -> Standing {
        if host == self.0 {
            Standing::Paired(HostName::new("peer").expect("a valid name"))
        } else {
            Standing::Stranger
        }
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(provider_for(has_aes()))).clone()
}

/// Whether this processor can do AES by itself. Without, AES-GCM takes several times as long as
/// `ChaCha20-Poly1305`, and a guest's memory is much to encrypt.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn provider_for(has_aes: bool) -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    if !has_aes {
        let is_aes = |suite: &SupportedCipherSuite| {
            suite.suite() != CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        };
        provider.cipher_suites.sort_by_key(is_aes);
    }
    provider
}

fn server_config(
    identity: &Identity,
    verifier: Arc<dyn ClientCertVerifier>,
    alpn: &[u8],
) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity.credentials());
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // A client that has no AES says so by its order; where it is we, ours counts.
    config.ignore_client_order = !has_aes();
    Arc::new(config)
}

async fn within<T>(handshake: impl Future<Output = io::Result<T>>) -> Result<T, HandshakeError> {
    match tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
        Ok(outcome) => outcome.map_err(HandshakeError::Tls),
        Err(_) => Err(HandshakeError::Late),
    }
}

fn refused(host: HostId, standing: &Standing) -> HandshakeError {
    match standing {
        Standing::NotAllowed(name) => HandshakeError::NotAllowed { name: name.clone() },
        Standing::Forgotten(name) => HandshakeError::Forgotten { name: name.clone() },
        Standing::Stranger | Standing::Paired(_) => HandshakeError::Stranger { host },
    }
}

/// The server's side: asks the pins who may come in, and remembers the answer for the log.
struct PinnedClients {
    pins: Arc<dyn Pins>,
    from: IpAddr,
    verdict: Arc<OnceLock<(HostId, Standing)>>,
    provider: Arc<CryptoProvider>,
}

/// The client's side: exactly one host will do.
struct PinnedServer {
    peer: HostId,
    found: Arc<OnceLock<HostId>>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for PinnedClients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PinnedClients")
    }
}

impl std::fmt::Debug for PinnedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PinnedServer")
    }
}

const NO_TLS12: &str = "TLS 1.2 is not offered";

impl ClientCertVerifier for PinnedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !intermediates.is_empty() {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let host = host_id_of(certificate);
        let standing = self.pins.standing(host, self.from);
        let (_, standing) = self.verdict.get_or_init(|| (host, standing));
        match standing {
            Standing::Paired(_) => Ok(ClientCertVerified::assertion()),
            Standing::NotAllowed(_) | Standing::Forgotten(_) | Standing::Stranger => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(NO_TLS12.to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = *self.found.get_or_init(|| host_id_of(certificate));
        if found == self.peer && intermediates.is_empty() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(NO_TLS12.to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The server name under which channels of a migration ask to be carried.
pub fn carry_name(handoff: HandoffId) -> String {
    format!("{}.carry.whimbrel", handoff.0.simple())
}

/// Returns the handoff a server name asks for, if it is such a name.
pub fn handoff_of(server_name: &str) -> Option<HandoffId> {
    let id = server_name.strip_suffix(".carry.whimbrel")?;
    // The one spelling that `carry_name` writes, and no other.
    let id = HandoffId(uuid::Uuid::try_parse(id).ok()?);
    (carry_name(id) == server_name).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the two is first decides, and neither is ever missing.
    #[test]
    fn without_aes_another_cipher_is_first() {
        let suites = |has_aes| -> Vec<_> {
            let provider = provider_for(has_aes);
            provider.cipher_suites.iter().map(SupportedCipherSuite::suite).collect()
        };
        let (with, without) = (suites(true), suites(false));
        assert_eq!(with[0], CipherSuite::TLS13_AES_256_GCM_SHA384);
        assert_eq!(without[0], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        assert!(with.len() == without.len() && with.iter().all(|suite| without.contains(suite)));
    }
}
