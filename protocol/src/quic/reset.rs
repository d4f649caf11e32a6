//! How a restarted node disowns the connections of its former self.
//!
//! A node that was killed cannot say goodbye, and its peers would wait for the idle timeout. When it
//! is back and a packet of a connection that it does not know comes, it answers with a stateless reset
//! (RFC 9000, section 10.3), which only proves anything if it is made with the same secret as before:
//! so the secret is derived from the node's key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;

use crate::key::NodeKey;

/// Bytes of a connection id: enough that no two are ever the same.
const CID_LEN: usize = 8;

/// Makes the tokens of stateless resets.
pub(crate) struct ResetKey([u8; 32]);

impl ResetKey {
    pub(crate) fn new(key: &NodeKey) -> Self {
        Self(blake3::derive_key("orb 2026-11 stateless reset", &key.seed()))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Compares in constant time.
        (blake3::keyed_hash(&self.0, data) == *signature)
            .then_some(())
            .ok_or(CryptoError)
    }
}

/// Makes connection ids. quinn's own takes a restarted node's old ids for garbage, and does not
/// answer them.
pub(crate) struct Cids {
    key: [u8; 32],
    count: u64,
    unconnected: Arc<AtomicU64>,
}

impl Cids {
    /// `random` must differ from one start of the node to the next. Packets of connections that are
    /// not known are counted in `unconnected`.
    pub(crate) fn new(random: [u8; 32], unconnected: Arc<AtomicU64>) -> Self {
        Self {
            key: random,
            count: 0,
            unconnected,
        }
    }
}

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count += 1;
        let hash = blake3::keyed_hash(&self.key, &self.count.to_le_bytes());
        ConnectionId::new(&hash.as_bytes()[..CID_LEN])
    }

    /// Asked for packets of connections that are not known, and for no others. Any may be a former
    /// self's.
    fn validate(&self, _: &ConnectionId) -> Result<(), InvalidCid> {
        self.unconnected.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
