//! Who is at the other end: TLS 1.3 with raw public keys (RFC 7250) both ways.
//!
//! A node's Ed25519 key is its identity, so there are no certificates, no names and no authority: a
//! dial succeeds when the peer proves that it holds the key that was asked for. Nothing is resumed and
//! nothing is sent before the handshake is done, so every connection proves both keys afresh.

use std::sync::{Arc, OnceLock};

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};

use crate::id::NodeId;
use crate::key::NodeKey;

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why a node's key does not make a TLS identity: never seen with keys that this crate made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Rustls(#[from] Error),
    #[error(transparent)]
    NoSuite(#[from] NoInitialCipherSuite),
}

/// What a node needs for its handshakes.
pub(crate) struct Identity {
    client: rustls::ClientConfig,
    server: Arc<QuicServerConfig>,
}

impl Identity {
    /// For this key and this application protocol.
    pub(crate) fn new(key: &NodeKey, alpn: &[u8]) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certified = Arc::new(certified_key(key)?);
        Ok(Self {
            client: client_config(&provider, Arc::clone(&certified), alpn)?,
            server: Arc::new(server_config(&provider, certified, alpn)?.try_into()?),
        })
    }

    /// For accepting.
    pub(crate) fn server(&self) -> Arc<QuicServerConfig> {
        Arc::clone(&self.server)
    }

    /// For dialling `peer`, or whoever is there; the second value tells afterwards who answered instead, if
    /// somebody did.
    pub(crate) fn client_for(
        &self,
        peer: Option<NodeId>,
    ) -> Result<(Arc<QuicClientConfig>, Answered), TlsError> {
        let answered = Answered::default();
        let mut config = self.client.clone();
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(ExpectServer {
                wanted: peer,
                answered: answered.clone(),
                provider: Arc::clone(self.client.crypto_provider()),
            }));
        Ok((Arc::new(config.try_into()?), answered))
    }
}

/// The node that a connection's handshake proved to be at the other end.
pub(crate) fn peer_of(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    node_of(chain.first()?)
}

/// Who answered a dial that was meant for another node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered(Arc<OnceLock<NodeId>>);

impl Answered {
    /// The other node.
    pub(crate) fn other(&self) -> Option<NodeId> {
        self.0.get().copied()
    }
}

fn certified_key(key: &NodeKey) -> Result<CertifiedKey, Error> {
    let secret = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(key.to_pkcs8_der()))?;
    let spki = [SPKI_PREFIX.as_slice(), key.id().as_bytes()].concat();
    Ok(CertifiedKey::new(vec![CertificateDer::from(spki)], secret))
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    alpn: &[u8],
) -> Result<rustls::ClientConfig, Error> {
    let verifier = ExpectServer {
        wanted: Some(NodeId::from_bytes([0; 32])),
        answered: Answered::default(),
        provider: Arc::clone(provider),
    };
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    alpn: &[u8],
) -> Result<rustls::ServerConfig, Error> {
    let verifier = Arc::new(AnyClient(Arc::clone(provider)));
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

fn node_of(spki: &[u8]) -> Option<NodeId> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    Some(NodeId::from_bytes(key.try_into().ok()?))
}

/// The key that a peer presented. That it holds it is proven by its signature, next.
fn presented(end_entity: &CertificateDer<'_>) -> Result<NodeId, Error> {
    let node = node_of(end_entity).ok_or(CertificateError::BadEncoding)?;
    // A weak key verifies signatures that nobody made.
    node.check().map_err(|_| CertificateError::BadSignature)?;
    Ok(node)
}

fn check_signature(
    provider: &CryptoProvider,
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
    let algorithms = &provider.signature_verification_algorithms;
    verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
}

fn refuse_tls12() -> Error {
    PeerIncompatible::Tls12NotOffered.into()
}

/// Accepts the one server that was dialled, or with `None` any that proves a key.
#[derive(Debug)]
struct ExpectServer {
    wanted: Option<NodeId>,
    answered: Answered,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExpectServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = presented(end_entity)?;
        if self.wanted.is_none_or(|wanted| found == wanted) {
            return Ok(ServerCertVerified::assertion());
        }
        // Only reported, never trusted: it has not signed anything yet.
        let _ = self.answered.0.set(found);
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(&self.provider, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts any client that proves a key: who may do what is decided by request, not by connection.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        presented(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(&self.0, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
