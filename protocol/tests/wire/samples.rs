//! One message of every kind, with every field set.

use std::sync::Arc;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::federation::record::Record;
use orb_protocol::head::SignedHead;
use orb_protocol::id::{ArtifactHash, EngineHash, FunctionId, ManifestHash, NodeId, RequestId};
use orb_protocol::key::{NodeKey, OwnerKey};
use orb_protocol::manifest::{
    Action, Decommission, Kind, Limits, Manifest, Publish, SignedManifest, Verified, Version, Visibility,
};
use orb_protocol::wire::call::{Attach, Call, Credential, Started, TraceContext, Trailer};
use orb_protocol::wire::codec::{self, DecodeError};
use orb_protocol::wire::control::{
    Assign, Beat, Changed, Draining, Dropped, Held, Holding, HostMessage, Offer, Ready, Refused, Register,
    Registered, Release, SuperMessage, Supers, Synced,
};
use orb_protocol::wire::directory::{
    self, Fetch, Fetched, HostHint, Inspect, Inspected, List, Listed, PublishStep, Published, ReadyReport,
    RemovalReport, Replica, ReplicaState, Resolve, Resolved, RevisionEntry, Summary, Versions,
    VersionsListed, WaitReady, WaitRemoved,
};
use orb_protocol::wire::events::{Event, EventKind, EventPage, Events};
use orb_protocol::wire::extension::Extensions;
use orb_protocol::wire::federation::{
    Changes, ChangesPage, Cursor, HostPause, HostRecord, Hosts, Locate, Located, Members, Order, Orders,
    Peer, PeerBeat, PeerMessage, Peered, Reconcile, Reconciled, RegistryChange, ReplicaChange, ReplicaNews,
    Replicas,
};
use orb_protocol::wire::packed::PackedChanges;
use orb_protocol::wire::relay::{OpenRelay, RelayAccepted, RelayOffer, RelayOpened};
use orb_protocol::wire::{Info, NodeInfo, Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message of some type: its bytes, and that type's decoder followed by its encoder.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) recode: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
}

fn sample<T: Serialize + DeserializeOwned>(name: &'static str, message: &T) -> Sample {
    Sample {
        name,
        bytes: codec::encode(message),
        recode: |bytes| codec::decode::<T>(bytes).map(|message| codec::encode(&message)),
    }
}

pub(crate) fn owner() -> OwnerKey {
    OwnerKey::from_seed([1; 32])
}

pub(crate) fn node() -> NodeId {
    NodeKey::from_seed([2; 32]).id()
}

pub(crate) fn publish() -> Publish {
    Publish {
        artifact: ArtifactHash::of(b"artifact"),
        artifact_bytes: 8,
        kind: Kind::JavyFunction,
        engine: Some(EngineHash::from_bytes([3; 32])),
        limits: Limits::default(),
        capabilities: vec!["clock".to_owned()],
        visibility: Visibility {
            callers: Some(vec![OwnerKey::from_seed([4; 32]).id()]),
        },
        idempotent: true,
        replicas: 3,
        content_type: "application/json".to_owned(),
        extensions: Extensions::none(),
    }
}

pub(crate) fn manifest(action: Action) -> Manifest {
    Manifest {
        owner: owner().id(),
        name: "hello".parse().expect("a good name"),
        version: Version {
            generation: 1,
            revision: 300,
        },
        parent: Some(ManifestHash::from_bytes([5; 32])),
        action,
        message: "what is new".to_owned(),
        time_ms: 1_790_000_000_000,
        extensions: Extensions::none(),
    }
}

pub(crate) fn signed() -> SignedManifest {
    manifest(publish().into()).sign(&owner()).expect("within bounds")
}

pub(crate) fn verified() -> Verified {
    signed().verify().expect("just signed")
}

fn function() -> FunctionId {
    verified().function()
}

fn version() -> Version {
    Version {
        generation: 1,
        revision: 300,
    }
}

fn credential() -> Credential {
    Credential::sign(&owner(), &node(), 1_790_000_060_000)
}

fn fault() -> Fault {
    let mut fault = Fault::new(FaultKind::Thrown, "Error: no")
        .help("mend it")
        .stack("at index.js:3:9");
    fault.exit_code = Some(-1);
    fault.retry_after_ms = Some(250);
    fault
}

fn hint() -> HostHint {
    HostHint {
        node: node(),
        version: version(),
        rtt_us: 12_345,
        queue: 2,
        capacity: 8,
        run_us: 80,
        failure_permille: 7,
        extensions: Extensions::none(),
    }
}

fn calls() -> Vec<Sample> {
    let call = Call {
        request: RequestId::from_bytes([6; 16]),
        function: function(),
        known: version(),
        remaining_us: 30_000_000,
        input_len: Some(70_000),
        credential: Some(credential()),
        trace: Some(TraceContext {
            trace_id: [7; 16],
            parent_id: [8; 8],
            flags: 1,
        }),
        hops: 1,
        extensions: Extensions::none(),
    };
    let attach = Attach {
        request: call.request,
        extensions: Extensions::none(),
    };
    let started = Started {
        version: version(),
        content_type: "text/plain".to_owned(),
        idempotent: true,
        extensions: Extensions::none(),
    };
    let trailer = Trailer {
        fault: Some(fault()),
        fuel: 1_000_000,
        memory_peak_bytes: 65_536,
        queued_us: 10,
        guest_us: 80,
        compile_us: 0,
        log_truncated: true,
        extensions: Extensions::none(),
    };
    vec![
        sample("Call", &call),
        sample("Attach", &attach),
        sample("Started", &started),
        sample("Trailer", &trailer),
        sample("Fault", &fault()),
    ]
}

fn directories() -> Vec<Sample> {
    let extensions = Extensions::none;
    let resolve = Resolve {
        function: function(),
        credential: Some(credential()),
        extensions: extensions(),
    };
    let resolved = Resolved {
        manifest: signed(),
        hosts: vec![hint()],
        extensions: extensions(),
    };
    let head = SignedHead::sign(&owner(), &verified());
    let publish = directory::Publish {
        manifest: signed(),
        head,
        extensions: extensions(),
    };
    let published = Published {
        version: version(),
        assigned: vec![node()],
        note: "one host of three".to_owned(),
        extensions: extensions(),
    };
    let list = List {
        owner: Some(owner().id()),
        after: Some(function()),
        limit: 100,
        decommissioned: true,
        extensions: extensions(),
    };
    let summary = Summary {
        manifest: signed(),
        ready: 3,
        extensions: extensions(),
    };
    let versions = Versions {
        function: function(),
        before: Some(version()),
        extensions: extensions(),
    };
    let revision = RevisionEntry {
        manifest: signed(),
        has_artifact: true,
    };
    let replica = Replica {
        host: hint(),
        state: ReplicaState::Refused,
        reason: "too large".to_owned(),
    };
    let wait = WaitReady {
        function: function(),
        version: version(),
        count: 1,
        wait_ms: 15_000,
        extensions: extensions(),
    };
    let report = ReadyReport {
        ready: vec![node()],
        pending: vec![node()],
        refused: vec![(node(), "too large".to_owned())],
        hosts: 3,
        extensions: extensions(),
    };
    let fetch = Fetch {
        artifact: ArtifactHash::of(b"artifact"),
        offset: 65_536,
        extensions: extensions(),
    };
    vec![
        sample("Resolve", &resolve),
        sample("Resolved", &resolved),
        sample("Publish", &publish),
        sample(
            "PublishStep",
            &PublishStep {
                want_artifact: true,
                extensions: extensions(),
            },
        ),
        sample("Published", &published),
        sample("List", &list),
        sample(
            "Listed",
            &Listed {
                functions: vec![summary],
                more: true,
                extensions: extensions(),
            },
        ),
        sample("Versions", &versions),
        sample(
            "VersionsListed",
            &VersionsListed {
                revisions: vec![revision],
                more: true,
                extensions: extensions(),
            },
        ),
        sample(
            "Inspect",
            &Inspect {
                function: function(),
                extensions: extensions(),
            },
        ),
        sample(
            "Inspected",
            &Inspected {
                manifest: signed(),
                replicas: vec![replica],
                extensions: extensions(),
            },
        ),
        sample("WaitReady", &wait),
        sample("ReadyReport", &report),
        sample(
            "WaitRemoved",
            &WaitRemoved {
                function: function(),
                count: 2,
                wait_ms: 15_000,
                extensions: extensions(),
            },
        ),
        sample(
            "RemovalReport",
            &RemovalReport {
                removed: vec![node()],
                pending: vec![node()],
                offline: vec![node()],
                extensions: extensions(),
            },
        ),
        sample("Fetch", &fetch),
        sample(
            "Fetched",
            &Fetched {
                len: 100_000,
                extensions: extensions(),
            },
        ),
    ]
}

fn events() -> Vec<Sample> {
    let extensions = Extensions::none;
    let events = Events {
        after: Some(70_000),
        owner: Some(owner().id()),
        function: Some(function()),
        follow: true,
        limit: 256,
        extensions: extensions(),
    };
    let event = Event {
        cursor: 70_001,
        kind: EventKind::Refused,
        function: Some(function()),
        owner: Some(owner().id()),
        name: Some("hello".parse().expect("a good name")),
        version: Some(version()),
        host: Some(node()),
        note: "too large".to_owned(),
        time_ms: 1_790_000_000_000,
        extensions: extensions(),
    };
    let page = EventPage {
        node: node(),
        events: vec![event.clone()],
        cursor: 70_002,
        more: true,
        gap: true,
        extensions: extensions(),
    };
    vec![
        sample("Events", &events),
        sample("Event", &event),
        sample("EventPage", &page),
    ]
}

fn controls() -> Vec<Sample> {
    let extensions = Extensions::none;
    let offer = Offer {
        capacity: 8,
        ceiling: Limits::default(),
        artifact_bytes_max: 64 << 20,
        disk_free_bytes: 1 << 34,
        engines: vec![EngineHash::from_bytes([3; 32])],
        operator: "somebody".to_owned(),
        extensions: extensions(),
    };
    let register = Register {
        offer: offer.clone(),
        invite: "invitation".to_owned(),
        software: "orb 0.1.0".to_owned(),
        extensions: extensions(),
    };
    let registered = Registered {
        observed: "203.0.113.7:4433".to_owned(),
        extensions: extensions(),
    };
    let held = Held {
        function: function(),
        version: version(),
        manifest: verified().hash(),
        ready: true,
    };
    let holding = Holding {
        replicas: vec![held],
        last: true,
        extensions: extensions(),
    };
    let beat = Beat {
        running: 3,
        waiting: 1,
        disk_free_bytes: 1 << 34,
        run_times_us: vec![(function(), 80)],
        failure_permille: 7,
        extensions: extensions(),
    };
    let ready = Ready {
        function: function(),
        version: version(),
        extensions: extensions(),
    };
    let refused = Refused {
        function: function(),
        version: version(),
        reason: "too large".to_owned(),
        extensions: extensions(),
    };
    vec![
        sample("Register", &register),
        sample("Offer", &offer),
        sample("Registered", &registered),
        sample("Holding", &holding),
        sample("Beat", &beat),
        sample("Ready", &ready),
        sample("Refused", &refused),
        sample(
            "Dropped",
            &Dropped {
                function: function(),
                extensions: extensions(),
            },
        ),
        sample("Draining", &Draining::default()),
        sample(
            "Assign",
            &Assign {
                manifest: signed(),
                extensions: extensions(),
            },
        ),
        sample(
            "Release",
            &Release {
                function: function(),
                extensions: extensions(),
            },
        ),
        sample(
            "Changed",
            &Changed {
                manifest: signed(),
                extensions: extensions(),
            },
        ),
        sample("Synced", &Synced::default()),
    ]
}

fn others() -> Vec<Sample> {
    let extensions = Extensions::none;
    let info = NodeInfo {
        role: "super".to_owned(),
        software: "orb 0.1.0".to_owned(),
        time_ms: 1_790_000_000_000,
        observed: "198.51.100.9:60123".to_owned(),
        extensions: extensions(),
    };
    vec![
        sample(
            "OpenRelay",
            &OpenRelay {
                target: node(),
                extensions: extensions(),
            },
        ),
        sample(
            "RelayOpened",
            &RelayOpened {
                token: u64::MAX,
                extensions: extensions(),
            },
        ),
        sample(
            "RelayOffer",
            &RelayOffer {
                peer: node(),
                token: 1,
                extensions: extensions(),
            },
        ),
        sample("RelayAccepted", &RelayAccepted::default()),
        sample("Info", &Info::default()),
        sample("NodeInfo", &info),
        sample("Reply of an answer", &Reply::ok(&info)),
        sample("Reply of a fault", &Reply::fault(fault())),
        sample("Manifest that publishes", &manifest(publish().into())),
        sample(
            "Manifest that decommissions",
            &manifest(Decommission::default().into()),
        ),
    ]
}

/// Every message that ends in extensions.
pub(crate) fn messages() -> Vec<Sample> {
    [calls(), directories(), events(), controls(), others()]
        .into_iter()
        .flatten()
        .collect()
}

/// The enums whose variants carry a tag, one variant each, and signed objects.
pub(crate) fn wrappers() -> Vec<Sample> {
    let extensions = Extensions::none;
    let attach = Attach {
        request: RequestId::from_bytes([6; 16]),
        extensions: extensions(),
    };
    let release = Release {
        function: function(),
        extensions: extensions(),
    };
    vec![
        sample("Request", &Request::from(attach)),
        sample("HostMessage", &HostMessage::from(Draining::default())),
        sample("SuperMessage", &SuperMessage::from(release)),
        sample("Action", &Action::from(Decommission::default())),
        sample("SignedManifest", &signed()),
        sample("SignedHead", &SignedHead::sign(&owner(), &verified())),
        sample("Credential", &credential()),
    ]
}

fn federation() -> Vec<Sample> {
    let extensions = Extensions::none;
    let key = NodeKey::from_seed([2; 32]);
    let record = Record {
        node: node(),
        addresses: vec!["203.0.113.7:4433".to_owned()],
        number: 3,
        software: "orb 0.1.0".to_owned(),
        extensions: extensions(),
    };
    let signed_record = record.sign(&key);
    let at = Cursor {
        log: [9; 16],
        number: 12,
    };
    let change = RegistryChange {
        at,
        manifest: signed(),
        head_signature: SignedHead::sign(&owner(), &verified()).signature,
        extensions: extensions(),
    };
    let host = HostRecord {
        node: node(),
        offer: Arc::new(Offer {
            capacity: 8,
            ceiling: Limits::default(),
            artifact_bytes_max: 64 << 20,
            disk_free_bytes: 1 << 34,
            engines: vec![EngineHash::from_bytes([3; 32])],
            operator: "somebody".to_owned(),
            extensions: extensions(),
        }),
        address: "203.0.113.7".to_owned(),
        pause: HostPause::Lasts,
    };
    let news = ReplicaNews {
        function: function(),
        host: node(),
        version: version(),
        change: ReplicaChange::Refused,
        reason: "too large".to_owned(),
    };
    let order = Order {
        function: function(),
        host: node(),
        hold: true,
    };
    let beat = PeerBeat {
        own: at,
        known: 77,
        extensions: extensions(),
    };
    let peer = Peer {
        record: signed_record.clone(),
        own: at,
        extensions: extensions(),
    };
    vec![
        sample("Record", &record),
        sample("Peer", &peer),
        sample(
            "Peered",
            &Peered {
                record: signed_record.clone(),
                own: at,
                extensions: extensions(),
            },
        ),
        sample(
            "Members",
            &Members {
                records: vec![signed_record],
                extensions: extensions(),
            },
        ),
        sample(
            "PackedChanges",
            &PackedChanges::pack(std::slice::from_ref(&change)),
        ),
        sample("RegistryChange", &change),
        sample(
            "Hosts",
            &Hosts {
                reset: true,
                last: false,
                up: vec![host],
                down: vec![node()],
                extensions: extensions(),
            },
        ),
        sample(
            "Replicas",
            &Replicas {
                news: vec![news],
                extensions: extensions(),
            },
        ),
        sample(
            "Orders",
            &Orders {
                orders: vec![order],
                extensions: extensions(),
            },
        ),
        sample("PeerBeat", &beat),
        sample("PeerMessage", &PeerMessage::from(beat)),
        sample(
            "Changes",
            &Changes {
                known: vec![at],
                extensions: extensions(),
            },
        ),
        sample(
            "ChangesPage",
            &ChangesPage {
                changes: PackedChanges::pack(&[change]),
                known: vec![at],
                last: true,
                extensions: extensions(),
            },
        ),
        sample(
            "Reconcile",
            &Reconcile {
                message: vec![0x61, 0, 0, 2, 0],
                wanted: vec![[11; 32]],
                extensions: extensions(),
            },
        ),
        sample(
            "Reconciled",
            &Reconciled {
                message: vec![0x61],
                extensions: extensions(),
            },
        ),
        sample(
            "Locate",
            &Locate {
                function: function(),
                extensions: extensions(),
            },
        ),
        sample(
            "Located",
            &Located {
                supers: vec![node()],
                extensions: extensions(),
            },
        ),
        sample(
            "Supers",
            &Supers {
                addresses: vec!["203.0.113.7:4433".to_owned()],
                extensions: extensions(),
            },
        ),
    ]
}

/// All of them.
pub(crate) fn all() -> Vec<Sample> {
    messages()
        .into_iter()
        .chain(federation())
        .chain(wrappers())
        .collect()
}
