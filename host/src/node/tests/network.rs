//! A super node that does what it is told, a caller, and a host between them, all on loopback.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use orb_protocol::fault::Fault;
use orb_protocol::id::{ArtifactHash, FunctionId, NodeId, RequestId};
use orb_protocol::key::NodeKey;
use orb_protocol::manifest::{Limits, Verified, Version};
use orb_protocol::quic::body::{BodyReader, BodyWriter, write_body};
use orb_protocol::quic::frames::{FrameError, read_message, write_message};
use orb_protocol::quic::{Connection, Endpoint, EndpointConfig, Incoming};
use orb_protocol::relay::RelayLimits;
use orb_protocol::wire::call::{Attach, Call, Started, Trailer};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::control::{Assign, Changed, HostMessage, Registered, Release, SuperMessage, Synced};
use orb_protocol::wire::directory::{Fetch, Fetched};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, Request};
use quinn::{RecvStream, SendStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use crate::config::{NodeConfig, PauseRules};
use crate::node::Node;

/// Longer than anything here takes on a busy machine: a test that waits longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

fn endpoint(seed: u8, relay: Option<RelayLimits>) -> Endpoint {
    let key = NodeKey::from_seed([seed; 32]);
    let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let mut config = EndpointConfig::new(key, listen);
    config.relay = relay;
    config.peer_streams = 64;
    Endpoint::bind(config).unwrap()
}

/// A super node.
pub(super) struct Super {
    pub(super) endpoint: Endpoint,
    pub(super) shared: Arc<Shared>,
}

/// What a super node knows, and how it behaves.
#[derive(Default)]
pub(super) struct Shared {
    artifacts: Mutex<HashMap<ArtifactHash, Vec<u8>>>,
    hosts: Mutex<HashMap<NodeId, mpsc::UnboundedSender<SuperMessage>>>,
    said: watch::Sender<Vec<HostMessage>>,
    /// The offsets that were asked for.
    pub(super) fetches: Mutex<Vec<u64>>,
    /// The next transfer breaks after so many bytes.
    pub(super) break_after: Mutex<Option<usize>>,
    /// Transfers wait for this.
    pub(super) hold_fetches: Mutex<Option<Arc<Notify>>>,
    /// Hosts are not told that they know everything.
    pub(super) keep_unsynced: Mutex<bool>,
    /// What is sent to a host before it is told so.
    pub(super) corrections: Mutex<Vec<SuperMessage>>,
}

impl Shared {
    /// What hosts said since it was forgotten last.
    pub(super) fn said(&self) -> Vec<HostMessage> {
        self.said.borrow().clone()
    }
}

impl Super {
    pub(super) fn start(seed: u8) -> Self {
        let endpoint = endpoint(seed, Some(RelayLimits::default()));
        let shared = Arc::<Shared>::default();
        tokio::spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        Self { endpoint, shared }
    }

    pub(super) fn address(&self) -> String {
        let addr = self.endpoint.local_addr().unwrap();
        format!("{}@{addr}", self.endpoint.node_id())
    }

    /// Has the artifact, and assigns the revision to all hosts that are connected.
    pub(super) fn assign(&self, manifest: &Verified, wasm: &[u8]) {
        self.store(wasm);
        self.tell(&SuperMessage::Assign(Assign {
            manifest: manifest.signed().clone(),
            extensions: Extensions::none(),
        }));
    }

    pub(super) fn store(&self, wasm: &[u8]) {
        let mut artifacts = self.shared.artifacts.lock().unwrap();
        artifacts.insert(ArtifactHash::of(wasm), wasm.to_vec());
    }

    /// Gives other bytes for an artifact than it has.
    pub(super) fn lie(&self, artifact: ArtifactHash, bytes: &[u8]) {
        let mut artifacts = self.shared.artifacts.lock().unwrap();
        artifacts.insert(artifact, bytes.to_vec());
    }

    pub(super) fn changed(manifest: &Verified) -> SuperMessage {
        SuperMessage::Changed(Changed {
            manifest: manifest.signed().clone(),
            extensions: Extensions::none(),
        })
    }

    pub(super) fn release(&self, function: FunctionId) {
        let extensions = Extensions::none();
        self.tell(&SuperMessage::Release(Release { function, extensions }));
    }

    pub(super) fn tell(&self, message: &SuperMessage) {
        for host in self.shared.hosts.lock().unwrap().values() {
            host.send(message.clone()).unwrap();
        }
    }

    /// Waits until a host said something of this kind, now or earlier.
    pub(super) async fn hears(&self, what: impl Fn(&HostMessage) -> bool) -> HostMessage {
        let mut said = self.shared.said.subscribe();
        let heard = said.wait_for(|said| said.iter().any(&what));
        let heard = patiently(heard).await.unwrap();
        heard.iter().find(|message| what(message)).unwrap().clone()
    }

    pub(super) async fn hears_ready(&self, function: FunctionId, revision: u64) {
        let version = |version: Version| version.revision == revision;
        let ready = |m: &HostMessage| match m {
            HostMessage::Ready(ready) => ready.function == function && version(ready.version),
            HostMessage::Holding(page) => {
                let mut held = page.replicas.iter();
                held.any(|held| held.ready && held.function == function && version(held.version))
            }
            _ => false,
        };
        self.hears(ready).await;
    }

    /// Forgets what was heard.
    pub(super) fn forget(&self) {
        self.shared.said.send_modify(Vec::clear);
    }

    /// Waits until a host has registered and told what it holds.
    pub(super) async fn hears_holdings(&self) {
        self.hears(|m| matches!(m, HostMessage::Holding(page) if page.last))
            .await;
    }
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve(incoming, endpoint.clone(), Arc::clone(&shared)));
    }
}

async fn serve(incoming: Incoming, endpoint: Endpoint, shared: Arc<Shared>) {
    let Ok(connection) = incoming.handshake().await else {
        return;
    };
    let link = Arc::new(endpoint.relay().unwrap().register(&connection));
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        let (endpoint, link) = (endpoint.clone(), Arc::clone(&link));
        let (shared, connection) = (Arc::clone(&shared), connection.clone());
        tokio::spawn(async move {
            match read_message(&mut recv, MESSAGE_LEN_MAX).await? {
                Request::Register(_) => {
                    let observed = connection.remote_address().to_string();
                    let extensions = Extensions::none();
                    write_message(&mut send, &Reply::ok(&Registered { observed, extensions })).await?;
                    control(shared, connection.peer(), send, recv).await
                }
                Request::OpenRelay(wanted) => {
                    let opened = endpoint.relay().unwrap().open(&link, &wanted).await;
                    let opened = opened.map_err(Fault::from);
                    write_message(&mut send, &Reply::from_result(opened)).await
                }
                Request::Fetch(wanted) => give(&shared, &wanted, &mut send).await,
                _ => Ok(()),
            }
        });
    }
    shared.hosts.lock().unwrap().remove(&connection.peer());
}

async fn control(
    shared: Arc<Shared>,
    host: NodeId,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), FrameError> {
    let (sender, mut messages) = mpsc::unbounded_channel();
    let listen = async {
        loop {
            let message: HostMessage = read_message(&mut recv, MESSAGE_LEN_MAX).await?;
            if matches!(&message, HostMessage::Holding(page) if page.last) {
                for correction in shared.corrections.lock().unwrap().drain(..) {
                    sender.send(correction).unwrap();
                }
                if !*shared.keep_unsynced.lock().unwrap() {
                    sender.send(Synced::default().into()).unwrap();
                }
                shared.hosts.lock().unwrap().insert(host, sender.clone());
            }
            shared.said.send_modify(|said| said.push(message));
        }
    };
    let tell = async {
        while let Some(message) = messages.recv().await {
            write_message(&mut send, &message).await?;
        }
        Ok(())
    };
    tokio::select! { result = listen => result, result = tell => result }
}

async fn give(shared: &Shared, wanted: &Fetch, send: &mut SendStream) -> Result<(), FrameError> {
    let hold = shared.hold_fetches.lock().unwrap().clone();
    if let Some(hold) = hold {
        hold.notified().await;
    }
    shared.fetches.lock().unwrap().push(wanted.offset);
    let bytes = shared.artifacts.lock().unwrap()[&wanted.artifact].clone();
    let fetched = Fetched {
        len: bytes.len() as u64,
        extensions: Extensions::none(),
    };
    write_message(send, &Reply::ok(&fetched)).await?;
    let rest = Bytes::from(bytes).slice(usize::try_from(wanted.offset).unwrap()..);
    let broken = shared.break_after.lock().unwrap().take();
    match broken {
        Some(len) => {
            BodyWriter::new(send).write(rest.slice(..len)).await?;
            // So that what was written arrives before the stream breaks.
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = send.reset(9u32.into());
            Ok(())
        }
        None => write_body(send, rest).await,
    }
}

/// A host's configuration, with one super node.
pub(super) fn config(data: &Path, supers: &[&Super]) -> NodeConfig {
    NodeConfig {
        supers: supers.iter().map(|s| s.address().parse().unwrap()).collect(),
        data: data.to_owned(),
        cache: None,
        capacity: 4,
        executors: 1,
        executor_bytes_max: 4 << 30,
        require_sandbox: false,
        queue_max: 16,
        queue_wait_max: Duration::from_millis(500),
        ceiling: Limits::default(),
        artifact_bytes_max: 1 << 20,
        disk_bytes_max: 1 << 30,
        operator: String::new(),
        invite: String::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        dry_run: false,
        evict: false,
        pauses: PauseRules::default(),
    }
}

/// A host, its super node and a caller who is connected to both.
pub(super) struct Net {
    pub(super) folder: tempfile::TempDir,
    pub(super) upper: Super,
    pub(super) node: Node,
    pub(super) caller: Caller,
}

impl Net {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let upper = Super::start(1);
        let mut config = config(folder.path(), &[&upper]);
        change(&mut config);
        let node = Node::start(config).await.unwrap();
        upper.hears_holdings().await;
        let caller = Caller::connect(2, &upper, node.id()).await;
        Self {
            folder,
            upper,
            node,
            caller,
        }
    }

    /// Assigns, and waits until the host is ready.
    pub(super) async fn seed(&self, manifest: &Verified, wasm: &[u8]) {
        self.upper.assign(manifest, wasm);
        self.upper
            .hears_ready(manifest.function(), manifest.version().revision)
            .await;
    }

    /// Waits until no call runs at the host.
    pub(super) async fn until_idle(&self) {
        patiently(async {
            while self.node.host.requests.running() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// A caller with a connection to a host, through a super node.
pub(super) struct Caller {
    pub(super) endpoint: Endpoint,
    pub(super) via: Connection,
    pub(super) host: Connection,
}

impl Caller {
    pub(super) async fn connect(seed: u8, upper: &Super, host: NodeId) -> Self {
        let endpoint = endpoint(seed, None);
        let addresses: orb_protocol::quic::SuperAddr = upper.address().parse().unwrap();
        let address = addresses.resolve().await.unwrap()[0];
        let via = endpoint.connect(address).await.unwrap();
        let host = endpoint.connect_relayed(host, &via).await.unwrap();
        Self { endpoint, via, host }
    }

    /// The same caller on a new connection.
    pub(super) async fn reconnect(&mut self) {
        let host = self.host.peer();
        self.host = self.endpoint.connect_relayed(host, &self.via).await.unwrap();
    }

    /// Begins a call whose whole input is known.
    pub(super) async fn begin(&self, call: Call, input: &[u8]) -> Exchange {
        let call = Call {
            input_len: Some(input.len() as u64),
            ..call
        };
        let mut exchange = self.open(call.into()).await;
        // A host that does not want it says why.
        let _ = write_body(&mut exchange.send, Bytes::copy_from_slice(input)).await;
        exchange
    }

    pub(super) async fn call(&self, call: Call, input: &[u8]) -> Result<Done, Fault> {
        self.begin(call, input).await.done().await
    }

    pub(super) async fn attach(&self, request: RequestId) -> Exchange {
        let extensions = Extensions::none();
        self.open(Attach { request, extensions }.into()).await
    }

    pub(super) async fn open(&self, request: Request) -> Exchange {
        let (mut send, recv) = self.host.open_bi().await.unwrap();
        write_message(&mut send, &request).await.unwrap();
        Exchange { send, recv }
    }
}

/// A call of a function.
pub(super) fn call(function: FunctionId) -> Call {
    let mut request = [0; 16];
    getrandom::fill(&mut request).unwrap();
    Call {
        request: RequestId::from_bytes(request),
        function,
        known: Version::default(),
        remaining_us: 30_000_000,
        input_len: None,
        credential: None,
        trace: None,
        hops: 0,
        extensions: Extensions::none(),
    }
}

/// A stream on which something was asked.
pub(super) struct Exchange {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

/// What came of a call that started.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) started: Started,
    pub(super) output: Vec<u8>,
    pub(super) trailer: Trailer,
}

impl Done {
    /// The answer as text, of a call that went well.
    pub(super) fn text(&self) -> &str {
        assert_eq!(self.trailer.fault, None);
        std::str::from_utf8(&self.output).unwrap()
    }
}

impl Exchange {
    pub(super) async fn started(&mut self) -> Result<Started, Fault> {
        let reply: Reply = patiently(read_message(&mut self.recv, MESSAGE_LEN_MAX))
            .await
            .unwrap();
        reply.into_result()
    }

    pub(super) async fn rest(&mut self) -> (Vec<u8>, Trailer) {
        let mut body = BodyReader::new(&mut self.recv, 1 << 30);
        let output = patiently(body.read_all()).await.unwrap();
        let trailer = patiently(read_message(&mut self.recv, MESSAGE_LEN_MAX))
            .await
            .unwrap();
        (output, trailer)
    }

    pub(super) async fn done(mut self) -> Result<Done, Fault> {
        let started = self.started().await?;
        let (output, trailer) = self.rest().await;
        Ok(Done {
            started,
            output,
            trailer,
        })
    }
}
