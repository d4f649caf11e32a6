//! Dead letters: shown to the operator, and sent once more when the operator says so.

use std::sync::Arc;

use orb_protocol::id::NodeId;
use orb_protocol::wire::events::{Event, EventId};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;

use super::letter;
use super::worker::post_once;
use super::{Poster, SuperNode};
use crate::config::{Webhook, WebhookPace};
use crate::event_document::EventDocument;
use crate::operator::{DeadLetters, Letter, Told};
use crate::store::database::StoreError;
use crate::store::webhooks::DeadLetter;

/// The dead letters of all webhooks.
#[derive(Debug)]
pub(crate) struct DeadLetterOffice {
    node: Arc<SuperNode>,
    webhooks: Vec<Webhook>,
    pace: WebhookPace,
    poster: Poster,
    /// Whoever has them sent again holds it.
    resending: tokio::sync::Mutex<()>,
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the operator is gone")]
    Gone(#[from] SendError<Told>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{message}")]
    Refused { message: String, help: String },
}

impl DeadLetterOffice {
    pub(super) fn new(
        node: Arc<SuperNode>,
        webhooks: Vec<Webhook>,
        pace: WebhookPace,
        poster: Poster,
    ) -> Self {
        Self {
            node,
            webhooks,
            pace,
            poster,
            resending: tokio::sync::Mutex::default(),
        }
    }

    /// Does what is asked, and tells of it. Ends early when nobody listens any more.
    pub(crate) async fn answer(&self, asked: &DeadLetters, tell: &Sender<Told>) {
        let last = match self.carry_out(asked, tell).await {
            Ok(()) => Told::Done,
            Err(Ended::Gone(_)) => return,
            Err(Ended::Refused { message, help }) => Told::Refused { message, help },
            Err(Ended::Store(error)) => Told::Refused {
                message: format!("the dead letters cannot be read or written: {error}"),
                help: "see the super node's log".to_owned(),
            },
        };
        let _ = tell.send(last).await;
    }

    async fn carry_out(&self, asked: &DeadLetters, tell: &Sender<Told>) -> Result<(), Ended> {
        let webhooks = self.named(asked.webhook.as_deref())?;
        let wanted = self.wanted(&asked.events)?;
        let _resending = match asked.resend {
            true => Some(self.resending.try_lock().map_err(|_| resent_already())?),
            false => None,
        };
        let mut missing = wanted.clone();
        let mut found = Vec::new();
        for webhook in webhooks {
            let mut letters = self.node.storage.dead_letters(webhook.target()).await?;
            letters.retain(|letter| wanted.is_empty() || wanted.contains(&letter.event.cursor));
            missing.retain(|cursor| letters.iter().all(|letter| letter.event.cursor != *cursor));
            found.push((webhook, letters));
        }
        if let Some(cursor) = missing.first() {
            return Err(no_letter(&self.node_id(), *cursor));
        }
        for (webhook, letters) in found {
            match asked.resend {
                true => self.resend(webhook, letters, tell).await?,
                false => {
                    for letter in &letters {
                        tell.send(Told::Letter(self.shown(webhook, letter))).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends letters once more, oldest first, each once. After the first failure the rest stay, so that a target that
    /// is still broken is not knocked at a thousand times.
    async fn resend(
        &self,
        webhook: &Webhook,
        letters: Vec<DeadLetter>,
        tell: &Sender<Told>,
    ) -> Result<(), Ended> {
        let (storage, target) = (&self.node.storage, webhook.target());
        for mut letter in letters {
            let sent = letter::Letter::of(&self.node_id(), &letter.event);
            match post_once(&self.poster, webhook, &self.pace, &sent).await {
                Ok(()) => {
                    storage.unbury_letter(target, letter.event.cursor).await?;
                    tracing::info!(
                        url = webhook.url.authority(),
                        id = sent.id,
                        "a dead letter was delivered"
                    );
                    tell.send(Told::Delivered(self.shown(webhook, &letter))).await?;
                }
                Err(error) => {
                    letter.reason = error.to_string();
                    letter.attempts = letter.attempts.saturating_add(1);
                    storage.mark_letter(target, letter.clone()).await?;
                    tell.send(Told::Failed(self.shown(webhook, &letter))).await?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The webhooks with this address, or at this host; all if none is named.
    fn named(&self, name: Option<&str>) -> Result<Vec<&Webhook>, Ended> {
        let is_named = |webhook: &&Webhook| {
            name.is_none_or(|name| name == webhook.url.to_string() || name == webhook.url.authority())
        };
        let named: Vec<&Webhook> = self.webhooks.iter().filter(is_named).collect();
        match (name, named.is_empty()) {
            (Some(name), true) => Err(self.no_webhook(name)),
            _ => Ok(named),
        }
    }

    fn no_webhook(&self, name: &str) -> Ended {
        let known: Vec<String> = self
            .webhooks
            .iter()
            .map(|webhook| webhook.url.to_string())
            .collect();
        let help = match known.is_empty() {
            true => "its configuration has no [[webhook]]".to_owned(),
            false => format!("it has: {}", known.join(", ")),
        };
        Ended::Refused {
            message: format!("the super node has no webhook {name}"),
            help,
        }
    }

    /// Cursors of events that are named by id or cursor.
    fn wanted(&self, events: &[String]) -> Result<Vec<u64>, Ended> {
        let cursor = |text: &String| {
            let id = text
                .parse::<EventId>()
                .ok()
                .filter(|id| id.is_of(&self.node_id()));
            text.parse().ok().or(id.map(|id| id.cursor()))
        };
        let read = |text: &String| cursor(text).ok_or_else(|| no_event(&self.node_id(), text));
        events.iter().map(read).collect()
    }

    fn shown(&self, webhook: &Webhook, letter: &DeadLetter) -> Letter {
        let DeadLetter {
            event,
            reason,
            attempts,
        } = letter;
        Letter {
            webhook: webhook.url.to_string(),
            id: event.id(&self.node_id()),
            attempts: *attempts,
            reason: reason.clone(),
            event: document(&self.node_id(), event),
        }
    }

    fn node_id(&self) -> NodeId {
        self.node.endpoint.node_id()
    }
}

fn document(node: &NodeId, event: &Event) -> serde_json::Value {
    serde_json::to_value(EventDocument::of(node, event)).expect("texts and numbers have a JSON form")
}

fn no_event(node: &NodeId, text: &str) -> Ended {
    Ended::Refused {
        message: format!("{text} is no event of this super node"),
        help: format!("name it by its id ({}-1042) or its number (1042)", node.short()),
    }
}

fn no_letter(node: &NodeId, cursor: u64) -> Ended {
    Ended::Refused {
        message: format!(
            "event {}-{cursor} is not among the dead letters that were asked for",
            node.short()
        ),
        help:
            "it was delivered, or is older than the last 1,000; without --resend and an event all are shown"
                .to_owned(),
    }
}

fn resent_already() -> Ended {
    Ended::Refused {
        message: "dead letters are being sent again just now".to_owned(),
        help: "wait until that has ended".to_owned(),
    }
}
