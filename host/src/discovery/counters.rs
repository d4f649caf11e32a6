//! What others in the DHT did that they should not have, and what did not work there.

use crate::counters::{Counter, Numbers};

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct DhtCounters {
    /// Addresses that nobody may be sent to, or that were too many.
    pub(crate) addresses_refused: Counter,
    /// Addresses at which no super node answered.
    pub(crate) addresses_silent: Counter,
    /// Super nodes that announced a function that they do not serve.
    pub(crate) supers_without: Counter,
    /// Super nodes that showed an older revision than the owner's head.
    pub(crate) supers_stale: Counter,
    /// Super nodes that showed what the owner did not sign.
    pub(crate) supers_unverified: Counter,
    /// Items that an owner signed and that are no heads.
    pub(crate) heads_unreadable: Counter,
    /// Heads that the DHT would not take because it has newer ones.
    pub(crate) heads_outdated: Counter,
    /// What could not be stored.
    pub(crate) puts_failed: Counter,
    /// Lookups for clients that were more than the budget.
    pub(crate) lookups_refused: Counter,
}

impl DhtCounters {
    /// All of them.
    pub(crate) fn numbers(&self) -> Numbers {
        vec![
            ("dht_addresses_refused", self.addresses_refused.get()),
            ("dht_addresses_silent", self.addresses_silent.get()),
            ("dht_supers_without", self.supers_without.get()),
            ("dht_supers_stale", self.supers_stale.get()),
            ("dht_supers_unverified", self.supers_unverified.get()),
            ("dht_heads_unreadable", self.heads_unreadable.get()),
            ("dht_heads_outdated", self.heads_outdated.get()),
            ("dht_puts_failed", self.puts_failed.get()),
            ("dht_lookups_refused", self.lookups_refused.get()),
        ]
    }
}
