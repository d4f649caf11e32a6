//! Connections to hosts, kept and used again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::{Broken, not_connected};
use super::exchange;
use super::memory::Recent;
use super::slot::Slot;
use super::uplink::{Uplink, connect_one};
use crate::fault::{Fault, FaultKind};
use crate::id::NodeId;
use crate::quic::{Connection, Endpoint, Hold, SuperAddr};
use crate::wire::directory::{HostHint, VIA};
use crate::wire::{Info, NodeInfo};

/// Hosts whose connections are kept: about 30 KiB each. QUIC's idle timeout ends those not used.
const HOSTS_MAX: usize = 256;
/// Other super nodes whose connections are kept, for the sake of the hosts that are connected there.
const SUPERS_MAX: usize = 64;
/// Hosts of which it is remembered where they are connected: about 200 bytes each.
const PLACES_MAX: usize = 4_096;
/// How long a connection to a host may take, and the proof that one is still there: a few round trips
/// around the world, and little enough that a host that was killed costs little.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A host that answered this lately is taken to live before a call that must not run twice is sent to
/// it. Calls in a row need no proof; a host that dies in this time may cost such a call.
const PROVEN: Duration = Duration::from_millis(100);
/// The same for calls that may run twice: there a host that has died costs only time.
const PROVEN_IF_REPEATABLE: Duration = Duration::from_secs(1);
/// How long the proof may take at least, and in round trips: QUIC sends what is lost once more within
/// two or three of them.
const PROOF_MIN: Duration = Duration::from_millis(300);
const PROOF_ROUND_TRIPS: u32 = 6;
/// How long all farewells may take to leave this machine. They leave at once, unless it is so busy that
/// hosts had better find out by themselves than a program wait.
const FAREWELLS_MAX: Duration = Duration::from_millis(200);

/// A connection to a host, by way of a super node.
#[derive(Clone)]
pub(super) struct HostConnection {
    pub(super) connection: Connection,
    /// The relay session lasts as long as this connection.
    via: Connection,
    heard: Arc<Mutex<Instant>>,
}

impl HostConnection {
    fn is_usable(&self) -> bool {
        !self.connection.is_closed() && !self.via.is_closed()
    }

    /// Notes that the host has just answered.
    pub(super) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Keeps the way to the host alive for as long as the guard is there.
    pub(super) fn hold(&self) -> Hold {
        self.via.hold()
    }

    /// Makes sure that the host still lives, unless it answered `lately`.
    async fn prove(&self, lately: Duration) -> Result<(), Fault> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.elapsed() < lately {
            return Ok(());
        }
        let before = exchange::heard(&self.connection);
        let wait = (self.connection.rtt() * PROOF_ROUND_TRIPS).clamp(PROOF_MIN, CONNECT_TIMEOUT);
        let info = Info::default().into();
        match Box::pin(exchange::ask::<NodeInfo>(&self.connection, &info, wait)).await {
            // It may be slow, but it acknowledges.
            Err(Broken::Lost(_)) if !self.is_usable() || exchange::heard(&self.connection) == before => {}
            _ => {
                self.heard();
                return Ok(());
            }
        }
        self.connection.close(exchange::CODE_SILENT, "silent");
        Err(Fault::new(
            FaultKind::NoLiveHost,
            "the host gives no sign of life",
        ))
    }
}

pub(super) struct Hosts {
    endpoint: Endpoint,
    slots: Mutex<Recent<NodeId, Arc<Slot<HostConnection>>>>,
    /// Super nodes of hosts that are not connected to this client's own.
    places: Mutex<Recent<NodeId, SuperAddr>>,
    supers: Mutex<Recent<NodeId, Arc<Slot<Connection>>>>,
}

impl Hosts {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            slots: Mutex::new(Recent::new(HOSTS_MAX)),
            places: Mutex::new(Recent::new(PLACES_MAX)),
            supers: Mutex::new(Recent::new(SUPERS_MAX)),
        }
    }

    /// Remembers at which super node a host is, as a super node says.
    pub(super) fn learn(&self, hint: &HostHint) {
        let via = hint.extensions.get(VIA);
        let via = via.and_then(|via| std::str::from_utf8(via).ok()?.parse::<SuperAddr>().ok());
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        match via {
            Some(via) => places.put(hint.node, via),
            None => places.remove(&hint.node),
        }
    }

    /// A connection to a host. With `once` it is known to live at this moment, as far as that goes.
    pub(super) async fn connect(
        &self,
        host: NodeId,
        uplink: &Uplink,
        once: bool,
    ) -> Result<HostConnection, Fault> {
        let (connection, new) = self
            .slot(host)
            .get(HostConnection::is_usable, || self.dial(host, uplink))
            .await?;
        if !new {
            connection
                .prove(if once { PROVEN } else { PROVEN_IF_REPEATABLE })
                .await?;
        }
        Ok(connection)
    }

    /// Ends all connections and waits until that is on its way to each host.
    pub(super) async fn close(&self) {
        let farewells: Vec<_> = self
            .connections()
            .iter()
            .filter(|host| !host.connection.is_closed())
            .map(|host| host.connection.farewell(exchange::CODE_DONE, "done"))
            .collect();
        let all = async {
            for farewell in farewells {
                farewell.sent().await;
            }
        };
        let _ = timeout(FAREWELLS_MAX, all).await;
    }

    /// All that are made.
    fn connections(&self) -> Vec<HostConnection> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.values().filter_map(|slot| slot.current()).collect()
    }

    fn slot(&self, host: NodeId) -> Arc<Slot<HostConnection>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&host) {
            return Arc::clone(slot);
        }
        let slot = Arc::<Slot<_>>::default();
        slots.put(host, Arc::clone(&slot));
        slot
    }

    /// The connection to the super node by way of which a host is reached.
    async fn via(&self, host: &NodeId, uplink: &Uplink) -> Result<Connection, Fault> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            places.get(host).cloned()
        };
        let Some(address) = place else {
            return uplink.connection().await;
        };
        let slot = {
            let mut supers = self.supers.lock().unwrap_or_else(PoisonError::into_inner);
            match supers.get(&address.id()) {
                Some(slot) => Arc::clone(slot),
                None => {
                    let slot = Arc::<Slot<_>>::default();
                    supers.put(address.id(), Arc::clone(&slot));
                    slot
                }
            }
        };
        let dial = || connect_one(&self.endpoint, &address);
        let connected = timeout(CONNECT_TIMEOUT, slot.get(|c| !c.is_closed(), dial)).await;
        let (connection, _) = connected.unwrap_or_else(|_| {
            let message = "the host's super node does not answer";
            Err(Fault::new(FaultKind::NoLiveHost, message))
        })?;
        Ok(connection)
    }

    async fn dial(&self, host: NodeId, uplink: &Uplink) -> Result<HostConnection, Fault> {
        let via = self.via(&host, uplink).await?;
        let dial = async {
            let connected = self.endpoint.connect_relayed(host, &via).await;
            connected.map_err(|error| Broken::Fault(not_connected(error)))
        };
        let connection = exchange::within(CONNECT_TIMEOUT, dial)
            .await
            .map_err(|broken| match broken {
                Broken::Fault(fault) => fault,
                Broken::Lost(why) => {
                    Fault::new(FaultKind::NoLiveHost, format!("the host does not answer: {why}"))
                }
            })?;
        Ok(HostConnection {
            connection,
            via,
            heard: Arc::new(Mutex::new(Instant::now())),
        })
    }
}
