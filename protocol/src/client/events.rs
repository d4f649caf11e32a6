//! What happened, and what happens from now on, as a super node wrote it down.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Client;
use super::error::{Broken, ClientError};
use super::exchange::{Exchange, unless_silent};
use super::uplink::REPLY_TIMEOUT;
use crate::fault::{Fault, FaultKind};
use crate::id::{FunctionId, NodeId, OwnerId};
use crate::quic::Connection;
use crate::wire::Request;
use crate::wire::events::{EVENTS_PAGE_MAX, EventPage, Events};
use crate::wire::extension::Extensions;

/// Before a super node that was lost is asked again; twice as long each further time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often one page is asked for: a connection that was at rest may have been lost unnoticed.
const TRIES_MAX: u32 = 2;

/// Super nodes whose cursors a stream keeps in mind: as many as a client may be told of.
const LOGS_MAX: usize = 16;

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// Only events after this cursor, oldest first; 0 for all that are kept. `None`: the last ones.
    pub after: Option<u64>,
    /// Whose cursor that is: the short form of a super node's id ([`EventId::log`](crate::wire::events::EventId::log)).
    /// `None`: of whichever super node is asked.
    pub log: Option<String>,
    /// Only about functions of this owner.
    pub owner: Option<OwnerId>,
    /// Only about this function.
    pub function: Option<FunctionId>,
    /// Also what happens from now on.
    pub follow: bool,
    /// At most so many in a page, and at most [`EVENTS_PAGE_MAX`].
    pub limit: u16,
}

impl Default for EventQuery {
    fn default() -> Self {
        Self {
            after: None,
            log: None,
            owner: None,
            function: None,
            follow: false,
            limit: EVENTS_PAGE_MAX,
        }
    }
}

/// Pages of events, one after the other. See [`Client::events`].
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    query: EventQuery,
    /// Who has answered last.
    node: Option<NodeId>,
    /// How far the stream is in the log of each that has answered.
    cursors: BTreeMap<NodeId, u64>,
    open: Option<Open>,
    /// No more is to come.
    over: bool,
    failures: u32,
}

struct Open {
    connection: Connection,
    exchange: Exchange,
    /// Nothing has come yet.
    first: bool,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

impl Client {
    /// What happened, and with [`EventQuery::follow`] what happens from now on.
    ///
    /// Every event comes at least once: a stream whose super node was lost goes on after the last page that it had
    /// from the one that it goes on at. One that it had nothing from before has another log: then the stream goes on
    /// with the last events there, and [`EventPage::gap`] says so.
    ///
    /// Its first page is an error if the super node is not the one that the query's cursor is of
    /// ([`EventQuery::log`]). One whose log does not go so far begins anew, and says that there is a gap.
    pub fn events(&self, query: EventQuery) -> EventStream {
        EventStream {
            client: self.clone(),
            query,
            node: None,
            cursors: BTreeMap::new(),
            open: None,
            over: false,
            failures: 0,
        }
    }
}

impl EventStream {
    /// The next page; `None` after the last one. Whoever follows waits for it, and it has no last one.
    ///
    /// # Errors
    /// What the super node says, or that it cannot be reached; a follower goes on trying once it has had
    /// a page.
    pub async fn next(&mut self) -> Result<Option<EventPage>, ClientError> {
        while !self.over {
            match self.try_next().await {
                Ok(page) => return Ok(Some(self.take(page))),
                Err(broken) => {
                    self.open = None;
                    self.pause(broken).await?;
                }
            }
        }
        Ok(None)
    }

    /// Notes how far it is.
    fn take(&mut self, mut page: EventPage) -> EventPage {
        self.failures = 0;
        page.gap |= self.node.is_some() && !self.cursors.contains_key(&page.node);
        self.node = Some(page.node);
        if self.cursors.len() >= LOGS_MAX && !self.cursors.contains_key(&page.node) {
            self.cursors.pop_first();
        }
        self.cursors.insert(page.node, page.cursor);
        if !self.query.follow {
            self.open = None;
            self.over = !page.more;
        }
        page
    }

    /// Waits before it is tried again, if it should be.
    async fn pause(&mut self, broken: Broken) -> Result<(), Fault> {
        self.failures += 1;
        let lost = match &broken {
            Broken::Lost(_) => true,
            Broken::Fault(fault) => matches!(fault.kind, FaultKind::NoLiveHost | FaultKind::Overloaded),
        };
        let goes_on = self.query.follow && self.node.is_some();
        let again = matches!(broken, Broken::Lost(_)) && self.failures < TRIES_MAX;
        if !lost || !(goes_on || again) {
            return Err(broken.at_super_node());
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(16));
        sleep(doubled.min(PAUSE_MAX)).await;
        Ok(())
    }

    async fn try_next(&mut self) -> Result<EventPage, Broken> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.ask().await?,
        };
        let first = open.first;
        let Open {
            connection, exchange, ..
        } = &mut open;
        let page = unless_silent(connection, exchange.reply());
        let page: EventPage = match first {
            // What is there already is there soon; what is to happen may take days.
            true => timeout(REPLY_TIMEOUT, page)
                .await
                .unwrap_or_else(|_| Err(Broken::Lost("no answer".to_owned())))?,
            false => page.await?,
        };
        check(&page)?;
        if !self.query.follow {
            open.exchange.ended();
        }
        open.first = false;
        self.open = Some(open);
        Ok(page)
    }

    async fn ask(&mut self) -> Result<Open, Broken> {
        let connection = self.client.0.uplink.connection().await?;
        let peer = connection.peer();
        let EventQuery {
            owner,
            function,
            follow,
            limit,
            ..
        } = self.query;
        // A cursor of another super node means nothing there.
        let after = match self.node {
            Some(_) => self.cursors.get(&peer).copied(),
            None => {
                of_log(&self.query, &peer)?;
                self.query.after
            }
        };
        let request = Events {
            after,
            owner,
            function,
            follow,
            limit,
            extensions: Extensions::none(),
        };
        let mut exchange = Exchange::open(&connection).await?;
        exchange.request(&Request::from(request)).await?;
        exchange.finish();
        Ok(Open {
            connection,
            exchange,
            first: true,
        })
    }
}

/// Whether the query's cursor is one of this super node.
fn of_log(query: &EventQuery, node: &NodeId) -> Result<(), Fault> {
    let (Some(after), Some(log)) = (query.after, &query.log) else {
        return Ok(());
    };
    if *log == node.short() {
        return Ok(());
    }
    let message = format!(
        "event {log}-{after} is in the log of super node {log}, and super node {} was asked",
        node.short()
    );
    Err(Fault::new(FaultKind::InputInvalid, message)
        .help("ask that super node, or leave the event out to see the last ones of this one"))
}

/// A super node is not believed more events than it was asked for.
fn check(page: &EventPage) -> Result<(), Fault> {
    let cursors = page.events.iter().map(|event| event.cursor);
    let in_order = cursors.clone().is_sorted_by(|a, b| a < b);
    if page.events.len() > EVENTS_PAGE_MAX.into() || !in_order || cursors.max() > Some(page.cursor) {
        let message = "the super node's events are not in order";
        return Err(Fault::new(FaultKind::Unverified, message));
    }
    Ok(())
}
