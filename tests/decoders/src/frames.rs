//! Frames and bodies, read off a real stream between two endpoints of this process.

use std::mem::discriminant;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use orb_protocol::key::NodeKey;
use orb_protocol::quic::body::BodyReader;
use orb_protocol::quic::frames::{FrameError, read_message};
use orb_protocol::quic::{Connection, Endpoint, EndpointConfig, NodeAddr};
use orb_protocol::wire::{CHUNK_LEN_MAX, Request, codec};
use quinn::RecvStream;
use tokio::runtime::{Builder, Runtime};

/// The longest message that is read here, in bytes: small inputs shall reach it.
const MESSAGE_MAX: usize = 256;
/// The longest body, in bytes.
const BODY_MAX: u64 = 512;

/// The first byte says whether the rest is a stream of messages or of one body. What is read, and how
/// it ends, is what a plain reading of the same bytes finds.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((&kind, sent)) = bytes.split_first() else {
        return;
    };
    let mut line = LINE
        .get_or_init(|| Mutex::new(Line::new()))
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if kind % 2 == 0 {
        let (read, end) = line.pass(sent, read_messages);
        let (expected, expected_end) = plain_messages(sent);
        assert_eq!(read, expected);
        assert_eq!(
            discriminant(&end),
            discriminant(&expected_end),
            "{end} / {expected_end}"
        );
    } else {
        let (read, end) = line.pass(sent, read_body);
        let (expected, expected_end) = plain_body(sent);
        assert_eq!(read, expected);
        assert_eq!(
            end.as_ref().map(discriminant),
            expected_end.as_ref().map(discriminant)
        );
    }
}

static LINE: OnceLock<Mutex<Line>> = OnceLock::new();

/// Two endpoints, and the connection between them.
struct Line {
    runtime: Runtime,
    near: Connection,
    far: Connection,
    _endpoints: [Endpoint; 2],
}

impl Line {
    fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let (near, far, endpoints) = runtime.block_on(async {
            let endpoints = [1, 2].map(endpoint);
            let to = NodeAddr {
                id: endpoints[1].node_id(),
                addr: endpoints[1].local_addr().expect("it is bound"),
            };
            let accept = async {
                let incoming = endpoints[1].accept().await.expect("it is open");
                incoming.handshake().await
            };
            let (near, far) = tokio::join!(endpoints[0].connect(to), accept);
            (near.expect("it connects"), far.expect("it accepts"), endpoints)
        });
        Self {
            runtime,
            near,
            far,
            _endpoints: endpoints,
        }
    }

    /// Sends bytes and the stream's end from one side, and reads them at the other.
    fn pass<T>(&mut self, sent: &[u8], read: impl AsyncFnOnce(RecvStream) -> T) -> T {
        let Self { near, far, .. } = self;
        self.runtime.block_on(async {
            let writer = async {
                let (mut send, _receive) = near.open_bi().await.expect("a stream is free");
                // The reader may have seen enough.
                let _ = send.write_all(sent).await;
                let _ = send.finish();
                // A stream without a byte is heard of by its end.
                let _ = send.stopped().await;
            };
            let reader = async {
                let (_send, receive) = far.accept_bi().await.expect("a stream comes");
                read(receive).await
            };
            tokio::join!(writer, reader).1
        })
    }
}

fn endpoint(seed: u8) -> Endpoint {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = EndpointConfig {
        // Nothing is sent between two inputs, however long that is.
        idle_timeout: Duration::MAX,
        ..EndpointConfig::new(NodeKey::from_seed([seed; 32]), listen)
    };
    Endpoint::bind(config).expect("a loopback port is free")
}

async fn read_messages(mut stream: RecvStream) -> (Vec<Request>, FrameError) {
    let mut read = Vec::new();
    loop {
        match read_message(&mut stream, MESSAGE_MAX).await {
            Ok(message) => read.push(message),
            Err(end) => return (read, end),
        }
    }
}

async fn read_body(mut stream: RecvStream) -> (Vec<u8>, Option<FrameError>) {
    let mut body = BodyReader::new(&mut stream, BODY_MAX);
    let mut read = Vec::new();
    loop {
        match body.next().await {
            Ok(Some(bytes)) => read.extend_from_slice(&bytes),
            Ok(None) => return (read, None),
            Err(end) => return (read, Some(end)),
        }
    }
}

/// The length at the start of some bytes, and what follows it.
fn length<'a>(bytes: &'a [u8], at_end: &FrameError) -> Result<(usize, &'a [u8]), FrameError> {
    match bytes.split_first_chunk::<4>() {
        Some((length, rest)) => Ok((u32::from_le_bytes(*length) as usize, rest)),
        None if bytes.is_empty() => Err(at_end.clone()),
        None => Err(FrameError::Truncated),
    }
}

fn plain_messages(mut bytes: &[u8]) -> (Vec<Request>, FrameError) {
    let mut read = Vec::new();
    loop {
        let (len, rest) = match length(bytes, &FrameError::Closed) {
            Ok(found) => found,
            Err(end) => return (read, end),
        };
        if len > MESSAGE_MAX {
            return (read, FrameError::TooLong { len: 0, limit: 0 });
        }
        let Some((message, rest)) = rest.split_at_checked(len) else {
            return (read, FrameError::Truncated);
        };
        match codec::decode(message) {
            Ok(message) => read.push(message),
            Err(error) => return (read, FrameError::Malformed(error)),
        }
        bytes = rest;
    }
}

fn plain_body(mut bytes: &[u8]) -> (Vec<u8>, Option<FrameError>) {
    let (mut read, mut announced) = (Vec::new(), 0);
    loop {
        let (len, rest) = match length(bytes, &FrameError::Truncated) {
            Ok((0, _)) => return (read, None),
            Ok(found) => found,
            Err(end) => return (read, Some(end)),
        };
        announced += len as u64;
        if announced > BODY_MAX || len > CHUNK_LEN_MAX {
            return (read, Some(FrameError::TooLong { len: 0, limit: 0 }));
        }
        let chunk = rest.get(..len).unwrap_or(rest);
        read.extend_from_slice(chunk);
        if chunk.len() < len {
            return (read, Some(FrameError::Truncated));
        }
        bytes = &rest[len..];
    }
}
