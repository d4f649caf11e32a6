//! The connections that callers open, by relay or directly.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orb_protocol::id::NodeId;
use orb_protocol::quic::{Connection, Endpoint, Incoming};

use super::offences::Offences;
use super::patience::while_heard;
use super::{Host, streams};

/// Callers that are connected at one time. An idle connection costs 30 KiB, and one that had many
/// calls at a time 114 KiB, so that they take 114 MiB at most. When there are more, the one that has
/// been idle for longest makes room.
const CONNECTIONS_MAX: usize = 1_024;
/// Connections of one node: the second is there so that a caller whose address changed need not wait
/// until this host has noticed. A third ends the first.
const CONNECTIONS_PER_CALLER: usize = 2;
/// Streams that a caller may have open. Its calls beyond it wait at the caller.
const CALLER_STREAMS: u32 = 256;
/// The code of a connection that made room for another one.
const MADE_ROOM: u32 = 1;
/// The code of a connection for which there is no room.
const NO_ROOM: u32 = 2;

/// Accepts callers until the endpoint is closed.
pub(crate) async fn accept(host: Arc<Host>, endpoint: Endpoint) {
    let callers = Arc::new(Callers::default());
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(serve(host.clone(), Arc::clone(&callers), incoming));
    }
}

async fn serve(host: Arc<Host>, callers: Arc<Callers>, incoming: Incoming) {
    let connection = match incoming.handshake().await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "a caller did not get through"),
    };
    let Some(caller) = callers.admit(&connection, &host.offences) else {
        host.offences.callers_refused.add();
        return connection.close(NO_ROOM, "this host has as many callers as it takes");
    };
    connection.set_peer_streams(CALLER_STREAMS);
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (host, connection, stream) = (host.clone(), connection.clone(), caller.stream());
        tokio::spawn(async move {
            let busy = host.busy.enter();
            let served = Box::pin(streams::serve_caller(&host, &connection, send, recv));
            while_heard(&host, &connection, served).await;
            drop((stream, busy));
        });
    }
}

/// Who is connected.
#[derive(Debug, Default)]
struct Callers {
    connected: Mutex<HashMap<u64, Arc<Known>>>,
    /// Counts connections and streams: what is later has a greater number.
    clock: AtomicU64,
}

#[derive(Debug)]
struct Known {
    node: NodeId,
    connection: Connection,
    opened: u64,
    streams: AtomicU32,
    used: AtomicU64,
}

/// A caller that is admitted, until it is dropped.
#[derive(Debug)]
struct Caller {
    callers: Arc<Callers>,
    known: Arc<Known>,
}

/// A stream of a caller, until it is dropped.
#[derive(Debug)]
struct Stream {
    callers: Arc<Callers>,
    known: Arc<Known>,
}

impl Callers {
    fn admit(self: &Arc<Self>, connection: &Connection, offences: &Offences) -> Option<Caller> {
        let opened = self.tick();
        let known = Arc::new(Known {
            node: connection.peer(),
            connection: connection.clone(),
            opened,
            streams: AtomicU32::new(0),
            used: AtomicU64::new(opened),
        });
        let mut connected = self.connected();
        let surplus = match surplus(&connected, &known.node) {
            Surplus::None => None,
            Surplus::This(number) => Some(number),
            Surplus::Newcomer => return None,
        };
        if let Some(old) = surplus.and_then(|number| connected.remove(&number)) {
            offences.callers_displaced.add();
            old.connection
                .close(MADE_ROOM, "another connection took its place");
        }
        connected.insert(opened, Arc::clone(&known));
        Some(Caller {
            callers: Arc::clone(self),
            known,
        })
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn connected(&self) -> MutexGuard<'_, HashMap<u64, Arc<Known>>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which connection there is no room for.
enum Surplus {
    None,
    This(u64),
    Newcomer,
}

fn surplus(connected: &HashMap<u64, Arc<Known>>, newcomer: &NodeId) -> Surplus {
    let own = || connected.values().filter(|known| known.node == *newcomer);
    if own().count() >= CONNECTIONS_PER_CALLER {
        let oldest = own().map(|known| known.opened).min();
        return oldest.map_or(Surplus::None, Surplus::This);
    }
    if connected.len() < CONNECTIONS_MAX {
        return Surplus::None;
    }
    let idle = connected
        .values()
        .filter(|known| known.streams.load(Ordering::Relaxed) == 0);
    let idlest = idle.min_by_key(|known| known.used.load(Ordering::Relaxed));
    idlest.map_or(Surplus::Newcomer, |known| Surplus::This(known.opened))
}

impl Caller {
    fn stream(&self) -> Stream {
        self.known.streams.fetch_add(1, Ordering::Relaxed);
        Stream {
            callers: Arc::clone(&self.callers),
            known: Arc::clone(&self.known),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.callers.connected().remove(&self.known.opened);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.known.used.store(self.callers.tick(), Ordering::Relaxed);
        self.known.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
