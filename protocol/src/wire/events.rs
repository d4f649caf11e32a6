//! Client to super node: what happened.
//!
//! A super node writes down what happens to functions and hosts, each event under a number of its own
//! that only grows: the cursor. One [`Events`] request is answered with one [`EventPage`]; if it
//! follows, with a page whenever something happened, until the client gives the stream up. Events come
//! at least once: who asks again with the cursor of an older page gets some of them again, with the
//! same ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::extension::Extensions;
use crate::id::{FunctionId, NodeId, OwnerId, SHORT_LEN};
use crate::manifest::Version;
use crate::name::Name;

/// The most events in a page. With notes of [`NOTE_BYTES_MAX`] it is half as long as a message may be.
pub const EVENTS_PAGE_MAX: u16 = 256;
/// The longest note of an event, in bytes.
pub const NOTE_BYTES_MAX: usize = 256;

/// Asks for events. Answer: [`EventPage`], one or, with `follow`, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Only events after this one, oldest first; 0 for all that are kept. `None`: the last ones.
    pub after: Option<u64>,
    /// Only those about functions of this owner.
    pub owner: Option<OwnerId>,
    /// Only those about this function.
    pub function: Option<FunctionId>,
    /// Go on for as long as the stream is open.
    pub follow: bool,
    /// At most so many in a page, and at most [`EVENTS_PAGE_MAX`].
    pub limit: u16,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Some events, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// Whose log this is: cursors of one super node mean nothing to another.
    pub node: NodeId,
    /// At most [`EVENTS_PAGE_MAX`].
    pub events: Vec<Event>,
    /// Where to go on: everything up to it was looked through. It may be beyond the last event, where
    /// events were asked for that few are.
    pub cursor: u64,
    /// Whether there is more after the cursor already.
    pub more: bool,
    /// Whether events after the cursor that was asked with are not kept any more.
    pub gap: bool,
    /// For what comes later.
    pub extensions: Extensions,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number in its super node's log, from 1.
    pub cursor: u64,
    /// What it was.
    pub kind: EventKind,
    /// Which function it is about.
    pub function: Option<FunctionId>,
    /// The function's owner.
    pub owner: Option<OwnerId>,
    /// The function's name.
    pub name: Option<Name>,
    /// The function's version.
    pub version: Option<Version>,
    /// Which host, or which super node, it is about.
    pub host: Option<NodeId>,
    /// More of it, for a person; at most [`NOTE_BYTES_MAX`] bytes.
    pub note: String,
    /// When, by the super node's clock, in milliseconds since the Unix epoch; for display only.
    pub time_ms: u64,
    /// For what comes later.
    pub extensions: Extensions,
}

impl Event {
    /// What tells this event from all others, of the other logs too.
    pub fn id(&self, node: &NodeId) -> String {
        EventId::new(node, self.cursor).to_string()
    }
}

/// An event's id, as people and programs get it: the short form of its super node's id, and the cursor there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    log: String,
    cursor: u64,
}

/// The text is no [`EventId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event's id is {SHORT_LEN} characters of a-z and 2-7, a hyphen, and the event's number")]
pub struct NoEventId;

impl EventId {
    /// The id of an event in a super node's log.
    pub fn new(node: &NodeId, cursor: u64) -> Self {
        let log = node.short();
        Self { log, cursor }
    }

    /// The short form of the super node's id.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// The event's number in that super node's log.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Whether it is from this super node's log.
    pub fn is_of(&self, node: &NodeId) -> bool {
        self.log == node.short()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log, self.cursor)
    }
}

impl FromStr for EventId {
    type Err = NoEventId;

    fn from_str(text: &str) -> Result<Self, NoEventId> {
        let (log, cursor) = text.split_once('-').ok_or(NoEventId)?;
        let is_short = log.len() == SHORT_LEN && log.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        let is_number = cursor.bytes().all(|b| b.is_ascii_digit());
        match cursor.parse() {
            Ok(cursor) if is_short && is_number => Ok(Self {
                log: log.to_owned(),
                cursor,
            }),
            _ => Err(NoEventId),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum EventKind {
    /// A function came to be, or began a new life.
    Published,
    /// It has a new revision.
    Edited,
    /// It has a new revision with the program of an older one.
    RolledBack,
    /// Its owner ended it.
    Decommissioned,
    /// A host is ready for a version that it was not ready for before.
    Seeded,
    /// A host that was to hold it said no; the note says why.
    Refused,
    /// A host that was ready for it was lost.
    Lost,
    /// As [`EventKind::Seeded`], by a host that did not hold it, after one that did was lost.
    Repaired,
    /// A host has joined.
    HostJoined,
    /// A host has left, or is lost.
    HostLeft,
    /// A super node has joined.
    SuperJoined,
    /// A super node has left.
    SuperLeft,
    /// A kind that this version does not know.
    Unknown(u16),
}

impl EventKind {
    /// In one word, for people and programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Edited => "edited",
            Self::RolledBack => "rolled_back",
            Self::Decommissioned => "decommissioned",
            Self::Seeded => "seeded",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Repaired => "repaired",
            Self::HostJoined => "host_joined",
            Self::HostLeft => "host_left",
            Self::SuperJoined => "super_joined",
            Self::SuperLeft => "super_left",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl From<u16> for EventKind {
    fn from(tag: u16) -> Self {
        match tag {
            1 => Self::Published,
            2 => Self::Edited,
            3 => Self::RolledBack,
            4 => Self::Decommissioned,
            5 => Self::Seeded,
            6 => Self::Refused,
            7 => Self::Lost,
            8 => Self::Repaired,
            9 => Self::HostJoined,
            10 => Self::HostLeft,
            11 => Self::SuperJoined,
            12 => Self::SuperLeft,
            other => Self::Unknown(other),
        }
    }
}

impl From<EventKind> for u16 {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::Published => 1,
            EventKind::Edited => 2,
            EventKind::RolledBack => 3,
            EventKind::Decommissioned => 4,
            EventKind::Seeded => 5,
            EventKind::Refused => 6,
            EventKind::Lost => 7,
            EventKind::Repaired => 8,
            EventKind::HostJoined => 9,
            EventKind::HostLeft => 10,
            EventKind::SuperJoined => 11,
            EventKind::SuperLeft => 12,
            EventKind::Unknown(tag) => tag,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_id_is_read_as_it_is_written_and_nothing_else_is() {
        let (node, other) = (NodeId::from_bytes([3; 32]), NodeId::from_bytes([4; 32]));
        let id = EventId::new(&node, 1_042);
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert!(id.is_of(&node) && !id.is_of(&other));
        let log = node.short();
        for text in [
            "",
            "1042",
            "-1042",
            &log,
            &format!("{log}-"),
            &format!("{log}-+1"),
            &format!("{log}--1"),
        ] {
            assert_eq!(text.parse::<EventId>(), Err(NoEventId), "{text}");
        }
        for text in [
            &format!("{log}x-1"),
            &format!("{}-1", log.to_uppercase()),
            &format!("{log}-{}0", u64::MAX),
        ] {
            assert_eq!(text.parse::<EventId>(), Err(NoEventId), "{text}");
        }
    }
}
