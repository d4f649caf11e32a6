//! What a command works with: where to print, whose keys, which super nodes.

use std::sync::OnceLock;
use std::time::Duration;

use clap::Args;
use orb_protocol::client::{Client, SuperAddr};

use super::Globals;
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
        let settings = self.home.settings()?;
        let mut supers = self.globals.supers()?;
        if supers.is_empty() {
            supers = settings.supers;
        }
        if !supers.is_empty() {
            return Ok(supers);
        }
        let file = self.home.folder().join("config.toml");
        Err(Failure::usage("no super node is named").help(format!(
            "name one with --super NODEID@HOST:PORT, in ORB_SUPER, or as `super = [\"…\"]` in {}",
            file.display()
        )))
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
