//! Two rings and what wakes their readers: everything that a daemon and an executor say to each other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ring::{Consumer, Full, Producer, RING_LEN, Violation};
use super::shared::Mapping;

/// The memory of both rings: to the executor, and from it.
const MEMORY_LEN: usize = 2 * RING_LEN;

/// What the daemon hands to an executor, so that both have the same channel.
#[derive(Debug)]
pub struct Parts {
    /// The rings.
    pub(super) memory: OwnedFd,
    /// Wakes the executor.
    pub(super) to_executor: OwnedFd,
    /// Wakes the daemon.
    pub(super) to_daemon: OwnedFd,
}

impl Parts {
    /// Makes them.
    ///
    /// # Errors
    /// The system has no memory or descriptors.
    pub fn new() -> io::Result<Self> {
        let memory = orb_runtime::unsealed()?;
        memory.set_len(MEMORY_LEN as u64)?;
        // The other side shall not shorten what this one has mapped.
        let memory = orb_runtime::fixed_len(memory)?;
        let signal = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self {
            memory: memory.into(),
            to_executor: signal()?,
            to_daemon: signal()?,
        })
    }

    /// The daemon's end.
    ///
    /// # Errors
    /// The system does not map the memory.
    pub fn daemon_end(&self) -> io::Result<(Sender, Receiver)> {
        self.end(0, RING_LEN, &self.to_executor, &self.to_daemon)
    }

    /// The executor's end.
    ///
    /// # Errors
    /// The system does not map the memory.
    pub fn executor_end(&self) -> io::Result<(Sender, Receiver)> {
        self.end(RING_LEN, 0, &self.to_daemon, &self.to_executor)
    }

    fn end(&self, out: usize, back: usize, other: &OwnedFd, own: &OwnedFd) -> io::Result<(Sender, Receiver)> {
        let memory = Arc::new(Mapping::new(&self.memory, MEMORY_LEN)?);
        let sender = Sender {
            ring: Mutex::new(Producer::new(Arc::clone(&memory), out)),
            signal: other.try_clone()?,
        };
        let receiver = Receiver {
            ring: Consumer::new(memory, back),
            signal: watch(own.try_clone()?, Interest::READABLE)?,
        };
        Ok((sender, receiver))
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Sender {
    ring: Mutex<Producer>,
    signal: OwnedFd,
}

impl Sender {
    /// Appends a frame, without waking the reader.
    ///
    /// # Errors
    /// [`Full`]: try again. [`Violation`]: the other process is not to be believed any more.
    pub fn push(&self, frame: &[u8]) -> Result<Result<(), Full>, Violation> {
        self.lock().push(frame)
    }

    /// Leaves a note for the reader, in the place of the one before: what this process is at, in case
    /// that it ends.
    pub(super) fn note(&self, note: u64) {
        self.lock().note(note);
    }

    /// Wakes the reader, if it sleeps.
    pub fn flush(&self) {
        let asleep = self.lock().wants_waking();
        if asleep {
            // It can only fail if there are 2^64 wake-ups under way.
            let _ = rustix::io::write(&self.signal, &1_u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Producer> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reading end.
#[derive(Debug)]
pub struct Receiver {
    ring: Consumer,
    signal: AsyncFd<OwnedFd>,
}

impl Receiver {
    /// Takes the next frame, if there is one.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn pop(&mut self, frame: &mut Vec<u8>) -> Result<bool, Violation> {
        self.ring.pop(frame)
    }

    /// The other process's last note.
    pub(super) fn note(&self) -> u64 {
        self.ring.note()
    }

    /// Waits until there may be a frame.
    ///
    /// # Errors
    /// [`Violation`].
    pub async fn wait(&self) -> Result<(), Violation> {
        if !self.ring.fall_asleep()? {
            return Ok(());
        }
        let woken = self
            .signal
            .async_io(Interest::READABLE, |signal| take(signal.as_fd()))
            .await;
        self.ring.wake_up();
        // A broken signal cannot be told from a broken process.
        woken.map_err(|_| Violation)
    }
}

fn take(signal: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::read(signal, &mut [0_u8; size_of::<u64>()])?;
    Ok(())
}

/// A descriptor that the event loop watches.
///
/// # Errors
/// The system watches no more of them.
pub(super) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, and stays so and the same for as long as the `AsyncFd` has it: it is
    // only ever borrowed from there.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    watched.map_err(Into::into)
}

/// Waits until the process at the other end of a socket has ended. What it sends before is read elsewhere.
pub(super) async fn hang_up(socket: &AsyncFd<OwnedFd>) {
    loop {
        match socket.readable().await {
            Ok(guard) if guard.ready().is_read_closed() => return,
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => return,
        }
    }
}
