//! A host for tests: does with each call what it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use quinn::{ConnectionError, RecvStream, SendStream};
use tokio::sync::{Notify, oneshot};

use crate::fault::{Fault, FaultKind};
use crate::id::{NodeId, RequestId};
use crate::key::NodeKey;
use crate::manifest::Version;
use crate::quic::body::{BodyReader, BodyWriter, write_body};
use crate::quic::frames::{read_message, write_message};
use crate::quic::{Connection, Endpoint, EndpointConfig, SuperAddr};
use crate::wire::call::{Call, Started, Trailer};
use crate::wire::codec::MESSAGE_LEN_MAX;
use crate::wire::extension::Extensions;
use crate::wire::{NodeInfo, Reply, Request};

/// What a host does with a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// Starts, and answers with the seed of its key, a colon, and the input.
    Answer,
    /// The same for a version of its own, with its owner's word for it.
    AnswerAs(Version),
    /// The same, and nothing proves that there is such a version.
    ClaimAs(Version),
    /// Starts, and gives back the input while it comes.
    Echo,
    /// The same, and closes the connection instead of ending the answer.
    EchoThenLose,
    /// Does not start.
    Refuse(FaultKind),
    /// Does not start: overloaded, and to be asked again after so many milliseconds.
    Away(u32),
    /// Starts, and ends with a fault.
    Fail(FaultKind),
    /// Starts, and waits until the client gives up.
    Hang,
    /// Answers with what is no message.
    Babble,
    /// Closes the connection; has the call, or knows nothing of it.
    Lose { started: bool, kept: bool },
    /// Stops like a process that is killed or a cable that is cut: without a word.
    Freeze { started: bool },
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) connections: usize,
    pub(super) calls: Vec<Call>,
    pub(super) attaches: usize,
    pub(super) probes: usize,
    /// How connections ended.
    pub(super) ends: Vec<ConnectionError>,
}

struct Shared {
    seed: u8,
    idempotent: bool,
    acts: Mutex<VecDeque<Act>>,
    seen: Mutex<Seen>,
    /// Answers of calls whose connection was lost.
    kept: Mutex<BTreeMap<RequestId, Bytes>>,
    started: Notify,
    cancelled: Notify,
    ended: Notify,
    freeze: Notify,
    frozen: AtomicBool,
}

pub(super) struct Host {
    id: NodeId,
    shared: Arc<Shared>,
}

impl Host {
    /// Starts a host on a thread of its own, so that it can stop without the others.
    pub(super) async fn start(seed: u8, super_node: SuperAddr, idempotent: bool, acts: Vec<Act>) -> Self {
        let shared = Arc::new(Shared {
            seed,
            idempotent,
            acts: Mutex::new(acts.into()),
            seen: Mutex::default(),
            kept: Mutex::default(),
            started: Notify::new(),
            cancelled: Notify::new(),
            ended: Notify::new(),
            freeze: Notify::new(),
            frozen: AtomicBool::new(false),
        });
        let (ready, is_ready) = oneshot::channel();
        let host = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(run(Arc::clone(&host), super_node, ready));
            host.frozen.store(true, Ordering::Release);
            // Nothing of this runtime moves any more, and its sockets stay open.
            loop {
                std::thread::park();
            }
        });
        let id = is_ready.await.unwrap();
        Self { id, shared }
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().unwrap()
    }

    /// Stops the host as if it were killed.
    pub(super) fn freeze(&self) {
        self.shared.freeze.notify_one();
        while !self.shared.frozen.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    /// Waits until a call hangs.
    pub(super) async fn started(&self) {
        self.shared.started.notified().await;
    }

    /// Waits until a connection has ended, and says how.
    pub(super) async fn ended(&self) -> ConnectionError {
        loop {
            if let Some(end) = self.seen().ends.pop() {
                return end;
            }
            self.shared.ended.notified().await;
        }
    }

    /// Waits until a call that hung was cancelled.
    pub(super) async fn cancelled(&self) {
        self.shared.cancelled.notified().await;
    }
}

/// Runs until the host is to freeze.
async fn run(host: Arc<Shared>, super_node: SuperAddr, ready: oneshot::Sender<NodeId>) {
    let key = NodeKey::from_seed([host.seed; 32]);
    let mut config = EndpointConfig::new(key, "127.0.0.1:0".parse().unwrap());
    config.peer_streams = 256;
    config.keep_alive = Some(std::time::Duration::from_secs(1));
    let endpoint = Endpoint::bind(config).unwrap();
    let up = endpoint
        .connect(super_node.resolve().await.unwrap()[0])
        .await
        .unwrap();
    ready.send(endpoint.node_id()).unwrap();
    tokio::spawn(take_offers(endpoint.clone(), up));
    tokio::spawn(accept(endpoint.clone(), Arc::clone(&host)));
    host.freeze.notified().await;
}

async fn take_offers(endpoint: Endpoint, up: Connection) {
    while let Ok((mut send, mut recv)) = up.accept_bi().await {
        let Ok(Request::RelayOffer(offer)) = read_message(&mut recv, MESSAGE_LEN_MAX).await else {
            continue;
        };
        let _ = write_message(
            &mut send,
            &Reply::from_result(endpoint.accept_relayed(&up, &offer)),
        )
        .await;
    }
}

async fn accept(endpoint: Endpoint, host: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            let Ok(connection) = incoming.handshake().await else {
                return;
            };
            host.seen.lock().unwrap().connections += 1;
            let end = loop {
                let (send, recv) = match connection.accept_bi().await {
                    Ok(stream) => stream,
                    Err(end) => break end,
                };
                let (host, connection) = (Arc::clone(&host), connection.clone());
                // Streams of clients that have gone away end with an error that nobody reads.
                tokio::spawn(async move { host.answer(&connection, send, recv).await });
            };
            host.seen.lock().unwrap().ends.push(end);
            host.ended.notify_one();
        });
    }
}

impl Shared {
    async fn answer(
        &self,
        connection: &Connection,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Option<()> {
        match read_message::<Request>(&mut recv, MESSAGE_LEN_MAX).await.ok()? {
            Request::Info(_) => {
                self.seen.lock().unwrap().probes += 1;
                let info = NodeInfo {
                    role: "node".to_owned(),
                    software: "test".to_owned(),
                    time_ms: 0,
                    observed: String::new(),
                    extensions: Extensions::none(),
                };
                write_message(&mut send, &Reply::ok(&info)).await.ok()
            }
            Request::Attach(attach) => {
                self.seen.lock().unwrap().attaches += 1;
                let kept = self.kept.lock().unwrap().get(&attach.request).cloned();
                match kept {
                    Some(answer) => self.give(&mut send, self.version(), answer, None).await,
                    None => refuse(&mut send, Fault::new(FaultKind::NotFound, "told to")).await,
                }
            }
            Request::Call(call) => {
                self.seen.lock().unwrap().calls.push(call.clone());
                let act = self.acts.lock().unwrap().pop_front().unwrap_or(Act::Answer);
                self.act(act, &call, connection, &mut send, &mut recv).await
            }
            _ => None,
        }
    }

    async fn act(
        &self,
        act: Act,
        call: &Call,
        connection: &Connection,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Option<()> {
        match act {
            Act::Answer => self.answer_as(self.version(), call, send, recv).await,
            Act::AnswerAs(version) => {
                let input = self.input(call, recv).await?;
                let revision = super::revision(version.revision, self.idempotent);
                let started = self.started(version).with_proof(revision.signed());
                write_message(send, &Reply::ok(&started)).await.ok()?;
                write_body(send, self.output(&input)).await.ok()?;
                end(send, None).await
            }
            Act::ClaimAs(version) => self.answer_as(version, call, send, recv).await,
            Act::Echo => {
                self.echo(send, recv).await?;
                end(send, None).await
            }
            Act::EchoThenLose => {
                self.echo(send, recv).await?;
                connection.close(9, "lost");
                Some(())
            }
            Act::Refuse(kind) => refuse(send, Fault::new(kind, "told to")).await,
            Act::Away(ms) => {
                let fault = Fault {
                    retry_after_ms: Some(ms),
                    ..Fault::new(FaultKind::Overloaded, "told to")
                };
                refuse(send, fault).await
            }
            Act::Fail(kind) => self.give(send, self.version(), Bytes::new(), Some(kind)).await,
            Act::Hang => {
                self.start(send, self.version()).await?;
                self.started.notify_one();
                let _ = send.stopped().await;
                self.cancelled.notify_one();
                Some(())
            }
            Act::Babble => send.write_all(&[3, 0, 0, 0, 255, 255, 255]).await.ok(),
            Act::Lose { started, kept } => {
                let input = BodyReader::new(recv, u64::MAX).read_all().await.ok()?;
                if started {
                    self.start(send, self.version()).await?;
                    // So that the client has it before the connection ends.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                if kept {
                    self.kept
                        .lock()
                        .unwrap()
                        .insert(call.request, self.output(&input));
                }
                connection.close(9, "lost");
                Some(())
            }
            Act::Freeze { started } => {
                if started {
                    self.start(send, self.version()).await?;
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                self.freeze.notify_one();
                std::future::pending().await
            }
        }
    }

    fn version(&self) -> Version {
        Version {
            generation: 0,
            revision: 1,
        }
    }

    fn output(&self, input: &[u8]) -> Bytes {
        [format!("{}:", self.seed).as_bytes(), input].concat().into()
    }

    async fn answer_as(
        &self,
        version: Version,
        call: &Call,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Option<()> {
        let input = self.input(call, recv).await?;
        self.give(send, version, self.output(&input), None).await
    }

    async fn input(&self, call: &Call, recv: &mut RecvStream) -> Option<Vec<u8>> {
        let input = BodyReader::new(recv, u64::MAX).read_all().await.ok()?;
        assert!(call.input_len.is_none_or(|len| len == input.len() as u64));
        Some(input)
    }

    async fn echo(&self, send: &mut SendStream, recv: &mut RecvStream) -> Option<()> {
        self.start(send, self.version()).await?;
        let mut input = BodyReader::new(recv, u64::MAX);
        let mut output = BodyWriter::new(send);
        while let Some(bytes) = input.next().await.ok()? {
            output.write(bytes).await.ok()?;
        }
        output.finish().await.ok()
    }

    async fn start(&self, send: &mut SendStream, version: Version) -> Option<()> {
        write_message(send, &Reply::ok(&self.started(version))).await.ok()
    }

    fn started(&self, version: Version) -> Started {
        Started {
            version,
            content_type: "text/plain".to_owned(),
            idempotent: self.idempotent,
            extensions: Extensions::none(),
        }
    }

    async fn give(
        &self,
        send: &mut SendStream,
        version: Version,
        answer: Bytes,
        fault: Option<FaultKind>,
    ) -> Option<()> {
        self.start(send, version).await?;
        write_body(send, answer).await.ok()?;
        end(send, fault).await
    }
}

async fn refuse(send: &mut SendStream, fault: Fault) -> Option<()> {
    write_message(send, &Reply::fault(fault)).await.ok()
}

async fn end(send: &mut SendStream, fault: Option<FaultKind>) -> Option<()> {
    let trailer = Trailer {
        fault: fault.map(|kind| Fault::new(kind, "told to")),
        fuel: 1_000,
        memory_peak_bytes: 65_536,
        queued_us: 1,
        guest_us: 2,
        compile_us: 3,
        log_truncated: false,
        extensions: Extensions::none(),
    };
    write_message(send, &trailer).await.ok()?;
    send.finish().ok()
}
