//! Setting up relay sessions: the super node's side, the caller's and the target's.
//!
//! 1. The caller sends `OpenRelay` to the super node ([`Endpoint::connect_relayed`]).
//! 2. The super node makes a session and offers it to the target ([`RelayServer::open`]).
//! 3. The target remembers the token and agrees ([`Endpoint::accept_relayed`]).
//! 4. The super node answers the caller, which shakes hands with the target through the session.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::error::ConnectError;
use super::forward::Forwarder;
use super::frames::{FrameError, read_message, write_message};
use super::path::{Path, canonical};
use super::socket::NodeSocket;
use crate::fault::{Fault, FaultKind};
use crate::id::NodeId;
use crate::relay::{
    LinkId, Opened, RelayRefusal, RelayStats, RelayTable, RelayToken, SessionId, SessionTokens,
};
use crate::wire::codec::MESSAGE_LEN_MAX;
use crate::wire::extension::Extensions;
use crate::wire::relay::{OpenRelay, RelayAccepted, RelayOffer, RelayOpened};
use crate::wire::{Reply, Request};

/// How long a target may take to agree to a session.
const OFFER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a super node may take to open one: the target's time, and its own round trip.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pairs of tokens drawn before giving up. Two sessions in a row with a token that is taken do not
/// happen with 64 random bits.
const TOKEN_DRAWS: usize = 4;

/// The relay of a super node's endpoint ([`Endpoint::relay`]).
#[derive(Debug)]
pub struct RelayServer {
    links: Arc<Links>,
    watch: JoinHandle<()>,
}

/// Says that a node's connection may use the relay. Its sessions end when this is dropped, or the
/// connection ends.
#[derive(Debug)]
pub struct RelayLink {
    id: LinkId,
    links: Arc<Links>,
}

#[derive(Debug)]
struct Links {
    socket: Arc<NodeSocket>,
    /// One for each [`RelayLink`] that the daemon keeps.
    connections: Mutex<BTreeMap<LinkId, Connection>>,
}

impl RelayServer {
    pub(crate) fn new(socket: Arc<NodeSocket>) -> Self {
        let links = Arc::new(Links {
            socket,
            connections: Mutex::default(),
        });
        let watch = tokio::spawn(watch_suspects(Arc::clone(&links)));
        Self { links, watch }
    }

    /// Lets the node at the other end of a connection open sessions, and be their target.
    pub fn register(&self, connection: &Connection) -> RelayLink {
        let addr = address_of(connection);
        let src_ip = connection.quinn().local_ip();
        let now = self.links.socket.now();
        let id = self
            .links
            .table(|table| table.link_up(connection.peer(), addr, src_ip, now));
        self.links.connections(|all| all.insert(id, connection.clone()));
        RelayLink {
            id,
            links: Arc::clone(&self.links),
        }
    }

    /// Opens a session for the node behind `from`, and waits until the target has agreed.
    ///
    /// # Errors
    ///
    /// Why not: bounds, a target that is not connected here, or one that does not agree in time.
    pub async fn open(&self, from: &RelayLink, request: &OpenRelay) -> Result<RelayOpened, RelayRefusal> {
        let (opened, tokens) = self.make_session(from.id, request.target)?;
        let undo = Undo {
            links: &self.links,
            session: Some(opened.session),
        };
        let target = self
            .links
            .connections(|all| all.get(&opened.target).cloned())
            .ok_or(RelayRefusal::TargetNotConnected)?;
        let caller = self
            .links
            .connections(|all| all.get(&from.id).map(Connection::peer))
            .ok_or(RelayRefusal::CallerNotConnected)?;
        let offer = RelayOffer {
            peer: caller,
            token: tokens.target.bits(),
            extensions: Extensions::none(),
        };
        let agreed: Result<RelayAccepted, ConnectError> =
            exchange(&target, offer.into(), OFFER_TIMEOUT).await;
        agreed.map_err(|_| RelayRefusal::TargetSilent)?;
        undo.keep();
        Ok(RelayOpened {
            token: tokens.caller.bits(),
            extensions: Extensions::none(),
        })
    }

    /// What the relay has done.
    pub fn stats(&self) -> RelayStats {
        self.links.table(|table| table.stats())
    }

    /// To be called every second or so.
    pub(crate) fn tick(&self) {
        self.links.tick();
    }

    fn make_session(&self, caller: LinkId, target: NodeId) -> Result<(Opened, SessionTokens), RelayRefusal> {
        let now = self.links.socket.now();
        for _ in 0..TOKEN_DRAWS {
            let tokens = SessionTokens {
                caller: draw_token()?,
                target: draw_token()?,
            };
            let opened = self.links.table(|table| table.open(caller, target, tokens, now));
            if opened != Err(RelayRefusal::TokensTaken) {
                return Ok((opened?, tokens));
            }
        }
        Err(RelayRefusal::TokensTaken)
    }
}

impl Drop for RelayServer {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Drop for RelayLink {
    fn drop(&mut self) {
        self.links.connections(|all| all.remove(&self.id));
        self.links.table(|table| table.link_down(self.id));
    }
}

impl Endpoint {
    /// Dials a node by the relay of a super node that both are connected to.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; [`ConnectError::RelayRefused`] with the super node's reason.
    pub async fn connect_relayed(&self, peer: NodeId, via: &Connection) -> Result<Connection, ConnectError> {
        let via_addr = self.relay_address(via)?;
        let request = OpenRelay {
            target: peer,
            extensions: Extensions::none(),
        };
        let opened: RelayOpened = exchange(via, request.into(), OPEN_TIMEOUT).await?;
        let path = Path::Relay {
            via: via_addr,
            token: RelayToken::new(opened.token),
        };
        let remote = self
            .socket()
            .paths_mut(|paths, now| paths.dial(peer, path, now))
            .map_err(|full| ConnectError::Local(full.to_string()))?;
        self.dial(peer, remote).await
    }

    /// Agrees to a session that a super node offers: from now on packets of `offer.peer` may come
    /// by it, and its connection shows up in [`accept`](Self::accept). Answer the offer with this.
    ///
    /// # Errors
    ///
    /// The fault to answer with.
    pub fn accept_relayed(&self, via: &Connection, offer: &RelayOffer) -> Result<RelayAccepted, Fault> {
        let refuse = |kind, error: &dyn std::fmt::Display| Fault::new(kind, error.to_string());
        let via = self
            .relay_address(via)
            .map_err(|error| refuse(FaultKind::Refused, &error))?;
        let path = Path::Relay {
            via,
            token: RelayToken::new(offer.token),
        };
        self.socket()
            .paths_mut(|paths, now| paths.dial(offer.peer, path, now))
            .map_err(|full| refuse(FaultKind::Overloaded, &full))?;
        Ok(RelayAccepted::default())
    }

    /// Where packets for the relay at the other end of a connection have to go.
    fn relay_address(&self, via: &Connection) -> Result<SocketAddr, ConnectError> {
        if !Arc::ptr_eq(self.socket(), via.socket()) {
            let reason = "the super node's connection belongs to another endpoint";
            return Err(ConnectError::Local(reason.to_owned()));
        }
        match via.current_path() {
            Path::Direct(addr) => Ok(addr),
            Path::Relay { via: addr, .. } => Err(ConnectError::BadAddress {
                addr,
                reason: "the super node is itself reached by a relay",
            }),
        }
    }
}

impl Links {
    fn table<T>(&self, act: impl FnOnce(&mut RelayTable) -> T) -> T {
        self.forwarder().table(act)
    }

    fn forwarder(&self) -> &Forwarder {
        self.socket
            .forwarder()
            .expect("a relay server is only made for a socket that relays")
    }

    fn connections<T>(&self, act: impl FnOnce(&mut BTreeMap<LinkId, Connection>) -> T) -> T {
        act(&mut self.connections.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tick(&self) {
        let ended: Vec<LinkId> = self.connections(|all| {
            let ended = all.iter().filter(|(_, c)| c.is_closed());
            ended.map(|(id, _)| *id).collect()
        });
        for link in ended {
            self.connections(|all| all.remove(&link));
            self.table(|table| table.link_down(link));
        }
        let now = self.socket.now();
        let busy: Vec<LinkId> = self.table(|table| {
            table.expire(now);
            table.busy_links().collect()
        });
        busy.into_iter().for_each(|link| self.look_up(link));
    }

    /// Asks QUIC where a link's node is now. It may have moved: only QUIC can tell a move from a
    /// forged address.
    fn look_up(&self, link: LinkId) {
        if let Some(connection) = self.connections(|all| all.get(&link).cloned()) {
            let addr = address_of(&connection);
            self.table(|table| table.link_moved(link, addr));
        }
    }
}

/// A session that is not agreed yet: ends it, also when its maker is cancelled.
struct Undo<'a> {
    links: &'a Links,
    session: Option<SessionId>,
}

impl Undo<'_> {
    fn keep(mut self) {
        self.session = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session {
            self.links.table(|table| table.abandon(session));
        }
    }
}

async fn watch_suspects(links: Arc<Links>) {
    loop {
        links.forwarder().suspected().await;
        for link in links.forwarder().take_suspects() {
            links.look_up(link);
        }
    }
}

fn address_of(connection: &Connection) -> SocketAddr {
    canonical(connection.remote_address())
}

fn draw_token() -> Result<RelayToken, RelayRefusal> {
    // A system without randomness could not have made the node's connections either.
    let bits = getrandom::u64().map_err(|_| RelayRefusal::TokensTaken)?;
    Ok(RelayToken::new(bits))
}

/// One request and its reply, on a stream of its own, within a time.
async fn exchange<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    request: Request,
    time: Duration,
) -> Result<T, ConnectError> {
    let reply = tokio::time::timeout(time, ask(connection, &request))
        .await
        .unwrap_or(Err(FrameError::TimedOut(time)))?;
    reply.into_result().map_err(ConnectError::RelayRefused)
}

async fn ask(connection: &Connection, request: &Request) -> Result<Reply, FrameError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(FrameError::Lost)?;
    write_message(&mut send, request).await?;
    // The peer may have answered and stopped reading: then the answer tells, not this.
    let _ = send.finish();
    read_message(&mut recv, MESSAGE_LEN_MAX).await
}
