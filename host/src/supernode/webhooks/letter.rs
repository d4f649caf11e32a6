//! What is sent: an event as JSON, and the headers that say from whom it is.

use data_encoding::BASE64;
use orb_protocol::id::NodeId;
use orb_protocol::wire::events::Event;
use ring::hmac;
use serde::Serialize;

use crate::config::WebhookSecret;
use crate::event_document::EventDocument;
use crate::format;

/// An event on its way.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The event's id: the same in each try.
    pub(crate) id: String,
    /// JSON.
    pub(crate) body: String,
}

/// The body, as Standard Webhooks proposes it.
#[derive(Serialize)]
struct Body {
    r#type: &'static str,
    timestamp: String,
    data: EventDocument,
}

impl Letter {
    /// An event of this node's log.
    pub(crate) fn of(node: &NodeId, event: &Event) -> Self {
        let body = Body {
            r#type: event.kind.label(),
            timestamp: format::rfc3339(event.time_ms),
            data: EventDocument::of(node, event),
        };
        Self {
            id: event.id(node),
            body: serde_json::to_string(&body).expect("texts and numbers have a JSON form"),
        }
    }

    /// The headers of a try at this time, in seconds since the Unix epoch.
    pub(crate) fn headers(&self, secret: &WebhookSecret, now_s: u64) -> [(&'static str, String); 3] {
        let signature = sign(secret, &self.id, now_s, &self.body);
        [
            ("webhook-id", self.id.clone()),
            ("webhook-timestamp", now_s.to_string()),
            ("webhook-signature", signature),
        ]
    }
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
fn sign(secret: &WebhookSecret, id: &str, time_s: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
    let tag = hmac::sign(&key, format!("{id}.{time_s}.{body}").as_bytes());
    format!("v1,{}", BASE64.encode(tag.as_ref()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test panics on surprise")]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_that_others_make() {
        // The example of the specification's libraries.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let (id, time_s) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        assert_eq!(
            sign(&secret, id, time_s, "{\"test\": 2432232314}"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }
}
