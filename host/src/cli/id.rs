//! `orb id`: who this person and this machine are, and names for others.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use orb_protocol::id::OwnerId;
use orb_protocol::name::Name;
use serde::Serialize;

use super::context::Context;
use crate::failure::Failure;
use crate::output::Tone;

/// Show this machine's node id and this person's owner id (made on first use), or name other owners
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Whoever has the owner key (owner.key in ORB_HOME) can change the functions: keep a copy of it.

Example:
  orb id
  orb id alias alice KEY      then: orb call alice/hello '{}'"
)]
pub(crate) struct IdCommand {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Give an owner's key a name
    Alias {
        /// The name: a-z, 0-9, '-', '_', '.'
        name: Name,
        /// The owner's key, as `orb id` prints it
        key: OwnerId,
    },
}

#[derive(Serialize)]
struct Ids {
    owner: String,
    node: String,
    home: String,
    aliases: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Aliased {
    alias: String,
    key: String,
    replaced: Option<String>,
}

impl IdCommand {
    pub(crate) fn execute(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            None => show(context),
            Some(Action::Alias { name, key }) => alias(context, &name, key),
        }
    }
}

fn show(context: &Context) -> Result<(), Failure> {
    let (home, out) = (&context.home, &context.out);
    let aliases = home.aliases()?;
    let ids = Ids {
        owner: home.owner_key()?.id().to_string(),
        node: home.node_key()?.id().to_string(),
        home: home.folder().display().to_string(),
        aliases: aliases
            .iter()
            .map(|(name, key)| (name.to_string(), key.to_string()))
            .collect(),
    };
    let mut lines = vec![
        format!("owner  {}", out.paint(Tone::Strong, &ids.owner)),
        format!("node   {}", ids.node),
        format!("home   {}", ids.home),
    ];
    lines.extend(
        ids.aliases
            .iter()
            .map(|(name, key)| format!("alias  {key}  {name}")),
    );
    out.result(&ids, &format!("owner {}", ids.owner), &lines.join("\n"))
}

fn alias(context: &Context, name: &Name, key: OwnerId) -> Result<(), Failure> {
    let replaced = context
        .home
        .aliases()?
        .set(name.clone(), key)?
        .filter(|before| *before != key);
    let mut text = format!("{name} is now {key}");
    if let Some(before) = replaced {
        text.push_str(&format!(" (it was {before})"));
    }
    let document = Aliased {
        alias: name.to_string(),
        key: key.to_string(),
        replaced: replaced.map(|key| key.to_string()),
    };
    context.out.result(&document, &text, &text)
}
