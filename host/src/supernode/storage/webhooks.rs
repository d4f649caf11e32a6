//! How far webhooks have been told, for tasks.

use std::collections::BTreeSet;

use super::Storage;
use crate::store::blocking;
use crate::store::database::StoreError;
use crate::store::webhooks::{DeadLetter, TargetId, WebhookTables};

impl Storage {
    /// Keeps these webhooks, and no others. Blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn prepare_webhooks(&self, targets: &BTreeSet<TargetId>) -> Result<(), StoreError> {
        WebhookTables::prepare(&self.database, targets, *self.newest.borrow())
    }

    /// How far a webhook has been told.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn webhook_cursor(&self, target: TargetId) -> Result<u64, StoreError> {
        let database = self.database.clone();
        blocking(move || database.read(|txn| WebhookTables::cursor(txn, &target))).await
    }

    /// Notes that a webhook has been told everything up to a cursor.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn advance_webhook(&self, target: TargetId, cursor: u64) -> Result<(), StoreError> {
        let write = move |txn: &redb::WriteTransaction| WebhookTables::advance(txn, &target, cursor);
        self.committer.write(write).await
    }

    /// Gives an event up for a webhook, and goes on after it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn bury_letter(&self, target: TargetId, letter: DeadLetter) -> Result<(), StoreError> {
        let write = move |txn: &redb::WriteTransaction| WebhookTables::bury(txn, &target, &letter);
        self.committer.write(write).await
    }

    /// Forgets a dead letter.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn unbury_letter(&self, target: TargetId, cursor: u64) -> Result<(), StoreError> {
        let write = move |txn: &redb::WriteTransaction| WebhookTables::unbury(txn, &target, cursor);
        self.committer.write(write).await
    }

    /// Keeps what became of a dead letter since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn mark_letter(&self, target: TargetId, letter: DeadLetter) -> Result<(), StoreError> {
        let write = move |txn: &redb::WriteTransaction| WebhookTables::mark(txn, &target, &letter);
        self.committer.write(write).await
    }

    /// A webhook's dead letters, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn dead_letters(&self, target: TargetId) -> Result<Vec<DeadLetter>, StoreError> {
        let database = self.database.clone();
        blocking(move || database.read(|txn| WebhookTables::dead(txn, &target))).await
    }
}
