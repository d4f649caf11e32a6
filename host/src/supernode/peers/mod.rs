//! Other super nodes.
//!
//! - [`links`]: who is linked, and what waits to be sent and done.
//! - [`link`]: one link, from its first message to its end.
//! - [`keeper`]: does what the federation wants done: dials, pulls, keeps records.
//! - [`sync`]: changes that somebody has missed, both sides of it. [`reconcile`]: the same where no clock tells.
//! - [`artifacts`]: fetches artifacts from them.
//! - [`history`]: revisions that were missed, also asked of them.
//! - [`remote`]: asks other super nodes on behalf of a client.

pub(super) mod artifacts;
pub(super) mod history;
pub(super) mod keeper;
pub(super) mod link;
pub(super) mod links;
pub(super) mod reconcile;
pub(super) mod remote;
pub(super) mod sync;
