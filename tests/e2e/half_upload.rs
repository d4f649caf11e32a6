//! A super node that is killed in the middle of an artifact's bytes.

use orb_protocol::head::SignedHead;
use orb_protocol::id::ArtifactHash;
use orb_protocol::key::OwnerKey;
use orb_protocol::keyfile;
use orb_protocol::manifest::{Action, Kind, Limits, Manifest, Publish, Verified, Version, Visibility};
use orb_protocol::quic::body::BodyWriter;
use orb_protocol::quic::frames::{read_message, write_message};
use orb_protocol::quic::{Connection, Endpoint};
use orb_protocol::wire::codec::MESSAGE_LEN_MAX;
use orb_protocol::wire::directory::{self, PublishStep};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::{Reply, Request};
use orb_tests::network::files;
use orb_tests::{Network, Project, eventually, guest};
use quinn::{RecvStream, SendStream};
use tokio::runtime::Runtime;

use crate::peers;

#[test]
fn a_half_written_artifact_does_not_outlive_a_killed_super_node() {
    let mut network = Network::start(0);
    let orb = network.user();
    let module = guest::padded(guest::say("whole"), 8 << 20);
    let hash = ArtifactHash::of(&module).to_string();
    let owner = keyfile::load_or_create_owner_key(&orb.home().join("owner.key")).unwrap();

    let runtime = Runtime::new().unwrap();
    let revision = revision(&owner, &module);
    let (half, _) = module.split_at(module.len() / 2);
    let upload = runtime.block_on(Upload::begin(&network, &owner, &revision, half));
    let objects = network.super_data().join("objects");
    eventually("a part of the artifact is on the disk", || {
        let on_disk = files(&objects)
            .into_iter()
            .filter_map(|file| file.metadata().ok());
        (on_disk.map(|file| file.len()).sum::<u64>() > 0).then_some(())
    });
    network.super_node.kill();
    drop(upload);
    // Whatever lies there bears no artifact's name.
    assert!(!files(&objects).is_empty(), "the half is there");
    assert!(!network.holds_object(&network.super_data(), &hash));

    network.restart_super();
    assert_eq!(files(&objects), Vec::<std::path::PathBuf>::new());
    orb.run(["versions", "half", "--json"]).fails(6, "not_found");
    orb.run(["call", "half", "null", "--json"]).fails(6, "not_found");

    // The same revision, whole.
    let deployed = Project::wasm("half", &module).deploy_with(&orb, &["--no-wait"]);
    assert_eq!(deployed["revision"], 1, "{deployed}");
    assert!(network.holds_object(&network.super_data(), &hash));
}

/// A publish that got as far as the first bytes of the artifact.
struct Upload {
    _streams: (SendStream, RecvStream),
    _connection: Connection,
    _endpoint: Endpoint,
}

impl Upload {
    async fn begin(network: &Network, owner: &OwnerKey, revision: &Verified, bytes: &[u8]) -> Self {
        let endpoint = peers::endpoint();
        let connection = endpoint.connect(peers::super_node(network)).await.unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let publish = directory::Publish {
            manifest: revision.signed().clone(),
            head: SignedHead::sign(owner, revision),
            extensions: Extensions::none(),
        };
        write_message(&mut send, &Request::from(publish)).await.unwrap();
        let reply: Reply = read_message(&mut receive, MESSAGE_LEN_MAX).await.unwrap();
        let step: PublishStep = reply.into_result().unwrap();
        assert!(step.want_artifact, "the super node has no such artifact yet");
        let mut body = BodyWriter::new(&mut send);
        body.write(bytes.to_vec().into()).await.unwrap();
        Self {
            _streams: (send, receive),
            _connection: connection,
            _endpoint: endpoint,
        }
    }
}

/// The first revision of the function `half`.
fn revision(owner: &OwnerKey, module: &[u8]) -> Verified {
    let publish = Publish {
        artifact: ArtifactHash::of(module),
        artifact_bytes: module.len() as u64,
        kind: Kind::Command,
        engine: None,
        limits: Limits::default(),
        capabilities: Vec::new(),
        visibility: Visibility::default(),
        idempotent: false,
        replicas: 1,
        content_type: "application/octet-stream".to_owned(),
        extensions: Extensions::none(),
    };
    let manifest = Manifest {
        owner: owner.id(),
        name: "half".parse().unwrap(),
        version: Version {
            generation: 0,
            revision: 1,
        },
        parent: None,
        action: Action::from(publish),
        message: String::new(),
        time_ms: 0,
        extensions: Extensions::none(),
    };
    manifest.sign(owner).unwrap().verify().unwrap()
}
