//! `orb events`: what happened to functions and hosts, and what happens now.

use clap::Args;
use orb_protocol::client::{Client, EventQuery};
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::NodeId;
use orb_protocol::wire::events::{EVENTS_PAGE_MAX, Event, EventId, EventPage};
use serde::Serialize;

use super::context::Context;
use super::describe;
use super::function::{FunctionRef, Target};
use crate::event_document::EventDocument;
use crate::failure::Failure;
use crate::format;
use crate::home::Aliases;
use crate::output::{Output, Table};

/// Events that are listed if nobody says how many: a screen of them.
const LIMIT_DEFAULT: usize = 50;
/// The most that are listed at once: what a super node keeps.
const LIMIT_MAX: usize = 100_000;

/// Show what happened to functions and hosts, and with -f what happens now
#[derive(Debug, Args)]
#[command(after_help = "\
Kinds: published, edited, rolled_back, decommissioned; seeded, refused, lost, repaired (replicas of
functions at hosts); host_joined, host_left, super_joined, super_left.

Each event has an id: the beginning of its super node's id, and its number there, the cursor. --since
goes on after either; cursors of one super node mean nothing to another, and an id of another one is
refused. An event may come twice, with the same id. With -f and --json each event is one document on a
line of its own.

Example:
  orb events hello
  orb events --since k3xj2m7qpa-1042
  orb events -f --json --since 1042")]
pub(crate) struct EventsCommand {
    /// Only about this function: NAME or OWNER/NAME
    #[arg(value_name = "FN", conflicts_with = "owner")]
    function: Option<FunctionRef>,
    /// Go on, and show what happens as it happens
    #[arg(long, short)]
    follow: bool,
    /// Only about this owner's functions: a key, an alias, or the beginning of a known key
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Only what happened after this event, an id or a cursor, oldest first; 0 for all that is kept
    /// [default: the last events]
    #[arg(long, value_name = "EVENT", value_parser = since)]
    since: Option<Since>,
    /// At most so many events, with -f of those that happened before [default: 50]
    #[arg(long, value_name = "N", value_parser = limit)]
    limit: Option<usize>,
}

/// After which event.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Since {
    /// Of whichever super node is asked.
    Cursor(u64),
    Id(EventId),
}

fn since(text: &str) -> Result<Since, String> {
    let cursor = text.parse().ok().map(Since::Cursor);
    cursor
        .or_else(|| text.parse().ok().map(Since::Id))
        .ok_or_else(|| "an event's id (k3xj2m7qpa-1042) or its number (1042) is needed".to_owned())
}

impl Since {
    fn cursor(&self) -> u64 {
        match self {
            Self::Cursor(cursor) => *cursor,
            Self::Id(id) => id.cursor(),
        }
    }

    fn log(&self) -> Option<String> {
        match self {
            Self::Cursor(_) => None,
            Self::Id(id) => Some(id.log().to_owned()),
        }
    }
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("a number from 1 to {LIMIT_MAX} is needed"))
}

#[derive(Serialize)]
struct Listed {
    events: Vec<EventDocument>,
    /// Where to go on.
    cursor: u64,
    /// There is more after the cursor.
    more: bool,
    /// Events after the cursor that was asked with are not kept any more.
    gap: bool,
}

impl EventsCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let target = match &self.function {
            Some(function) => Some(function.locate_whole(&context.home)?),
            None => None,
        };
        let owner = match &self.owner {
            Some(owner) => Some(context.home.owner(owner)?),
            None => None,
        };
        let query = EventQuery {
            after: self.since.as_ref().map(Since::cursor),
            log: self.since.as_ref().and_then(Since::log),
            owner,
            function: target.as_ref().map(|target| target.id),
            follow: self.follow,
            limit: page_limit(self.limit.unwrap_or(LIMIT_DEFAULT)),
        };
        let aliases = context.home.aliases()?;
        let client = context.connect().await?;
        match self.follow {
            true => follow(&client, query, &aliases, &context.out).await,
            false => {
                self.list(&client, query, target.as_ref(), &aliases, &context.out)
                    .await
            }
        }
    }

    async fn list(
        &self,
        client: &Client,
        query: EventQuery,
        target: Option<&Target>,
        aliases: &Aliases,
        out: &Output,
    ) -> Result<(), Failure> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        let (node, listed) = gather(client, query, limit).await?;
        let document = Listed {
            events: listed
                .events
                .iter()
                .map(|event| EventDocument::of(&node, event))
                .collect(),
            cursor: listed.cursor,
            more: listed.more,
            gap: listed.gap,
        };
        if listed.gap {
            out.note(GAP);
        }
        let summary = format::count(listed.events.len(), "event");
        let text = match (listed.events.as_slice(), target) {
            ([], Some(target)) => format!("no events of {}", target.shown),
            ([], None) => "no events".to_owned(),
            (events, _) => table(&node, events, aliases, out),
        };
        out.result(&document, &summary, &text)
    }
}

const GAP: &str = "some events in between are not kept any more, or are in another super node's log";

/// How many to ask for at a time.
fn page_limit(limit: usize) -> u16 {
    u16::try_from(limit).unwrap_or(u16::MAX).min(EVENTS_PAGE_MAX)
}

/// What was gathered from pages.
struct Gathered {
    events: Vec<Event>,
    cursor: u64,
    more: bool,
    gap: bool,
}

/// So many events, and whose log they are from.
async fn gather(client: &Client, query: EventQuery, limit: usize) -> Result<(NodeId, Gathered), Failure> {
    let mut all = Gathered {
        events: Vec::new(),
        cursor: query.after.unwrap_or(0),
        more: true,
        gap: false,
    };
    let mut node = NodeId::from_bytes([0; 32]);
    let mut stream = client.events(query.clone());
    while all.events.len() < limit
        && let Some(page) = stream.next().await?
    {
        if all.events.is_empty() {
            goes_so_far(&query, &page)?;
        }
        node = page.node;
        all.add(page, limit);
    }
    Ok((node, all))
}

impl Gathered {
    fn add(&mut self, page: EventPage, limit: usize) {
        self.events.extend(page.events);
        (self.cursor, self.more) = (page.cursor, page.more);
        self.gap |= page.gap;
        if self.events.len() > limit {
            self.events.truncate(limit);
            self.more = true;
            self.cursor = self.events.last().map_or(self.cursor, |event| event.cursor);
        }
    }
}

/// Whether the super node has come as far as the event that is asked for: if not, it is not what it shows.
fn goes_so_far(query: &EventQuery, page: &EventPage) -> Result<(), Failure> {
    match query.after {
        Some(after) if page.cursor < after => {
            let node = page.node.short();
            let message = format!("the log of super node {node} does not go as far as event {after}");
            Err(Failure::from(Fault::new(FaultKind::InputInvalid, message)).help(
                "the number is of another super node's event, or this one has lost its log: leave --since out to see the last events",
            ))
        }
        _ => Ok(()),
    }
}

/// Prints events until somebody interrupts, or nobody reads them.
async fn follow(client: &Client, query: EventQuery, aliases: &Aliases, out: &Output) -> Result<(), Failure> {
    let mut stream = client.events(query.clone());
    let mut first = true;
    loop {
        let page = tokio::select! {
            page = stream.next() => page?,
            // Whoever follows ends it so: that is no failure.
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let Some(page) = page else { return Ok(()) };
        if std::mem::take(&mut first) {
            goes_so_far(&query, &page)?;
        }
        if page.gap {
            out.note(GAP);
        }
        for event in &page.events {
            if !print(&page.node, event, aliases, out)? {
                return Ok(());
            }
        }
    }
}

/// Prints an event on a line. Returns whether anybody reads it.
fn print(node: &NodeId, event: &Event, aliases: &Aliases, out: &Output) -> Result<bool, Failure> {
    if !out.is_json() {
        return out.next_line(cells(node, event, aliases).join("  ").trim_end());
    }
    let document = serde_json::to_string(&EventDocument::of(node, event))
        .map_err(|error| Failure::local(format!("an event has no JSON form: {error}")))?;
    out.next_line(&document)
}

fn table(node: &NodeId, events: &[Event], aliases: &Aliases, out: &Output) -> String {
    let mut table = Table::new(["TIME", "ID", "EVENT", "FUNCTION", "HOST", "NOTE"]);
    for event in events {
        table.row(cells(node, event, aliases));
    }
    table.render(out)
}

fn cells(node: &NodeId, event: &Event, aliases: &Aliases) -> [String; 6] {
    let nothing = || "-".to_owned();
    [
        format::rfc3339(event.time_ms),
        event.id(node),
        event.kind.label().to_owned(),
        function(event, aliases).unwrap_or_else(nothing),
        event.host.map_or_else(nothing, |host| host.short()),
        describe::one_line(&event.note),
    ]
}

/// `OWNER/NAME@REVISION`, as one writes it.
fn function(event: &Event, aliases: &Aliases) -> Option<String> {
    let (owner, name) = (event.owner?, event.name.as_ref()?);
    let owner = aliases
        .name_of(&owner)
        .map_or_else(|| owner.short(), ToString::to_string);
    let revision = event.version.map(|version| format!("@{}", version.revision));
    Some(format!("{owner}/{name}{}", revision.unwrap_or_default()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::id::OwnerId;
    use orb_protocol::manifest::Version;
    use orb_protocol::wire::events::EventKind;
    use orb_protocol::wire::extension::Extensions;

    use super::*;

    fn event(cursor: u64) -> Event {
        Event {
            cursor,
            kind: EventKind::Refused,
            function: None,
            owner: Some(OwnerId::from_bytes([1; 32])),
            name: Some("hello".parse().unwrap()),
            version: Some(Version {
                generation: 0,
                revision: 3,
            }),
            host: Some(NodeId::from_bytes([2; 32])),
            note: "too\nlarge".to_owned(),
            time_ms: 1_709_251_200_000,
            extensions: Extensions::none(),
        }
    }

    #[test]
    fn a_line_says_when_what_where_and_where_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let aliases = Aliases::read(&folder.path().join("aliases.toml")).unwrap();
        let node = NodeId::from_bytes([3; 32]);
        let line = cells(&node, &event(1_042), &aliases).join("  ");
        let (owner, host) = (OwnerId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let expected = format!(
            "2024-03-01T00:00:00Z  {}-1042  refused  {}/hello@3  {}  too large",
            node.short(),
            owner.short(),
            host.short()
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn no_more_are_listed_than_were_asked_for_and_the_cursor_says_where_to_go_on() {
        let page = |cursors: std::ops::RangeInclusive<u64>, more| EventPage {
            node: NodeId::from_bytes([3; 32]),
            cursor: *cursors.end(),
            events: cursors.map(event).collect(),
            more,
            gap: false,
            extensions: Extensions::none(),
        };
        let mut all = Gathered {
            events: Vec::new(),
            cursor: 0,
            more: true,
            gap: false,
        };
        all.add(page(1..=2, true), 3);
        assert_eq!((all.events.len(), all.cursor, all.more), (2, 2, true));
        all.add(page(3..=5, false), 3);
        assert_eq!((all.events.len(), all.cursor, all.more), (3, 3, true));
    }

    #[test]
    fn one_goes_on_after_an_id_or_a_cursor() {
        let id = EventId::new(&NodeId::from_bytes([3; 32]), 7);
        assert_eq!(since("7"), Ok(Since::Cursor(7)));
        assert_eq!(since(&id.to_string()), Ok(Since::Id(id)));
        for text in ["", "-1", "x", "x-7", "7-7"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(limit("100000"), Ok(LIMIT_MAX));
        assert!(limit("0").is_err() && limit("100001").is_err() && limit("x").is_err());
        assert_eq!((page_limit(7), page_limit(LIMIT_MAX)), (7, EVENTS_PAGE_MAX));
    }
}
