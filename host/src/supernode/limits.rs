//! What strangers may take of a super node before it is known who they are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orb_protocol::shares::Origin;

/// Connections in all: at about 30 KiB each (quinn, idle, 8 streams) they cost 1 GiB.
pub(crate) const CONNECTIONS_MAX: usize = 32_768;
/// Publishes that one address may begin at once.
const PUBLISH_BURST: u32 = 1_200;
/// After a burst, so often one more: twenty per second, which no person and no build server does, and
/// which a disk that syncs can do.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(50);
/// Addresses whose publishes are counted. Each is forgotten a minute after its last one.
const PUBLISHERS_MAX: usize = 65_536;

/// Counts connections, in all and for each origin.
#[derive(Debug)]
pub(crate) struct Connections {
    per_origin_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    per_origin: HashMap<Origin, usize>,
}

/// One of the connections; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    connections: Arc<Connections>,
    origin: Origin,
}

impl Connections {
    /// At most `per_origin_max` from one origin.
    pub(crate) fn new(per_origin_max: u32) -> Arc<Self> {
        Arc::new(Self {
            per_origin_max: per_origin_max as usize,
            open: Mutex::default(),
        })
    }

    /// Room for one more; `None` if there is none.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let origin = Origin::of(address);
        let mut open = lock(&self.open);
        let here = open.per_origin.get(&origin).copied().unwrap_or_default();
        if open.all >= CONNECTIONS_MAX || here >= self.per_origin_max {
            return None;
        }
        open.all += 1;
        open.per_origin.insert(origin, here + 1);
        Some(ConnectionSlot {
            connections: Arc::clone(self),
            origin,
        })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = lock(&self.connections.open);
        open.all -= 1;
        if let Some(here) = open.per_origin.get_mut(&self.origin) {
            *here -= 1;
            if *here == 0 {
                open.per_origin.remove(&self.origin);
            }
        }
    }
}

/// How often each origin publishes, or has something noted, by the generic cell rate algorithm (ITU-T I.371): one number for each.
#[derive(Debug, Default)]
pub(crate) struct PublishRate {
    /// When the origin will have paid for all that it did.
    due: Mutex<HashMap<Origin, Instant>>,
}

impl PublishRate {
    /// Whether one more may begin.
    ///
    /// # Errors
    /// After how long it may.
    pub(crate) fn admit(&self, now: Instant, address: IpAddr) -> Result<(), Duration> {
        if address.to_canonical().is_loopback() {
            // Whoever is on this machine need not go through here to keep its disk busy.
            return Ok(());
        }
        let origin = Origin::of(address);
        let mut due = lock(&self.due);
        if due.len() >= PUBLISHERS_MAX && !due.contains_key(&origin) {
            due.retain(|_, due| *due > now);
            if due.len() >= PUBLISHERS_MAX {
                return Err(PUBLISH_INTERVAL);
            }
        }
        let tolerance = PUBLISH_INTERVAL * (PUBLISH_BURST - 1);
        let paid = due.get(&origin).copied().unwrap_or(now).max(now);
        match paid.duration_since(now).checked_sub(tolerance) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                due.insert(origin, paid + PUBLISH_INTERVAL);
                Ok(())
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_origin_has_so_many_connections() {
        let connections = Connections::new(2);
        let first = connections.admit(ip("2001:db8::1")).unwrap();
        let _second = connections.admit(ip("2001:db8::2")).unwrap();
        assert!(connections.admit(ip("2001:db8::3")).is_none());
        assert!(connections.admit(ip("2001:db8:0:1::1")).is_some());
        assert!(connections.admit(ip("192.0.2.1")).is_some());
        drop(first);
        assert!(connections.admit(ip("2001:db8::4")).is_some());
        assert_eq!(lock(&connections.open).per_origin.len(), 1);
    }

    #[test]
    fn a_burst_of_publishes_then_a_steady_flow() {
        let rate = PublishRate::default();
        let now = Instant::now();
        let address = ip("192.0.2.1");
        for _ in 0..PUBLISH_BURST {
            rate.admit(now, address).unwrap();
        }
        assert_eq!(rate.admit(now, address), Err(PUBLISH_INTERVAL));
        rate.admit(now, ip("192.0.2.2")).unwrap();
        rate.admit(now + PUBLISH_INTERVAL, address).unwrap();
        rate.admit(now + PUBLISH_INTERVAL, address).unwrap_err();
    }

    #[test]
    fn publishers_are_forgotten() {
        let rate = PublishRate::default();
        let now = Instant::now();
        for number in 0..PUBLISHERS_MAX {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number).unwrap());
            rate.admit(now, address.into()).unwrap();
        }
        rate.admit(now, ip("192.0.2.1")).unwrap_err();
        rate.admit(now + 2 * PUBLISH_INTERVAL, ip("192.0.2.1")).unwrap();
        assert_eq!(lock(&rate.due).len(), 1);
    }
}
