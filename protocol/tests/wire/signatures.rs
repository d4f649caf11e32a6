//! Signed objects: what is forged, cut, replayed or made for another purpose is refused.

use proptest::prelude::*;

use orb_protocol::head::SignedHead;
use orb_protocol::id::FunctionId;
use orb_protocol::key::{Domain, NodeKey, OwnerKey};
use orb_protocol::manifest::{Action, Decommission, Manifest, SignedManifest, Verified, Version};
use orb_protocol::registry::{Merge, Registry};
use orb_protocol::wire::call::{Credential, Started};
use orb_protocol::wire::codec;
use orb_protocol::wire::extension::Extensions;

use crate::samples;

const NOW_MS: u64 = 1_790_000_000_000;

fn key() -> impl Strategy<Value = OwnerKey> {
    any::<[u8; 32]>().prop_map(OwnerKey::from_seed)
}

/// A key, and a revision that it signed.
fn signed() -> impl Strategy<Value = (OwnerKey, SignedManifest)> {
    (
        key(),
        "[a-z0-9][a-z0-9._-]{0,63}",
        0..1_000u64,
        1..1_000_000u64,
        any::<bool>(),
        ".{0,40}",
    )
        .prop_map(|(key, name, generation, revision, ends, message)| {
            let action = if ends {
                Action::from(Decommission::default())
            } else {
                samples::publish().into()
            };
            let manifest = Manifest {
                owner: key.id(),
                name: name.parse().expect("the grammar of names"),
                version: Version { generation, revision },
                message,
                ..samples::manifest(action)
            };
            let signed = manifest.sign(&key).expect("within bounds");
            (key, signed)
        })
}

fn flip(bytes: &mut [u8], bit: &prop::sample::Index) {
    let bit = bit.index(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
}

fn verified(signed: &SignedManifest) -> Verified {
    signed.clone().verify().expect("it was signed rightly")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_manifest_holds_as_it_was_signed((_, signed) in signed()) {
        let verified = verified(&signed);
        prop_assert_eq!(verified.signed(), &signed);
    }

    #[test]
    fn an_altered_manifest_is_refused((_, signed) in signed(), bit: prop::sample::Index) {
        let mut altered = signed.clone();
        flip(&mut altered.bytes, &bit);
        prop_assert!(altered.verify().is_err());
        let mut altered = signed;
        flip(&mut altered.signature, &bit);
        prop_assert!(altered.verify().is_err());
    }

    #[test]
    fn a_cut_manifest_is_refused((_, signed) in signed(), at: prop::sample::Index) {
        let mut cut = signed.clone();
        cut.bytes.truncate(at.index(signed.bytes.len()));
        prop_assert!(cut.verify().is_err());
        let mut cut = signed.clone();
        cut.signature.truncate(at.index(signed.signature.len()));
        prop_assert!(cut.verify().is_err());
    }

    #[test]
    fn a_manifest_signed_by_somebody_else_is_refused((_, signed) in signed(), thief in key()) {
        let signature = thief.sign(Domain::Manifest, &signed.bytes).to_vec();
        let forged = SignedManifest { signature, ..signed };
        prop_assert!(forged.verify().is_err());
    }

    #[test]
    fn a_manifest_signed_for_another_purpose_is_refused((key, signed) in signed()) {
        for domain in [Domain::Receipt, Domain::Credential, Domain::SuperNode] {
            let signature = key.sign(domain, &signed.bytes).to_vec();
            let foreign = SignedManifest { bytes: signed.bytes.clone(), signature };
            prop_assert!(foreign.verify().is_err());
        }
        let bare = SignedManifest { signature: key.sign_raw(&signed.bytes).to_vec(), ..signed };
        prop_assert!(bare.verify().is_err());
    }

    #[test]
    fn one_manifests_signature_is_refused_on_another((key, signed) in signed()) {
        let mut next = verified(&signed).manifest().clone();
        next.version.revision += 1;
        let next = next.sign(&key).expect("within bounds");
        let swapped = SignedManifest { signature: signed.signature, ..next };
        prop_assert!(swapped.verify().is_err());
    }

    #[test]
    fn a_replayed_manifest_changes_nothing((key, signed) in signed()) {
        let old = verified(&signed);
        let mut next = old.manifest().clone();
        next.version.generation += 1;
        let next = verified(&next.sign(&key).expect("within bounds"));
        let mut registry = Registry::new();
        registry.merge(old.clone());
        prop_assert_eq!(registry.merge(old.clone()), Merge::Same);
        registry.merge(next.clone());
        prop_assert_eq!(registry.merge(old.clone()), Merge::Older);
        prop_assert_eq!(registry.get(&old.function()), Some(&next));
    }

    #[test]
    fn a_head_holds_for_its_own_revision_only((key, signed) in signed(), thief in key(), bit: prop::sample::Index) {
        let revision = verified(&signed);
        let head = SignedHead::sign(&key, &revision);
        prop_assert!(head.verify_for(&revision).is_ok());

        let mut next = revision.manifest().clone();
        next.version.revision += 1;
        let next = verified(&next.sign(&key).expect("within bounds"));
        prop_assert!(head.verify_for(&next).is_err(), "replayed");
        prop_assert!(SignedHead::sign(&thief, &revision).verify_for(&revision).is_err(), "forged");

        let bytes = codec::encode(&head);
        let mut altered = bytes.clone();
        flip(&mut altered, &bit);
        if let Ok(altered) = codec::decode::<SignedHead>(&altered) {
            prop_assert!(altered.verify_for(&revision).is_err(), "altered");
        }
        let mut cut = head.clone();
        cut.signature.truncate(bit.index(cut.signature.len()));
        prop_assert!(cut.verify_for(&revision).is_err(), "cut");
        let foreign = SignedHead { signature: key.sign(Domain::Manifest, &head.value()).to_vec(), ..head };
        prop_assert!(foreign.verify_for(&revision).is_err(), "made for another purpose");
    }

    #[test]
    fn a_started_version_is_proven_by_its_own_revision_only((_, signed) in signed(), thief in key()) {
        let revision = verified(&signed);
        let started = |version| Started {
            version,
            content_type: "text/plain".to_owned(),
            idempotent: false,
            extensions: Extensions::none(),
        };
        let right = started(revision.version());
        prop_assert!(!right.is_proven(&revision.function()), "a mere claim");
        let proven = right.clone().with_proof(&signed);
        prop_assert_eq!(proven.is_proven(&revision.function()), !revision.is_tombstone());

        let Version { generation, revision: number } = revision.version();
        let other = started(Version { generation, revision: number + 1 }).with_proof(&signed);
        prop_assert!(!other.is_proven(&revision.function()), "another version");
        let elsewhere = FunctionId::derive(&thief.id(), &revision.manifest().name);
        prop_assert!(!proven.is_proven(&elsewhere), "another function");
        let signature = thief.sign(Domain::Manifest, &signed.bytes).to_vec();
        let forged = right.with_proof(&SignedManifest { signature, ..signed });
        prop_assert!(!forged.is_proven(&revision.function()), "forged");
    }

    #[test]
    fn a_credential_holds_for_its_own_node_and_time_only(
        key in key(),
        node: [u8; 32],
        other: [u8; 32],
        bit: prop::sample::Index,
    ) {
        let node = NodeKey::from_seed(node).id();
        let credential = Credential::sign(&key, &node, NOW_MS);
        prop_assert_eq!(credential.verify(&node, NOW_MS), Ok(key.id()));
        prop_assert!(credential.verify(&node, NOW_MS + 1).is_err(), "expired");
        prop_assert!(credential.verify(&NodeKey::from_seed(other).id(), NOW_MS).is_err(), "replayed");

        let later = Credential { expires_ms: NOW_MS + 1, ..credential.clone() };
        prop_assert!(later.verify(&node, NOW_MS).is_err(), "prolonged");
        let mut altered = credential.clone();
        flip(&mut altered.signature, &bit);
        prop_assert!(altered.verify(&node, NOW_MS).is_err(), "altered");
        let mut cut = credential.clone();
        cut.signature.truncate(bit.index(cut.signature.len()));
        prop_assert!(cut.verify(&node, NOW_MS).is_err(), "cut");

        let message = [node.as_bytes().as_slice(), &NOW_MS.to_be_bytes()].concat();
        let foreign = Credential { signature: key.sign(Domain::Manifest, &message).to_vec(), ..credential };
        prop_assert!(foreign.verify(&node, NOW_MS).is_err(), "made for another purpose");
    }
}
