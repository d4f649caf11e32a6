//! What the operator of a super node may set.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};
use orb_protocol::id::{NodeId, OwnerId};
use orb_protocol::quic::SuperAddr;
use serde::Deserialize;

use super::ByteSize;
use super::admission::{Admission, Policy, admission, overrule};
use super::texts::{either, listen_addr, listen_addr_in_file, missing, parsed};
use super::webhook::{Webhook, WebhookPace, checked};
use super::{BootstrapNode, DiscoveryArgs, DiscoveryMethod, MainlineConfig};
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
    /// Other super nodes to link with.
    pub(crate) peers: Vec<SuperAddr>,
    /// Link with every other super node that asks, or that one hears of.
    pub(crate) open_peers: bool,
    /// Where others reach this node, if not at the address that it serves at: `host:port`.
    pub(crate) public: Option<String>,
    /// The DHT in which functions are announced and found, if there is to be one.
    pub(crate) mainline: Option<MainlineConfig>,
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
    /// Who is told what happens.
    pub(crate) webhooks: Vec<Webhook>,
    /// How they are told. Nobody but tests sets anything but the default.
    pub(crate) webhook_pace: WebhookPace,
}

/// A super node's settings as flags, variables or a file give them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SuperLayer {
    /// UDP address to serve at; port 0 picks one and keeps it across restarts
    #[arg(long, value_name = "IP:PORT", env = "ORB_LISTEN", value_parser = listen_addr)]
    #[serde(deserialize_with = "listen_addr_in_file")]
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
    /// Another super node to link with: NODEID@HOST:PORT (repeatable, or comma-separated)
    #[arg(
        long = "peer",
        value_name = "ADDRESS",
        env = "ORB_PEERS",
        value_delimiter = ',',
        help_heading = "Federation"
    )]
    #[serde(rename = "peers", deserialize_with = "parsed")]
    pub(crate) peers: Vec<SuperAddr>,
    /// Link with every super node that asks, not only with those named by --peer
    #[arg(
        long,
        env = "ORB_OPEN_PEERS",
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "BOOL",
        help_heading = "Federation"
    )]
    pub(crate) open_peers: Option<bool>,
    /// Where others reach this super node, if not at --listen
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "ORB_PUBLIC",
        help_heading = "Federation"
    )]
    pub(crate) public: Option<String>,
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
    /// Who is told what happens: in the file only, where secrets stay out of process lists.
    #[arg(skip)]
    #[serde(rename = "webhook")]
    pub(crate) webhooks: Vec<Webhook>,
    /// Where functions are announced. As a flag it is one that every command has.
    #[arg(skip)]
    pub(crate) discovery: Option<DiscoveryMethod>,
    /// Where to begin there. The same.
    #[arg(skip)]
    #[serde(deserialize_with = "parsed")]
    pub(crate) dht_bootstrap: Vec<BootstrapNode>,
    /// What flags and variables say about it.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) discovery_flags: DiscoveryArgs,
}

/// The settings that flags and variables give: what a flag says holds against all variables, as far as
/// they contradict it.
#[derive(Debug)]
pub(crate) struct SuperFlags(pub(crate) SuperLayer);

impl Args for SuperFlags {
    fn group_id() -> Option<clap::Id> {
        SuperLayer::group_id()
    }

    fn augment_args(command: clap::Command) -> clap::Command {
        SuperLayer::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        SuperLayer::augment_args_for_update(command)
    }
}

impl FromArgMatches for SuperFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = SuperLayer::from_arg_matches(matches)?;
        let is_variable = |id: &str| matches.value_source(id) == Some(ValueSource::EnvVariable);
        let variables = flags.split_off_admission(is_variable);
        Ok(Self(flags.over(variables)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl SuperConfig {
    /// Which super nodes it links with.
    pub(crate) fn peers(&self) -> Admission<NodeId> {
        if self.open_peers {
            return Admission::Open;
        }
        Admission::List(self.peers.iter().map(SuperAddr::id).collect())
    }
}

impl SuperLayer {
    /// These settings, and the lower layer's where this one says nothing.
    #[must_use]
    pub(crate) fn over(self, mut lower: Self) -> Self {
        overrule(self.owners, &mut lower.owner_list, &mut lower.owner_invites);
        overrule(self.hosts, &mut lower.host_list, &mut lower.host_invites);
        Self {
            listen: self.listen.or(lower.listen),
            data: self.data.or(lower.data),
            owners: self.owners.or(lower.owners),
            owner_list: either(self.owner_list, lower.owner_list),
            owner_invites: either(self.owner_invites, lower.owner_invites),
            hosts: self.hosts.or(lower.hosts),
            host_list: either(self.host_list, lower.host_list),
            host_invites: either(self.host_invites, lower.host_invites),
            peers: either(self.peers, lower.peers),
            open_peers: self.open_peers.or(lower.open_peers),
            public: self.public.or(lower.public),
            owner_functions_max: self.owner_functions_max.or(lower.owner_functions_max),
            owner_bytes_max: self.owner_bytes_max.or(lower.owner_bytes_max),
            artifact_bytes_max: self.artifact_bytes_max.or(lower.artifact_bytes_max),
            address_connections_max: self.address_connections_max.or(lower.address_connections_max),
            relay_sessions_max: self.relay_sessions_max.or(lower.relay_sessions_max),
            relay_node_sessions_max: self.relay_node_sessions_max.or(lower.relay_node_sessions_max),
            relay_node_bytes_per_second: self
                .relay_node_bytes_per_second
                .or(lower.relay_node_bytes_per_second),
            webhooks: either(self.webhooks, lower.webhooks),
            discovery: self.discovery.or(lower.discovery),
            dht_bootstrap: either(self.dht_bootstrap, lower.dht_bootstrap),
            discovery_flags: self.discovery_flags,
        }
    }

    /// Takes out what says who is let in, as far as it is one of these.
    fn split_off_admission(&mut self, is_one: impl Fn(&str) -> bool) -> Self {
        fn take_if<T: Default>(wanted: bool, setting: &mut T) -> T {
            if wanted {
                std::mem::take(setting)
            } else {
                T::default()
            }
        }
        Self {
            owners: take_if(is_one("owners"), &mut self.owners),
            owner_list: take_if(is_one("owner_list"), &mut self.owner_list),
            owner_invites: take_if(is_one("owner_invites"), &mut self.owner_invites),
            hosts: take_if(is_one("hosts"), &mut self.hosts),
            host_list: take_if(is_one("host_list"), &mut self.host_list),
            host_invites: take_if(is_one("host_invites"), &mut self.host_invites),
            ..Self::default()
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
            peers: self.peers,
            open_peers: self.open_peers.unwrap_or(false),
            public: self.public,
            mainline: self.discovery_flags.over(self.discovery, &self.dht_bootstrap)?,
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
            webhooks: checked(self.webhooks)?,
            webhook_pace: WebhookPace::default(),
        })
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
        assert_eq!(config.mainline, None, "off unless somebody turns it on");
    }

    #[test]
    fn discovery_is_a_setting_of_the_file() {
        let base = "listen = \"127.0.0.1:2\"\ndata = \"d\"\n";
        let on = format!("{base}discovery = \"mainline\"\ndht_bootstrap = [\"127.0.0.1:9\"]");
        let mainline = file(&on).resolve().unwrap().mainline.unwrap();
        assert_eq!(mainline.bootstrap[0].port, 9);
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
    fn a_policy_overrules_the_lists_of_lower_layers_that_it_has_no_use_for() {
        let id = OwnerKey::from_seed([1; 32]).id();
        let lower = || {
            file(&format!(
                "listen = \"127.0.0.1:2\"\ndata = \"d\"\nowners = \"invite\"\n\
                 owner_list = [\"{id}\"]\nowner_invites = [\"please\"]"
            ))
        };
        let owners = |policy| {
            let higher = SuperLayer {
                owners: policy,
                ..SuperLayer::default()
            };
            higher.over(lower()).resolve().unwrap().owners
        };
        assert_eq!(owners(Some(Policy::Open)), Admission::Open);
        assert_eq!(owners(Some(Policy::List)), Admission::List(vec![id]));
        let all = Admission::Invite {
            list: vec![id],
            invites: vec!["please".to_owned()],
        };
        assert_eq!(owners(Some(Policy::Invite)), all);
        assert_eq!(owners(None), all);

        // In one layer it stays a contradiction, and so is a list over the policy of a lower one.
        let mut one = lower();
        one.owners = Some(Policy::Open);
        assert!(one.clone().resolve().is_err());
        let higher = SuperLayer {
            owner_list: vec![id],
            ..SuperLayer::default()
        };
        one.owner_list.clear();
        one.owner_invites.clear();
        assert!(higher.over(one).resolve().is_err());
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
        let error = parse::<SuperLayer>("super.toml", "\nlisten = \"localhost:4433\"").unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with("super.toml:2: ") && error.contains("0.0.0.0:4433"),
            "{error}"
        );
        let error = parse::<SuperLayer>("super.toml", "quota = 1").unwrap_err();
        assert!(error.to_string().contains("unknown key `quota`"));
        let error = parse::<SuperLayer>("super.toml", "owner_list = [\"x\"]").unwrap_err();
        assert!(error.to_string().contains("52 characters"));
    }
}
