//! `orb list`: which functions there are.

use clap::Args;
use orb_protocol::client::Listing;
use serde::Serialize;

use super::context::Context;
use super::describe;
use crate::failure::Failure;
use crate::format;
use crate::home::Aliases;
use crate::output::{Output, Table};

/// List functions: one's own, or everybody's
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  orb list
  orb list --all --json")]
pub(crate) struct ListCommand {
    /// Everybody's functions
    #[arg(long, conflicts_with = "owner")]
    all: bool,
    /// This owner's functions: a key, an alias, or the beginning of a known key
    #[arg(long, value_name = "OWNER")]
    owner: Option<String>,
    /// Decommissioned functions too
    #[arg(long)]
    decommissioned: bool,
}

#[derive(Serialize)]
struct Functions {
    functions: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    revision: describe::Revision,
    ready: u16,
    /// Whether hosts of all super nodes are counted, rather than those of the one that was asked.
    ready_everywhere: bool,
    replicas: u16,
}

impl ListCommand {
    pub(crate) async fn execute(self, context: &Context) -> Result<(), Failure> {
        let owner = match (&self.owner, self.all) {
            (Some(owner), _) => Some(context.home.owner(owner)?),
            (None, true) => None,
            (None, false) => Some(context.home.owner_key()?.id()),
        };
        let aliases = context.home.aliases()?;
        let mut listings = context.connect().await?.list(owner, self.decommissioned).await?;
        listings.sort_by(|a, b| {
            let key = |listing: &Listing| {
                (
                    listing.manifest.manifest().owner,
                    listing.manifest.manifest().name.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        let document = Functions {
            functions: listings.iter().map(entry).collect(),
        };
        if listings.iter().any(|listing| !listing.knows_all) {
            context.out.note(HERE);
        }
        let summary = format::count(listings.len(), "function");
        let text = match listings.as_slice() {
            [] if self.all || self.owner.is_some() => "no functions".to_owned(),
            [] => {
                "no functions yet: make one with `orb new hello`, and publish it with `orb deploy`".to_owned()
            }
            some => table(some, self.all, &aliases, &context.out),
        };
        context.out.result(&document, &summary, &text)
    }
}

const HERE: &str = "\"here\": hosts of this super node only, which does not keep the function's directory; `orb inspect` asks one that does";

fn entry(listing: &Listing) -> Entry {
    Entry {
        revision: describe::Revision::of(&listing.manifest),
        ready: listing.ready,
        ready_everywhere: listing.knows_all,
        replicas: listing.manifest.publish().map_or(0, |publish| publish.replicas),
    }
}

fn table(listings: &[Listing], owners: bool, aliases: &Aliases, out: &Output) -> String {
    let mut table = Table::new(["FUNCTION", "REVISION", "KIND", "READY", "PUBLISHED", "MESSAGE"]);
    let now = format::now_ms();
    for listing in listings {
        let manifest = listing.manifest.manifest();
        let name = if owners {
            let owner = aliases
                .name_of(&manifest.owner)
                .map_or_else(|| manifest.owner.short(), ToString::to_string);
            format!("{owner}/{}", manifest.name)
        } else {
            manifest.name.to_string()
        };
        let (kind, ready) = match listing.manifest.publish() {
            Some(publish) => (
                describe::kind(publish.kind),
                match listing.knows_all {
                    true => format!("{} of {}", listing.ready, publish.replicas),
                    false => format!("{} here of {}", listing.ready, publish.replicas),
                },
            ),
            None => ("decommissioned", "-".to_owned()),
        };
        table.row([
            name,
            manifest.version.revision.to_string(),
            kind.to_owned(),
            ready,
            format::ago(manifest.time_ms, now),
            describe::one_line(&manifest.message),
        ]);
    }
    table.render(out)
}
