//! Where programs that are ready to run are kept: in memory, and compiled code on disk.

mod disk;
mod memory;

pub(crate) use disk::DiskCache;
pub(crate) use memory::{Flight, MemoryCache};
