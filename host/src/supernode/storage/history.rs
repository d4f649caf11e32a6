//! Revisions of a function, for tasks.

use std::sync::Arc;

use orb_protocol::history::Gap;
use orb_protocol::id::FunctionId;
use orb_protocol::manifest::{SignedManifest, Verified, Version};

use super::Storage;
use crate::store::blocking;
use crate::store::database::StoreError;
use crate::store::registry::{RegistryTables, artifact_of};

impl Storage {
    /// See [`RegistryTables::versions`]; with each manifest, whether its artifact is here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn versions(
        &self,
        function: FunctionId,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Option<(Vec<(SignedManifest, bool)>, bool)>, StoreError> {
        let shelf = Arc::clone(&self.shelf);
        let read = move || {
            let versions =
                |txn: &redb::ReadTransaction| RegistryTables::versions(txn, &function, before, limit);
            let Some((page, more)) = shelf.database.read(versions)? else {
                return Ok(None);
            };
            let page = page.into_iter().map(|signed| {
                let artifact = artifact_of(&signed);
                let here = artifact.is_some_and(|artifact| shelf.objects.contains(&artifact));
                (signed, here)
            });
            Ok(Some((page.collect(), more)))
        };
        blocking(read).await
    }

    /// See [`RegistryTables::gap`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn gap(&self, function: FunctionId) -> Result<Option<Gap>, StoreError> {
        let database = Arc::clone(&self.database);
        blocking(move || database.read(|txn| RegistryTables::gap(txn, &function))).await
    }

    /// Takes ancestors of a function's revisions into its history, durably, and returns how many. See
    /// [`RegistryTables::restore`]. To be called in a task that nobody cancels.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn restore(&self, ancestors: Vec<Verified>) -> Result<usize, StoreError> {
        let write = move |txn: &redb::WriteTransaction| RegistryTables::restore(txn, &ancestors);
        let restored = self.committer.write(write).await?;
        self.remove(restored.unneeded).await;
        Ok(restored.added)
    }
}
