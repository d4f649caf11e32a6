//! A connection to a node, by whatever way.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use quinn::{ConnectionError, RecvStream, SendStream, VarInt};

use super::config::CONNECTION_WINDOW_BYTES;
use super::path::{Path, PathKind, RemoteId, TableFull, unmapped};
use super::socket::NodeSocket;
use crate::id::NodeId;

/// Between two looks whether a [`Farewell`] has left: the least that a timer can.
const FAREWELL_STEP: Duration = Duration::from_millis(1);

/// A connection to a node whose key the handshake has proven.
///
/// Cheap to clone; it closes when the last clone and the last of its streams are gone. Which way
/// its packets take may change while it lives.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    quinn: quinn::Connection,
    peer: NodeId,
    socket: Arc<NodeSocket>,
    keeper: Arc<Keeper>,
    held: AtomicUsize,
    kept: AtomicBool,
}

impl Connection {
    pub(crate) fn new(
        quinn: quinn::Connection,
        peer: NodeId,
        socket: Arc<NodeSocket>,
        keeper: Arc<Keeper>,
    ) -> Self {
        Self(Arc::new(Inner {
            quinn,
            peer,
            socket,
            keeper,
            held: AtomicUsize::new(0),
            kept: AtomicBool::new(false),
        }))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> NodeId {
        self.0.peer
    }

    /// Opens a stream. The peer hears of it with the first byte written.
    ///
    /// Waits while the peer allows no more streams.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        self.0.quinn.open_bi().await
    }

    /// Waits for a stream that the peer opens.
    ///
    /// # Errors
    ///
    /// What ended the connection.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        self.0.quinn.accept_bi().await
    }

    /// What kind of way its packets take now.
    pub fn path(&self) -> PathKind {
        self.current_path().kind()
    }

    /// Where its packets go now: the peer, or the super node that relays.
    pub fn remote_address(&self) -> SocketAddr {
        match self.current_path() {
            Path::Direct(addr) => unmapped(addr),
            Path::Relay { via, .. } => unmapped(via),
        }
    }

    /// Smoothed round trip time.
    pub fn rtt(&self) -> Duration {
        self.0.quinn.rtt()
    }

    /// Lets the peer have so many streams open at a time.
    pub fn set_peer_streams(&self, streams: u32) {
        self.0.quinn.set_max_concurrent_bi_streams(streams.into());
    }

    /// Keeps the connection alive for as long as the guard lives: a packet every
    /// [`KEEP_ALIVE`](super::KEEP_ALIVE). For the time that a call is in flight.
    pub fn hold(&self) -> Hold {
        if self.0.held.fetch_add(1, Ordering::Relaxed) == 0 {
            self.0.keeper.keep(&self.0);
        }
        Hold(self.clone())
    }

    /// Ends the connection at once. What was not acknowledged may be lost.
    pub fn close(&self, code: u32, reason: &str) {
        self.0.quinn.close(code.into(), reason.as_bytes());
    }

    /// The same; the [`Farewell`] tells when the peer has been sent word of it.
    pub(crate) fn farewell(&self, code: u32, reason: &str) -> Farewell {
        let farewell = Farewell {
            sent_before: self.datagrams_sent(),
            connection: self.clone(),
        };
        self.close(code, reason);
        farewell
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> ConnectionError {
        self.0.quinn.closed().await
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.0.quinn.close_reason().is_some()
    }

    /// The QUIC connection underneath, for all else.
    ///
    /// Its `remote_address` is the real one for peers that connected to this node directly, and
    /// made up for all others; its receive window belongs to [`hold`](Self::hold).
    pub fn quinn(&self) -> &quinn::Connection {
        &self.0.quinn
    }

    /// Tells of another way to the peer. Packets take it from now on if it is of a better kind than
    /// all others that are known; nothing on the connection is interrupted.
    ///
    /// Only for a way that has been proven to lead to the peer. A peer that connected to this node
    /// directly chooses its way itself.
    ///
    /// # Errors
    ///
    /// [`TableFull`] if it is one of those, or has as many ways as a peer may.
    pub fn add_path(&self, path: Path) -> Result<(), TableFull> {
        let remote = self.remote().ok_or(TableFull)?;
        self.0.socket.paths_mut(|paths, _| paths.offer(remote, path))
    }

    /// Tells that a way to the peer is lost. The next best is used; the last one stays.
    pub fn remove_path(&self, path: Path) {
        if let Some(remote) = self.remote() {
            self.0.socket.paths_mut(|paths, _| paths.withdraw(remote, path));
        }
    }

    fn datagrams_sent(&self) -> u64 {
        self.0.quinn.stats().udp_tx.datagrams
    }

    fn remote(&self) -> Option<RemoteId> {
        RemoteId::of(self.0.quinn.remote_address())
    }

    /// The socket that it goes through.
    pub(crate) fn socket(&self) -> &Arc<NodeSocket> {
        &self.0.socket
    }

    pub(crate) fn current_path(&self) -> Path {
        let known = self
            .remote()
            .and_then(|id| self.0.socket.paths(|paths| paths.path(id)));
        known.unwrap_or_else(|| Path::Direct(self.0.quinn.remote_address()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.0.peer)
            .field("path", &self.current_path())
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Sends something that the peer has to acknowledge.
    ///
    /// quinn has no ping. Shrinking the receive window by a byte and growing it again makes it
    /// announce the window, and leaves the window as it was.
    fn ping(&self) {
        let window = CONNECTION_WINDOW_BYTES;
        self.quinn.set_receive_window(VarInt::from_u32(window - 1));
        self.quinn.set_receive_window(VarInt::from_u32(window));
    }
}

/// The end of a connection, on its way.
pub(crate) struct Farewell {
    connection: Connection,
    sent_before: u64,
}

impl Farewell {
    /// Waits until it has left this machine once. Bound it: a peer that had closed the connection
    /// before is sent nothing.
    pub(crate) async fn sent(self) {
        // quinn tells nobody, but counts: a closed connection sends only that it is closed.
        while self.connection.datagrams_sent() == self.sent_before {
            tokio::time::sleep(FAREWELL_STEP).await;
        }
    }
}

/// Keeps a [`Connection`] alive until it is dropped.
#[derive(Debug)]
pub struct Hold(Connection);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Pings the connections that are held. Holds at most one entry for each live connection.
#[derive(Default)]
pub(crate) struct Keeper(Mutex<Vec<Weak<Inner>>>);

impl Keeper {
    fn keep(&self, connection: &Arc<Inner>) {
        self.list(|list| {
            if !connection.kept.swap(true, Ordering::Relaxed) {
                list.push(Arc::downgrade(connection));
            }
        });
    }

    /// To be called every [`KEEP_ALIVE`](super::KEEP_ALIVE).
    pub(crate) fn tick(&self) {
        self.list(|list| {
            list.retain(|connection| connection.upgrade().is_some_and(|c| ping_if_held(&c)));
        });
    }

    fn list<T>(&self, act: impl FnOnce(&mut Vec<Weak<Inner>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether it has to stay in the list. Called under the list's lock, so that no hold gets lost: one
/// that comes after the count was read finds the connection not kept, and puts it in again.
fn ping_if_held(connection: &Inner) -> bool {
    if connection.quinn.close_reason().is_some() {
        return false;
    }
    if connection.held.load(Ordering::Relaxed) > 0 {
        connection.ping();
        return true;
    }
    connection.kept.store(false, Ordering::Relaxed);
    false
}
