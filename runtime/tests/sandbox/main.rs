//! The sandbox as its users see it: artifacts and inputs in, events and outcomes out.
//!
//! All tests share one sandbox, as the calls of a host do; a test about caches or bounds makes one
//! of its own.
#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

mod admission;
mod cache;
mod command;
mod hostile;
mod javascript;
mod many;
mod monsters;
mod oracle;
mod support;
