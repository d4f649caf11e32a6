//! The relay's hands: sends other nodes' packets on, as the [table](crate::relay::RelayTable) says.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quinn_udp::{EcnCodepoint, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::sync::Notify;

use super::path::unmapped;
use super::segments;
use crate::relay::{Forward, LinkId, RelayBatch, RelayDrop, RelayLimits, RelayTable, RelayToken};

/// Links that wait for their address to be looked up again. Spoofed packets put links here too;
/// what does not fit is looked up by the regular round a second later.
const SUSPECTS_MAX: usize = 64;

/// Neighbouring datagrams of one session leg, as they came.
#[derive(Debug)]
pub(crate) struct Packets<'a> {
    pub(crate) bytes: &'a mut [u8],
    /// Bytes of each, except that the last may be shorter.
    pub(crate) stride: usize,
    pub(crate) from: SocketAddr,
    pub(crate) token: RelayToken,
    pub(crate) ecn: Option<EcnCodepoint>,
}

impl Packets<'_> {
    pub(crate) fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.stride.max(1))
    }
}

/// A super node's relay below its QUIC endpoint.
pub(crate) struct Forwarder {
    table: Mutex<RelayTable>,
    /// Its own, so that a batch that a link refuses does not turn off the offload for the node's
    /// own connections.
    offload: UdpSocketState,
    batches: bool,
    is_v4: bool,
    suspects: Mutex<Vec<LinkId>>,
    suspected: Notify,
}

impl Forwarder {
    pub(crate) fn new(io: &tokio::net::UdpSocket, limits: RelayLimits) -> io::Result<Self> {
        let offload = UdpSocketState::new(io.into())?;
        Ok(Self {
            table: Mutex::new(RelayTable::new(limits)),
            batches: offload.max_gso_segments() > 1,
            offload,
            is_v4: io.local_addr()?.is_ipv4(),
            suspects: Mutex::default(),
            suspected: Notify::new(),
        })
    }

    /// Whether batches are sent as such: a test's way to a system that cannot.
    #[cfg(test)]
    pub(crate) fn set_batches(&mut self, batches: bool) {
        self.batches = batches;
    }

    /// Uses the table.
    pub(crate) fn table<T>(&self, act: impl FnOnce(&mut RelayTable) -> T) -> T {
        act(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Passes packets on, or drops them, if their token is of this relay. `false` if it is not.
    pub(crate) fn forward(&self, io: &tokio::net::UdpSocket, packets: Packets<'_>, now: Duration) -> bool {
        let batch = RelayBatch {
            from: packets.from,
            token: packets.token,
            datagrams: packets.count(),
            datagram_bytes: packets.stride,
        };
        let decided = self.table(|table| {
            let link = table.link_of(batch.token)?;
            Some((link, table.forward(batch, now)))
        });
        match decided {
            None => return false,
            Some((_, Ok(forward))) => self.send(io, packets, forward),
            Some((link, Err(RelayDrop::WrongSource))) => self.suspect(link),
            Some((_, Err(_))) => {}
        }
        true
    }

    /// Waits until the address of some link is in doubt.
    pub(crate) async fn suspected(&self) {
        self.suspected.notified().await;
    }

    /// The links in doubt.
    pub(crate) fn take_suspects(&self) -> Vec<LinkId> {
        std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn suspect(&self, link: LinkId) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() < SUSPECTS_MAX && !suspects.contains(&link) {
            suspects.push(link);
            self.suspected.notify_one();
        }
    }

    fn send(&self, io: &tokio::net::UdpSocket, packets: Packets<'_>, forward: Forward) {
        let Packets {
            bytes, stride, ecn, ..
        } = packets;
        let allowed = bytes.len().min(forward.datagrams * stride);
        let bytes = &mut bytes[..allowed];
        segments::rewrite(bytes, stride, forward.token);
        let transmit = Transmit {
            destination: if self.is_v4 {
                unmapped(forward.to)
            } else {
                forward.to
            },
            ecn,
            contents: bytes,
            segment_size: (bytes.len() > stride).then_some(stride),
            src_ip: forward.src_ip,
        };
        let sent = io.try_io(Interest::WRITABLE, || self.send_batch(io, &transmit, stride));
        self.table(|table| match sent {
            Ok(sent) => {
                table.on_sent(sent.packets, sent.bytes);
                table.on_dropped(RelayDrop::SendFailed, sent.failed);
            }
            Err(_) => table.on_dropped(RelayDrop::SendBlocked, forward.datagrams),
        });
    }

    /// Sends a batch as one, or, where the link or the system will not have that, one by one.
    fn send_batch(
        &self,
        io: &tokio::net::UdpSocket,
        batch: &Transmit<'_>,
        stride: usize,
    ) -> io::Result<Sent> {
        let single = batch.segment_size.is_none();
        let mut sent = Sent::default();
        if single || self.batches {
            match self.offload.try_send(io.into(), batch) {
                Ok(()) => {
                    sent.packets = batch.contents.len().div_ceil(stride);
                    sent.bytes = batch.contents.len();
                    return Ok(sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if single => {
                    sent.failed = 1;
                    return Ok(sent);
                }
                Err(_) => {}
            }
        }
        for datagram in batch.contents.chunks(stride) {
            let transmit = Transmit {
                contents: datagram,
                segment_size: None,
                ..batch.clone()
            };
            match self.offload.try_send(io.into(), &transmit) {
                Ok(()) => {
                    sent.packets += 1;
                    sent.bytes += datagram.len();
                }
                Err(_) => sent.failed += 1,
            }
        }
        Ok(sent)
    }
}

/// What became of a batch.
#[derive(Debug, Default)]
struct Sent {
    packets: usize,
    bytes: usize,
    failed: usize,
}
