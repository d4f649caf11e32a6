//! Signed revisions and heads.

use orb_protocol::head::SignedHead;
use orb_protocol::key::OwnerKey;
use orb_protocol::manifest::{MANIFEST_LEN_MAX, Manifest, SignedManifest};
use orb_protocol::name::Name;
use orb_protocol::wire::codec;

/// Any bytes: as a signed manifest, where nothing may verify that its owner did not sign; and as the
/// inside of one, which is signed here, and must then verify as what it is.
pub(crate) fn manifest(bytes: &[u8]) {
    if let Ok(signed) = codec::decode::<SignedManifest>(bytes) {
        verified(&signed);
    }
    let Ok(mut manifest) = codec::decode::<Manifest>(bytes) else {
        return;
    };
    let key = OwnerKey::from_seed([1; 32]);
    manifest.owner = key.id();
    let Ok(signed) = manifest.sign(&key) else {
        return;
    };
    assert!(signed.bytes.len() <= MANIFEST_LEN_MAX);
    let verified = signed.clone().verify().expect("what is signed verifies");
    assert_eq!(verified.manifest(), &manifest);
    assert_eq!(verified.signed(), &signed, "it is passed on as it was signed");
    let head = SignedHead::sign(&key, &verified);
    head.verify_for(&verified).expect("a head holds for its manifest");
    altered(&signed);
}

/// What verifies is within its bounds, and keeps its bytes.
fn verified(signed: &SignedManifest) {
    if let Ok(verified) = signed.clone().verify() {
        assert!(signed.bytes.len() <= MANIFEST_LEN_MAX);
        assert_eq!(verified.signed(), signed);
        assert_eq!(verified.hash(), signed.hash());
    }
}

/// A changed byte, wherever it is, is noticed.
fn altered(signed: &SignedManifest) {
    let mut bytes = signed.bytes.clone();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    let altered = SignedManifest {
        bytes,
        signature: signed.signature.clone(),
    };
    assert!(altered.verify().is_err(), "an altered manifest verifies");
}

/// Any bytes as a head: nothing verifies that was not signed.
pub(crate) fn head(bytes: &[u8]) {
    let Ok(head) = codec::decode::<SignedHead>(bytes) else {
        return;
    };
    let written = codec::encode(&head);
    assert_eq!(codec::decode::<SignedHead>(&written).as_ref(), Ok(&head));
    // Length of the bencoded string, its colon, and its 48 bytes.
    assert_eq!(head.value().len(), 3 + 48);
    let name: Name = "hello".parse().expect("a good name");
    let stranger = OwnerKey::from_seed([2; 32]).id();
    assert!(head.verify(&stranger, &name).is_err(), "a forged head holds");
}
