//! An event as programs read it: the same from the command line and in a webhook.

use orb_protocol::id::NodeId;
use orb_protocol::wire::events::Event;
use serde::Serialize;

use crate::format;

/// See the module.
#[derive(Debug, Serialize)]
pub(crate) struct EventDocument {
    /// The same for each delivery of this event, and another one for each other event.
    pub(crate) id: String,
    /// Where to go on after it.
    cursor: u64,
    kind: &'static str,
    /// By the super node's clock, RFC 3339.
    time: String,
    /// `OWNER/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

impl EventDocument {
    /// An event of a super node's log.
    pub(crate) fn of(node: &NodeId, event: &Event) -> Self {
        let named = event.owner.zip(event.name.as_ref());
        Self {
            id: event.id(node),
            cursor: event.cursor,
            kind: event.kind.label(),
            time: format::rfc3339(event.time_ms),
            function: named.map(|(owner, name)| format!("{owner}/{name}")),
            function_id: event.function.map(|function| function.to_string()),
            generation: event.version.map(|version| version.generation),
            revision: event.version.map(|version| version.revision),
            host: event.host.map(|host| host.to_string()),
            note: event.note.clone(),
        }
    }
}
