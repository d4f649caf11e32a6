//! From a function to a super node that serves it.
//!
//! The DHT only names addresses, and anybody can name any. So nothing is believed that was not proven: the
//! handshake proves which node is at an address, the owner's signature which revision it shows, and the
//! owner's head from the DHT that this is not an old one.

use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use orb_protocol::client::{Client, Resolution, SuperAddr};
use orb_protocol::discovery::{Freshness, InfoHash, freshness};
use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::head::SignedHead;
use orb_protocol::id::{FunctionId, OwnerId};
use orb_protocol::key::{NodeKey, OwnerKey};
use orb_protocol::manifest::Version;
use orb_protocol::name::Name;
use orb_protocol::quic::{Endpoint, EndpointConfig, NodeAddr};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dht::{Dht, DhtError};

/// Addresses that are tried at once: those that lie by silence cost time only if they fill all places.
const TRIES_AT_ONCE: usize = 4;
/// How long one may take: three handshakes around the world, and an answer.
const TRY_MAX: Duration = Duration::from_secs(4);

/// What one is looking for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The function.
    pub(crate) function: FunctionId,
    /// Whose it is, and its name, if that is known: then its head is looked up at once.
    pub(crate) named: Option<(&'a OwnerId, &'a Name)>,
}

/// Looks for super nodes.
#[derive(Debug)]
pub(crate) struct Finder<'a> {
    dht: &'a Dht,
    endpoint: Endpoint,
    owner_key: Option<OwnerKey>,
}

/// A super node that serves the function.
#[derive(Debug)]
pub(crate) struct Found {
    /// A client that is connected to it.
    pub(crate) client: Client,
    /// Where it is.
    pub(crate) address: SuperAddr,
    /// What it said about the function.
    pub(crate) resolution: Resolution,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// The DHT does not work from here.
    #[error(transparent)]
    Dht(#[from] DhtError),
    /// No super node has announced the function. `head`: which revision its owner has signed last.
    #[error("no super node announces the function in the DHT")]
    NotAnnounced {
        /// As the owner's head says, if there is one.
        head: Option<Version>,
    },
    /// Some have, and none of them can be used.
    #[error("no super node that the DHT names can be used")]
    NoneUsable(Vec<(SocketAddrV4, Fault)>),
    /// This machine gives no socket.
    #[error("no UDP socket can be opened: {0}")]
    Local(String),
}

/// A super node that answered.
struct Answer {
    at: SocketAddrV4,
    found: Found,
}

impl<'a> Finder<'a> {
    /// One that asks on behalf of an owner, or of nobody.
    ///
    /// # Errors
    /// [`FindError::Local`].
    pub(crate) fn new(dht: &'a Dht, owner_key: Option<OwnerKey>) -> Result<Self, FindError> {
        Ok(Self {
            dht,
            endpoint: fresh_endpoint().map_err(FindError::Local)?,
            owner_key,
        })
    }

    /// The first super node that serves the function, shows no old revision of it, and knows a host that is
    /// ready; or else one that knows none.
    ///
    /// # Errors
    /// [`FindError`].
    pub(crate) async fn find(&self, wanted: Wanted<'_>) -> Result<Found, FindError> {
        let hash = InfoHash::of_function(&wanted.function);
        let (candidates, head) = tokio::join!(self.dht.announced(hash), self.head(wanted.named));
        let (candidates, mut head) = (candidates?.ranked(), head?);
        if candidates.is_empty() {
            if head.is_none() {
                self.dht.check().await?;
            }
            let head = head.map(|head| head.version);
            return Err(FindError::NotAnnounced { head });
        }
        let (mut waiting, mut tries) = (candidates.into_iter(), JoinSet::new());
        let (mut failures, mut second, mut head_known) = (Vec::new(), None, wanted.named.is_some());
        loop {
            while tries.len() < TRIES_AT_ONCE
                && let Some(at) = waiting.next()
            {
                tries.spawn(self.attempt(at, wanted.function));
            }
            let Some(ended) = tries.join_next().await else {
                break;
            };
            let answer = match ended.map_err(DhtError::from)? {
                Ok(answer) => answer,
                Err((at, fault)) => {
                    self.count(&fault);
                    tracing::debug!(address = %at, %fault, "what the DHT names is of no use");
                    failures.push((at, fault));
                    continue;
                }
            };
            let manifest = &answer.found.resolution.manifest;
            if !std::mem::replace(&mut head_known, true) {
                let signed = manifest.manifest();
                head = self.head(Some((&signed.owner, &signed.name))).await?;
            }
            if freshness(head.as_ref(), manifest) == Freshness::Stale {
                self.dht.counters().supers_stale.add();
                failures.push((answer.at, stale(manifest.version(), head.as_ref())));
            } else if answer.found.resolution.hosts.is_empty() {
                second = second.or(Some(answer.found));
            } else {
                return Ok(answer.found);
            }
        }
        second.ok_or(FindError::NoneUsable(failures))
    }

    async fn head(&self, named: Option<(&OwnerId, &Name)>) -> Result<Option<SignedHead>, DhtError> {
        match named {
            Some((owner, name)) => self.dht.head(owner, name).await,
            None => Ok(None),
        }
    }

    /// Asks whoever is at an address for the function.
    fn attempt(
        &self,
        at: SocketAddrV4,
        function: FunctionId,
    ) -> impl Future<Output = Result<Answer, (SocketAddrV4, Fault)>> + Send + 'static {
        let (endpoint, owner_key) = (self.endpoint.clone(), self.owner_key.clone());
        async move {
            let ask = ask(endpoint, owner_key, at, function);
            let asked = timeout(TRY_MAX, ask).await.unwrap_or_else(|_| {
                let message = format!("no answer in {} s", TRY_MAX.as_secs());
                Err(Fault::new(FaultKind::NoLiveHost, message))
            });
            asked
                .map(|found| Answer { at, found })
                .map_err(|fault| (at, fault))
        }
    }

    fn count(&self, fault: &Fault) {
        let counters = self.dht.counters();
        match fault.kind {
            FaultKind::NotFound => counters.supers_without.add(),
            FaultKind::Unverified => counters.supers_unverified.add(),
            FaultKind::NoLiveHost | FaultKind::VersionMismatch => counters.addresses_silent.add(),
            _ => {}
        }
    }
}

/// An endpoint of a node that nobody knows: what it does disturbs no connection that this node has.
pub(crate) fn fresh_endpoint() -> Result<Endpoint, String> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
    Endpoint::bind(EndpointConfig::client(NodeKey::from_seed(seed))).map_err(|error| error.to_string())
}

/// Who is at an address. Its key is proven; it may be anybody.
pub(crate) async fn who_is_at(endpoint: &Endpoint, at: SocketAddrV4) -> Result<NodeAddr, Fault> {
    let addr = SocketAddr::V4(at);
    let connection = endpoint
        .connect_to_whoever(addr)
        .await
        .map_err(|error| error.fault())?;
    Ok(NodeAddr {
        id: connection.peer(),
        addr,
    })
}

async fn ask(
    endpoint: Endpoint,
    owner_key: Option<OwnerKey>,
    at: SocketAddrV4,
    function: FunctionId,
) -> Result<Found, Fault> {
    let address = SuperAddr::from(who_is_at(&endpoint, at).await?);
    let client = Client::builder()
        .super_nodes(vec![address.clone()])
        .owner_key(owner_key)
        .nearby()
        .endpoint(endpoint);
    let client = client.connect().await.map_err(|error| error.fault)?;
    let resolution = client.resolve(function).await.map_err(|error| error.fault)?;
    Ok(Found {
        client,
        address,
        resolution,
    })
}

fn stale(shown: Version, head: Option<&SignedHead>) -> Fault {
    let signed = head.map(|head| head.version).unwrap_or_default();
    let message = format!(
        "it shows revision {} of generation {}, and the owner has signed revision {} of generation {}",
        shown.revision, shown.generation, signed.revision, signed.generation
    );
    Fault::new(FaultKind::NoLiveHost, message)
}

impl FindError {
    /// The same in the taxonomy that callers see. `shown`: how to call the function.
    pub(crate) fn fault(self, shown: &str) -> Fault {
        match self {
            Self::Dht(error) => Fault::new(FaultKind::NoLiveHost, error.to_string()).help(
                "check that the network lets UDP through, name other nodes with --dht-bootstrap, \
                 or name a super node with --super",
            ),
            Self::Local(error) => Fault::new(FaultKind::Internal, error),
            Self::NotAnnounced { head: None } => {
                let message = format!("the DHT knows nothing of {shown}: no super node announces it");
                Fault::new(FaultKind::NotFound, message).help(
                    "check owner and name; only super nodes with discovery = \"mainline\" announce what they \
                     have, and what is new takes a minute; or name a super node with --super",
                )
            }
            Self::NotAnnounced { head: Some(version) } => {
                let message = format!(
                    "the DHT knows revision {} of {shown}, and no super node that serves it",
                    version.revision
                );
                Fault::new(FaultKind::NoLiveHost, message)
                    .help("try again later, or name a super node with --super")
            }
            Self::NoneUsable(failures) => none_usable(shown, &failures),
        }
    }
}

/// What is said when no super node can be used: each with its reason, unless one said what settles it.
fn none_usable(shown: &str, failures: &[(SocketAddrV4, Fault)]) -> Fault {
    let settles = |fault: &Fault| matches!(fault.kind, FaultKind::Decommissioned | FaultKind::Refused);
    if let Some((_, fault)) = failures.iter().find(|(_, fault)| settles(fault)) {
        return fault.clone();
    }
    let mut message = format!("no super node that the DHT names for {shown} can be used:");
    for (address, fault) in failures {
        // Writing to a text cannot fail.
        let _ = write!(message, "\n  {address}: {fault}");
    }
    Fault::new(FaultKind::NoLiveHost, message).help("try again later, or name a super node with --super")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    fn usable(kinds: &[FaultKind]) -> Fault {
        let failures = kinds.iter().map(|kind| {
            let at = "1.1.1.1:1".parse().unwrap();
            (at, Fault::new(*kind, format!("for {}", kind.label())))
        });
        FindError::NoneUsable(failures.collect()).fault("alice/hello")
    }

    #[test]
    fn every_failure_says_what_to_do() {
        let nothing = FindError::NotAnnounced { head: None }.fault("alice/hello");
        assert_eq!(nothing.kind, FaultKind::NotFound);
        let head = Some(Version {
            generation: 0,
            revision: 3,
        });
        let orphan = FindError::NotAnnounced { head }.fault("alice/hello");
        assert_eq!(orphan.kind, FaultKind::NoLiveHost);
        let unreachable = FindError::Dht(DhtError::Unreachable).fault("alice/hello");
        assert_eq!(unreachable.kind, FaultKind::NoLiveHost);
        let lies = usable(&[FaultKind::NotFound, FaultKind::NoLiveHost]);
        assert_eq!(lies.kind, FaultKind::NoLiveHost);
        assert!(lies.message.contains("1.1.1.1:1: for not_found"), "{lies}");
        for fault in [nothing, orphan, unreachable, lies] {
            assert!(fault.help.contains("--super"), "{fault:?}");
        }
    }

    #[test]
    fn what_a_super_node_says_for_certain_is_passed_on() {
        let ended = usable(&[FaultKind::NoLiveHost, FaultKind::Decommissioned]);
        assert_eq!(ended.kind, FaultKind::Decommissioned);
    }
}
