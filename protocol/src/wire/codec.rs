//! The one place that knows the encoding: bincode 2 (varint, little-endian), size-limited.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message, in bytes. Bodies travel in chunks beside messages, so that a message only
/// has to hold a page of a listing: a few hundred signed manifests.
pub const MESSAGE_LEN_MAX: usize = 256 * 1024;

/// Most messages are shorter, and take one allocation.
const ORDINARY_LEN: usize = 256;

const MALFORMED_PREFIX: &str = "a message does not decode: ";
const CRITICAL_PREFIX: &str = "a message needs extension 0x";

/// Bytes that are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the limit, or claims to hold more than the limit allows.
    #[error("a message is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Ends too early, has bytes left over, or holds values that cannot be.
    #[error("{MALFORMED_PREFIX}{0}")]
    Malformed(String),
    /// Holds an extension that the sender marked critical and this version does not know.
    #[error("{CRITICAL_PREFIX}{0:04x}, which this version does not have: update orb")]
    CriticalExtension(u16),
}

fn config() -> impl bincode::config::Config {
    // The limit bounds what a length prefix can make the decoder allocate.
    bincode::config::standard().with_limit::<MESSAGE_LEN_MAX>()
}

/// Encodes a message.
///
/// # Panics
/// Never for the types of this crate: each has a serde form that bincode holds.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ORDINARY_LEN);
    bincode::serde::encode_into_std_write(message, &mut bytes, bincode::config::standard())
        .expect("the crate's own types have an encoding");
    bytes
}

/// Decodes a whole message; bytes left over are an error.
///
/// # Errors
/// [`DecodeError`], never a panic and never an allocation beyond [`MESSAGE_LEN_MAX`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match decode_some(bytes)? {
        (message, read) if read == bytes.len() => Ok(message),
        (_, read) => Err(DecodeError::Malformed(format!(
            "{} bytes left over",
            bytes.len() - read
        ))),
    }
}

/// Decodes the first field of a message, whatever comes after it.
///
/// # Errors
/// As of [`decode`].
pub(crate) fn decode_start<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_some(bytes).map(|(field, _)| field)
}

fn decode_some<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    if bytes.len() > MESSAGE_LEN_MAX {
        return Err(DecodeError::TooLong {
            limit: MESSAGE_LEN_MAX,
        });
    }
    match bincode::serde::decode_from_slice(bytes, config()) {
        Ok(decoded) => Ok(decoded),
        Err(bincode::error::DecodeError::LimitExceeded) => Err(DecodeError::TooLong {
            limit: MESSAGE_LEN_MAX,
        }),
        Err(bincode::error::DecodeError::OtherString(text)) => Err(nested(&text)),
        Err(error) => Err(DecodeError::Malformed(error.to_string())),
    }
}

/// The error of a message inside the message: serde passes errors on as text only.
fn nested(text: &str) -> DecodeError {
    let critical = text.strip_prefix(CRITICAL_PREFIX).and_then(|rest| rest.get(..4));
    match critical.and_then(|kind| u16::from_str_radix(kind, 16).ok()) {
        Some(kind) => DecodeError::CriticalExtension(kind),
        None => DecodeError::Malformed(text.strip_prefix(MALFORMED_PREFIX).unwrap_or(text).to_owned()),
    }
}
