//! A super node for tests: relays, and answers from memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use serde::Serialize;

use crate::fault::{Fault, FaultKind};
use crate::id::{ArtifactHash, FunctionId, NodeId};
use crate::key::NodeKey;
use crate::manifest::{Verified, Version};
use crate::quic::body::{BodyReader, write_body};
use crate::quic::frames::{read_message, write_message};
use crate::quic::{Connection, Endpoint, EndpointConfig, NodeAddr, RelayLink, SuperAddr};
use crate::registry::compare;
use crate::relay::RelayLimits;
use crate::rival::are_rivals;
use crate::wire::codec::MESSAGE_LEN_MAX;
use crate::wire::directory::{
    Fetched, HostHint, INVITE, List, Listed, NOTE, Publish, PublishStep, Published, Resolved, RevisionEntry,
    Summary, Versions, VersionsListed,
};
use crate::wire::extension::Extensions;
use crate::wire::{NodeInfo, Reply, Request};

/// Entries in a page: few, so that tests see several.
const PAGE: usize = 2;

#[derive(Default)]
pub(super) struct State {
    /// Every revision that was handed in.
    pub(super) revisions: BTreeMap<FunctionId, Vec<Verified>>,
    pub(super) artifacts: BTreeMap<ArtifactHash, Bytes>,
    pub(super) ready: BTreeMap<FunctionId, Vec<NodeId>>,
    /// How often somebody asked who answers.
    pub(super) resolves: usize,
    /// Revisions of another device, to be stored just before the next one that is handed in.
    pub(super) races: Vec<Verified>,
    /// Whether who asks for a function must say for whom.
    pub(super) wants_credential: bool,
    /// The invitation of the last publisher.
    pub(super) invite: Option<Vec<u8>>,
}

pub(super) struct Super {
    endpoint: Endpoint,
    state: Arc<Mutex<State>>,
}

impl Super {
    pub(super) fn start(seed: u8) -> Self {
        Self::start_at(seed, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(super) fn start_at(seed: u8, listen: SocketAddr) -> Self {
        let mut config = EndpointConfig::new(NodeKey::from_seed([seed; 32]), listen);
        config.relay = Some(RelayLimits::default());
        config.peer_streams = 256;
        let endpoint = Endpoint::bind(config).unwrap();
        let state = Arc::<Mutex<State>>::default();
        tokio::spawn(accept(endpoint.clone(), Arc::clone(&state)));
        Self { endpoint, state }
    }

    pub(super) fn addr(&self) -> SuperAddr {
        NodeAddr {
            id: self.endpoint.node_id(),
            addr: self.endpoint.local_addr().unwrap(),
        }
        .into()
    }

    pub(super) fn listen(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn publish(&self, manifest: Verified) {
        self.state()
            .revisions
            .entry(manifest.function())
            .or_default()
            .push(manifest);
    }

    pub(super) fn ready(&self, function: FunctionId, host: NodeId) {
        self.state().ready.entry(function).or_default().push(host);
    }

    pub(super) async fn stop(self) {
        self.endpoint.close(0, "stopped");
        self.endpoint.wait_idle().await;
    }
}

async fn accept(endpoint: Endpoint, state: Arc<Mutex<State>>) {
    while let Some(incoming) = endpoint.accept().await {
        let (endpoint, state) = (endpoint.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let Ok(connection) = incoming.handshake().await else {
                return;
            };
            serve(&endpoint, connection, &state).await;
        });
    }
}

async fn serve(endpoint: &Endpoint, connection: Connection, state: &Arc<Mutex<State>>) {
    let link = Arc::new(endpoint.relay().unwrap().register(&connection));
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (endpoint, link, state) = (endpoint.clone(), Arc::clone(&link), Arc::clone(state));
        tokio::spawn(async move { answer(&endpoint, &link, &state, send, recv).await });
    }
}

/// Answers a request. A client that has gone away is not told.
async fn answer(
    endpoint: &Endpoint,
    link: &RelayLink,
    state: &Mutex<State>,
    mut send: SendStream,
    mut recv: RecvStream,
) {
    let Ok(request) = read_message::<Request>(&mut recv, MESSAGE_LEN_MAX).await else {
        return;
    };
    let reply = match request {
        Request::OpenRelay(open) => {
            let opened = endpoint.relay().unwrap().open(link, &open).await;
            Reply::from_result(
                opened.map_err(|refusal| Fault::new(FaultKind::NoLiveHost, refusal.to_string())),
            )
        }
        Request::Publish(publish) => return take(state, publish, &mut send, &mut recv).await,
        Request::Fetch(fetch) => {
            let Some(bytes) = state.lock().unwrap().artifacts.get(&fetch.artifact).cloned() else {
                let _ = write_message(&mut send, &missing()).await;
                return;
            };
            let fetched = Fetched {
                len: bytes.len() as u64,
                extensions: Extensions::none(),
            };
            let _ = write_message(&mut send, &Reply::ok(&fetched)).await;
            let _ = write_body(&mut send, bytes).await;
            return;
        }
        other => look_up(&mut state.lock().unwrap(), other),
    };
    let _ = write_message(&mut send, &reply).await;
}

fn missing() -> Reply {
    Reply::fault(Fault::new(FaultKind::NotFound, "no such thing here"))
}

fn look_up(state: &mut State, request: Request) -> Reply {
    match request {
        Request::Resolve(resolve) => {
            state.resolves += 1;
            if state.wants_credential && resolve.credential.is_none() {
                return Reply::fault(Fault::new(FaultKind::Refused, "who asks?"));
            }
            let Some(manifest) = live(state, &resolve.function) else {
                return missing();
            };
            let hosts = state.ready.get(&resolve.function).cloned().unwrap_or_default();
            let extensions = match hosts.is_empty() {
                true => Extensions::none().with(NOTE, b"nobody is here".to_vec()),
                false => Extensions::none(),
            };
            let hosts = hosts
                .into_iter()
                .map(|node| hint(node, manifest.version()))
                .collect();
            ok(&Resolved {
                manifest: manifest.signed().clone(),
                hosts,
                extensions,
            })
        }
        Request::Versions(versions) => page_of_versions(state, &versions),
        Request::List(list) => page_of_functions(state, &list),
        Request::Info(_) => ok(&NodeInfo {
            role: "super".to_owned(),
            software: "test".to_owned(),
            time_ms: 0,
            observed: String::new(),
            extensions: Extensions::none(),
        }),
        other => Reply::fault(Fault::new(
            FaultKind::Internal,
            format!("not in this test: {other:?}"),
        )),
    }
}

fn ok(message: &impl Serialize) -> Reply {
    Reply::ok(message)
}

fn hint(node: NodeId, version: Version) -> HostHint {
    HostHint {
        node,
        version,
        rtt_us: 0,
        queue: 0,
        capacity: 1,
        run_us: 0,
        failure_permille: 0,
        extensions: Extensions::none(),
    }
}

fn live(state: &State, function: &FunctionId) -> Option<Verified> {
    state
        .revisions
        .get(function)?
        .iter()
        .max_by_key(|manifest| manifest.rank())
        .cloned()
}

fn page_of_versions(state: &State, asked: &Versions) -> Reply {
    let Some(revisions) = state.revisions.get(&asked.function) else {
        return missing();
    };
    let mut below: Vec<_> = revisions
        .iter()
        .filter(|m| asked.before.is_none_or(|before| m.version() < before))
        .collect();
    below.sort_by_key(|manifest| std::cmp::Reverse(manifest.rank()));
    let entry = |manifest: &&Verified| RevisionEntry {
        manifest: manifest.signed().clone(),
        has_artifact: manifest
            .publish()
            .is_some_and(|p| state.artifacts.contains_key(&p.artifact)),
    };
    ok(&VersionsListed {
        revisions: below.iter().take(PAGE).map(entry).collect(),
        more: below.len() > PAGE,
        extensions: Extensions::none(),
    })
}

fn page_of_functions(state: &State, asked: &List) -> Reply {
    let after = |function: &&FunctionId| asked.after.is_none_or(|after| **function > after);
    let rest: Vec<_> = state
        .revisions
        .keys()
        .filter(after)
        .filter_map(|f| live(state, f))
        .collect();
    let summary = |m: &Verified| Summary {
        manifest: m.signed().clone(),
        ready: 0,
        extensions: Extensions::none(),
    };
    ok(&Listed {
        functions: rest.iter().take(PAGE).map(summary).collect(),
        more: rest.len() > PAGE,
        extensions: Extensions::none(),
    })
}

async fn take(state: &Mutex<State>, publish: Publish, send: &mut SendStream, recv: &mut RecvStream) {
    let manifest = publish.manifest.verify().unwrap();
    state.lock().unwrap().invite = publish.extensions.get(INVITE).map(<[u8]>::to_vec);
    publish.head.verify_for(&manifest).unwrap();
    let wanted = {
        let state = state.lock().unwrap();
        manifest
            .publish()
            .is_some_and(|p| !state.artifacts.contains_key(&p.artifact))
    };
    let step = PublishStep {
        want_artifact: wanted,
        extensions: Extensions::none(),
    };
    write_message(send, &Reply::ok(&step)).await.unwrap();
    if wanted {
        let Ok(bytes) = BodyReader::new(recv, 1 << 30).read_all().await else {
            return;
        };
        let hash = ArtifactHash::of(&bytes);
        assert_eq!(Some(hash), manifest.publish().map(|p| p.artifact));
        state.lock().unwrap().artifacts.insert(hash, bytes.into());
    }
    let reply = store(&mut state.lock().unwrap(), manifest);
    let _ = write_message(send, &reply).await;
}

fn store(state: &mut State, manifest: Verified) -> Reply {
    for race in std::mem::take(&mut state.races) {
        state.revisions.entry(race.function()).or_default().push(race);
    }
    if live(state, &manifest.function()).is_some_and(|live| are_rivals(&live, &manifest)) {
        return Reply::fault(Fault::new(FaultKind::Refused, "another one has this number"));
    }
    if !compare(live(state, &manifest.function()).as_ref(), &manifest).changed() {
        return Reply::fault(Fault::new(FaultKind::Refused, "a newer revision is known"));
    }
    let version = manifest.version();
    state
        .revisions
        .entry(manifest.function())
        .or_default()
        .push(manifest);
    ok(&Published {
        version,
        assigned: Vec::new(),
        note: "test".to_owned(),
        extensions: Extensions::none(),
    })
}
