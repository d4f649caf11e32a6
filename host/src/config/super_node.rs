//! What the operator of a super node may set.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use orb_protocol::id::{NodeId, OwnerId};
use serde::Deserialize;

use super::ByteSize;
use super::texts::{either, missing, parsed};
use crate::failure::Failure;

/// A super node's settings, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SuperConfig {
    /// The UDP address to serve at. Port 0: one is picked, and kept across restarts.
    pub(crate) listen: SocketAddr,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// Who may publish functions.
    pub(crate) owners: Admission<OwnerId>,
    /// Who may host them.
    pub(crate) hosts: Admission<NodeId>,
    /// The most live functions of one owner.
    pub(crate) owner_functions_max: u32,
    /// The most bytes of artifacts stored for one owner.
    pub(crate) owner_bytes_max: u64,
    /// The longest artifact that is taken, in bytes.
    pub(crate) artifact_bytes_max: u64,
    /// The most connections from one address.
    pub(crate) address_connections_max: u32,
    /// The most packet sessions at a time, over all nodes.
    pub(crate) relay_sessions_max: u32,
    /// The most packet sessions of one node at a time.
    pub(crate) relay_node_sessions_max: u32,
    /// The most bytes per second that are relayed for one node.
    pub(crate) relay_node_bytes_per_second: u64,
}

/// Who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission<Id> {
    /// Everybody.
    Open,
    /// These.
    List(Vec<Id>),
    /// These, and whoever shows one of these invitations.
    Invite {
        /// Who needs no invitation.
        list: Vec<Id>,
        /// The invitations.
        invites: Vec<String>,
    },
}

/// Which rule says who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Policy {
    /// Everybody
    Open,
    /// Only those on the list
    List,
    /// Those on the list, and whoever shows an invitation
    Invite,
}

/// A super node's settings as flags, variables or a file give them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SuperLayer {
    /// UDP address to serve at; port 0 picks one and keeps it across restarts
    #[arg(long, value_name = "IP:PORT", env = "ORB_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Data folder; made if it is not there
    #[arg(long, value_name = "DIR", env = "ORB_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Who may publish functions [default: open]
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        env = "ORB_OWNERS",
        help_heading = "Policy"
    )]
    pub(crate) owners: Option<Policy>,
    /// An owner on the list (repeatable, or comma-separated)
    #[arg(
        long = "owner",
        value_name = "KEY",
        env = "ORB_OWNER_LIST",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    #[serde(deserialize_with = "parsed")]
    pub(crate) owner_list: Vec<OwnerId>,
    /// An invitation that lets an owner in (repeatable, or comma-separated)
    #[arg(
        long = "owner-invite",
        value_name = "TEXT",
        env = "ORB_OWNER_INVITES",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Policy"
    )]
    pub(crate) owner_invites: Vec<String>,
    /// Who may host functions [default: open]
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        env = "ORB_HOSTS",
        help_heading = "Policy"
    )]
    pub(crate) hosts: Option<Policy>,
    /// A host on the list (repeatable, or comma-separated)
    #[arg(
        long = "host",
        value_name = "NODEID",
        env = "ORB_HOST_LIST",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    #[serde(deserialize_with = "parsed")]
    pub(crate) host_list: Vec<NodeId>,
    /// An invitation that lets a host in (repeatable, or comma-separated)
    #[arg(
        long = "host-invite",
        value_name = "TEXT",
        env = "ORB_HOST_INVITES",
        value_delimiter = ',',
        hide_env_values = true,
        help_heading = "Policy"
    )]
    pub(crate) host_invites: Vec<String>,
    /// The most live functions of one owner [default: 1000]
    #[arg(
        long,
        value_name = "N",
        env = "ORB_OWNER_FUNCTIONS_MAX",
        help_heading = "Quotas"
    )]
    pub(crate) owner_functions_max: Option<u32>,
    /// The most bytes of artifacts stored for one owner [default: 1GiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_OWNER_BYTES_MAX",
        help_heading = "Quotas"
    )]
    pub(crate) owner_bytes_max: Option<ByteSize>,
    /// The longest artifact that is taken [default: 32MiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_ARTIFACT_BYTES_MAX",
        help_heading = "Quotas"
    )]
    pub(crate) artifact_bytes_max: Option<ByteSize>,
    /// The most connections from one address [default: 1024]
    #[arg(
        long,
        value_name = "N",
        env = "ORB_ADDRESS_CONNECTIONS_MAX",
        help_heading = "Quotas"
    )]
    pub(crate) address_connections_max: Option<u32>,
    /// The most packet sessions at a time [default: 65536]
    #[arg(
        long,
        value_name = "N",
        env = "ORB_RELAY_SESSIONS_MAX",
        help_heading = "Quotas"
    )]
    pub(crate) relay_sessions_max: Option<u32>,
    /// The most packet sessions of one node at a time [default: 4096]
    #[arg(
        long,
        value_name = "N",
        env = "ORB_RELAY_NODE_SESSIONS_MAX",
        help_heading = "Quotas"
    )]
    pub(crate) relay_node_sessions_max: Option<u32>,
    /// The most bytes per second relayed for one node [default: 1GiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "ORB_RELAY_NODE_BYTES_PER_SECOND",
        help_heading = "Quotas"
    )]
    pub(crate) relay_node_bytes_per_second: Option<ByteSize>,
}

impl SuperLayer {
    /// These settings, and the lower layer's where this one says nothing.
    #[must_use]
    pub(crate) fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            data: self.data.or(lower.data),
            owners: self.owners.or(lower.owners),
            owner_list: either(self.owner_list, lower.owner_list),
            owner_invites: either(self.owner_invites, lower.owner_invites),
            hosts: self.hosts.or(lower.hosts),
            host_list: either(self.host_list, lower.host_list),
            host_invites: either(self.host_invites, lower.host_invites),
            owner_functions_max: self.owner_functions_max.or(lower.owner_functions_max),
            owner_bytes_max: self.owner_bytes_max.or(lower.owner_bytes_max),
            artifact_bytes_max: self.artifact_bytes_max.or(lower.artifact_bytes_max),
            address_connections_max: self.address_connections_max.or(lower.address_connections_max),
            relay_sessions_max: self.relay_sessions_max.or(lower.relay_sessions_max),
            relay_node_sessions_max: self.relay_node_sessions_max.or(lower.relay_node_sessions_max),
            relay_node_bytes_per_second: self
                .relay_node_bytes_per_second
                .or(lower.relay_node_bytes_per_second),
        }
    }

    /// Fills in the defaults.
    ///
    /// # Errors
    /// Something that has no default is missing, or two settings contradict each other.
    pub(crate) fn resolve(self) -> Result<SuperConfig, Failure> {
        let listen = self.listen.ok_or_else(|| {
            missing(
                "--listen IP:PORT",
                "ORB_LISTEN",
                "0.0.0.0:4433 serves every interface at port 4433",
            )
        })?;
        let data = self.data.ok_or_else(|| {
            missing(
                "--data DIR",
                "ORB_DATA",
                "it holds the super node's key and all that it stores",
            )
        })?;
        Ok(SuperConfig {
            listen,
            data,
            owners: admission("owner", self.owners, self.owner_list, self.owner_invites)?,
            hosts: admission("host", self.hosts, self.host_list, self.host_invites)?,
            // Room for every function that one person is likely to write.
            owner_functions_max: self.owner_functions_max.unwrap_or(1_000),
            owner_bytes_max: self.owner_bytes_max.map_or(1 << 30, |size| size.0),
            // What admission takes at most.
            artifact_bytes_max: self.artifact_bytes_max.map_or(32 << 20, |size| size.0),
            // A large office behind one NAT.
            address_connections_max: self.address_connections_max.unwrap_or(1_024),
            relay_sessions_max: self.relay_sessions_max.unwrap_or(65_536),
            relay_node_sessions_max: self.relay_node_sessions_max.unwrap_or(4_096),
            relay_node_bytes_per_second: self.relay_node_bytes_per_second.map_or(1 << 30, |size| size.0),
        })
    }
}

fn admission<Id>(
    who: &str,
    policy: Option<Policy>,
    list: Vec<Id>,
    invites: Vec<String>,
) -> Result<Admission<Id>, Failure> {
    let contradiction = |text: String| Err(Failure::config(text));
    match policy {
        None | Some(Policy::Open) if !list.is_empty() || !invites.is_empty() => contradiction(format!(
            "there is a list of {who}s or of their invitations, but the policy for {who}s is \"open\": say --{who}s list or --{who}s invite"
        )),
        None | Some(Policy::Open) => Ok(Admission::Open),
        Some(Policy::List) if !invites.is_empty() => contradiction(format!(
            "there are invitations for {who}s, but the policy for {who}s is \"list\": say --{who}s invite"
        )),
        Some(Policy::List) => Ok(Admission::List(list)),
        Some(Policy::Invite) => Ok(Admission::Invite { list, invites }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::key::OwnerKey;

    use super::*;
    use crate::config::parse;

    fn file(text: &str) -> SuperLayer {
        parse("super.toml", text).unwrap()
    }

    #[test]
    fn a_higher_layer_wins_and_defaults_come_last() {
        let higher = SuperLayer {
            listen: Some("127.0.0.1:1".parse().unwrap()),
            ..SuperLayer::default()
        };
        let lower = file("listen = \"127.0.0.1:2\"\ndata = \"d\"\nowner_bytes_max = \"5MiB\"");
        let config = higher.over(lower).resolve().unwrap();
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.data, PathBuf::from("d"));
        assert_eq!(config.owner_bytes_max, 5 << 20);
        assert_eq!(config.owner_functions_max, 1_000);
        assert_eq!(config.owners, Admission::Open);
    }

    #[test]
    fn policies() {
        let id = OwnerKey::from_seed([1; 32]).id();
        let base = "listen = \"127.0.0.1:2\"\ndata = \"d\"\n";
        let list = format!("{base}owners = \"list\"\nowner_list = [\"{id}\"]");
        assert_eq!(file(&list).resolve().unwrap().owners, Admission::List(vec![id]));
        let invite = format!("{base}hosts = \"invite\"\nhost_invites = [\"please\"]");
        let hosts = file(&invite).resolve().unwrap().hosts;
        assert!(matches!(hosts, Admission::Invite { invites, .. } if invites == ["please"]));
        let contradiction = format!("{base}owner_list = [\"{id}\"]");
        assert!(
            file(&contradiction)
                .resolve()
                .unwrap_err()
                .message
                .contains("--owners list")
        );
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        assert!(
            SuperLayer::default()
                .resolve()
                .unwrap_err()
                .message
                .contains("--listen")
        );
        let error = parse::<SuperLayer>("super.toml", "\nlisten = \"nowhere\"").unwrap_err();
        assert!(error.to_string().starts_with("super.toml:2: "));
        let error = parse::<SuperLayer>("super.toml", "quota = 1").unwrap_err();
        assert!(error.to_string().contains("unknown key `quota`"));
        let error = parse::<SuperLayer>("super.toml", "owner_list = [\"x\"]").unwrap_err();
        assert!(error.to_string().contains("52 characters"));
    }
}
