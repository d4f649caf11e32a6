//! One request: dialled here, so that what is checked is what is dialled.
//!
//! HTTP/1.1 with a connection for each request. Nothing is followed: an answer that sends elsewhere is
//! one that is not "delivered". Of an answer only its status counts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::config::{HttpHost, HttpUrl};
use crate::public_ip::is_public;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// The longest head of an answer, in bytes: what servers take of a request, as a rule.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What is read of an answer's body, in bytes, and for how long: a server whose answer is not taken
/// logs an error, and ours is none.
const BODY_BYTES_MAX: u64 = 16 << 10;
const BODY_TIME_MAX: Duration = Duration::from_millis(250);

/// Why requests cannot be made at all.
#[derive(Debug, thiserror::Error)]
#[error("webhooks have no TLS: {0}")]
pub(crate) struct TlsError(#[from] tokio_rustls::rustls::Error);

/// Why a request was not answered with "delivered".
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// The name cannot be looked up.
    #[error("the name cannot be looked up: {0}")]
    Lookup(io::Error),
    /// It stands for nothing.
    #[error("the name has no address")]
    NoAddress,
    /// It stands for this machine, or one near it.
    #[error("{0} is on this machine or in a private network, and `allow_private` is not set")]
    Private(IpAddr),
    /// Nobody answers there.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// No TLS server has such a name.
    #[error(transparent)]
    Name(#[from] InvalidDnsNameError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// What came is no HTTP.
    #[error("the answer is no HTTP/1.1, or its head is longer than {HEAD_BYTES_MAX} bytes")]
    NoHttp,
    /// Another status than 2xx.
    #[error("the answer was status {0}")]
    Status(u16),
    /// Too late.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// Makes requests.
#[derive(Clone)]
pub(crate) struct Poster {
    tls: TlsConnector,
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poster").finish_non_exhaustive()
    }
}

impl Poster {
    /// One that believes whom Mozilla believes.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn new() -> Result<Self, TlsError> {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        Self::believing(roots)
    }

    /// One that believes these.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(super) fn believing(roots: RootCertStore) -> Result<Self, TlsError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Posts JSON. Only an answer of 2xx is none of the errors.
    ///
    /// # Errors
    /// [`PostError`].
    pub(crate) async fn post(
        &self,
        url: &HttpUrl,
        allow_private: bool,
        headers: &[(&str, String)],
        body: &str,
    ) -> Result<(), PostError> {
        let stream = dial(url, allow_private).await?;
        let request = request(url, headers, body);
        match url.tls {
            false => exchange(stream, &request).await,
            true => {
                let name = server_name(&url.host)?;
                exchange(self.tls.connect(name, stream).await?, &request).await
            }
        }
    }
}

fn server_name(host: &HttpHost) -> Result<ServerName<'static>, PostError> {
    match host {
        HttpHost::Ip(ip) => Ok((*ip).into()),
        HttpHost::Name(name) => Ok(name.clone().try_into()?),
    }
}

/// Connects to an address of the host that may be dialled. The addresses that were looked up are those
/// that are checked, and those that are dialled: a name cannot mean another one in between.
async fn dial(url: &HttpUrl, allow_private: bool) -> Result<TcpStream, PostError> {
    let addresses = look_up(url).await?;
    let mut failure = PostError::NoAddress;
    for address in addresses {
        if !allow_private && !is_public(address.ip()) {
            failure = PostError::Private(address.ip());
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = PostError::Connect(error),
        }
    }
    Err(failure)
}

async fn look_up(url: &HttpUrl) -> Result<Vec<SocketAddr>, PostError> {
    match &url.host {
        HttpHost::Ip(ip) => Ok(vec![SocketAddr::new(*ip, url.port)]),
        HttpHost::Name(name) => {
            let found = lookup_host((name.as_str(), url.port)).await;
            Ok(found.map_err(PostError::Lookup)?.take(ADDRESSES_MAX).collect())
        }
    }
}

fn request(url: &HttpUrl, headers: &[(&str, String)], body: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\nuser-agent: orb/{version}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n",
        url.path,
        url.authority(),
        body.len()
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    text += body;
    text.into_bytes()
}

async fn exchange<S>(mut stream: S, request: &[u8]) -> Result<(), PostError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(request).await?;
    stream.flush().await?;
    let status = status(&mut stream).await?;
    // Whatever becomes of this, the answer is known.
    let mut rest = stream.take(BODY_BYTES_MAX);
    let _ = timeout(BODY_TIME_MAX, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    match status {
        200..=299 => Ok(()),
        other => Err(PostError::Status(other)),
    }
}

/// The status of the final answer; those before it (1xx) say nothing.
async fn status(stream: &mut (impl AsyncRead + Unpin)) -> Result<u16, PostError> {
    let mut bytes = Vec::new();
    loop {
        while let Some(end) = end_of_head(&bytes) {
            match parse_status(&bytes).ok_or(PostError::NoHttp)? {
                100..=199 => drop(bytes.drain(..end)),
                status => return Ok(status),
            }
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(PostError::NoHttp);
        }
        let room = HEAD_BYTES_MAX - bytes.len();
        if (&mut *stream).take(room as u64).read_buf(&mut bytes).await? == 0 {
            return Err(PostError::NoHttp);
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

/// The number of a line like `HTTP/1.1 204 No Content`.
fn parse_status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let [b'0' | b'1', b' ', digits @ ..] = rest else {
        return None;
    };
    let (digits, rest) = digits.split_at_checked(3)?;
    let ended = matches!(rest.first(), Some(b' ' | b'\r'));
    let plain = digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (ended && plain && number >= 100).then_some(number)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    async fn status_of(answer: &str) -> Result<u16, PostError> {
        status(&mut answer.as_bytes()).await
    }

    #[tokio::test]
    async fn the_status_of_an_answer() {
        assert_eq!(status_of("HTTP/1.1 204 No Content\r\n\r\n").await.unwrap(), 204);
        assert_eq!(
            status_of("HTTP/1.0 302\r\nLocation: /\r\n\r\nrest")
                .await
                .unwrap(),
            302
        );
        let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(status_of(interim).await.unwrap(), 200);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused_and_no_more_is_read_of_it() {
        let endless = "HTTP/1.1 200 OK\r\n".to_owned() + &"x: y\r\n".repeat(HEAD_BYTES_MAX);
        let hints = "HTTP/1.1 100 Continue\r\n\r\n".to_owned();
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 +20 \r\n\r\n",
            "HTTP/1.1 099 \r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            &endless,
            &hints,
        ] {
            let refused = status_of(answer).await;
            assert!(matches!(refused, Err(PostError::NoHttp)), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn only_public_addresses_are_dialled_unless_others_are_allowed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let url = format!("http://{host}:{port}/").parse().unwrap();
            let refused = dial(&url, false).await;
            assert!(matches!(refused, Err(PostError::Private(_))), "{refused:?}");
        }
        let url = format!("http://localhost:{port}/").parse().unwrap();
        dial(&url, true).await.unwrap();
    }
}
