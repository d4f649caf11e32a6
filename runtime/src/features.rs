//! What a sandbox is made of, for people who ask.

use serde::Serialize;

/// What a sandbox is made of and how its caches fare, for `orb doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Features {
    /// wasmtime's version.
    pub wasmtime_version: &'static str,
    /// How fuel is counted; see [`METERING_VERSION`](crate::METERING_VERSION).
    pub metering_version: &'static str,
    /// Whether instances are reset page by page, which makes small calls several times faster. It
    /// needs Linux 6.7.
    pub pagemap_scan: bool,
    /// Guests that run at once.
    pub instances_max: u32,
    /// The largest memory that a call may ask for.
    pub memory_bytes_ceiling: u64,
    /// Compiled code in memory.
    pub compiled_bytes_in_memory: u64,
    /// Modules that were compiled since the start, rather than found in a cache.
    pub modules_compiled: u64,
    /// Compiled files that did not verify and were compiled again, since the start.
    pub compiled_files_rejected: u64,
}
