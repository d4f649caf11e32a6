//! A super node inside a test, and peers that talk to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use orb_protocol::fault::Fault;
use orb_protocol::federation::record::Record;
use orb_protocol::id::NodeId;
use orb_protocol::key::{NodeKey, OwnerKey};
use orb_protocol::manifest::{Limits, Verified};
use orb_protocol::quic::body::{BodyReader, write_body};
use orb_protocol::quic::frames::{read_message, write_message};
use orb_protocol::quic::{Connection, Endpoint, EndpointConfig, SuperAddr};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::control::{
    Holding, HostMessage, Offer, Ready, Register, Registered, SuperMessage, Synced,
};
use orb_protocol::wire::directory::{Fetch, Fetched, Publish, PublishStep, Published};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{Cursor, Peer, PeerMessage, Peered};
use orb_protocol::wire::{Reply, Request};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::config::{Admission, SuperConfig, WebhookPace};
use crate::shutdown::{Shutdown, Trigger};
use crate::store::testing::head;

/// The settings of a super node on loopback that lets everybody in.
pub(crate) fn config(data: &Path) -> SuperConfig {
    SuperConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        data: data.to_owned(),
        owners: Admission::Open,
        hosts: Admission::Open,
        peers: Vec::new(),
        open_peers: false,
        public: None,
        mainline: None,
        owner_functions_max: 100,
        owner_bytes_max: 1 << 20,
        artifact_bytes_max: 1 << 20,
        address_connections_max: 100,
        relay_sessions_max: 100,
        relay_node_sessions_max: 100,
        relay_node_bytes_per_second: 1 << 30,
        webhooks: Vec::new(),
        webhook_pace: WebhookPace::default(),
    }
}

/// A command that does nothing; `salt` makes it another one.
pub(crate) fn wasm(salt: u8) -> Bytes {
    module(&[], salt)
}

/// The same, but it imports what Orb does not offer.
pub(crate) fn wasm_with_import() -> Bytes {
    module(b"\x02\x0c\x01\x03env\x04nope\x00\x00", 0)
}

fn module(imports: &[u8], salt: u8) -> Bytes {
    let start = u8::from(!imports.is_empty());
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    wasm.extend(b"\x01\x04\x01\x60\0\0"); // one type: no parameters, no results
    wasm.extend(imports);
    wasm.extend(b"\x03\x02\x01\0"); // one function of it
    wasm.extend(b"\x05\x03\x01\0\x01"); // one page of memory
    wasm.extend(b"\x07\x13\x02\x06_start\0");
    wasm.push(start);
    wasm.extend(b"\x06memory\x02\0");
    wasm.extend(b"\x0a\x04\x01\x02\0\x0b"); // its body: end
    wasm.extend(b"\0\x03\x01x"); // a section called x
    wasm.push(salt);
    wasm.into()
}

/// A running super node.
pub(crate) struct Super {
    pub(crate) address: SuperAddr,
    trigger: Trigger,
    task: JoinHandle<anyhow::Result<()>>,
    data: TempDir,
}

impl Super {
    pub(crate) async fn start() -> Self {
        Self::start_with(tempfile::tempdir().expect("a folder"), |_| {}).await
    }

    pub(crate) async fn start_with(data: TempDir, change: impl FnOnce(&mut SuperConfig)) -> Self {
        let mut config = config(data.path());
        change(&mut config);
        let (trigger, shutdown) = Shutdown::new();
        let task = tokio::spawn(super::run(config, shutdown));
        let file = data.path().join("address");
        let address = loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                break text.trim().parse().expect("an address");
            }
            assert!(!task.is_finished(), "the super node ended: {:?}", task.await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        Self {
            address,
            trigger,
            task,
            data,
        }
    }

    /// Ends it in order and gives its folder back.
    pub(crate) async fn stop(self) -> TempDir {
        self.trigger.pull();
        self.task.await.expect("no panic").expect("it ends in order");
        self.data
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }
}

/// Somebody with a connection to a super node.
pub(crate) struct Guest {
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
}

impl Guest {
    pub(crate) async fn connect(to: &Super) -> Self {
        let seed = std::array::from_fn(|_| getrandom::u32().expect("random bytes") as u8);
        Self::connect_as(to, NodeKey::from_seed(seed)).await
    }

    pub(crate) async fn connect_as(to: &Super, key: NodeKey) -> Self {
        let config = EndpointConfig::new(key, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let endpoint = Endpoint::bind(config).expect("a socket");
        let address = to.address.resolve().await.expect("an address")[0];
        let connection = endpoint.connect(address).await.expect("a connection");
        Self { endpoint, connection }
    }

    /// One request, one answer.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: impl Into<Request>) -> Result<T, Fault> {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("a stream");
        write_message(&mut send, &request.into())
            .await
            .expect("it is sent");
        let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.expect("an answer");
        reply.into_result()
    }

    /// Publishes; the artifact goes along if it is wanted.
    pub(crate) async fn publish(
        &self,
        key: &OwnerKey,
        manifest: &Verified,
        bytes: &Bytes,
    ) -> Result<Published, Fault> {
        let publish = Publish {
            manifest: manifest.signed().clone(),
            head: head(key, manifest),
            extensions: Extensions::none(),
        };
        self.hand_in(publish, bytes).await
    }

    pub(crate) async fn hand_in(&self, publish: Publish, bytes: &Bytes) -> Result<Published, Fault> {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("a stream");
        let request = Request::from(publish);
        write_message(&mut send, &request).await.expect("it is sent");
        let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.expect("an answer");
        let step: PublishStep = reply.into_result()?;
        if step.want_artifact {
            // It may be refused before its end.
            let _ = write_body(&mut send, bytes.clone()).await;
        }
        let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.expect("an answer");
        reply.into_result()
    }

    pub(crate) async fn fetch(&self, fetch: Fetch) -> Result<(u64, Vec<u8>), Fault> {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("a stream");
        let request = Request::from(fetch);
        write_message(&mut send, &request).await.expect("it is sent");
        let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.expect("an answer");
        let fetched: Fetched = reply.into_result()?;
        let body = BodyReader::new(&mut recv, 1 << 30).read_all().await;
        Ok((fetched.len, body.expect("a body")))
    }
}

/// A node that has registered as a host.
pub(crate) struct FakeHost {
    pub(crate) guest: Guest,
    send: quinn::SendStream,
    recv: quinn::RecvStream,
}

pub(crate) fn register(invite: &str) -> Register {
    Register {
        offer: Offer {
            capacity: 4,
            ceiling: Limits::default(),
            artifact_bytes_max: 1 << 20,
            disk_free_bytes: 1 << 30,
            engines: Vec::new(),
            operator: String::new(),
            extensions: Extensions::none(),
        },
        invite: invite.to_owned(),
        software: "test".to_owned(),
        extensions: Extensions::none(),
    }
}

impl FakeHost {
    /// Registers a node that holds nothing, and waits until it has been told everything.
    pub(crate) async fn join(guest: Guest) -> Self {
        let mut host = Self::register(guest).await;
        let holding = Holding {
            replicas: Vec::new(),
            last: true,
            extensions: Extensions::none(),
        };
        host.say(holding).await;
        host
    }

    pub(crate) async fn register(guest: Guest) -> Self {
        let (mut send, mut recv) = guest.connection.open_bi().await.expect("a stream");
        let request = Request::from(register(""));
        write_message(&mut send, &request).await.expect("it is sent");
        let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.expect("an answer");
        let _: Registered = reply.into_result().expect("registered");
        Self { guest, send, recv }
    }

    pub(crate) async fn say(&mut self, message: impl Into<HostMessage>) {
        write_message(&mut self.send, &message.into())
            .await
            .expect("it is sent");
    }

    pub(crate) async fn ready(&mut self, manifest: &Verified) {
        let ready = Ready {
            function: manifest.function(),
            version: manifest.version(),
            extensions: Extensions::none(),
        };
        self.say(ready).await;
    }

    /// What the super node says next.
    pub(crate) async fn hear(&mut self) -> SuperMessage {
        read_message(&mut self.recv, MESSAGE_LEN_MAX)
            .await
            .expect("a message")
    }

    /// Expects to be told that all is told.
    pub(crate) async fn hear_synced(&mut self) {
        assert_eq!(self.hear().await, SuperMessage::from(Synced::default()));
    }

    /// Expects to be told to hold this.
    pub(crate) async fn hear_assign(&mut self, manifest: &Verified) {
        match self.hear().await {
            SuperMessage::Assign(assign) => assert_eq!(&assign.manifest, manifest.signed()),
            other => panic!("{other:?}"),
        }
    }
}

/// A node that is linked as another super node.
pub(crate) struct FakeSuper {
    pub(crate) guest: Guest,
    pub(crate) link: quinn::SendStream,
}

impl FakeSuper {
    /// Links with a super node that lets others in, as one whose own log goes so far.
    pub(crate) async fn join(to: &Super, seed: u8, own: Cursor) -> Self {
        let key = NodeKey::from_seed([seed; 32]);
        let record = Record {
            node: key.id(),
            addresses: vec!["127.0.0.1:1".to_owned()],
            number: 1,
            software: String::new(),
            extensions: Extensions::none(),
        };
        let hello = Peer {
            record: record.sign(&key),
            own,
            extensions: Extensions::none(),
        };
        let guest = Guest::connect_as(to, key).await;
        let (mut link, mut recv) = guest.connection.open_bi().await.expect("a stream");
        write_message(&mut link, &Request::from(hello))
            .await
            .expect("it is sent");
        let reply: Reply = read_message(&mut recv, MESSAGE_LEN_MAX).await.expect("an answer");
        let _: Peered = reply.into_result().expect("linked");
        tokio::spawn(async move {
            while read_message::<PeerMessage>(&mut recv, MESSAGE_LEN_MAX)
                .await
                .is_ok()
            {}
        });
        Self { guest, link }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.guest.endpoint.node_id()
    }

    /// From now on answers what the super node asks.
    pub(crate) fn answer(&self, answer: impl Fn(&Request) -> Option<Reply> + Send + 'static) {
        let connection = self.guest.connection.clone();
        tokio::spawn(async move {
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                let asked: Request = read_message(&mut recv, MESSAGE_LEN_MAX).await.expect("a request");
                if let Some(reply) = answer(&asked) {
                    write_message(&mut send, &reply).await.expect("it is sent");
                    let _ = send.finish();
                }
            }
        });
    }
}
