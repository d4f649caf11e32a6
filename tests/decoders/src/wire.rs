//! Messages, by family.

use std::fmt::Debug;

use orb_protocol::fault::Fault;
use orb_protocol::federation::record::{ADDRESSES_MAX, VerifiedRecord};
use orb_protocol::wire::call::{Attach, Call, Credential, Started, TraceContext, Trailer};
use orb_protocol::wire::control::{HostMessage, Offer, Register, Registered, SuperMessage};
use orb_protocol::wire::directory::{
    Fetch, Fetched, Inspect, Inspected, List, Listed, Publish, PublishStep, Published, ReadyReport, Resolve,
    Resolved, Versions, VersionsListed, WaitReady,
};
use orb_protocol::wire::events::{Event, EventPage, Events};
use orb_protocol::wire::extension::{CRITICAL, EXTENSIONS_MAX, Extension, Extensions};
use orb_protocol::wire::federation::{
    Changes, ChangesPage, Locate, Located, Peer, PeerMessage, Peered, Reconcile, Reconciled, RegistryChange,
    SignedRecord,
};
use orb_protocol::wire::packed::PackedChanges;
use orb_protocol::wire::relay::{OpenRelay, RelayAccepted, RelayOffer, RelayOpened};
use orb_protocol::wire::tagged::Tagged;
use orb_protocol::wire::{Info, NodeInfo, Reply, Request, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Entry;

/// What is read is written again, and then read as the same. Bytes may differ: bincode takes numbers
/// in longer forms than it writes.
fn law<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = codec::decode::<T>(bytes) else {
        return;
    };
    let written = codec::encode(&message);
    if written.len() > codec::MESSAGE_LEN_MAX {
        // Nested messages of this length can be taken apart, and are not passed on.
        return;
    }
    let again: T = codec::decode(&written).expect("what is written can be read");
    assert_eq!(again, message);
    assert_eq!(codec::encode(&again), written, "there is one way to write it");
}

/// The messages of one family: the first byte of an input says which of them the rest is.
type Family = [(&'static str, Entry)];

/// Calls, and how they end.
const CALL: &Family = &[
    ("Call", law::<Call>),
    ("Attach", law::<Attach>),
    ("Started", law::<Started>),
    ("Trailer", law::<Trailer>),
    ("TraceContext", law::<TraceContext>),
    ("Fault", law::<Fault>),
    ("Credential", credential),
];

/// What clients ask super nodes.
const DIRECTORY: &Family = &[
    ("Resolve", law::<Resolve>),
    ("Resolved", law::<Resolved>),
    ("Publish", law::<Publish>),
    ("PublishStep", law::<PublishStep>),
    ("Published", law::<Published>),
    ("List", law::<List>),
    ("Listed", law::<Listed>),
    ("Versions", law::<Versions>),
    ("VersionsListed", law::<VersionsListed>),
    ("Inspect", law::<Inspect>),
    ("Inspected", law::<Inspected>),
    ("WaitReady", law::<WaitReady>),
    ("ReadyReport", law::<ReadyReport>),
    ("Fetch", law::<Fetch>),
    ("Fetched", law::<Fetched>),
    ("Events", law::<Events>),
    ("Event", law::<Event>),
    ("EventPage", law::<EventPage>),
];

/// What hosts and super nodes tell each other.
const CONTROL: &Family = &[
    ("HostMessage", law::<HostMessage>),
    ("SuperMessage", law::<SuperMessage>),
    ("Register", law::<Register>),
    ("Registered", law::<Registered>),
    ("Offer", law::<Offer>),
];

/// What super nodes tell each other.
const FEDERATION: &Family = &[
    ("Peer", law::<Peer>),
    ("Peered", law::<Peered>),
    ("PeerMessage", law::<PeerMessage>),
    ("RegistryChange", law::<RegistryChange>),
    ("Changes", law::<Changes>),
    ("ChangesPage", law::<ChangesPage>),
    ("Reconcile", law::<Reconcile>),
    ("Reconciled", law::<Reconciled>),
    ("Locate", law::<Locate>),
    ("Located", law::<Located>),
    ("SignedRecord", record),
    ("PackedChanges", packed),
];

/// How relay sessions are made.
const RELAY: &Family = &[
    ("OpenRelay", law::<OpenRelay>),
    ("RelayOpened", law::<RelayOpened>),
    ("RelayOffer", law::<RelayOffer>),
    ("RelayAccepted", law::<RelayAccepted>),
];

/// First frames and their answers, as they come.
const REQUEST: &Family = &[
    ("Request", law::<Request>),
    ("Reply", reply),
    ("Info", law::<Info>),
    ("NodeInfo", law::<NodeInfo>),
];

/// How messages grow.
const EXTENSION: &Family = &[
    ("Extensions", extensions),
    ("Tagged", law::<Tagged>),
    ("Extension", law::<Extension>),
];

/// All families by the name of their entry.
const FAMILIES: &[(&str, &Family)] = &[
    ("call", CALL),
    ("directory", DIRECTORY),
    ("control", CONTROL),
    ("federation", FEDERATION),
    ("relay", RELAY),
    ("request", REQUEST),
    ("extension", EXTENSION),
];

/// The entry that reads a message of this name, and the input's first byte for it.
pub fn reader_of(message: &str) -> Option<(&'static str, u8)> {
    FAMILIES.iter().find_map(|(entry, family)| {
        let at = family.iter().position(|(name, _)| *name == message)?;
        Some((*entry, u8::try_from(at).ok()?))
    })
}

fn read(family: &Family, bytes: &[u8]) {
    if let Some((&which, rest)) = bytes.split_first() {
        family[usize::from(which) % family.len()].1(rest);
    }
}

pub(crate) fn call(bytes: &[u8]) {
    read(CALL, bytes);
}

pub(crate) fn directory(bytes: &[u8]) {
    read(DIRECTORY, bytes);
}

pub(crate) fn control(bytes: &[u8]) {
    read(CONTROL, bytes);
}

pub(crate) fn federation(bytes: &[u8]) {
    read(FEDERATION, bytes);
}

/// A record that verifies is passed on as the bytes that were signed.
fn record(bytes: &[u8]) {
    law::<SignedRecord>(bytes);
    if let Ok(signed) = codec::decode::<SignedRecord>(bytes)
        && let Ok(verified) = VerifiedRecord::verify(signed.clone())
    {
        assert_eq!(verified.signed(), &signed);
        assert!((1..=ADDRESSES_MAX).contains(&verified.record().addresses.len()));
    }
}

/// Changes that can be unpacked are the same once they are packed again.
fn packed(bytes: &[u8]) {
    law::<PackedChanges>(bytes);
    if let Ok(packed) = codec::decode::<PackedChanges>(bytes)
        && let Ok(changes) = packed.unpack()
        && codec::encode(&changes).len() <= codec::MESSAGE_LEN_MAX
    {
        let again = PackedChanges::pack(&changes);
        assert_eq!(again.unpack().expect("what is packed can be unpacked"), changes);
    }
}

pub(crate) fn relay(bytes: &[u8]) {
    read(RELAY, bytes);
}

pub(crate) fn request(bytes: &[u8]) {
    read(REQUEST, bytes);
}

pub(crate) fn extension(bytes: &[u8]) {
    read(EXTENSION, bytes);
}

/// A credential that nobody signed is nobody's.
fn credential(bytes: &[u8]) {
    law::<Credential>(bytes);
    if let Ok(credential) = codec::decode::<Credential>(bytes) {
        let caller = orb_protocol::key::NodeKey::from_seed([1; 32]).id();
        assert!(
            credential.verify(&caller, 0).is_err(),
            "a forged credential holds"
        );
    }
}

fn reply(bytes: &[u8]) {
    law::<Reply>(bytes);
    if let Ok(reply) = codec::decode::<Reply>(bytes) {
        let fault = reply.is_fault();
        let started = reply.into_result::<Started>();
        assert!(!fault || started.is_err(), "a fault is no answer");
    }
}

/// No critical extension gets past the decoder, and never too many.
fn extensions(bytes: &[u8]) {
    law::<Extensions>(bytes);
    if let Ok(extensions) = codec::decode::<Extensions>(bytes) {
        let all = Vec::<Extension>::from(extensions);
        assert!(all.len() <= EXTENSIONS_MAX);
        assert!(all.iter().all(|extension| extension.kind & CRITICAL == 0));
    }
}
