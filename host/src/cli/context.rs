//! What a command works with: where to print, whose keys, which super nodes.

use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;
use orb_protocol::client::{Client, SuperAddr};

use super::Globals;
use super::function::Target;
use crate::config::MainlineConfig;
use crate::discovery::find::Wanted;
use crate::discovery::{Dht, FindError, Finder};
use crate::failure::Failure;
use crate::home::Home;
use crate::local_sandbox::LocalSandbox;
use crate::output::Output;

/// How long a command may take to say goodbye: one packet to each peer, which goes out at once.
const GOODBYE_MAX: Duration = Duration::from_millis(20);

/// What a publisher shows to a super node that lets in only whom it has invited.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct InviteArgs {
    /// The invitation to show, where the super node asks publishers for one
    #[arg(long, value_name = "TEXT", env = "ORB_INVITE", hide_env_values = true)]
    invite: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where results go.
    pub(crate) out: Output,
    /// Whose keys.
    pub(crate) home: Home,
    /// What builds and runs here.
    pub(crate) sandbox: LocalSandbox,
    /// What flags and the environment say.
    globals: Globals,
    /// The connection to the network, once there is one.
    client: OnceLock<Client>,
}

impl Context {
    /// What the global options say.
    ///
    /// # Errors
    /// When nothing says where the keys are.
    pub(crate) fn new(globals: &Globals) -> Result<Self, Failure> {
        let home = Home::locate(globals.home.as_deref())?;
        let out = Output::new(globals.json);
        Ok(Self {
            out,
            sandbox: LocalSandbox::new(home.cache()).telling(out),
            home,
            globals: globals.clone(),
            client: OnceLock::new(),
        })
    }

    /// The super nodes to ask: flag or environment before `config.toml`.
    ///
    /// # Errors
    /// When none is named, or `config.toml` is wrong.
    pub(crate) fn supers(&self) -> Result<Vec<SuperAddr>, Failure> {
        let supers = self.named_supers()?;
        if !supers.is_empty() {
            return Ok(supers);
        }
        let file = self.home.folder().join("config.toml");
        let name = format!(
            "name one with --super NODEID@HOST:PORT, in ORB_SUPER, or as `super = [\"…\"]` in {}",
            file.display()
        );
        let help = match self.mainline() {
            Ok(Some(_)) => format!("{name}; the DHT is only asked for a function that is there already"),
            _ => name,
        };
        Err(Failure::usage("no super node is named").help(help))
    }

    fn named_supers(&self) -> Result<Vec<SuperAddr>, Failure> {
        let settings = self.home.settings()?;
        let supers = self.globals.supers()?;
        Ok(if supers.is_empty() {
            settings.supers
        } else {
            supers
        })
    }

    /// Whether no super node is named, and the DHT is to name one.
    pub(crate) fn is_left_to_the_dht(&self) -> bool {
        let none_named = self.named_supers().is_ok_and(|supers| supers.is_empty());
        none_named && matches!(self.mainline(), Ok(Some(_)))
    }

    /// The DHT to look in for functions, if somebody wishes it: flag or environment before `config.toml`.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub(crate) fn mainline(&self) -> Result<Option<MainlineConfig>, Failure> {
        let settings = self.home.settings()?;
        let flags = &self.globals.discovery;
        flags.over(settings.discovery, &settings.dht_bootstrap)
    }

    /// Connects to the first super node that answers.
    ///
    /// Each command is a node of its own with a new key: a node's newer connection replaces its older
    /// one, and several commands of one person run at the same time.
    ///
    /// # Errors
    /// When no super node is named or can be reached.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        self.connect_to_publish(&InviteArgs::default()).await
    }

    /// Connects to somebody who knows a function: a super node that is named, or else one that the DHT names.
    ///
    /// # Errors
    /// As [`Context::connect`], and when the DHT names nobody who can be used.
    pub(crate) async fn connect_for(&self, target: &Target) -> Result<Client, Failure> {
        let Some(config) = self.mainline()?.filter(|_| self.is_left_to_the_dht()) else {
            return self.connect().await;
        };
        let owner_key = self.home.owner_key()?;
        let find = async {
            let dht = Dht::start(&config, Ipv4Addr::UNSPECIFIED, Arc::default()).await?;
            let finder = Finder::new(&dht, Some(owner_key))?;
            let wanted = Wanted {
                function: target.id,
                named: Some((&target.owner, &target.name)),
            };
            finder.find(wanted).await
        };
        let found = find
            .await
            .map_err(|error: FindError| target.failure(error.fault(&target.shown)))?;
        tracing::debug!(address = %found.address, "found in the DHT");
        Ok(self.client.get_or_init(|| found.client).clone())
    }

    /// The same, showing an invitation to whoever asks for one.
    ///
    /// # Errors
    /// As [`Context::connect`].
    pub(crate) async fn connect_to_publish(&self, invite: &InviteArgs) -> Result<Client, Failure> {
        let invite = match &invite.invite {
            Some(invite) => Some(invite.clone()),
            None => self.home.settings()?.invite,
        };
        let builder = Client::builder()
            .super_nodes(self.supers()?)
            .owner_key(Some(self.home.owner_key()?))
            .invite(invite.unwrap_or_default());
        let client = builder.connect().await?;
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// Tells the peers that this command is done with them. They would find out by themselves, but
    /// only after many seconds, in which a super node counts the connection among those of this
    /// address, and a host that is to end waits for it.
    pub(crate) async fn say_goodbye(&self) {
        if let Some(client) = self.client.get() {
            // Whether all of them have heard it is not worth a person's time.
            let _ = tokio::time::timeout(GOODBYE_MAX, client.clone().close()).await;
        }
    }
}
