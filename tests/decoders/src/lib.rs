//! Everything in Orb that reads strangers' bytes, each with what must hold for it.
//!
//! One function for each decoder takes any bytes and panics where a law is broken. The fuzzer
//! (`tests/fuzz`) and the property tests (`tests/decoders.rs`) call the very same functions, listed
//! in [`ENTRIES`]; what the fuzzer found worth keeping lies in `tests/fuzz/corpus/NAME`, and is
//! replayed by the tests.

mod config;
mod frames;
mod manifest;
mod module;
mod project;
mod relay;
mod text;
mod wire;

pub use wire::reader_of;

/// A decoder under test: any bytes in, a panic for a broken law.
pub type Entry = fn(&[u8]);

/// All of them by name. Each has a target in `tests/fuzz/fuzz_targets` and seeds in
/// `tests/fuzz/corpus`; a test holds the three lists together.
pub const ENTRIES: &[(&str, Entry)] = &[
    ("admission", module::admission),
    ("call", wire::call),
    ("control", wire::control),
    ("directory", wire::directory),
    ("emitter", module::emitter),
    ("extension", wire::extension),
    ("federation", wire::federation),
    ("frames", frames::frames),
    ("head", manifest::head),
    ("manifest", manifest::manifest),
    ("project", project::project),
    ("relay", wire::relay),
    ("relay_header", relay::header),
    ("relay_table", relay::table),
    ("request", wire::request),
    ("text", text::text),
];

/// The entry of this name.
///
/// # Panics
/// If there is none.
pub fn entry(name: &str) -> Entry {
    let found = ENTRIES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("there is no decoder {name}")).1
}
