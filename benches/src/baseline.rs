//! Bare quinn: what the network costs without Orb.
//!
//! The same crypto as Orb's (TLS 1.3 through rustls with ring, mutual raw public keys of Ed25519), the same
//! runtime flavour (Tokio's multi-thread one), a stream per request. The peer's key is not checked:
//! that costs no more or less than checking it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};

const ALPN: &[u8] = b"bench";
/// Longer than it takes to make ten thousand connections, which then say nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1_200);

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certified_key() -> Result<Arc<CertifiedKey>> {
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    let key = orb_protocol::key::NodeKey::from_seed(seed);
    let der = PrivatePkcs8KeyDer::from(key.to_pkcs8_der());
    let signing = ring::sign::any_eddsa_type(&der)?;
    let spki = signing.public_key().context("an Ed25519 key has a public half")?;
    Ok(Arc::new(CertifiedKey::new(
        vec![CertificateDer::from(spki.to_vec())],
        signing,
    )))
}

/// Takes any raw public key whose owner signed the handshake.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl AnyKey {
    fn new() -> Arc<Self> {
        Arc::new(Self(provider().signature_verification_algorithms))
    }

    fn check(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &spki, signed, &self.0)
    }
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn transport(streams: u32) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("it fits")));
    Arc::new(transport)
}

/// A quinn server that allows each client so many concurrent streams.
///
/// # Errors
/// No socket or no key.
pub fn server(streams: u32) -> Result<Endpoint> {
    let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(certified_key()?);
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(AnyKey::new())
        .with_cert_resolver(Arc::new(resolver));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(streams));
    Ok(Endpoint::server(config, "127.0.0.1:0".parse()?)?)
}

/// A quinn client endpoint.
///
/// # Errors
/// No socket or no key.
pub fn client() -> Result<Endpoint> {
    let resolver = rustls::client::AlwaysResolvesClientRawPublicKeys::new(certified_key()?);
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(AnyKey::new())
        .with_client_cert_resolver(Arc::new(resolver));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(8));
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// Connects to a bench server.
///
/// # Errors
/// Nobody answers there.
pub async fn connect(endpoint: &Endpoint, address: SocketAddr) -> Result<Connection> {
    Ok(endpoint.connect(address, "bench")?.await?)
}

/// One request: writes `payload` on a stream of its own and reads the answer to its end.
///
/// # Errors
/// The connection ended.
pub async fn request(connection: &Connection, payload: &[u8], answer_max: usize) -> Result<Vec<u8>> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(payload).await?;
    send.finish()?;
    Ok(receive.read_to_end(answer_max).await?)
}

/// Answers each stream with what came on it, for ever.
pub async fn serve_echo(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                tokio::spawn(async move {
                    let body = receive.read_to_end(64 << 20).await?;
                    send.write_all(&body).await?;
                    anyhow::Ok(send.finish()?)
                });
            }
        });
    }
}

/// The naive relay: for each stream that comes it opens one to `upstream` and copies both ways.
///
/// # Errors
/// `upstream` does not answer.
pub async fn serve_two_hop(endpoint: Endpoint, upstream: SocketAddr) -> Result<()> {
    let to = connect(&client()?, upstream).await?;
    while let Some(incoming) = endpoint.accept().await {
        let to = to.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let to = to.clone();
                tokio::spawn(async move {
                    let (mut up, mut down) = to.open_bi().await?;
                    let forth = async {
                        tokio::io::copy(&mut receive, &mut up).await?;
                        anyhow::Ok(up.finish()?)
                    };
                    let back = async {
                        tokio::io::copy(&mut down, &mut send).await?;
                        anyhow::Ok(send.finish()?)
                    };
                    tokio::try_join!(forth, back)
                });
            }
        });
    }
    Ok(())
}

/// Serves in the role that this process was started in, for ever: `echo STREAMS` or `two-hop UPSTREAM`.
///
/// # Errors
/// An unknown role, or no socket.
pub fn serve_role(role: &str, argument: &str) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let streams = if role == "echo" { argument.parse()? } else { 256 };
            let endpoint = server(streams)?;
            println!("{}", endpoint.local_addr()?);
            match role {
                "echo" => serve_echo(endpoint).await,
                "two-hop" => serve_two_hop(endpoint, argument.parse()?).await?,
                other => anyhow::bail!("unknown role {other:?}"),
            }
            Ok(())
        })
}
