//! The head: what an owner lets anybody republish to the Mainline DHT.
//!
//! A BEP 44 mutable item (<https://www.bittorrent.org/beps/bep_0044.html>): key = the owner's, salt =
//! the function's name, seq = generation · 2^40 + revision, value = a bencoded byte string of
//! generation and revision (8 bytes each, big-endian) and the manifest's hash (32 bytes).

use serde::{Deserialize, Serialize};

use crate::id::{ManifestHash, OwnerId};
use crate::key::{BadSignature, OwnerKey, SIGNATURE_LEN};
use crate::manifest::{GENERATION_MAX, REVISION_MAX, Verified, Version};
use crate::name::Name;

/// Bytes of the value inside its bencoding.
const VALUE_LEN: usize = 48;

/// Where an owner's function stands, signed in BEP 44's own form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// The state.
    pub version: Version,
    /// Its manifest.
    pub manifest: ManifestHash,
    /// 64 bytes of Ed25519 over BEP 44's buffer.
    #[serde(with = "serde_bytes")]
    pub signature: Vec<u8>,
}

/// BEP 44's sequence number: `None` beyond its signed 64 bits.
pub fn seq(version: Version) -> Option<i64> {
    let fits = version.generation <= GENERATION_MAX && version.revision <= REVISION_MAX;
    fits.then(|| i64::try_from((version.generation << 40) | version.revision).ok())
        .flatten()
}

impl SignedHead {
    /// Signs the head that goes with a manifest.
    pub fn sign(key: &OwnerKey, manifest: &Verified) -> Self {
        let buffer = signed_buffer(&manifest.manifest().name, manifest.version(), &manifest.hash());
        Self::of(manifest, key.sign_raw(&buffer).to_vec())
    }

    /// The head of a manifest, if this is its signature: see [`SignedHead::verify_for`].
    pub fn of(manifest: &Verified, signature: Vec<u8>) -> Self {
        Self {
            version: manifest.version(),
            manifest: manifest.hash(),
            signature,
        }
    }

    /// The item's value `v`, bencoded.
    pub fn value(&self) -> Vec<u8> {
        value(self.version, &self.manifest)
    }

    /// The 48 bytes within `v`, for those who do the bencoding themselves.
    pub fn payload(&self) -> [u8; VALUE_LEN] {
        payload(self.version, &self.manifest)
    }

    /// Reads an item that somebody found, and checks that `owner` signed it for `name`.
    ///
    /// # Errors
    /// [`BadSignature`], also for what the owner signed and is no head.
    pub fn from_item(
        owner: &OwnerId,
        name: &Name,
        seq_found: i64,
        payload: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<Self, BadSignature> {
        let payload: &[u8; VALUE_LEN] = payload.try_into().map_err(|_| BadSignature)?;
        let (generation, rest) = payload.split_first_chunk().ok_or(BadSignature)?;
        let (revision, manifest) = rest.split_first_chunk().ok_or(BadSignature)?;
        let head = Self {
            version: Version {
                generation: u64::from_be_bytes(*generation),
                revision: u64::from_be_bytes(*revision),
            },
            manifest: ManifestHash::from_bytes(manifest.try_into().map_err(|_| BadSignature)?),
            signature: signature.to_vec(),
        };
        if seq(head.version) != Some(seq_found) {
            return Err(BadSignature);
        }
        head.verify(owner, name)?;
        Ok(head)
    }

    /// Checks that `owner` signed this head for `name`.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self, owner: &OwnerId, name: &Name) -> Result<(), BadSignature> {
        let signature: [u8; SIGNATURE_LEN] =
            self.signature.as_slice().try_into().map_err(|_| BadSignature)?;
        seq(self.version).ok_or(BadSignature)?;
        owner.verify_raw(&signed_buffer(name, self.version, &self.manifest), &signature)
    }

    /// Checks that this head is that manifest's.
    ///
    /// # Errors
    /// [`BadSignature`], also if it is a genuine head of another revision.
    pub fn verify_for(&self, manifest: &Verified) -> Result<(), BadSignature> {
        if self.version != manifest.version() || self.manifest != manifest.hash() {
            return Err(BadSignature);
        }
        self.verify(&manifest.manifest().owner, &manifest.manifest().name)
    }
}

fn value(version: Version, manifest: &ManifestHash) -> Vec<u8> {
    let mut value = format!("{VALUE_LEN}:").into_bytes();
    value.extend_from_slice(&payload(version, manifest));
    value
}

fn payload(version: Version, manifest: &ManifestHash) -> [u8; VALUE_LEN] {
    let mut payload = [0; VALUE_LEN];
    payload[..8].copy_from_slice(&version.generation.to_be_bytes());
    payload[8..16].copy_from_slice(&version.revision.to_be_bytes());
    payload[16..].copy_from_slice(manifest.as_bytes());
    payload
}

/// What BEP 44 has signed: the bencoded salt, seq and v, without the dictionary around them.
fn signed_buffer(name: &Name, version: Version, manifest: &ManifestHash) -> Vec<u8> {
    let seq = seq(version).unwrap_or(i64::MAX);
    let salt = name.as_str();
    let mut buffer = format!("4:salt{}:{salt}3:seqi{seq}e1:v", salt.len()).into_bytes();
    buffer.extend_from_slice(&value(version, manifest));
    buffer
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;
    use crate::testing::{manifest, publish};

    #[test]
    fn a_head_holds_for_its_own_manifest_only() {
        let key = OwnerKey::from_seed([1; 32]);
        let first = manifest(&key, "a", 0, 1, publish(0));
        let second = manifest(&key, "a", 0, 2, publish(0));
        let head = SignedHead::sign(&key, &first);
        head.verify_for(&first).unwrap();
        assert!(head.verify_for(&second).is_err());
        assert!(head.verify(&key.id(), &"b".parse().unwrap()).is_err());
        assert!(
            head.verify(&OwnerKey::from_seed([2; 32]).id(), &"a".parse().unwrap())
                .is_err()
        );
        assert!(
            SignedHead {
                version: second.version(),
                ..head
            }
            .verify(&key.id(), &"a".parse().unwrap())
            .is_err()
        );
    }

    #[test]
    fn what_is_put_is_what_is_found() {
        let key = OwnerKey::from_seed([1; 32]);
        let (owner, name) = (key.id(), "a".parse().unwrap());
        let head = SignedHead::sign(&key, &manifest(&key, "a", 3, 2, publish(0)));
        let (seq, payload) = (seq(head.version).unwrap(), head.payload());
        let signature: [u8; SIGNATURE_LEN] = head.signature.as_slice().try_into().unwrap();
        assert_eq!(head.value(), [b"48:".as_slice(), &payload].concat());
        let found =
            |seq, payload: &[u8], signature| SignedHead::from_item(&owner, &name, seq, payload, signature);
        assert_eq!(found(seq, &payload, &signature).as_ref(), Ok(&head));
        let mut newer = payload;
        newer[15] += 1;
        let forged = [
            found(seq + 1, &payload, &signature),
            found(seq + 1, &newer, &signature),
            found(seq, &newer, &signature),
            found(seq, &payload[1..], &signature),
            found(seq, &payload, &[1; SIGNATURE_LEN]),
            SignedHead::from_item(&owner, &"b".parse().unwrap(), seq, &payload, &signature),
        ];
        assert!(forged.iter().all(Result::is_err), "{forged:?}");
    }

    #[test]
    fn the_signed_buffer_is_bep_44s() {
        let version = Version {
            generation: 1,
            revision: 2,
        };
        let buffer = signed_buffer(
            &"hello".parse().unwrap(),
            version,
            &ManifestHash::from_bytes([0; 32]),
        );
        let expected = format!("4:salt5:hello3:seqi{}e1:v48:", (1i64 << 40) + 2);
        assert!(buffer.starts_with(expected.as_bytes()));
        assert_eq!(buffer.len(), expected.len() + VALUE_LEN);
    }

    #[test]
    fn seq_grows_with_the_version() {
        let v = |generation, revision| seq(Version { generation, revision });
        assert!(v(0, REVISION_MAX).unwrap() < v(1, 0).unwrap());
        assert_eq!(v(GENERATION_MAX, REVISION_MAX), Some(i64::MAX));
        assert_eq!(v(GENERATION_MAX + 1, 0), None);
    }
}
