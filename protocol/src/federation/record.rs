//! A super node's record: how others reach it. Signed with its node key, so that anybody can pass it on.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::key::{Domain, NodeKey};
use crate::wire::codec::{self, DecodeError};
use crate::wire::extension::Extensions;
use crate::wire::federation::SignedRecord;

/// The most addresses of one super node.
pub const ADDRESSES_MAX: usize = 8;
/// The longest address, in bytes: a DNS name and a port.
pub const ADDRESS_LEN_MAX: usize = 262;
/// The longest signed record, in bytes.
pub const RECORD_LEN_MAX: usize = 4 * 1024;

/// What a super node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its key. It comes first, so that it is read without the rest.
    pub node: NodeId,
    /// `host:port`, the best first.
    pub addresses: Vec<String>,
    /// Raised with every new record: the higher one holds.
    pub number: u64,
    /// The version of its software, for display.
    pub software: String,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Whose record it says to be, without a look at the rest of it.
pub(super) fn node_of(signed: &SignedRecord) -> Option<NodeId> {
    codec::decode_start(&signed.bytes).ok()
}

/// Why a record is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than [`RECORD_LEN_MAX`].
    #[error("a super node's record has {0} bytes, and at most {RECORD_LEN_MAX} are taken")]
    TooLong(usize),
    /// The bytes are not a record's.
    #[error("a super node's record does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// Forged or altered.
    #[error("a super node's record is not signed by its key")]
    Signature,
    /// A field is outside its bounds.
    #[error(
        "a super node's record has addresses out of bounds: 1 to {ADDRESSES_MAX} of at most {ADDRESS_LEN_MAX} bytes"
    )]
    Addresses,
}

impl Record {
    /// Signs it.
    pub fn sign(&self, key: &NodeKey) -> SignedRecord {
        let bytes = codec::encode(self);
        let signature = key.sign(Domain::SuperNode, &bytes).to_vec();
        SignedRecord { bytes, signature }
    }

    fn check(&self) -> Result<(), RecordError> {
        let count = (1..=ADDRESSES_MAX).contains(&self.addresses.len());
        let fits = |address: &String| (1..=ADDRESS_LEN_MAX).contains(&address.len());
        (count && self.addresses.iter().all(fits))
            .then_some(())
            .ok_or(RecordError::Addresses)
    }
}

/// A record whose signature and fields were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRecord {
    record: Record,
    signed: SignedRecord,
}

impl VerifiedRecord {
    /// Checks a record.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify(signed: SignedRecord) -> Result<Self, RecordError> {
        if signed.bytes.len() > RECORD_LEN_MAX {
            return Err(RecordError::TooLong(signed.bytes.len()));
        }
        let record: Record = codec::decode(&signed.bytes)?;
        let signature = signed.signature().ok_or(RecordError::Signature)?;
        record
            .node
            .verify(Domain::SuperNode, &signed.bytes, &signature)
            .map_err(|_| RecordError::Signature)?;
        record.check()?;
        Ok(Self { record, signed })
    }

    /// Whose it is.
    pub fn node(&self) -> NodeId {
        self.record.node
    }

    /// What it says.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The exact bytes, to pass on.
    pub fn signed(&self) -> &SignedRecord {
        &self.signed
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn record(key: &NodeKey) -> Record {
        Record {
            node: key.id(),
            addresses: vec!["192.0.2.1:4433".to_owned()],
            number: 1,
            software: String::new(),
            extensions: Extensions::none(),
        }
    }

    #[test]
    fn a_record_verifies_for_its_own_key_only() {
        let (key, other) = (NodeKey::from_seed([1; 32]), NodeKey::from_seed([2; 32]));
        let signed = record(&key).sign(&key);
        assert_eq!(VerifiedRecord::verify(signed.clone()).unwrap().node(), key.id());
        let forged = record(&key).sign(&other);
        assert_eq!(VerifiedRecord::verify(forged), Err(RecordError::Signature));
        let mut altered = signed;
        *altered.bytes.last_mut().unwrap() ^= 1;
        assert!(VerifiedRecord::verify(altered).is_err());
    }

    #[test]
    fn a_record_without_an_address_is_of_no_use() {
        let key = NodeKey::from_seed([1; 32]);
        let mut empty = record(&key);
        empty.addresses.clear();
        assert_eq!(
            VerifiedRecord::verify(empty.sign(&key)),
            Err(RecordError::Addresses)
        );
    }
}
