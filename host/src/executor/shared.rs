//! Memory that two processes share.

use std::io;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping, for as long as it lives.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is a range of addresses. What is done with them is up to `ring`, whose two ends
// synchronize by atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `memory`, which must be that long.
    ///
    /// # Errors
    /// The system does not map it.
    pub(super) fn new(memory: impl AsFd, len: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap(null_mut(), len, protection, flags, memory, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The address of byte `at`, of which `len` are going to be used.
    ///
    /// # Panics
    /// If they are not inside.
    pub(super) fn at(&self, at: usize, len: usize) -> NonNull<u8> {
        let end = at.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.len), "inside of the mapping");
        // SAFETY: just checked to be inside of the mapping.
        unsafe { self.start.add(at) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this struct's own, and whoever uses addresses of it holds it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
