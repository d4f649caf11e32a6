//! The form that bytecode is kept in: a first byte that says what follows, and QuickJS's bytecode,
//! deflated (RFC 1951) where that pays.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use std::borrow::Cow;

/// How a program wants to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has a default export.
    Function,
    /// It has none.
    Script,
}

/// Bits of the first byte.
const SCRIPT: u8 = 1;
const DEFLATED: u8 = 2;

/// Shorter bytecode is kept as it is: it fits anyway, and nobody has to inflate it.
const DEFLATE_BYTES_MIN: usize = 1024;

/// Slow and thorough: a program is packed once.
const DEFLATE_LEVEL: u8 = 10;

/// Most bytes that packed bytecode of this length unpacks to. QuickJS's bytecode deflates to
/// half or a quarter; what deflates much better is made to use up a host's memory.
/// The runtime has the same rule (`javy::pack`).
fn unpacked_bytes_max(packed: usize) -> usize {
    packed.saturating_mul(16).saturating_add(64 * 1024)
}

impl Kind {
    /// What packed bytecode says that it is.
    pub(crate) fn of(packed: &[u8]) -> Option<Self> {
        match packed.first()? & SCRIPT {
            0 => Some(Self::Function),
            _ => Some(Self::Script),
        }
    }
}

/// Packs QuickJS's bytecode.
pub(crate) fn pack(kind: Kind, bytecode: &[u8]) -> Vec<u8> {
    let tag = match kind {
        Kind::Function => 0,
        Kind::Script => SCRIPT,
    };
    if bytecode.len() >= DEFLATE_BYTES_MIN {
        let deflated = compress_to_vec(bytecode, DEFLATE_LEVEL);
        let pays = deflated.len() < bytecode.len();
        if pays && bytecode.len() <= unpacked_bytes_max(deflated.len()) {
            return join(tag | DEFLATED, &deflated);
        }
    }
    join(tag, bytecode)
}

fn join(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(bytes.len() + 1);
    packed.push(tag);
    packed.extend_from_slice(bytes);
    packed
}

/// QuickJS's bytecode again. None if it is damaged.
pub(crate) fn unpack(packed: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (&tag, bytes) = packed.split_first()?;
    if tag & DEFLATED == 0 {
        return Some(Cow::Borrowed(bytes));
    }
    let inflated = decompress_to_vec_with_limit(bytes, unpacked_bytes_max(bytes.len()));
    inflated.ok().map(Cow::Owned)
}
