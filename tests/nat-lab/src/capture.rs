//! Captures: every packet that crosses the interfaces of a network namespace.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use crate::packet::Packet;

/// Longer than any packet that a virtual interface hands over, in bytes.
const PACKET_LEN_MAX: usize = 256 * 1024;
/// Room for what comes while the capturing thread does not run, in bytes.
const BUFFER_LEN: libc::c_int = 32 << 20;

/// A running capture. It has to be ended with [`Capture::stop`].
pub(crate) struct Capture {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    socket: Arc<OwnedFd>,
    thread: JoinHandle<io::Result<()>>,
}

impl Capture {
    /// Starts a capture; `in_namespace` runs what it is given in the namespace to be looked at.
    pub(crate) fn start(in_namespace: impl FnOnce(OpenSocket) -> Result<OwnedFd>) -> Result<Self> {
        let socket = Arc::new(in_namespace(open_socket).context("a packet socket")?);
        let packets = Arc::<Mutex<Vec<Packet>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let thread = {
            let (socket, packets, stop) = (Arc::clone(&socket), Arc::clone(&packets), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut buffer = vec![0; PACKET_LEN_MAX];
                // Asked before each look, so that one last look comes after the wish to stop.
                loop {
                    let last = stop.load(Ordering::SeqCst);
                    match receive(&socket, &mut buffer)? {
                        Some(len) => lock(&packets).push(Packet(buffer[..len].to_vec())),
                        None if last => return Ok(()),
                        None => {}
                    }
                }
            })
        };
        Ok(Self {
            packets,
            stop,
            socket,
            thread,
        })
    }

    /// How many packets were seen so far.
    pub(crate) fn len(&self) -> usize {
        lock(&self.packets).len()
    }

    /// The packets seen from the `from`th on.
    pub(crate) fn since(&self, from: usize) -> Vec<Packet> {
        lock(&self.packets)[from..].to_vec()
    }

    /// Ends the capture. All packets that crossed until now are among those it gives.
    ///
    /// # Errors
    /// If the kernel had to drop some, so that nothing can be concluded from those that are there.
    pub(crate) fn stop(self) -> Result<Vec<Packet>> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread
            .join()
            .expect("the capturing thread does not panic")
            .context("capturing")?;
        let dropped = dropped(&self.socket).context("a capture's statistics")?;
        ensure!(
            dropped == 0,
            "the capture is not whole: {dropped} packets were dropped"
        );
        Ok(std::mem::take(&mut *lock(&self.packets)))
    }
}

/// What opens the socket of a capture, in the namespace where it is called.
pub(crate) type OpenSocket = fn() -> Result<OwnedFd>;

fn lock(packets: &Mutex<Vec<Packet>>) -> std::sync::MutexGuard<'_, Vec<Packet>> {
    packets.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_socket() -> Result<OwnedFd> {
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: a system call that takes no pointers.
    let descriptor =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor is new, and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let wait = libc::timeval {
        tv_sec: 0,
        tv_usec: 100_000,
    };
    set_option(&socket, libc::SO_RCVTIMEO, &wait)?;
    // Not allowed everywhere; where the buffer is too small, that shows in the statistics.
    let _ = set_option(&socket, libc::SO_RCVBUFFORCE, &BUFFER_LEN)
        .or_else(|_| set_option(&socket, libc::SO_RCVBUF, &BUFFER_LEN));
    Ok(socket)
}

fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes at `value`, which is that long.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The length of the next packet, or `None` if none came for a while.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the kernel writes at most `buffer.len()` bytes at its beginning.
    let len = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    match usize::try_from(len) {
        Ok(len) => Ok(Some(len)),
        Err(_) => match io::Error::last_os_error() {
            error
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            // An interface of the namespace went down or away: no reason to stop looking.
            error if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
            error => Err(error),
        },
    }
}

/// How many packets the kernel could not hand over.
fn dropped(socket: &OwnedFd) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes at `statistics`, which is that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut statistics).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(statistics.tp_drops)
    } else {
        Err(io::Error::last_os_error())
    }
}
