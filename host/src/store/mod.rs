//! What a daemon keeps: its data folder, artifacts, manifests.
//!
//! - [`datadir`]: the folder itself: one daemon at a time, format version, clean and unclean stops.
//! - [`objects`]: artifacts as files named by their hash.
//! - [`database`], [`committer`]: redb, opened with care; writes that share a sync.
//! - [`backend`]: the database's file, whose blocks are compared with what they were.
//! - [`registry`], [`changes`]: a super node's manifests, and where in the federation they came from.
//!   [`events`]: what happened to them, and to hosts. [`webhooks`]: how far each webhook has been told.
//! - [`files`]: the file operations beneath.
//!
//! Everything here blocks: daemons call it through [`blocking`], never on a runtime's worker.

pub(crate) mod backend;
pub(crate) mod changes;
pub(crate) mod committer;
pub(crate) mod database;
pub(crate) mod datadir;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod objects;
pub(crate) mod registry;
pub(crate) mod webhooks;

#[cfg(test)]
pub(crate) mod disk;
#[cfg(test)]
pub(crate) mod journal;
#[cfg(test)]
pub(crate) mod testing;

/// Runs something that blocks (files, the database) where it holds up nobody.
///
/// A panic in it goes on in the caller. It is not cancelled when the caller is.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking tasks are cancelled only while the runtime ends, and then so are we.
            Err(_) => std::future::pending().await,
        },
    }
}
