//! How much of the machine the process may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::State;

/// Descriptors: its channel, its event loop, and one for each program of machine code that is loaded, of
/// which the library keeps a thousand.
const DESCRIPTORS_MAX: u64 = 4_096;

/// What differs from process to process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// Memory that it may write to, in bytes.
    pub(crate) memory_bytes: u64,
    /// Processor time in seconds after which it is ended; none for one that lives long.
    pub(crate) processor_s: Option<u64>,
}

pub(super) fn set(bounds: &Bounds) -> State {
    let mut limits = vec![
        // All memory that can be written counts, so that address space which is merely set aside does not.
        (Resource::Data, bounds.memory_bytes),
        (Resource::Nofile, DESCRIPTORS_MAX),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ];
    limits.extend(bounds.processor_s.map(|seconds| (Resource::Cpu, seconds)));
    let failed: Vec<String> = limits
        .into_iter()
        .filter_map(|(resource, max)| {
            // One that is lower already stays so.
            let max = getrlimit(resource).maximum.map_or(max, |now| now.min(max));
            let limit = Rlimit {
                current: Some(max),
                maximum: Some(max),
            };
            let error = setrlimit(resource, limit).err()?;
            Some(format!("{resource:?}: {error}"))
        })
        .collect();
    if failed.is_empty() {
        State::Up
    } else {
        State::Partly(failed.join(", "))
    }
}
