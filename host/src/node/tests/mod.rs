//! A host node between a super node and callers that speak the wire, on loopback.
#![expect(clippy::unwrap_used, reason = "a test panics on surprise")]

mod bounds;
mod calls;
mod guests;
mod network;
mod pauses;
mod power_cuts;
mod replicas;
