//! Who is told what happens without asking: `[[webhook]]` in a super node's file.

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use data_encoding::BASE64;
use orb_protocol::id::{FunctionId, OwnerId};
use orb_protocol::name::Name;
use serde::{Deserialize, Deserializer};

use super::http_url::{HttpHost, HttpUrl};
use crate::failure::Failure;
use crate::public_ip::is_public;

/// Webhooks of one super node: each is a task and, now and then, a connection.
const WEBHOOKS_MAX: usize = 64;
/// Bytes of a secret, from and to (Standard Webhooks).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// One `[[webhook]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    /// Where to.
    #[serde(deserialize_with = "from_text")]
    pub(crate) url: HttpUrl,
    /// What deliveries are signed with.
    #[serde(deserialize_with = "from_text")]
    pub(crate) secret: WebhookSecret,
    /// Only about this owner's functions.
    #[serde(default, deserialize_with = "maybe_from_text")]
    pub(crate) owner: Option<OwnerId>,
    /// Only about this function of the owner.
    #[serde(default, deserialize_with = "maybe_from_text")]
    pub(crate) function: Option<Name>,
    /// Whether the target may be on this machine or in a private network.
    #[serde(default)]
    pub(crate) allow_private: bool,
}

/// A key that both ends know: `whsec_` and base64.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebhookSecret(Vec<u8>);

/// Why a text is no secret. The text itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is whsec_ and the base64 of {} to {} random bytes", SECRET_BYTES.start(), SECRET_BYTES.end())]
pub(crate) struct WebhookSecretError;

/// How often and how long a delivery is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WebhookPace {
    /// Tries before an event is given up, so that those after it have their turn.
    pub(crate) attempts_max: u32,
    /// Before the second try; twice as long before each further one.
    pub(crate) pause_min: Duration,
    /// The longest pause.
    pub(crate) pause_max: Duration,
    /// For one try, from the look-up of the name to the answer.
    pub(crate) timeout: Duration,
}

impl Default for WebhookPace {
    /// Twelve tries over 23 to 47 minutes: a target may be restarted, moved and mended meanwhile. Ten
    /// seconds for one: whoever needs longer answers first, and works then.
    fn default() -> Self {
        Self {
            attempts_max: 12,
            pause_min: Duration::from_secs(2),
            pause_max: Duration::from_secs(15 * 60),
            timeout: Duration::from_secs(10),
        }
    }
}

impl WebhookSecret {
    /// The key.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for WebhookSecret {
    type Err = WebhookSecretError;

    fn from_str(text: &str) -> Result<Self, WebhookSecretError> {
        let encoded = text.strip_prefix("whsec_").ok_or(WebhookSecretError)?;
        let bytes = BASE64
            .decode(encoded.as_bytes())
            .map_err(|_| WebhookSecretError)?;
        let fits = SECRET_BYTES.contains(&bytes.len());
        fits.then_some(Self(bytes)).ok_or(WebhookSecretError)
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

impl Webhook {
    /// The function that it is about, if it is about one.
    pub(crate) fn function_id(&self) -> Option<FunctionId> {
        let (owner, name) = (self.owner.as_ref()?, self.function.as_ref()?);
        Some(FunctionId::derive(owner, name))
    }

    /// Which webhook it is, whatever its secret is.
    pub(crate) fn target(&self) -> [u8; 32] {
        let owner = self.owner.map(|owner| owner.to_string());
        let function = self.function.as_ref().map(Name::as_str);
        let (owner, function) = (owner.unwrap_or_default(), function.unwrap_or_default());
        let text = format!("{}\n{owner}\n{function}", self.url);
        blake3::derive_key("orb 2026-11 webhook", text.as_bytes())
    }

    fn check(&self) -> Result<(), String> {
        if self.function.is_some() && self.owner.is_none() {
            return Err("`function` is a name, so that `owner` is needed too".to_owned());
        }
        match self.url.host {
            HttpHost::Ip(ip) if !self.allow_private && !is_public(ip) => Err(format!(
                "{ip} is on this machine or in a private network: say `allow_private = true` if that is meant"
            )),
            _ => Ok(()),
        }
    }
}

/// Whether these webhooks can be.
///
/// # Errors
/// One that contradicts itself, is there twice, or is one too many.
pub(super) fn checked(webhooks: Vec<Webhook>) -> Result<Vec<Webhook>, Failure> {
    let wrong = |webhook: &Webhook, what: &str| Failure::config(format!("webhook {}: {what}", webhook.url));
    if webhooks.len() > WEBHOOKS_MAX {
        let message = format!("there are more than {WEBHOOKS_MAX} webhooks");
        return Err(Failure::config(message));
    }
    let mut known = BTreeSet::new();
    for webhook in &webhooks {
        webhook.check().map_err(|what| wrong(webhook, &what))?;
        if !known.insert(webhook.target()) {
            return Err(wrong(webhook, "it is there twice"));
        }
    }
    Ok(webhooks)
}

fn from_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn maybe_from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    from_text(deserializer).map(Some)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use orb_protocol::key::OwnerKey;

    use super::*;
    use crate::config::{SuperLayer, parse};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read(webhooks: &str) -> Result<Vec<Webhook>, String> {
        let text = format!("listen = \"127.0.0.1:1\"\ndata = \"d\"\n{webhooks}");
        let layer = parse::<SuperLayer>("super.toml", &text).map_err(|error| error.to_string())?;
        let resolved = layer.resolve().map_err(|failure| failure.message)?;
        Ok(resolved.webhooks)
    }

    fn webhook(url: &str, more: &str) -> String {
        format!("[[webhook]]\nurl = \"{url}\"\nsecret = \"{SECRET}\"\n{more}\n")
    }

    #[test]
    fn webhooks_are_read_from_the_file() {
        let owner = OwnerKey::from_seed([1; 32]).id();
        let about = format!("owner = \"{owner}\"\nfunction = \"hello\"");
        let text = [
            webhook("https://example.org/a", &about),
            webhook("http://127.0.0.1:9/", "allow_private = true"),
        ];
        let read = read(&text.concat()).unwrap();
        let function = FunctionId::derive(&owner, &"hello".parse().unwrap());
        assert_eq!(
            (read[0].owner, read[0].function_id()),
            (Some(owner), Some(function))
        );
        assert!(!read[0].allow_private && read[1].allow_private);
        assert_eq!(read[0].secret.bytes().len(), 24);
        assert_ne!(read[0].target(), read[1].target());
        let shown = format!("{read:?}");
        assert!(!shown.contains("MfKQ") && !shown.contains("49, 242"), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many: String = (0..=WEBHOOKS_MAX)
            .map(|number| webhook(&format!("http://example.org/{number}"), ""))
            .collect();
        let twice = webhook("http://example.org/", "").repeat(2);
        let short = "[[webhook]]\nurl = \"http://example.org\"\nsecret = \"whsec_c2hvcnQ=\"";
        for (text, says) in [
            (
                webhook("http://example.org", "function = \"f\""),
                "`owner` is needed",
            ),
            (webhook("http://127.0.0.1:9/", ""), "allow_private = true"),
            (webhook("http://[::ffff:10.0.0.1]/", ""), "allow_private = true"),
            (
                webhook("http://example.org", "retries = 1"),
                "unknown key `retries`",
            ),
            (webhook("example.org", ""), "super.toml:4: "),
            (short.to_owned(), "24 to 64 random bytes"),
            (
                "[[webhook]]\nurl = \"http://a\"".to_owned(),
                "missing key `secret`",
            ),
            (twice, "it is there twice"),
            (many, "more than 64"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
