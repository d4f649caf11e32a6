//! Under which hash super nodes announce themselves (BEP 5, <https://www.bittorrent.org/beps/bep_0005.html>).

use crate::id::FunctionId;

/// What keeps this hash from being that of anything else (BLAKE3's key derivation mode).
const FUNCTION_CONTEXT: &str = "orb 2026-11 mainline info-hash of a function";
/// The same for the hash under which all super nodes meet that link with everybody.
const SUPER_NODES_CONTEXT: &str = "orb 2026-11 mainline info-hash of super nodes";

/// An info-hash: 20 bytes, as in BEP 5.
///
/// That of a function is the first 20 bytes of BLAKE3 in key derivation mode with the context
/// `orb 2026-11 mainline info-hash of a function` over its [`FunctionId`], which is itself a hash of owner
/// and name. That of super nodes is the same with `orb 2026-11 mainline info-hash of super nodes` over
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHash([u8; Self::LEN]);

impl InfoHash {
    /// Bytes of an info-hash.
    pub const LEN: usize = 20;

    /// Where super nodes announce that they serve a function.
    pub fn of_function(function: &FunctionId) -> Self {
        Self::derive(FUNCTION_CONTEXT, function.as_bytes())
    }

    /// Where super nodes announce themselves that link with every other one.
    pub fn of_super_nodes() -> Self {
        Self::derive(SUPER_NODES_CONTEXT, &[])
    }

    /// The 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    fn derive(context: &str, input: &[u8]) -> Self {
        let mut hash = [0; Self::LEN];
        let mut reader = blake3::Hasher::new_derive_key(context)
            .update(input)
            .finalize_xof();
        reader.fill(&mut hash);
        Self(hash)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;
    use crate::id::OwnerId;

    fn hex(hash: InfoHash) -> String {
        data_encoding::HEXLOWER.encode(hash.as_bytes())
    }

    #[test]
    fn each_function_has_its_own() {
        let owner = OwnerId::from_bytes([1; 32]);
        let of = |name: &str| InfoHash::of_function(&FunctionId::derive(&owner, &name.parse().unwrap()));
        assert_ne!(of("a"), of("b"));
        assert_ne!(of("a"), InfoHash::of_super_nodes());
    }

    /// Other implementations, and the versions after this one, have to come to the same.
    #[test]
    fn they_never_change() {
        let function = InfoHash::of_function(&FunctionId::from_bytes([7; 32]));
        insta::assert_snapshot!(
            format!("{}\n{}", hex(function), hex(InfoHash::of_super_nodes())),
            @r"
        0b11b097b2305aa5695065c863ea2fafdd934f6f
        8cc28015deb49ef2d69916899562a30095832e1d
        "
        );
    }
}
