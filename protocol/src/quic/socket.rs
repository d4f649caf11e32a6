//! The one UDP socket of a node, below QUIC.
//!
//! Outgoing: a made-up address becomes the real way that the [path table](super::path) names, with
//! a relay header where the way is a relay. Incoming: relay headers come off, packets get the address
//! that QUIC knows their sender by, and on a super node other nodes' packets are passed on without
//! QUIC ever seeing them. Batches stay batches in both directions.
//!
//! Nothing that comes in from the network is an error here: what cannot be delivered is counted.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;

use super::forward::{Forwarder, Packets};
use super::overflow::Overflow;
use super::path::{Path, PathTable, RemoteId, canonical, unmapped};
use super::segments;
use crate::relay::{RELAY_HEADER_LEN, RelayDrop, RelayHeader, RelayToken};

/// Batches in a row that are all for other nodes before the endpoint gets to do something else:
/// the kernel gives up to 32 buffers at once, so this is some 100 microseconds of relaying.
const RELAY_BATCHES_PER_POLL: usize = 4;

/// Bytes asked of the kernel for each direction; it gives what its own limit allows. Two
/// milliseconds of ten gigabit, so that a burst outlasts the scheduler's pauses.
const KERNEL_BUFFER_BYTES: usize = 2 << 20;

thread_local! {
    /// Where outgoing batches get their relay headers. Ten packets at most, so it stays small.
    static WRAPPED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a socket knows, and the datagrams that it could do nothing with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SocketStats {
    /// Neither QUIC nor a relayed packet of a known version.
    pub malformed: u64,
    /// Relayed packets of a session that this node does not have.
    pub stray: u64,
    /// Claimed to come from an address that only exists inside this program.
    pub spoofed: u64,
    /// Looked like QUIC, of a connection that this node does not have: garbage, a former self's, or one
    /// that has just ended.
    pub unconnected: u64,
    /// Outgoing, for a peer to which no way is known any more.
    pub unroutable: u64,
    /// Peers that this node knows a way to now: dialled, or announced by a super node.
    pub remotes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    malformed: AtomicU64,
    stray: AtomicU64,
    spoofed: AtomicU64,
    unconnected: Arc<AtomicU64>,
    unroutable: AtomicU64,
}

/// See the module.
pub(crate) struct NodeSocket {
    io: tokio::net::UdpSocket,
    offload: UdpSocketState,
    is_v4: bool,
    started: Instant,
    paths: RwLock<PathTable>,
    overflow: Mutex<Overflow>,
    forwarder: Option<Forwarder>,
    counters: Counters,
}

impl NodeSocket {
    /// Binds. An IPv6 address takes IPv4 peers too where the system can do that; any IPv6 address
    /// stands for any IPv4 address on a system without IPv6. With `forwarder` it relays.
    pub(crate) fn bind(
        listen: SocketAddr,
        forwarder: impl FnOnce(&tokio::net::UdpSocket) -> io::Result<Option<Forwarder>>,
    ) -> io::Result<Self> {
        let any_v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port());
        let (socket, listen) = match bind_udp(listen) {
            Err(_) if listen.ip() == Ipv6Addr::UNSPECIFIED && !has_ipv6() => (bind_udp(any_v4)?, any_v4),
            bound => (bound?, listen),
        };
        let io = tokio::net::UdpSocket::from_std(socket.into())?;
        Ok(Self {
            offload: UdpSocketState::new((&io).into())?,
            forwarder: forwarder(&io)?,
            io,
            is_v4: listen.is_ipv4(),
            started: Instant::now(),
            paths: RwLock::default(),
            overflow: Mutex::default(),
            counters: Counters::default(),
        })
    }

    /// The address that it is bound to, as it is.
    pub(crate) fn bound_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Whether packets can be sent straight to this address from here.
    pub(crate) fn can_reach(&self, addr: SocketAddr) -> bool {
        !self.is_v4 || unmapped(addr).is_ipv4()
    }

    /// The time since this socket was bound: the clock of the tables below it.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reads the path table.
    pub(crate) fn paths<T>(&self, read: impl FnOnce(&PathTable) -> T) -> T {
        read(&self.paths.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the path table.
    pub(crate) fn paths_mut<T>(&self, change: impl FnOnce(&mut PathTable, Duration) -> T) -> T {
        let now = self.now();
        change(
            &mut self.paths.write().unwrap_or_else(PoisonError::into_inner),
            now,
        )
    }

    /// The relay, on a super node.
    pub(crate) fn forwarder(&self) -> Option<&Forwarder> {
        self.forwarder.as_ref()
    }

    pub(crate) fn stats(&self) -> SocketStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SocketStats {
            malformed: read(&self.counters.malformed),
            stray: read(&self.counters.stray),
            spoofed: read(&self.counters.spoofed),
            unconnected: read(&self.counters.unconnected),
            unroutable: read(&self.counters.unroutable),
            remotes: self.paths(PathTable::len) as u64,
        }
    }

    /// Where QUIC counts packets of connections that it does not have.
    pub(crate) fn unconnected(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.counters.unconnected)
    }

    fn overflow(&self) -> MutexGuard<'_, Overflow> {
        self.overflow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_to(&self, addr: SocketAddr, transmit: &Transmit<'_>) -> io::Result<()> {
        let destination = if self.is_v4 { unmapped(addr) } else { addr };
        if self.is_v4 && destination.is_ipv6() {
            count(&self.counters.unroutable, 1);
            return Ok(());
        }
        let transmit = Transmit {
            destination,
            ..transmit.clone()
        };
        self.io.try_io(Interest::WRITABLE, || {
            self.offload.send((&self.io).into(), &transmit)
        })
    }

    fn send_relayed(&self, via: SocketAddr, token: RelayToken, transmit: &Transmit<'_>) -> io::Result<()> {
        let stride = transmit.segment_size.unwrap_or(transmit.contents.len());
        WRAPPED.with_borrow_mut(|wrapped| {
            segments::wrap(transmit.contents, stride, token, wrapped);
            let transmit = Transmit {
                contents: wrapped,
                segment_size: transmit.segment_size.map(|size| size + RELAY_HEADER_LEN),
                ..transmit.clone()
            };
            self.send_to(via, &transmit)
        })
    }

    /// Sorts what came in: the datagrams for QUIC end up in the first buffers. Returns how many
    /// buffers those are; more may wait in the overflow.
    fn sort(&self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta], received: usize) -> usize {
        let now = self.now();
        let mut overflow = self.overflow();
        let mut delivered = 0;
        for at in 0..received {
            let mut meta = metas[at];
            meta.addr = canonical(meta.addr);
            let kept = self.sort_batch(&mut bufs[at], meta, now, &mut overflow);
            if let Some(kept) = kept {
                bufs.swap(delivered, at);
                metas[delivered] = kept;
                delivered += 1;
            }
        }
        delivered
    }

    /// Sorts one buffer. The first run for QUIC stays in it, the others go to the overflow, and so
    /// does everything once anything has: packets of one connection must not overtake each other.
    fn sort_batch(
        &self,
        buf: &mut [u8],
        meta: RecvMeta,
        now: Duration,
        overflow: &mut Overflow,
    ) -> Option<RecvMeta> {
        let stride = meta.stride;
        let batch = buf.get_mut(..meta.len)?;
        let mut kept = None;
        let mut at = 0;
        while let Some(run) = segments::run_at(batch, stride, at) {
            at = run.range.end;
            let Some(addr) = self.sort_run(&mut batch[run.range.clone()], &run, meta, now) else {
                continue;
            };
            let relayed = run.header != RelayHeader::Quic;
            let meta = RecvMeta { addr, ..meta };
            if kept.is_none() && overflow.is_empty() {
                kept = Some(keep(batch, run.range, relayed, meta));
            } else {
                overflow.push(&batch[run.range], relayed, meta);
            }
        }
        kept
    }

    /// Whom QUIC knows as the sender of a run; `None` for what is not for QUIC.
    fn sort_run(
        &self,
        bytes: &mut [u8],
        run: &segments::Run,
        meta: RecvMeta,
        now: Duration,
    ) -> Option<SocketAddr> {
        let packets = run.count(meta.stride);
        if RemoteId::of(meta.addr).is_some() {
            count(&self.counters.spoofed, packets);
            return None;
        }
        match run.header {
            RelayHeader::Quic => {
                let owner = self.paths(|paths| paths.owner(&Path::Direct(meta.addr)));
                Some(owner.map_or(meta.addr, RemoteId::addr))
            }
            RelayHeader::Packet(token) => {
                let packets = Packets {
                    bytes,
                    stride: run.datagram_len(meta.stride),
                    from: meta.addr,
                    token,
                    ecn: meta.ecn,
                };
                self.sort_relayed(packets, now)
            }
            RelayHeader::Unknown => {
                self.drop_packets(&self.counters.malformed, RelayDrop::Malformed, packets);
                None
            }
        }
    }

    fn sort_relayed(&self, packets: Packets<'_>, now: Duration) -> Option<SocketAddr> {
        let (count, via, token) = (packets.count(), packets.from, packets.token);
        let passed_on = self
            .forwarder
            .as_ref()
            .is_some_and(|forwarder| forwarder.forward(&self.io, packets, now));
        if passed_on {
            return None;
        }
        let owner = self.paths(|paths| paths.owner(&Path::Relay { via, token }));
        if owner.is_none() {
            self.drop_packets(&self.counters.stray, RelayDrop::UnknownToken, count);
        }
        owner.map(RemoteId::addr)
    }

    fn drop_packets(&self, counter: &AtomicU64, reason: RelayDrop, packets: usize) {
        count(counter, packets);
        if let Some(forwarder) = &self.forwarder {
            forwarder.table(|table| table.on_dropped(reason, packets));
        }
    }
}

fn bind_udp(listen: SocketAddr) -> io::Result<socket2::Socket> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    if listen.is_ipv6() {
        // Where it is refused, IPv4 peers are reached by a relay only.
        let _ = socket.set_only_v6(false);
    }
    // More than the system allows is cut by it, not refused; less is only slower.
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket)
}

fn has_ipv6() -> bool {
    socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None).is_ok()
}

/// Leaves a run in its buffer, moved to the start, and says what lies there now.
fn keep(batch: &mut [u8], range: Range<usize>, relayed: bool, meta: RecvMeta) -> RecvMeta {
    if relayed {
        let len = segments::strip_in_place(batch, meta.stride, range);
        relayed_meta(len, meta)
    } else {
        let len = range.len();
        batch.copy_within(range, 0);
        RecvMeta { len, ..meta }
    }
}

/// What describes a run of `len` bytes after its relay headers came off.
pub(super) fn relayed_meta(len: usize, meta: RecvMeta) -> RecvMeta {
    RecvMeta {
        len,
        stride: meta.stride.saturating_sub(RELAY_HEADER_LEN).min(len),
        // The address of this node that the super node sends to says nothing about the peer.
        dst_ip: None,
        ..meta
    }
}

fn count(counter: &AtomicU64, packets: usize) {
    counter.fetch_add(packets as u64, Ordering::Relaxed);
}

impl AsyncUdpSocket for NodeSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(remote) = RemoteId::of(transmit.destination) else {
            return self.send_to(transmit.destination, transmit);
        };
        // Which of this machine's addresses suits depends on the way, which QUIC does not know.
        let transmit = Transmit {
            src_ip: None,
            ..transmit.clone()
        };
        match self.paths(|paths| paths.route(remote, self.now())) {
            Some(Path::Direct(addr)) => self.send_to(addr, &transmit),
            Some(Path::Relay { via, token }) => self.send_relayed(via, token, &transmit),
            None => {
                count(&self.counters.unroutable, 1);
                Ok(())
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut relayed_only = 0;
        while relayed_only < RELAY_BATCHES_PER_POLL {
            let waited = self.overflow().take(bufs, metas);
            if waited > 0 {
                return Poll::Ready(Ok(waited));
            }
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self.io.try_io(Interest::READABLE, || {
                self.offload.recv((&self.io).into(), bufs, metas)
            });
            match received {
                Ok(received) => {
                    let delivered = self.sort(bufs, metas, received);
                    if delivered > 0 {
                        return Poll::Ready(Ok(delivered));
                    }
                    relayed_only += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // There may be more; the endpoint's other work comes first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        // As IPv6 even where it is not, so that QUIC takes made-up addresses.
        self.bound_addr().map(canonical)
    }

    fn max_transmit_segments(&self) -> usize {
        self.offload.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.offload.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.offload.may_fragment()
    }
}

impl fmt::Debug for NodeSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeSocket")
            .field("io", &self.io)
            .finish_non_exhaustive()
    }
}

type WaitWritable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Wakes one connection when the socket takes packets again.
struct Writable {
    socket: Arc<NodeSocket>,
    waiting: Option<WaitWritable>,
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() {
            // Asked before every packet, and nearly always yes: then nothing need be allocated.
            if self.socket.io.try_io(Interest::WRITABLE, || Ok(())).is_ok() {
                return Poll::Ready(Ok(()));
            }
            let socket = Arc::clone(&self.socket);
            self.waiting = Some(Box::pin(async move { socket.io.writable().await }));
        }
        let Some(waiting) = &mut self.waiting else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writable").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
