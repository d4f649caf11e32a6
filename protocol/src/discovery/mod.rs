//! Beyond one federation: functions are found through BitTorrent's Mainline DHT.
//!
//! Here is what is decided, without the DHT: under which [`info_hash`] super nodes announce themselves
//! (BEP 5), which of the addresses that come back are tried ([`candidates`]), whether a super node that was
//! found is up to date ([mod@freshness]), and what a super node publishes when ([`schedule`]). The heads that
//! are published beside the announcements are in [`head`](crate::head) (BEP 44).

pub mod candidates;
pub mod freshness;
pub mod info_hash;
pub mod schedule;

pub use candidates::Candidates;
pub use freshness::{Freshness, freshness};
pub use info_hash::InfoHash;
pub use schedule::{Schedule, Step};
