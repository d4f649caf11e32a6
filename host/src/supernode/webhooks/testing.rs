//! A server that webhooks are tried on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use ring::hmac;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

/// What the server and the webhook know.
pub(super) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// More than any delivery takes.
const SOON: Duration = Duration::from_secs(20);

/// How a request is answered.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Status(u16),
    /// A redirect to there.
    Redirect(String),
    /// Nothing for ever.
    Hang,
}

/// A request that came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) head: String,
    pub(super) body: String,
}

/// The server; it ends when it is dropped.
pub(super) struct Server {
    pub(super) port: u16,
    received: mpsc::UnboundedReceiver<Received>,
    task: JoinHandle<()>,
}

impl Server {
    /// Answers with these, and after that with 204.
    pub(super) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::serve(answers, None).await
    }

    /// The same over TLS, as `localhost`.
    pub(super) async fn start_tls() -> Self {
        Self::serve([], Some(acceptor())).await
    }

    async fn serve(answers: impl IntoIterator<Item = Answer>, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let (sender, received) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (answers, sender, tls) = (Arc::clone(&answers), sender.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &answers, &sender).await,
                        // A client that does not believe it ends the handshake.
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(stream, &answers, &sender).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { port, received, task }
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> Received {
        let next = tokio::time::timeout(SOON, self.received.recv()).await;
        next.expect("a request in time").expect("the server runs")
    }

    /// Whether nothing more has come.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.received.try_recv().is_err()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer<S>(
    mut stream: S,
    answers: &Mutex<VecDeque<Answer>>,
    sender: &mpsc::UnboundedSender<Received>,
) -> Option<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let received = read(&mut stream).await?;
    let answer = answers.lock().expect("no panic").pop_front();
    sender.send(received).ok()?;
    let text = match answer.unwrap_or(Answer::Status(204)) {
        Answer::Status(status) => format!("HTTP/1.1 {status} Test\r\ncontent-length: 0\r\n\r\n"),
        Answer::Redirect(to) => format!("HTTP/1.1 307 Test\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
        Answer::Hang => std::future::pending().await,
    };
    stream.write_all(text.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4_096];
        let count = stream.read(&mut bytes).await.ok().filter(|count| *count > 0)?;
        text += std::str::from_utf8(&bytes[..count]).ok()?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let len = header(head, "content-length")?.parse::<usize>().ok()?;
        if body.len() >= len {
            let (head, body) = (head.to_owned(), body.to_owned());
            return Some(Received { head, body });
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .into_iter()
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

impl Received {
    pub(super) fn header(&self, name: &str) -> &str {
        header(&self.head, name).unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    /// The event in it, if its signature is one of [`SECRET`].
    pub(super) fn verified(&self) -> serde_json::Value {
        let key = BASE64
            .decode(&SECRET.as_bytes()["whsec_".len()..])
            .expect("base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signature = self
            .header("webhook-signature")
            .strip_prefix("v1,")
            .expect("a version");
        let signature = BASE64.decode(signature.as_bytes()).expect("base64");
        let (id, time) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let signed = format!("{id}.{time}.{}", self.body);
        hmac::verify(&key, signed.as_bytes(), &signature).expect("the signature holds");
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(body["data"]["id"], id);
        body
    }

    /// The cursor of the event in it.
    pub(super) fn cursor(&self) -> u64 {
        self.verified()["data"]["cursor"].as_u64().expect("a number")
    }
}

/// The key of a certificate for `localhost`, which signs itself. It is good for nothing else.
const TLS_KEY: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgrCXWFO+lzPMwfHQ+7+lsxSy9pm/lO+ptzpHsXW0SBmehRANC\
    AARRcK68sGtKSFS1ewnorJ7pjUFUOqJYI6daMMB7zm+bOCH6/7kr7TmsPNEwXjCaBDoCbdaNUPaRDuiv1yB8KusQ";

/// The certificate, from 2020 to 2120.
const TLS_CERTIFICATE: &str = "\
    MIIBWzCCAQKgAwIBAgIBATAKBggqhkjOPQQDAjATMREwDwYDVQQDDAhvcmIgdGVzdDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIw\
    MDEwMTAwMDAwMFowEzERMA8GA1UEAwwIb3JiIHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARRcK68sGtKSFS1ewno\
    rJ7pjUFUOqJYI6daMMB7zm+bOCH6/7kr7TmsPNEwXjCaBDoCbdaNUPaRDuiv1yB8KusQo0UwQzAUBgNVHREEDTALgglsb2Nh\
    bGhvc3QwDAYDVR0TAQH/BAIwADAdBgNVHQ4EFgQUNSVcDGRE78xtX4hXiVK/JfhxcrAwCgYIKoZIzj0EAwIDRwAwRAIgTMJM\
    ySLr8c7uBY20O3rlt73D2bgrKYsc0n61pG3nTH0CIBpoeVUQQ1YdAvL2x7gwwg91zDM0UnREkT9sCvCIOiZA";

fn certificate() -> CertificateDer<'static> {
    BASE64.decode(TLS_CERTIFICATE.as_bytes()).expect("base64").into()
}

/// Whoever believes the server.
pub(super) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).expect("a certificate");
    roots
}

fn acceptor() -> TlsAcceptor {
    let key = BASE64.decode(TLS_KEY.as_bytes()).expect("base64");
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate()], PrivatePkcs8KeyDer::from(key).into())
        .expect("a key for the certificate");
    TlsAcceptor::from(Arc::new(config))
}
