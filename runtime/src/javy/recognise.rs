//! Artifact to bytecode.
//!
//! A module is taken for a JavaScript artifact only if it is, byte for byte, what
//! [`emit()`](super::emit()) makes of the bytecode in it.

use std::borrow::Cow;

use super::abi::Kind;
use super::emit::{EMITTER_VERSION, RECORD_BYTES, SECTION, emit};
use super::engine::known_engine;
use super::pack::{kind_of, unpack};
use wasmparser::{DataKind, Parser, Payload};

/// Whatever imports from a module of this name means to be a JavaScript artifact, of this
/// or of another version of the engine.
const NAMESPACE_PREFIX: &str = "orb-javy-";

/// A JavaScript artifact that this build of Orb can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JavyArtifact<'a> {
    /// BLAKE3 of the engine that compiled it; one of the known ones.
    pub engine: [u8; 32],
    /// How it wants to be called.
    pub kind: Kind,
    /// For [`EngineInstance::run`](super::EngineInstance::run), already inflated: at most 16 times
    /// as long as the artifact and 64 KiB, and at most 64 MiB.
    pub bytecode: Cow<'a, [u8]>,
}

/// Why a module that means to be a JavaScript artifact is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// It is for an engine that this build does not have.
    #[error("it is made for a JavaScript engine that this version of Orb does not have")]
    EngineUnknown {
        /// The engine that it asks for.
        engine: [u8; 32],
    },
    /// Another version of Orb made it.
    #[error("it is made by version {version} of the emitter; this one is {EMITTER_VERSION}")]
    EmitterUnknown {
        /// The version that it names.
        version: u8,
    },
    /// Something in it was changed or is missing.
    #[error("it is not what Orb's emitter makes of the bytecode in it")]
    Altered,
}

/// Looks at a module. None: it is something else, which is not judged here.
///
/// # Errors
/// It means to be a JavaScript artifact, by its custom section or its imports, and is not one.
pub fn recognise(wasm: &[u8]) -> Result<Option<JavyArtifact<'_>>, NotOurs> {
    let found = look(wasm);
    let Some(record) = found.record else {
        return if found.imports_engine {
            Err(NotOurs::Altered)
        } else {
            Ok(None)
        };
    };
    if let Some(&version) = record.first()
        && version != EMITTER_VERSION
    {
        return Err(NotOurs::EmitterUnknown { version });
    }
    let bytecode = found.bytecode.ok_or(NotOurs::Altered)?;
    let kind = kind_of(bytecode).ok_or(NotOurs::Altered)?;
    if record.len() != RECORD_BYTES {
        return Err(NotOurs::Altered);
    }
    let engine: [u8; 32] = record[2..34].try_into().map_err(|_| NotOurs::Altered)?;
    if emit(bytecode, &engine) != wasm {
        return Err(NotOurs::Altered);
    }
    if known_engine(&engine).is_none() {
        return Err(NotOurs::EngineUnknown { engine });
    }
    let bytecode = unpack(bytecode).ok_or(NotOurs::Altered)?;
    Ok(Some(JavyArtifact {
        engine,
        kind,
        bytecode,
    }))
}

/// What there is of an artifact in a module.
#[derive(Default)]
struct Found<'a> {
    record: Option<&'a [u8]>,
    imports_engine: bool,
    bytecode: Option<&'a [u8]>,
}

/// Collects up to the first thing that is no WebAssembly: other checks tell of that.
fn look(wasm: &[u8]) -> Found<'_> {
    let mut found = Found::default();
    for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
        match payload {
            Payload::CustomSection(section) if section.name() == SECTION => {
                found.record = Some(section.data());
            }
            Payload::ImportSection(imports) => {
                found.imports_engine |= imports
                    .into_imports()
                    .map_while(Result::ok)
                    .any(|import| import.module.starts_with(NAMESPACE_PREFIX));
            }
            Payload::DataSection(segments) => {
                found.bytecode = segments
                    .into_iter()
                    .map_while(Result::ok)
                    .find(|segment| matches!(segment.kind, DataKind::Passive))
                    .map(|segment| segment.data);
            }
            Payload::End(_) => break,
            _ => {}
        }
    }
    found
}
