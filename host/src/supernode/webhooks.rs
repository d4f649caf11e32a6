//! Telling who is not connected: events as HTTP requests, in the form of Standard Webhooks
//! (<https://www.standardwebhooks.com>).
//!
//! Each webhook has a [`worker`] of its own, which goes through the log of events after a cursor that it
//! keeps in the store: in order, each event at least once, until it is delivered or has failed too often.
//! [`dead`]: what was given up, for the operator. [`letter`]: what is sent, signed. [`post`]: one request, to no address that it must not reach.

pub(super) mod dead;
mod letter;
mod post;
mod worker;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;

use self::dead::DeadLetterOffice;
use self::post::{Poster, TlsError};
use self::worker::Worker;
use super::{SuperNode, operator};
use crate::config::{SuperConfig, Webhook, WebhookPace};
use crate::store::blocking;
use crate::store::database::StoreError;

/// The webhooks of a super node, not begun yet.
#[derive(Debug)]
pub(crate) struct Webhooks {
    webhooks: Vec<Webhook>,
    pace: WebhookPace,
    poster: Poster,
}

impl Webhooks {
    /// Those of a configuration.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(crate) fn new(config: &SuperConfig) -> Result<Self, TlsError> {
        Ok(Self {
            webhooks: config.webhooks.clone(),
            pace: config.webhook_pace,
            poster: Poster::new()?,
        })
    }

    /// Has those that are new begin with what happens from now on. To be called before anything is
    /// served.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn prepare(&self, node: &Arc<SuperNode>) -> Result<(), StoreError> {
        let targets = self.webhooks.iter().map(Webhook::target).collect();
        let node = Arc::clone(node);
        blocking(move || node.storage.prepare_webhooks(&targets)).await
    }

    /// Begins to tell them, in tasks among these, and answers the operator who asks in the data folder what became of
    /// that.
    pub(crate) fn start(self, node: &Arc<SuperNode>, folder: &Path, tasks: &mut JoinSet<()>) {
        let (webhooks, poster) = (self.webhooks.clone(), self.poster.clone());
        let office = DeadLetterOffice::new(Arc::clone(node), webhooks, self.pace, poster);
        tasks.spawn(operator::run(folder.to_owned(), office));
        for webhook in self.webhooks {
            let worker = Worker::new(Arc::clone(node), webhook, self.pace, self.poster.clone());
            tasks.spawn(worker.run());
        }
    }
}
