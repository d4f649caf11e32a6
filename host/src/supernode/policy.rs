//! Who is let in, and how much of a super node anybody may use.

use std::collections::BTreeSet;

use orb_protocol::fault::{Fault, FaultKind};
use orb_protocol::id::{NodeId, OwnerId};

use crate::config::{Admission, SuperConfig};
use crate::store::registry::OwnerLimits;

/// The longest invitation that is compared, in bytes.
const INVITE_BYTES_MAX: usize = 1_024;

/// The operator's rules.
#[derive(Debug)]
pub(crate) struct Policy {
    owners: Gate<OwnerId>,
    hosts: Gate<NodeId>,
    peers: Gate<NodeId>,
    /// What one owner may use.
    pub(crate) owner_limits: OwnerLimits,
    /// The longest artifact that is taken, in bytes.
    pub(crate) artifact_bytes_max: u64,
}

/// Who is let in, with invitations as hashes: a text that is compared by its hash tells nothing by the
/// time that the comparison takes.
#[derive(Debug)]
enum Gate<Id> {
    Open,
    List(BTreeSet<Id>),
    Invite(BTreeSet<Id>, Vec<blake3::Hash>),
}

impl Policy {
    /// The rules that the settings name.
    pub(crate) fn new(config: &SuperConfig) -> Self {
        Self {
            owners: Gate::new(&config.owners),
            hosts: Gate::new(&config.hosts),
            peers: Gate::new(&config.peers()),
            owner_limits: OwnerLimits {
                functions: config.owner_functions_max.into(),
                bytes: config.owner_bytes_max,
            },
            artifact_bytes_max: config.artifact_bytes_max,
        }
    }

    /// Whether an owner may publish. `invited`: it has shown an invitation before. Returns whether it
    /// shows one now.
    ///
    /// # Errors
    /// [`FaultKind::Refused`], naming the rule.
    pub(crate) fn admit_owner(
        &self,
        owner: &OwnerId,
        invited: bool,
        invite: Option<&[u8]>,
    ) -> Result<bool, Fault> {
        match self.owners.admits(owner, invite) {
            Ok(by_invitation) => Ok(by_invitation),
            Err(Rule::Invite) if invited => Ok(false),
            Err(rule) => Err(rule.refusal("owner", &owner.short(), "publish")),
        }
    }

    /// Whether a node may host.
    ///
    /// # Errors
    /// [`FaultKind::Refused`], naming the rule.
    pub(crate) fn admit_host(&self, node: &NodeId, invite: &str) -> Result<(), Fault> {
        let admitted = self.hosts.admits(node, Some(invite.as_bytes()));
        admitted
            .map(drop)
            .map_err(|rule| rule.refusal("host", &node.short(), "host"))
    }

    /// Whether a super node may be linked.
    ///
    /// # Errors
    /// [`FaultKind::Refused`], naming the rule.
    pub(crate) fn admit_peer(&self, node: &NodeId) -> Result<(), Fault> {
        let admitted = self.peers.admits(node, None);
        admitted.map(drop).map_err(|_| {
            let message = format!(
                "super node {} is not one that this super node links with",
                node.short()
            );
            Fault::new(FaultKind::Refused, message)
                .help("its operator can name it with --peer, or let everybody in with --open-peers")
        })
    }

    /// Whether an artifact of this length is taken.
    ///
    /// # Errors
    /// [`FaultKind::Refused`], naming the rule.
    pub(crate) fn admit_artifact(&self, bytes: u64) -> Result<(), Fault> {
        let most = self.artifact_bytes_max;
        if bytes <= most {
            return Ok(());
        }
        let message = format!(
            "the artifact has {bytes} bytes, and this super node takes at most {most} (artifact_bytes_max)"
        );
        Err(Fault::new(FaultKind::Refused, message).help("build it for size, or use another super node"))
    }
}

/// Which rule keeps somebody out.
enum Rule {
    List,
    Invite,
}

impl Rule {
    fn refusal(&self, who: &str, id: &str, what: &str) -> Fault {
        let (message, help) = match self {
            Self::List => (
                format!(
                    "{who} {id} may not {what} at this super node: its policy for {who}s is \"list\", and {id} is not on it"
                ),
                format!("ask its operator to put the {who} on the list"),
            ),
            Self::Invite => (
                format!(
                    "{who} {id} may not {what} at this super node: its policy for {who}s is \"invite\", and no valid invitation was shown"
                ),
                "ask its operator for an invitation".to_owned(),
            ),
        };
        Fault::new(FaultKind::Refused, message).help(help)
    }
}

impl<Id: Ord + Copy> Gate<Id> {
    fn new(admission: &Admission<Id>) -> Self {
        let set = |list: &[Id]| list.iter().copied().collect();
        match admission {
            Admission::Open => Self::Open,
            Admission::List(list) => Self::List(set(list)),
            Admission::Invite { list, invites } => {
                let hashes = invites.iter().map(|invite| hash(invite.as_bytes()));
                Self::Invite(set(list), hashes.collect())
            }
        }
    }

    /// Whether it was an invitation that let somebody in.
    fn admits(&self, id: &Id, invite: Option<&[u8]>) -> Result<bool, Rule> {
        match self {
            Self::Open => Ok(false),
            Self::List(list) if list.contains(id) => Ok(false),
            Self::List(_) => Err(Rule::List),
            Self::Invite(list, _) if list.contains(id) => Ok(false),
            Self::Invite(_, hashes) => {
                let shown = invite.filter(|invite| invite.len() <= INVITE_BYTES_MAX).map(hash);
                // `blake3::Hash` compares in constant time.
                match shown.is_some_and(|shown| hashes.contains(&shown)) {
                    true => Ok(true),
                    false => Err(Rule::Invite),
                }
            }
        }
    }
}

fn hash(invite: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_derive_key("orb 2026-11 invitation");
    hasher.update(invite);
    hasher.finalize()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;
    use crate::store::testing::owner;
    use crate::supernode::testing::config;

    fn policy(owners: Admission<OwnerId>) -> Policy {
        Policy::new(&SuperConfig {
            owners,
            artifact_bytes_max: 100,
            ..config(std::path::Path::new("/nowhere"))
        })
    }

    #[test]
    fn open_lets_everybody_in() {
        assert!(
            !policy(Admission::Open)
                .admit_owner(&owner(1).id(), false, None)
                .unwrap()
        );
    }

    #[test]
    fn a_list_lets_in_who_is_on_it() {
        let policy = policy(Admission::List(vec![owner(1).id()]));
        policy.admit_owner(&owner(1).id(), false, None).unwrap();
        let refusal = policy
            .admit_owner(&owner(2).id(), true, Some(b"please"))
            .unwrap_err();
        assert_eq!(refusal.kind, FaultKind::Refused);
        assert!(refusal.message.contains("\"list\""), "{refusal}");
    }

    #[test]
    fn an_invitation_is_needed_once() {
        let policy = policy(Admission::Invite {
            list: vec![owner(1).id()],
            invites: vec!["please".to_owned()],
        });
        let stranger = owner(2).id();
        assert!(!policy.admit_owner(&owner(1).id(), false, None).unwrap());
        assert!(policy.admit_owner(&stranger, false, Some(b"please")).unwrap());
        assert!(!policy.admit_owner(&stranger, true, None).unwrap());
        for shown in [None, Some(b"".as_slice()), Some(b"Please"), Some(&[7; 10_000])] {
            let refusal = policy.admit_owner(&stranger, false, shown).unwrap_err();
            assert!(refusal.message.contains("\"invite\""), "{refusal}");
        }
    }

    #[test]
    fn an_artifact_may_be_so_long() {
        let policy = policy(Admission::Open);
        policy.admit_artifact(100).unwrap();
        let refusal = policy.admit_artifact(101).unwrap_err();
        assert!(refusal.message.contains("artifact_bytes_max"), "{refusal}");
    }
}
