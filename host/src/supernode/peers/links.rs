//! Who is linked, and what waits to be sent and done.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use orb_protocol::federation::Effect;
use orb_protocol::id::NodeId;
use orb_protocol::manifest::Verified;
use orb_protocol::quic::Connection;
use orb_protocol::wire::events::EventKind;
use orb_protocol::wire::federation::{PeerMessage, SignedRecord};
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::super::close;

/// Messages that wait for one super node: all hosts of a full one, in pages. Who does not read so many is
/// cut off, and told everything anew when it is linked again.
const OUTBOX_MAX: usize = 4_096;

/// Artifacts that wait to be fetched for safe keeping. Beyond that they are fetched when a host asks.
const OBTAINS_MAX: usize = 10_000;

/// What the keeper has to do.
#[derive(Debug)]
pub(crate) enum Todo {
    /// Open a link to a super node at one of its addresses.
    Dial(NodeId, Vec<String>),
    /// Fetch from a super node what is not known here.
    Pull(NodeId),
    /// Keep a record across restarts.
    Keep(SignedRecord),
    /// Write down that a super node came or went.
    Note(EventKind, NodeId),
    /// Fetch a revision's artifact: this node is in the function's directory.
    Obtain(Arc<Verified>),
}

/// A link to another super node.
#[derive(Debug)]
pub(crate) struct PeerLink {
    /// Its connection.
    pub(crate) connection: Connection,
    /// Whether this node opened it.
    dialled: bool,
    outbox: Sender<Arc<PeerMessage>>,
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    up: HashMap<NodeId, Arc<PeerLink>>,
    /// At most a few for each super node that is known, and [`OBTAINS_MAX`] artifacts.
    todo: VecDeque<Todo>,
    obtains: usize,
    wake: Arc<Notify>,
}

impl PeerLink {
    /// A link, and where its messages come out.
    pub(crate) fn new(connection: Connection, dialled: bool) -> (Arc<Self>, Receiver<Arc<PeerMessage>>) {
        let (outbox, messages) = channel(OUTBOX_MAX);
        let link = Self {
            connection,
            dialled,
            outbox,
        };
        (Arc::new(link), messages)
    }

    /// The super node at its other end.
    pub(crate) fn peer(&self) -> NodeId {
        self.connection.peer()
    }
}

impl Links {
    /// Takes a link in. If there is one already, the one stays that was opened by the node with the smaller
    /// id: both sides choose alike. Returns whether the new one stays.
    pub(crate) fn insert(&mut self, me: &NodeId, link: &Arc<PeerLink>) -> bool {
        let peer = link.peer();
        let opener = |link: &PeerLink| if link.dialled { *me } else { peer };
        if let Some(old) = self.up.get(&peer).filter(|old| !old.connection.is_closed()) {
            if opener(old) < opener(link) {
                return false;
            }
            old.connection
                .close(close::REPLACED, "another link to the same super node stays");
        }
        self.up.insert(peer, Arc::clone(link));
        true
    }

    /// A link ended. Returns whether it was the one that counts.
    pub(crate) fn remove(&mut self, link: &Arc<PeerLink>) -> bool {
        let counts = self
            .up
            .get(&link.peer())
            .is_some_and(|current| Arc::ptr_eq(current, link));
        if counts {
            self.up.remove(&link.peer());
        }
        counts
    }

    /// The connection to a super node.
    pub(crate) fn connection(&self, node: &NodeId) -> Option<Connection> {
        self.up.get(node).map(|link| link.connection.clone())
    }

    /// Does what can be done at once, and leaves the rest to the keeper.
    pub(crate) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(node, message) => self.send(node, message),
            Effect::Close(node, why) => {
                if let Some(link) = self.up.get(&node) {
                    link.connection.close(close::LOST, why);
                }
            }
            Effect::Joined(node) => {
                tracing::info!(super_node = %node, "a super node is linked");
                self.leave(Todo::Note(EventKind::SuperJoined, node));
            }
            Effect::Left(node) => {
                self.leave(Todo::Note(EventKind::SuperLeft, node));
                tracing::warn!(super_node = %node, "a super node is gone: others take its share");
            }
            Effect::Dial(node, addresses) => self.leave(Todo::Dial(node, addresses)),
            Effect::Pull(node) => self.leave(Todo::Pull(node)),
            Effect::Keep(record) => self.leave(Todo::Keep(record)),
        }
    }

    /// Has a link opened to a super node.
    pub(crate) fn dial(&mut self, node: NodeId, address: String) {
        self.leave(Todo::Dial(node, vec![address]));
    }

    /// Has an artifact fetched.
    pub(crate) fn obtain(&mut self, manifest: Arc<Verified>) {
        if self.obtains < OBTAINS_MAX {
            self.obtains += 1;
            self.leave(Todo::Obtain(manifest));
        }
    }

    /// The next thing for the keeper to do.
    pub(crate) fn pop(&mut self) -> Option<Todo> {
        let todo = self.todo.pop_front();
        self.obtains -= usize::from(matches!(todo, Some(Todo::Obtain(_))));
        todo
    }

    /// All super nodes that are linked.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.up.values().map(|link| link.connection.clone()).collect()
    }

    fn leave(&mut self, todo: Todo) {
        self.todo.push_back(todo);
        self.wake.notify_one();
    }

    /// Says when there may be something to do.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    fn send(&self, node: NodeId, message: Arc<PeerMessage>) {
        let Some(link) = self.up.get(&node) else { return };
        if link.outbox.try_send(message).is_err() {
            tracing::warn!(super_node = %node, "a super node does not read: it is cut off");
            link.connection
                .close(close::TOO_SLOW, "the super node does not read what it is sent");
        }
    }
}
