//! The names of things: 32-byte ids with one text form.
//!
//! Every id prints as 52 characters of lower-case base32 (RFC 4648 alphabet, no padding); the
//! short form for people is the first [`SHORT_LEN`] of them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};

/// Characters of an id's text form: 256 bits at 5 bits a character, rounded up.
pub const TEXT_LEN: usize = 52;
/// Characters of an id's short form, for display only.
pub const SHORT_LEN: usize = 10;
/// The shortest prefix that a parser may resolve against a local list.
pub const PREFIX_LEN_MIN: usize = 8;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 52 characters long.
    #[error("an id has {TEXT_LEN} characters of a-z and 2-7, this text has {0}")]
    Length(usize),
    /// A character outside the alphabet, or bits left over at the end.
    #[error("an id has {TEXT_LEN} characters of a-z and 2-7; this text has another character in it")]
    Alphabet,
    /// The bytes are not a point of the curve, so nobody can hold this key.
    #[error("these bytes are no Ed25519 public key")]
    NotAKey,
}

/// RFC 4648 base32 in lower case, without padding.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding()
        .expect("the RFC 4648 alphabet is a valid specification")
});

pub(crate) fn to_text(bytes: &[u8; 32]) -> String {
    BASE32.encode(bytes)
}

pub(crate) fn from_text(text: &str) -> Result<[u8; 32], IdError> {
    if text.chars().count() != TEXT_LEN {
        return Err(IdError::Length(text.chars().count()));
    }
    let bytes = BASE32.decode(text.as_bytes()).map_err(|_| IdError::Alphabet)?;
    bytes.try_into().map_err(|_| IdError::Alphabet)
}

/// The order of the bytes. The first eight decide as a rule, and take no call: ids are the keys of most maps.
fn compare(one: &[u8; 32], other: &[u8; 32]) -> Ordering {
    start(one).cmp(&start(other)).then_with(|| one.cmp(other))
}

/// The first bytes as a number that compares as they do.
fn start(bytes: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *bytes;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 32]);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                compare(&self.0, &other.0)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first characters of the text form, for display.
            pub fn short(&self) -> String {
                let mut text = to_text(&self.0);
                text.truncate(SHORT_LEN);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_text(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                from_text(text).map(Self)
            }
        }
    };
}

id! {
    /// A node: the Ed25519 public key that authenticates its QUIC connections.
    NodeId
}
id! {
    /// An owner of functions: the Ed25519 public key that signs manifests. Never a node's key.
    OwnerId
}
id! {
    /// A function through all its revisions: BLAKE3 of a domain, the owner's key and the name.
    /// Also its point in XOR space. See [`FunctionId::derive`].
    FunctionId
}
id! {
    /// BLAKE3 of an artifact's Wasm bytes.
    ArtifactHash
}
id! {
    /// BLAKE3 of an engine's Wasm bytes (the Javy plugin that a javy artifact was compiled for).
    EngineHash
}
id! {
    /// BLAKE3 of a signed manifest's bytes.
    ManifestHash
}

/// A caller's name for one request, unique with overwhelming probability: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// The request id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.0))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

impl FunctionId {
    /// The id of `owner`'s function `name`.
    pub fn derive(owner: &OwnerId, name: &crate::name::Name) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("orb 2026-11 function id");
        hasher.update(owner.as_bytes());
        hasher.update(name.as_str().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// How far `node` is from this function in XOR space: smaller (as a big-endian number) is
    /// nearer. The metric of Kademlia (Maymounkov & Mazières, 2002).
    pub fn distance(&self, node: &NodeId) -> [u8; 32] {
        let mut distance = self.0;
        for (byte, other) in distance.iter_mut().zip(node.as_bytes()) {
            *byte ^= other;
        }
        distance
    }
}

impl ArtifactHash {
    /// The hash of these Wasm bytes.
    pub fn of(wasm: &[u8]) -> Self {
        Self(*blake3::hash(wasm).as_bytes())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[test]
    fn text_is_52_characters_and_comes_back() {
        let id = NodeId::from_bytes([0xa5; 32]);
        let text = id.to_string();
        assert_eq!(text.len(), TEXT_LEN);
        assert_eq!(text.parse::<NodeId>().unwrap(), id);
        assert!(text.starts_with(&id.short()));
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!("abc".parse::<NodeId>(), Err(IdError::Length(3)));
        assert_eq!("A".repeat(TEXT_LEN).parse::<NodeId>(), Err(IdError::Alphabet));
        assert_eq!("1".repeat(TEXT_LEN).parse::<NodeId>(), Err(IdError::Alphabet));
        // 52 characters hold 260 bits: the four spare ones must be zero, so that an id has one text.
        assert_eq!("7".repeat(TEXT_LEN).parse::<NodeId>(), Err(IdError::Alphabet));
        assert_eq!("é".repeat(TEXT_LEN).parse::<NodeId>(), Err(IdError::Alphabet));
    }

    #[test]
    fn the_order_is_that_of_the_bytes() {
        let id = |at: usize, byte: u8| {
            let mut bytes = [5; 32];
            bytes[at] = byte;
            NodeId::from_bytes(bytes)
        };
        let mut all = Vec::new();
        for at in [0, 1, 6, 7, 8, 9, 31] {
            all.extend([0, 4, 5, 6, 255].map(|byte| id(at, byte)));
        }
        for one in &all {
            for other in &all {
                assert_eq!(one.cmp(other), one.as_bytes().cmp(other.as_bytes()));
            }
        }
    }

    #[test]
    fn distance_to_itself_is_zero() {
        let function = FunctionId::from_bytes([7; 32]);
        assert_eq!(function.distance(&NodeId::from_bytes([7; 32])), [0; 32]);
    }
}
