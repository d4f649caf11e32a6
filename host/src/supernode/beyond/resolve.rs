//! A function that nobody in this federation knows, looked for on behalf of a client.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use orb_protocol::client::SuperAddr;
use orb_protocol::id::FunctionId;
use orb_protocol::relay::TokenBucket;
use orb_protocol::wire::directory::{HostHint, Resolved, VIA};
use orb_protocol::wire::extension::Extensions;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::super::SuperNode;
use super::lock;
use crate::discovery::find::Wanted;
use crate::discovery::{Dht, FindError, Finder, Found};
use crate::public_ip::is_public;

/// Lookups at a time. Anybody may ask for functions that do not exist.
const LOOKUPS_MAX: usize = 8;
/// Lookups in a second, over time, and at once after a time of rest.
const LOOKUPS_PER_SECOND: u64 = 1;
const LOOKUPS_BURST: u64 = 30;
/// How long one may take: a client waits 10 s for an answer.
const LOOKUP_MAX: Duration = Duration::from_secs(9);
/// How long an answer is used again, also that there is none.
const KEPT: Duration = Duration::from_secs(60);
/// Functions of which it is kept, about 2 KiB each.
const KEPT_MAX: usize = 1_024;

/// What bounds lookups.
#[derive(Debug)]
pub(super) struct Lookups {
    places: Semaphore,
    budget: Mutex<TokenBucket>,
    started: Instant,
    kept: Mutex<HashMap<FunctionId, (Instant, Option<Resolved>)>>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            places: Semaphore::new(LOOKUPS_MAX),
            budget: Mutex::new(TokenBucket::new(
                LOOKUPS_PER_SECOND,
                LOOKUPS_BURST,
                Duration::ZERO,
            )),
            started: Instant::now(),
            kept: Mutex::default(),
        }
    }
}

impl Lookups {
    fn pay(&self) -> bool {
        lock(&self.budget).take_pieces(1, 1, self.started.elapsed()) == 1
    }

    fn get(&self, function: &FunctionId) -> Option<Option<Resolved>> {
        let kept = lock(&self.kept);
        let (at, resolved) = kept.get(function)?;
        (at.elapsed() < KEPT).then(|| resolved.clone())
    }

    fn keep(&self, function: FunctionId, resolved: Option<&Resolved>) {
        let mut kept = lock(&self.kept);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (at, _)| at.elapsed() < KEPT);
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(function, (Instant::now(), resolved.cloned()));
    }
}

/// Who serves a function elsewhere, as a super node there says that the DHT names.
pub(crate) async fn resolve(node: &SuperNode, function: FunctionId) -> Option<Resolved> {
    let dht = node.beyond.dht()?;
    let lookups = &node.beyond.lookups;
    if let Some(kept) = lookups.get(&function) {
        return kept;
    }
    let place = lookups.places.try_acquire().ok().filter(|_| lookups.pay());
    let Some(_place) = place else {
        dht.counters().lookups_refused.add();
        return None;
    };
    let found = timeout(LOOKUP_MAX, find(&dht, function)).await;
    let resolved = match found {
        Ok(Ok(found)) => Some(passed_on(&dht, found)),
        Ok(Err(error)) => {
            tracing::debug!(%function, %error, "not found in the DHT");
            None
        }
        Err(_) => None,
    };
    lookups.keep(function, resolved.as_ref());
    resolved
}

async fn find(dht: &Dht, function: FunctionId) -> Result<Found, FindError> {
    // Nobody's key: who asks this super node is no business of that one.
    let wanted = Wanted {
        function,
        named: None,
    };
    Finder::new(dht, None)?.find(wanted).await
}

/// The answer of another super node, as this one's.
fn passed_on(dht: &Dht, found: Found) -> Resolved {
    tracing::info!(
        function = %found.resolution.manifest.function(), super_node = %found.address,
        "a function was found in the DHT"
    );
    let hosts = found.resolution.hosts.into_iter();
    let hosts = hosts.filter_map(|host| reached_by(dht, &found.address, host));
    Resolved {
        manifest: found.resolution.manifest.signed().clone(),
        hosts: hosts.collect(),
        extensions: Extensions::none(),
    }
}

/// A host there, by way of its super node: that one, or the one that it names, unless no stranger may send
/// clients to it.
fn reached_by(dht: &Dht, through: &SuperAddr, mut host: HostHint) -> Option<HostHint> {
    let named = host
        .extensions
        .get(VIA)
        .map(|via| String::from_utf8_lossy(via).into_owned());
    let via = named.unwrap_or_else(|| through.to_string());
    let (_, address) = via.rsplit_once('@')?;
    let allowed = match address.parse::<SocketAddr>() {
        Ok(SocketAddr::V4(address)) => dht.reach().allows(&address),
        Ok(SocketAddr::V6(address)) => is_public((*address.ip()).into()),
        // A name may stand for any address.
        Err(_) => false,
    };
    host.extensions = Extensions::none().with(VIA, via.into_bytes());
    allowed.then_some(host)
}
