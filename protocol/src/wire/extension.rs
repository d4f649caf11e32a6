//! Extensions: how messages grow without breaking older or newer peers.
//!
//! Decoding is what refuses a critical extension that this version does not know, wherever in a
//! message it stands: no handler can forget to look.

use serde::{Deserialize, Serialize};

use super::codec::DecodeError;

/// Extensions a message may carry: enough for every one that was ever thought of, several times.
pub const EXTENSIONS_MAX: usize = 32;
/// The bit of a kind that says "refuse the message if you don't know this one".
pub const CRITICAL: u16 = 0x8000;
/// The critical extensions that this version understands: none so far.
const KNOWN: &[u16] = &[];

/// One (type, length, bytes) at the end of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// What it is. With the bit [`CRITICAL`], a peer that doesn't know it refuses the message.
    pub kind: u16,
    /// Its content, in its own encoding.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// The extensions of a message, in the order in which the sender put them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Extension>", into = "Vec<Extension>")]
pub struct Extensions(Vec<Extension>);

impl TryFrom<Vec<Extension>> for Extensions {
    type Error = DecodeError;

    fn try_from(extensions: Vec<Extension>) -> Result<Self, DecodeError> {
        let extensions = Self(extensions);
        extensions.check(KNOWN).map(|()| extensions)
    }
}

impl From<Extensions> for Vec<Extension> {
    fn from(extensions: Extensions) -> Self {
        extensions.0
    }
}

impl Extensions {
    /// No extensions.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The content of the first extension of this kind.
    pub fn get(&self, kind: u16) -> Option<&[u8]> {
        self.0.iter().find(|e| e.kind == kind).map(|e| e.bytes.as_slice())
    }

    /// These extensions and one more.
    #[must_use]
    pub fn with(mut self, kind: u16, bytes: Vec<u8>) -> Self {
        self.0.push(Extension { kind, bytes });
        self
    }

    /// Refuses what the sender says must be understood and is not. Decoded messages have passed.
    ///
    /// # Errors
    /// [`DecodeError::CriticalExtension`] for a critical kind outside `known`, and
    /// [`DecodeError::Malformed`] for more than [`EXTENSIONS_MAX`].
    pub fn check(&self, known: &[u16]) -> Result<(), DecodeError> {
        if self.0.len() > EXTENSIONS_MAX {
            return Err(DecodeError::Malformed(format!(
                "more than {EXTENSIONS_MAX} extensions"
            )));
        }
        match self
            .0
            .iter()
            .find(|e| e.kind & CRITICAL != 0 && !known.contains(&e.kind))
        {
            Some(unknown) => Err(DecodeError::CriticalExtension(unknown.kind)),
            None => Ok(()),
        }
    }
}
