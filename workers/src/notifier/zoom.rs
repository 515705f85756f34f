//! `zoom`: the incoming webhook of a Zoom Team Chat channel.
//!
//! Contract: Zoom's "Using Zoom's Incoming Webhook Chatbot" and "Customize chatbot messages". The
//! full format of a message needs `format=full` in the URL. A text has up to 4,000 characters. The
//! token is the webhook's verification token, sent without a scheme. A retry after a lost
//! response can post twice.

use async_trait::async_trait;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{Form, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::Required;
use crate::notifier::contract::need::Need;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "zoom",
    family: Family::Message,
    summary: "Zoom Team Chat, by webhook",
    needs: &[
        Need::webhook("https://integrations.zoom.us/chat/webhooks/incomingwebhook/your-id"),
        Need::key("token", Required, "the verification token", "your-token"),
    ],
    cut_at: "4,000 each text",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::Status,
    mentions: Mentions::of(
        "https://developers.zoom.us/docs/team-chat/customizing-messages/",
        &[Form {
            example: "<!all|all>",
            pattern: r"(<)![^<>|\s]+\|[^<>]*",
            after_word: true,
        }],
    ),
    size_limits: SizeLimits {
        source: "https://developers.zoom.us/docs/team-chat/customizing-messages/",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::utf16("/content/head/text", LONGEST_TEXT),
            SizeLimit::utf16("/content/head/sub_head/text", LONGEST_TEXT),
            SizeLimit::utf16("/content/body/0/text", LONGEST_TEXT),
            SizeLimit::items("/content/body/1/items", 50),
            SizeLimit::utf16("/content/body/1/items/*/key", LONGEST_TEXT),
            SizeLimit::utf16("/content/body/1/items/*/value", LONGEST_TEXT),
        ],
    },
    ..ProviderType::DEFAULT
};

/// In UTF-16 code units, which are never fewer than the characters.
const LONGEST_TEXT: usize = 4_000;

struct Zoom {
    http: Http,
    url: Url,
    token: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = with_format(http_url(provider)?);
    let token = provider
        .secret
        .token()
        .ok_or("no verification token: set the key token in the Secret of spec.secretRef")?;
    Ok(Notifier::Message(Box::new(Zoom {
        http,
        url,
        token: token.to_owned(),
    })))
}

/// Adds `format=full`, unless the URL sets a format.
fn with_format(mut url: Url) -> Url {
    if url
        .query_pairs()
        .all(|(key, value)| key != "format" || value.is_empty())
    {
        url.query_pairs_mut().append_pair("format", "full");
    }
    url
}

#[async_trait]
impl SendMessage for Zoom {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let request = Request::post_json(self.url.clone(), &body(message))
            .secret_header(AUTHORIZATION, &self.token);
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn body(message: &Message<'_>) -> Value {
    let mut parts = vec![json!({ "type": "message", "text": message.text() })];
    let field = |(key, value)| json!({ "key": key, "value": value });
    let fields: Vec<Value> = message.shown_fields().map(field).collect();
    if !fields.is_empty() {
        parts.push(json!({ "type": "fields", "items": fields }));
    }
    parts.extend(
        message
            .links()
            .iter()
            .map(|link| json!({ "type": "message", "text": link.label, "link": link.url })),
    );
    let head = json!({ "text": message.title(), "sub_head": { "text": message.event.severity } });
    TYPE.size_limits
        .applied_to(json!({ "content": { "head": head, "body": parts } }))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample};
    use super::*;

    #[tokio::test]
    async fn a_webhook_gets_the_whole_form() {
        let provider = sample::provider("zoom", |provider| {
            provider.secret = sample::secret(&[("token", "zm\n")])
        });
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::error()).await
        ));
    }

    #[test]
    fn the_format_of_the_address_stays() {
        for (address, expected) in [
            ("https://h/w", "https://h/w?format=full"),
            ("https://h/w?b=2&a=1", "https://h/w?b=2&a=1&format=full"),
            ("https://h/w?format=message", "https://h/w?format=message"),
            (
                "https://h/w?a=%20&format=full",
                "https://h/w?a=%20&format=full",
            ),
        ] {
            assert_eq!(with_format(address.parse().unwrap()).as_str(), expected);
        }
    }

    #[test]
    fn a_long_message_is_cut_and_missing_metadata_adds_no_part() {
        let mut sample = Sample::info().with_message("m".repeat(45_000));
        sample.metadata.clear();
        let parts = body(&sample.message())["content"]["body"].clone();
        assert_eq!(
            parts,
            json!([{ "type": "message", "text": format!("{}…", "m".repeat(3_999)) }])
        );
    }

    #[test]
    fn a_token_is_required() {
        assert!(sample::build_error(&TYPE, &sample::provider("zoom", |_| ())).contains("token"));
    }
}
