//! What Orb is on the wire, and what it decides.
//!
//! - [`id`], [`key`], [`name`]: what things are called, and who may say so.
//! - [`manifest`], [`head`], [`registry`]: signed revisions of functions, and the join that makes
//!   every node agree on which one is live. [`rival`]: whoever lost a race for a number is told.
//!   [`history`]: ancestors of a revision that were missed, out of what others offer.
//! - [`wire`], [`fault`]: the messages, and every way in which a request can fail.
//! - [`placement`], [`ranking`]: who holds a function, and who answers a call.
//! - [`pause`], [`removals`]: hosts that take nothing for a while; who has removed what was decommissioned.
//! - [`coordinator`], [`holder`]: the two daemons' decisions as state machines: time and events come
//!   in, effects go out as data.
//! - [`federation`]: super nodes among themselves, as a state machine; [`hub`] joins it with the coordinator.
//! - [`discovery`]: functions beyond one federation, by way of BitTorrent's Mainline DHT.
//! - [`relay`]: the packet relay's header and session table.
//! - [`shares`]: who has to give way when all of something is taken.
//! - `quic` and `client` (feature `quic`): the endpoint, and the Rust SDK.
//!
//! Everything outside the feature `quic` is pure: no clock, no sockets, no ambient randomness.

pub mod coordinator;
pub mod discovery;
pub mod fault;
pub mod federation;
pub mod head;
pub mod history;
pub mod holder;
pub mod hub;
pub mod id;
pub mod key;
pub mod manifest;
pub mod name;
pub mod pause;
pub mod placement;
pub mod ranking;
pub mod registry;
pub mod relay;
pub mod removals;
pub mod rival;
pub mod shares;
pub mod wire;

#[cfg(feature = "quic")]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "I/O: has timers, tasks and caches, and draws request ids"
)]
pub mod client;
#[cfg(feature = "quic")]
#[expect(clippy::disallowed_methods, reason = "I/O: draws new keys")]
pub mod keyfile;
#[cfg(feature = "quic")]
#[expect(
    clippy::disallowed_methods,
    reason = "I/O: has sockets, timers and random tokens"
)]
pub mod quic;

#[cfg(feature = "sim")]
pub mod sim;
#[cfg(test)]
mod testing;
