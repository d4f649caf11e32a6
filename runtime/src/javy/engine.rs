//! The engine that every JavaScript function runs on.

use std::sync::OnceLock;

/// The engine: QuickJS as a Javy plugin, initialized and snapshotted. `runtime/plugin/build.sh`
/// makes it; `runtime/plugin/orb_javy_1.wasm.b3` holds its BLAKE3.
pub const ENGINE_WASM: &[u8] = include_bytes!("../../plugin/orb_javy_1.wasm");

/// The module name under which stand-alone artifacts import the engine.
pub const NAMESPACE: &str = "orb-javy-1";

/// BLAKE3 of [`ENGINE_WASM`]: the name by which artifacts ask for their engine.
pub fn engine_hash() -> [u8; 32] {
    static HASH: OnceLock<[u8; 32]> = OnceLock::new();
    *HASH.get_or_init(|| *blake3::hash(ENGINE_WASM).as_bytes())
}

/// The bytes of an engine that this build of Orb has. Bytecode is tied to the engine that
/// made it, and no engine but these is ever compiled: today one.
pub fn known_engine(hash: &[u8; 32]) -> Option<&'static [u8]> {
    (*hash == engine_hash()).then_some(ENGINE_WASM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_the_one_that_was_recorded() {
        let recorded = include_str!("../../plugin/orb_javy_1.wasm.b3");
        assert_eq!(blake3::hash(ENGINE_WASM).to_hex().as_str(), recorded.trim());
    }

    #[test]
    fn only_recorded_engines_are_known() {
        assert_eq!(known_engine(&engine_hash()), Some(ENGINE_WASM));
        assert_eq!(known_engine(&[0; 32]), None);
    }
}
