//! What a host gives to the sandbox.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::AdmissionLimits;

/// What a host gives to the sandbox as a whole. Each default states its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Where compiled modules are kept, with the key that authenticates them; `None` keeps them
    /// in memory only. The folder is made when it is missing and must belong to this node alone.
    pub cache_dir: Option<PathBuf>,
    /// Guests that run at once; further ones queue. Default 256 (a guess: at the default memory
    /// limit that is 16 GiB if all of them use it to the full, and 70 MB if all are JavaScript
    /// of the ordinary sort).
    pub instances_max: u32,
    /// Compiled code kept in memory. Default 256 MiB (a guess: about forty modules of the size
    /// of the JavaScript engine, or thousands of small ones).
    pub memory_cache_bytes_max: u64,
    /// Compiled code kept on disk. Default 1 GiB (a guess).
    pub disk_cache_bytes_max: u64,
    /// The largest memory that a call's limits may ask for; address space is reserved for it.
    /// Default 1 GiB (a guess; a call that asks for more is refused).
    pub memory_bytes_ceiling: u64,
    /// Time that compiling one module may take. Default 60 s (the JavaScript engine, 1.4 MB,
    /// takes 1.4 to 4 s of two cores).
    pub compile_time_max: Duration,
    /// How large a module may be. Default: [`AdmissionLimits::default`].
    pub admission: AdmissionLimits,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            instances_max: 256,
            memory_cache_bytes_max: 256 << 20,
            disk_cache_bytes_max: 1 << 30,
            memory_bytes_ceiling: 1 << 30,
            compile_time_max: Duration::from_secs(60),
            admission: AdmissionLimits::default(),
        }
    }
}
