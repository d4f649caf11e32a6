//! The form that the engine keeps bytecode in: a first byte that says what follows, and QuickJS's
//! bytecode, deflated (RFC 1951) where that pays. Only the engine packs, so that the same
//! source gives the same bytes whatever becomes of this side.

use std::borrow::Cow;

use miniz_oxide::inflate::decompress_to_vec_with_limit;

use super::abi::{BYTECODE_BYTES_MAX, Kind};

/// Bits of the first byte.
const SCRIPT: u8 = 1;
const DEFLATED: u8 = 2;

/// Most bytes that packed bytecode of this length unpacks to. QuickJS's bytecode deflates to
/// half or a quarter; what deflates much better is made to use up a host's memory.
/// The engine has the same rule (`runtime/plugin/src/pack.rs`); what is longer than any bytecode may
/// be is refused here first.
fn unpacked_bytes_max(packed: usize) -> usize {
    let plausible = packed.saturating_mul(16).saturating_add(64 * 1024);
    plausible.min(BYTECODE_BYTES_MAX)
}

/// What packed bytecode says of itself. None if it is empty.
pub(super) fn kind_of(packed: &[u8]) -> Option<Kind> {
    match packed.first()? & SCRIPT {
        0 => Some(Kind::Function),
        _ => Some(Kind::Script),
    }
}

/// The same program without the compression, for whoever runs it more than once: the engine
/// runs either form, but would inflate it in each call. At most 16 times as long and 64 KiB, and
/// never longer than [`BYTECODE_BYTES_MAX`]. None if the bytes are damaged.
pub(super) fn unpack(packed: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (&tag, bytes) = packed.split_first()?;
    if tag & DEFLATED == 0 {
        return Some(Cow::Borrowed(packed));
    }
    let limit = unpacked_bytes_max(bytes.len());
    let mut plain = decompress_to_vec_with_limit(bytes, limit).ok()?;
    plain.insert(0, tag & !DEFLATED);
    Some(Cow::Owned(plain))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;
    use miniz_oxide::deflate::compress_to_vec;

    fn deflated(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut packed = vec![tag];
        packed.extend(compress_to_vec(bytes, 9));
        packed
    }

    #[test]
    fn plain_bytecode_is_itself() {
        assert_eq!(unpack(&[0, 1, 2]).unwrap().as_ref(), [0, 1, 2]);
        assert_eq!(unpack(&[SCRIPT]).unwrap().as_ref(), [SCRIPT]);
    }

    #[test]
    fn deflated_bytecode_keeps_its_kind() {
        let packed = deflated(DEFLATED | SCRIPT, b"aaaaaaaaaaaaaaaa");
        assert_eq!(unpack(&packed).unwrap().as_ref(), b"\x01aaaaaaaaaaaaaaaa");
        assert_eq!(kind_of(&packed), Some(Kind::Script));
    }

    #[test]
    fn damaged_bytecode_is_none() {
        assert_eq!(unpack(&[]), None);
        assert_eq!(unpack(&[DEFLATED]), None);
        assert_eq!(unpack(&[DEFLATED, 0xff, 0xff]), None);
        let packed = deflated(DEFLATED, &[7; 5000]);
        assert_eq!(unpack(&packed[..packed.len() - 1]), None);
    }

    #[test]
    fn what_would_fill_the_memory_is_not_inflated() {
        assert!(unpack(&deflated(DEFLATED, &vec![0; 64 * 1024])).is_some());
        assert_eq!(unpack(&deflated(DEFLATED, &vec![0; 10_000_000])), None);
    }

    #[test]
    fn a_large_artifact_unpacks_to_no_more_than_bytecode_may_be() {
        // Noise and zeros in turn: it deflates to about a twelfth, which is plausible.
        let mut bytes = vec![0; BYTECODE_BYTES_MAX + 1];
        let mut noise = blake3::Hasher::new().finalize_xof();
        bytes.chunks_mut(12 << 10).for_each(|chunk| {
            let len = chunk.len().min(1 << 10);
            noise.fill(&mut chunk[..len]);
        });
        let mut packed = vec![DEFLATED];
        packed.extend(compress_to_vec(&bytes, 1));
        assert!(packed.len() * 16 > bytes.len(), "{}", packed.len());
        assert_eq!(unpack(&packed), None);
        bytes.pop();
        packed.truncate(1);
        packed.extend(compress_to_vec(&bytes, 1));
        assert!(unpack(&packed).is_some());
    }
}
