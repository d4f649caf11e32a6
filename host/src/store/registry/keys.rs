//! Keys of the registry's tables. Numbers are big-endian, so that keys are in the order of versions.

use orb_protocol::id::{FunctionId, ManifestHash};
use orb_protocol::manifest::{Verified, Version};

pub(super) fn version_key(function: &FunctionId, version: Version) -> Vec<u8> {
    let Version { generation, revision } = version;
    let numbers = [generation.to_be_bytes(), revision.to_be_bytes()].concat();
    [function.as_bytes().as_slice(), &numbers].concat()
}

/// The part of a history's key that [`version_key`] makes of the version.
pub(super) fn version_of_key(key: &[u8]) -> &[u8] {
    const FUNCTION: usize = size_of::<FunctionId>();
    key.get(FUNCTION..FUNCTION + size_of::<Version>())
        .unwrap_or_default()
}

/// The hash at the end of a history's key.
pub(super) fn hash_of_key(key: &[u8]) -> Option<ManifestHash> {
    const VERSION_KEY: usize = size_of::<FunctionId>() + size_of::<Version>();
    let hash = key.get(VERSION_KEY..)?.try_into().ok()?;
    Some(ManifestHash::from_bytes(hash))
}

pub(super) fn history_key(manifest: &Verified) -> Vec<u8> {
    let mut key = version_key(&manifest.function(), manifest.version());
    key.extend_from_slice(manifest.hash().as_bytes());
    key
}

/// The first key after all those that begin with `prefix`.
pub(super) fn next_key(prefix: &[u8]) -> Vec<u8> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            return next;
        }
    }
    // Nothing comes after a prefix of ones only but what begins with it: a hash that does not occur.
    [prefix, &[u8::MAX; 32]].concat()
}
