//! BitTorrent's Mainline DHT: where functions are found whose super node nobody named.
//!
//! - [`dht`]: this node's place in the DHT: heads (BEP 44) and announcements (BEP 5), put and looked up.
//! - [`reach`]: where the answers of strangers may send this machine.
//! - [`find`]: from a function to a super node that serves it.
//! - [`counters`]: what others in the DHT did that they should not have.
//!
//! What is decided is in [`orb_protocol::discovery`]. What a super node publishes is in
//! [`supernode::beyond`](crate::supernode).

pub(crate) mod counters;
pub(crate) mod dht;
pub(crate) mod find;
pub(crate) mod reach;

pub(crate) use counters::DhtCounters;
pub(crate) use dht::{Dht, DhtError};
pub(crate) use find::{FindError, Finder, Found};
