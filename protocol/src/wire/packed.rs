//! Changes of the registry as a page of them goes over the wire: deflated (RFC 1951).
//!
//! What one owner's functions have in common (keys, limits, ids of logs) is said once in a page that way. What is
//! left of a change are its signatures and hashes, which nothing makes shorter.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};
use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError, MESSAGE_LEN_MAX};
use super::federation::RegistryChange;

/// As `zlib` numbers them: more takes twice the time and saves nothing here, where most bytes are random.
const LEVEL: u8 = 6;

/// How many bytes of changes ([`weight`]) begin no further page: packed or not, a page fits a message.
pub const PAGE_BYTES: usize = MESSAGE_LEN_MAX / 2;

/// What a change counts for in a page, in bytes: its manifest, and room for what stands around it.
pub fn weight(change: &RegistryChange) -> usize {
    change.manifest.bytes.len() + 256
}

/// Changes, deflated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedChanges(#[serde(with = "serde_bytes")] Vec<u8>);

/// Changes that cannot be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Longer than one message, which is what a page is packed from at most.
    #[error("changes are longer than {MESSAGE_LEN_MAX} bytes when they are unpacked")]
    TooLong,
    /// Not deflated bytes.
    #[error("packed changes do not inflate: {0}")]
    NotDeflated(String),
    /// Something else than changes.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl PackedChanges {
    /// Packs changes. They fit a message before, too: otherwise nobody unpacks them.
    pub fn pack(changes: &[RegistryChange]) -> Self {
        Self(compress_to_vec(&codec::encode(&changes), LEVEL))
    }

    /// What was packed.
    ///
    /// # Errors
    /// [`UnpackError`], never a panic and never an allocation beyond a few times [`MESSAGE_LEN_MAX`].
    pub fn unpack(&self) -> Result<Vec<RegistryChange>, UnpackError> {
        let bytes =
            decompress_to_vec_with_limit(&self.0, MESSAGE_LEN_MAX).map_err(|error| match error.status {
                TINFLStatus::HasMoreOutput => UnpackError::TooLong,
                _ => UnpackError::NotDeflated(error.to_string()),
            })?;
        Ok(codec::decode(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::extension::Extensions;
    use super::super::federation::Cursor;
    use super::*;
    use crate::head::SignedHead;
    use crate::key::OwnerKey;
    use crate::testing::{manifest, publish};

    /// Edits by so many owners, and the bytes of their manifests with signatures.
    fn edits(count: u64, owners: u64) -> (Vec<RegistryChange>, usize) {
        let change = |number: u64| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&(number % owners).to_le_bytes());
            let key = OwnerKey::from_seed(seed);
            let artifact = u8::try_from(number % 251).expect("below 256");
            let manifest = manifest(&key, &format!("function-{number}"), 0, 7, publish(artifact));
            RegistryChange {
                at: Cursor { log: [1; 16], number },
                manifest: manifest.signed().clone(),
                head_signature: SignedHead::sign(&key, &manifest).signature,
                extensions: Extensions::none(),
            }
        };
        let changes: Vec<_> = (1..=count).map(change).collect();
        let bytes = changes
            .iter()
            .map(|change| change.manifest.bytes.len() + change.manifest.signature.len());
        let bytes = bytes.sum();
        (changes, bytes)
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
        for count in [0, 1, 200] {
            let (changes, _) = edits(count, 3);
            assert_eq!(PackedChanges::pack(&changes).unpack().as_ref(), Ok(&changes));
        }
    }

    #[test]
    fn a_page_takes_little_more_than_its_manifests() {
        // The bar is 1.3 of the manifests; a head's signature is with each.
        for owners in [1, 200] {
            let (changes, bytes) = edits(200, owners);
            let packed = codec::encode(&PackedChanges::pack(&changes)).len();
            assert!(packed * 10 <= bytes * 13, "{owners} owners: {packed} of {bytes}");
        }
    }

    #[test]
    fn what_would_fill_the_memory_is_not_unpacked() {
        let bomb = PackedChanges(compress_to_vec(&vec![0; MESSAGE_LEN_MAX + 1], LEVEL));
        assert_eq!(bomb.unpack(), Err(UnpackError::TooLong));
        let noise = PackedChanges(vec![0xff; 100]);
        assert!(matches!(noise.unpack(), Err(UnpackError::NotDeflated(_))));
        let others = PackedChanges(compress_to_vec(&[7; 40], LEVEL));
        assert!(matches!(others.unpack(), Err(UnpackError::Decode(_))));
    }
}
