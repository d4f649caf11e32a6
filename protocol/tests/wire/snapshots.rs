//! The bytes of every message. A change here is a change of the protocol: older peers must still
//! understand it, or the ALPN gets another number.

use std::fmt::{Debug, Write};

use orb_protocol::fault::FaultKind;
use orb_protocol::manifest::{Action, Kind};
use orb_protocol::wire::Request;
use orb_protocol::wire::codec;
use orb_protocol::wire::control::{HostMessage, SuperMessage};
use orb_protocol::wire::directory::ReplicaState;
use orb_protocol::wire::events::EventKind;
use orb_protocol::wire::federation::{PeerMessage, ReplicaChange};
use orb_protocol::wire::tagged::Tagged;
use serde::de::DeserializeOwned;

use crate::samples;

/// Bytes in one line of a dump.
const LINE: usize = 32;

#[test]
fn every_message_has_the_bytes_that_it_had() {
    let mut dump = String::new();
    for sample in samples::all() {
        writeln!(dump, "{} ({} bytes)", sample.name, sample.bytes.len()).expect("a string takes all");
        for line in sample.bytes.chunks(LINE) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(dump, "  {}", hex.join(" ")).expect("a string takes all");
        }
    }
    insta::assert_snapshot!(dump);
}

/// More than any enum has variants.
const TAGS_TRIED: u16 = 100;

/// The variants of an enum, each with its tag.
fn tags<T: Debug + DeserializeOwned>(name: &str) -> String {
    let samples = samples::all().into_iter().map(|sample| sample.bytes);
    let payloads: Vec<Vec<u8>> = samples.chain([codec::encode(&samples::publish())]).collect();
    let variant = |tag| {
        let decode = |payload: &Vec<u8>| {
            let payload = payload.clone();
            codec::decode::<T>(&codec::encode(&Tagged { tag, payload })).ok()
        };
        let message = payloads.iter().find_map(decode);
        variant_of(&message.unwrap_or_else(|| panic!("no sample for {name} {tag}")))
    };
    list(name, (0..TAGS_TRIED).map(|tag| (tag, variant(tag))))
}

fn variant_of(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    text.split(['(', ' ']).next().unwrap_or_default().to_owned()
}

fn list(name: &str, variants: impl Iterator<Item = (u16, String)>) -> String {
    let mut text = format!("{name}\n");
    for (tag, variant) in variants.filter(|(_, variant)| variant != "Unknown") {
        writeln!(text, "  {tag} {variant}").expect("a string takes all");
    }
    text
}

#[test]
fn every_tag_means_what_it_meant() {
    let faults = (0..TAGS_TRIED).map(|tag| {
        let kind = FaultKind::from(tag);
        let (party, exit, http) = (kind.party(), kind.exit_code(), kind.http_status());
        let said = match kind {
            FaultKind::Unknown(_) => "Unknown".to_owned(),
            kind => format!("{}: {party}, exit code {exit}, HTTP {http}", kind.label()),
        };
        (tag, said)
    });
    let kinds = (0..TAGS_TRIED).map(|tag| (tag, variant_of(&Kind::from(tag))));
    let states = (0..TAGS_TRIED).map(|tag| (tag, variant_of(&ReplicaState::from(tag))));
    let changes = (0..TAGS_TRIED).map(|tag| (tag, variant_of(&ReplicaChange::from(tag))));
    let events = (0..TAGS_TRIED).map(|tag| {
        let kind = EventKind::from(tag);
        let said = match kind {
            EventKind::Unknown(_) => "Unknown".to_owned(),
            kind => format!("{}: {}", variant_of(&kind), kind.label()),
        };
        (tag, said)
    });
    let all = [
        tags::<Request>("Request"),
        tags::<HostMessage>("HostMessage"),
        tags::<SuperMessage>("SuperMessage"),
        tags::<PeerMessage>("PeerMessage"),
        tags::<Action>("Action"),
        list("FaultKind", faults),
        list("Kind", kinds),
        list("ReplicaState", states),
        list("ReplicaChange", changes),
        list("EventKind", events),
    ];
    insta::assert_snapshot!(all.concat());
}

#[test]
fn every_message_comes_back() {
    for sample in samples::all() {
        assert_eq!(
            (sample.recode)(&sample.bytes).as_ref(),
            Ok(&sample.bytes),
            "{}",
            sample.name
        );
    }
}
