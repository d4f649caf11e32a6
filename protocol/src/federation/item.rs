//! What a live manifest is in a set reconciliation.
//!
//! Negentropy orders items by a time stamp and a 32-byte id. Here the stamp is the first 8 bytes of the
//! function's id, so that items are in the order in which a registry lists them, and the id is the first
//! half of the function's id and the first half of the manifest's hash: who has an id finds the function
//! by its prefix, without an index. (Two functions of one prefix take 2^64 work to make, and harm each
//! other only.)

use crate::id::{FunctionId, ManifestHash};

/// Bytes of each half.
const HALF: usize = 16;

/// The item's id.
pub fn id(function: &FunctionId, manifest: &ManifestHash) -> [u8; 32] {
    let mut id = [0; 32];
    id[..HALF].copy_from_slice(&function.as_bytes()[..HALF]);
    id[HALF..].copy_from_slice(&manifest.as_bytes()[..HALF]);
    id
}

/// The item's time stamp.
pub fn stamp(id: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id[..8]);
    u64::from_be_bytes(first)
}

/// The prefix that the function's id begins with.
pub fn function_prefix(id: &[u8; 32]) -> &[u8] {
    &id[..HALF]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_in_the_order_of_functions() {
        let item = |function: u8, hash: u8| {
            let id = id(
                &FunctionId::from_bytes([function; 32]),
                &ManifestHash::from_bytes([hash; 32]),
            );
            (stamp(&id), id)
        };
        assert!(item(1, 9) < item(2, 0));
        assert_ne!(item(1, 9), item(1, 8));
        assert_eq!(function_prefix(&item(7, 1).1), [7; 16]);
    }
}
