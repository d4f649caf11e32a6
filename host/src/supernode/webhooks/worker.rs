//! One webhook: goes through the log of events, and tells each to its target.

use std::sync::Arc;
use std::time::Duration;

use orb_protocol::wire::events::Event;
use tokio::time::{sleep, timeout};

use super::letter::Letter;
use super::post::{PostError, Poster};
use crate::config::{Webhook, WebhookPace};
use crate::counters::Counter;
use crate::format;
use crate::store::database::StoreError;
use crate::store::events::{Filter, Found};
use crate::store::webhooks::{DeadLetter, TargetId};
use crate::supernode::SuperNode;

/// Events that are read at a time. After a kill so many may come again.
const PAGE: usize = 16;
/// Events that may be passed over before that is written down: after a restart they are looked at again,
/// and nothing is sent twice for it.
const PASSED_OVER_MAX: u64 = 1_000;
/// Before the store is asked again, if it fails.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Worker {
    node: Arc<SuperNode>,
    webhook: Webhook,
    target: TargetId,
    pace: WebhookPace,
    poster: Poster,
    counters: Counters,
}

/// What became of events, since the start.
#[derive(Debug, Default)]
struct Counters {
    delivered: Counter,
    retried: Counter,
    dead: Counter,
}

/// How far a worker is.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// The last event that needs no more to be done about it.
    cursor: u64,
    /// What of this is stored.
    stored: u64,
    /// There are more events already.
    more: bool,
}

impl Worker {
    /// A worker for one webhook.
    pub(crate) fn new(node: Arc<SuperNode>, webhook: Webhook, pace: WebhookPace, poster: Poster) -> Self {
        Self {
            node,
            target: webhook.target(),
            webhook,
            pace,
            poster,
            counters: Counters::default(),
        }
    }

    /// Tells events for as long as it runs. Logs name the host only: an address may be a secret as a whole.
    pub(crate) async fn run(self) {
        let mut newest = self.node.storage.newest_event();
        let mut progress: Option<Progress> = None;
        loop {
            newest.borrow_and_update();
            match self.go_on(progress).await {
                Ok(now) if now.more => progress = Some(now),
                Ok(now) => {
                    progress = Some(now);
                    // The storage lives as long as the node, so there always is somebody to say it.
                    let _ = newest.changed().await;
                }
                Err(error) => {
                    tracing::error!(url = self.webhook.url.authority(), %error, "a webhook cannot go on");
                    progress = None;
                    sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    /// Goes through the next events.
    async fn go_on(&self, progress: Option<Progress>) -> Result<Progress, StoreError> {
        let storage = &self.node.storage;
        let progress = match progress {
            Some(progress) => progress,
            None => Progress::at(storage.webhook_cursor(self.target).await?),
        };
        let found = storage.events_after(self.filter(), progress.cursor, PAGE).await?;
        if found.gap {
            tracing::warn!(
                url = self.webhook.url.authority(),
                "events were forgotten before a webhook was told of them"
            );
        }
        for event in &found.events {
            self.deliver(event).await?;
        }
        self.settle(progress, &found).await
    }

    /// Writes down how far it is, where that is worth it.
    async fn settle(&self, progress: Progress, found: &Found) -> Result<Progress, StoreError> {
        let worth_it = !found.events.is_empty()
            || found.gap
            || found.cursor.saturating_sub(progress.stored) >= PASSED_OVER_MAX;
        if worth_it {
            let storage = &self.node.storage;
            storage.advance_webhook(self.target, found.cursor).await?;
        }
        Ok(Progress {
            cursor: found.cursor,
            stored: if worth_it { found.cursor } else { progress.stored },
            more: found.more,
        })
    }

    /// Tries until the event is delivered, or has failed too often.
    async fn deliver(&self, event: &Event) -> Result<(), StoreError> {
        let letter = Letter::of(&self.node.endpoint.node_id(), event);
        for attempt in 1.. {
            let Err(error) = post_once(&self.poster, &self.webhook, &self.pace, &letter).await else {
                self.counters.delivered.add();
                self.log_delivery(&letter, attempt);
                return Ok(());
            };
            if attempt >= self.pace.attempts_max {
                return self.give_up(event, &letter, attempt, &error).await;
            }
            self.counters.retried.add();
            self.log_failure(&letter, attempt, &error);
            if attempt == 1 {
                // This may take long: what was delivered before shall not come again after a restart.
                let done = event.cursor.saturating_sub(1);
                self.node.storage.advance_webhook(self.target, done).await?;
            }
            sleep(pause(&self.pace, attempt, getrandom::u32().unwrap_or(u32::MAX))).await;
        }
        Ok(())
    }

    async fn give_up(
        &self,
        event: &Event,
        letter: &Letter,
        attempts: u32,
        error: &PostError,
    ) -> Result<(), StoreError> {
        self.counters.dead.add();
        let dead = self.counters.dead.get();
        tracing::error!(url = self.webhook.url.authority(), id = letter.id, attempts, %error, dead, "an event is given up: it is kept among the dead letters (`orb super dead-letters`)");
        let letter = DeadLetter {
            event: event.clone(),
            reason: error.to_string(),
            attempts,
        };
        self.node.storage.bury_letter(self.target, letter).await
    }

    fn log_delivery(&self, letter: &Letter, attempt: u32) {
        let (url, delivered) = (self.webhook.url.authority(), self.counters.delivered.get());
        if attempt > 1 {
            let retried = self.counters.retried.get();
            tracing::info!(
                url,
                id = letter.id,
                attempt,
                delivered,
                retried,
                "an event was delivered at last"
            );
        } else {
            tracing::debug!(url, id = letter.id, delivered, "an event was delivered");
        }
    }

    fn log_failure(&self, letter: &Letter, attempt: u32, error: &PostError) {
        let (url, retried) = (self.webhook.url.authority(), self.counters.retried.get());
        if attempt == 1 {
            tracing::warn!(url, id = letter.id, %error, retried, "an event was not delivered: it is tried again");
        } else {
            tracing::debug!(url, id = letter.id, attempt, %error, retried, "an event was not delivered again");
        }
    }

    fn filter(&self) -> Filter {
        Filter {
            owner: self.webhook.owner,
            function: self.webhook.function_id(),
        }
    }
}

impl Progress {
    fn at(stored: u64) -> Self {
        Self {
            cursor: stored,
            stored,
            more: true,
        }
    }
}

/// One try.
pub(super) async fn post_once(
    poster: &Poster,
    webhook: &Webhook,
    pace: &WebhookPace,
    letter: &Letter,
) -> Result<(), PostError> {
    let headers = letter.headers(&webhook.secret, format::now_ms() / 1_000);
    let posting = poster.post(&webhook.url, webhook.allow_private, &headers, &letter.body);
    timeout(pace.timeout, Box::pin(posting))
        .await
        .unwrap_or(Err(PostError::TimedOut(pace.timeout)))
}

/// How long to wait after a try: twice as long each time, and half of it at random, so that the targets of
/// one machine that was away are not told all at once. `random` is any number.
fn pause(pace: &WebhookPace, attempt: u32, random: u32) -> Duration {
    let doubled = pace
        .pause_min
        .saturating_mul(1 << attempt.saturating_sub(1).min(30));
    let half = doubled.min(pace.pause_max) / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pace = WebhookPace::default();
        let longest = |attempt| pause(&pace, attempt, u32::MAX).as_secs();
        assert_eq!([1, 2, 3, 4].map(longest), [2, 4, 8, 16]);
        assert_eq!((longest(11), longest(u32::MAX)), (900, 900));
        assert_eq!(pause(&pace, 3, 0), Duration::from_secs(4));
        let whole: u64 = (1..pace.attempts_max).map(longest).sum();
        assert!((40 * 60..60 * 60).contains(&whole), "{whole} s");
    }
}
