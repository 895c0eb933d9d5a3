// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Attacks by somebody who speaks TLS well.

use crate::lab::{Lab, Papers};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    SupportedProtocolVersion,
};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub(crate) struct Attack {
    pub(crate) name: String,
    versions: &'static [&'static SupportedProtocolVersion],
    protocols: Vec<Vec<u8>>,
    server_name: String,
    /// The chain that is shown, and the key that signs; none: no certificate.
    shows: Option<(Vec<CertificateDer<'static>>, Papers)>,
}

const PEER: &[u8] = b"whimbrel-peer/1";
const CARRY: &[u8] = b"whimbrel-carry/1";
const PAIR: &[u8] = b"whimbrel-pair/1";
const TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// Does the handshake, says a complete greeting and a request, and must hear nothing of the peer
/// protocol.
pub(crate) async fn strike(lab: &Lab, attack: Attack) {
    let tcp = TcpStream::connect(lab.address).await.unwrap();
    let config = config(&attack);
    let name = ServerName::try_from(attack.server_name.clone()).unwrap();
    let Ok(mut tls) = TlsConnector::from(Arc::new(config)).connect(name, tcp).await else {
        return;
    };
    // In TLS 1.3 a client is through before the host has seen its certificate.
    let _ = tls.write_all(&greeting_and_ping()).await;
    let mut answer = Vec::new();
    let _ = tls.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{}: heard {answer:?}", attack.name);
}

/// What a paired host would say.
pub(crate) fn greeting_and_ping() -> Vec<u8> {
    let hello = [8, 1, 16, 1, 26, 1, 120, 34, 3, 97, 98, 99];
    [&[0, 0, 0, 12][..], &hello, &[0, 0, 0, 2, 10, 0]].concat()
}

fn config(attack: &Attack) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(attack.versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesEverybody(provider.clone())));
    let mut config = match &attack.shows {
        None => builder.with_no_client_auth(),
        Some((chain, papers)) => {
            let key = provider.key_provider.load_private_key(papers.key.clone_key()).unwrap();
            // Unlike `from_der`, this does not ask whether they belong together.
            let certified = CertifiedKey::new(chain.clone(), key);
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(certified));
            builder.with_client_cert_resolver(resolver)
        }
    };
    config.alpn_protocols = attack.protocols.clone();
    config
}

/// The bytes of a good hello.
pub(crate) fn a_hello() -> Vec<u8> {
    let attack = attack("", None);
    let name = ServerName::try_from("peer.whimbrel").unwrap();
    let mut client = ClientConnection::new(Arc::new(config(&attack)), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn attack(name: &str, shows: Option<(Vec<CertificateDer<'static>>, Papers)>) -> Attack {
    Attack {
        name: name.to_owned(),
        versions: TLS13,
        protocols: vec![PEER.to_vec()],
        server_name: "peer.whimbrel".to_owned(),
        shows,
    }
}

fn showing(name: &str, papers: &Papers) -> Attack {
    attack(name, Some((vec![papers.certificate.clone()], papers.clone())))
}

pub(crate) fn attacks(lab: &Lab) -> Vec<Attack> {
    let mut attacks = wrong_certificates(lab);
    attacks.extend(wrong_protocols(lab));
    attacks.extend(wrong_names(lab));
    attacks
}

fn wrong_certificates(lab: &Lab) -> Vec<Attack> {
    let stranger = Papers::fresh();
    let friend = &lab.friend.certificate;
    let chain = |shown: &[&CertificateDer<'static>], signer: &Papers| {
        Some((shown.iter().map(|&c| c.clone()).collect::<Vec<_>>(), signer.clone()))
    };
    let mut padded = friend.to_vec();
    padded.push(0);
    let padded = CertificateDer::from(padded);
    let mut flipped = friend.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let flipped = CertificateDer::from(flipped);
    let cut = CertificateDer::from(friend[..friend.len() - 1].to_vec());
    let own = &stranger.certificate;
    let mut attacks = vec![
        attack("no certificate", None),
        showing("a stranger", &stranger),
        showing("a forgotten host", &lab.forgotten),
        showing("a host that hosts_allow does not list", &lab.unlisted),
        attack("the friend's certificate without its key", chain(&[friend], &stranger)),
        attack("the friend's certificate behind one's own", chain(&[own, friend], &stranger)),
        attack("one's own behind the friend's, own key", chain(&[friend, own], &stranger)),
        attack("the friend's, with another behind it", chain(&[friend, own], &lab.friend)),
        attack("the friend's, with a byte behind it", chain(&[&padded], &lab.friend)),
        attack("the friend's, with another signature", chain(&[&flipped], &lab.friend)),
        attack("the friend's, cut short", chain(&[&cut], &lab.friend)),
        attack("an empty certificate", chain(&[&CertificateDer::from(vec![])], &stranger)),
        attack("a certificate of 2 KiB of zeros", {
            chain(&[&CertificateDer::from(vec![0; 2048])], &stranger)
        }),
        attack("a chain of 50", chain(&[own; 50], &stranger)),
        attack("the host's own, from another key", {
            Some((vec![CertificateDer::from(lab.host.0.to_vec())], stranger.clone()))
        }),
    ];
    let key = KeyPair::generate().unwrap();
    let with = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::default();
        change(&mut params);
        Papers::new(params, &key)
    };
    let expired = with(&|params| {
        params.not_before = rcgen::date_time_ymd(1999, 1, 1);
        params.not_after = rcgen::date_time_ymd(2000, 1, 1);
    });
    let future = with(&|params| params.not_before = rcgen::date_time_ymd(2090, 1, 1));
    let named = with(&|params| {
        params.distinguished_name.push(DnType::CommonName, "friend");
    });
    let authority = with(&|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    attacks.push(showing("a stranger whose certificate has expired", &expired));
    attacks.push(showing("a stranger from the future", &future));
    attacks.push(showing("a stranger who says it is the friend", &named));
    attacks.push(showing("a stranger who says it is an authority", &authority));
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let papers = Papers::new(CertificateParams::default(), &key);
        attacks.push(showing(&format!("a stranger with {algorithm:?}"), &papers));
    }
    attacks
}

/// Even the friend is not understood if it asks for something else.
fn wrong_protocols(lab: &Lab) -> Vec<Attack> {
    let asking = |name: &str, protocols: &[&[u8]]| {
        let protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Attack { protocols, ..showing(name, &lab.friend) }
    };
    let long = [b'x'; 255];
    vec![
        Attack {
            versions: TLS12,
            ..showing("tls 1.2, with the friend's certificate", &lab.friend)
        },
        Attack { versions: TLS12, ..attack("tls 1.2, with no certificate", None) },
        asking("no protocol", &[]),
        asking("http/1.1", &[b"http/1.1"]),
        asking("h2", &[b"h2"]),
        asking("the protocol of tomorrow", &[b"whimbrel-peer/2"]),
        asking("the protocol in capitals", &[b"WHIMBREL-PEER/1"]),
        asking("the protocol cut short", &[b"whimbrel-peer"]),
        asking("the protocol with a zero", &[b"whimbrel-peer/1\0"]),
        asking("two protocols of ours", &[PEER, PAIR]),
        asking("two protocols, one of ours", &[b"h2", PEER]),
        asking("the same twice", &[PEER, PEER]),
        asking("a hello of 4 KiB", &[&long[..]; 15]),
        asking("a hello of 16 KiB", &[&long[..]; 60]),
        asking("pairing while nobody invites", &[PAIR]),
        Attack { protocols: vec![PAIR.to_vec()], ..attack("the same without a certificate", None) },
    ]
}

/// Channels of migrations that do not exist do not even get a handshake.
fn wrong_names(lab: &Lab) -> Vec<Attack> {
    let named = |name: &str, server_name: &str| Attack {
        protocols: vec![CARRY.to_vec()],
        server_name: server_name.to_owned(),
        ..showing(name, &lab.friend)
    };
    let id = "0123456789abcdef0123456789abcdef";
    vec![
        named("a channel of no handoff", "peer.whimbrel"),
        named("a channel of an address", "127.0.0.1"),
        named("a channel of half a handoff", "0123456789abcdef.carry.whimbrel"),
        named("a channel of a handoff with hyphens", {
            "01234567-89ab-cdef-0123-456789abcdef.carry.whimbrel"
        }),
        named("a channel elsewhere", &format!("{id}.carry.example")),
        named("a channel below another name", &format!("x.{id}.carry.whimbrel")),
        named("a channel of no hexadecimal", "zzzz456789abcdef0123456789abcdef.carry.whimbrel"),
        named("a channel with a long name", &format!("{}.carry.whimbrel", ["a"; 60].join("."))),
    ]
}

#[derive(Debug)]
struct BelievesEverybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for BelievesEverybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection in somebody's name.
pub(crate) async fn connect(
    lab: &Lab,
    papers: &Papers,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    connect_for(lab.address, PEER, papers).await
}

pub(crate) async fn connect_for(
    address: std::net::SocketAddr,
    protocol: &[u8],
    papers: &Papers,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let attack = Attack { protocols: vec![protocol.to_vec()], ..showing("", papers) };
    let name = ServerName::try_from(attack.server_name.clone()).unwrap();
    TlsConnector::from(Arc::new(config(&attack))).connect(name, tcp).await
}
