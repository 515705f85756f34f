//! `googlechat`: a webhook of a Google Chat space.
//!
//! Contract: Google Chat's "Build a Google Chat app as a webhook" and "Cards v1" (`cards`). A text
//! has up to 4,096 characters, a message up to 32,000 bytes. Key and token are in the address. A
//! retry after a lost response can post twice.

use async_trait::async_trait;
use serde_json::{Value, json};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{Form, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::message::render::Content;
use crate::message::render::Link;
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimit, SizeLimits, SizeUnit, rate,
};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::{Fitted, JSON_BYTES, fit};
use crate::text::{cut_utf16, without_half_entity};
use tidings_rules::template::Escape;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "googlechat",
    family: Family::Message,
    summary: "Google Chat, by webhook",
    needs: &[Need::webhook(
        "https://chat.googleapis.com/v1/spaces/AAAA/messages?key=your-key&token=your-token",
    )],
    cut_at: "text 4,096, all 32,000 bytes",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[("name", Is::Present)]),
    content: Content::Text(Escape::Entities),
    // The limit of a space.
    rate_limits: RateLimits {
        scope: LimitScope::Provider,
        rates: &[rate(1, 1)],
        source: "https://developers.google.com/workspace/chat/limits",
    },
    mentions: Mentions::of(
        "https://developers.google.com/workspace/chat/format-messages#messages-@mention",
        &[Form {
            example: "<users/all>",
            pattern: r"(<)users/[^<>\s]*",
            after_word: true,
        }],
    ),
    size_limits: SizeLimits {
        source: "https://developers.google.com/workspace/chat/api/reference/rest/v1/spaces.messages",
        body: BodyLimit::AtMost(SizeUnit::Bytes, LONGEST_BODY),
        parts: &[
            SizeLimit::utf16(
                "/cards/0/sections/0/widgets/0/textParagraph/text",
                LONGEST_TEXT,
            ),
            SizeLimit::characters("/cards/0/header/subtitle", 1_000),
            SizeLimit::items("/cards/0/sections/1/widgets", 98),
        ],
    },
    ..ProviderType::DEFAULT
};

/// In UTF-16 code units, which are never fewer than the characters.
const LONGEST_TEXT: usize = 4_096;
/// In bytes.
const LONGEST_BODY: usize = 32_000;

/// The markup around the text of an error.
const RED: (&str, &str) = ("<font color=\"#ff0000\">", "</font>");

struct GoogleChat {
    http: Http,
    url: Url,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    Ok(Notifier::Message(Box::new(GoogleChat {
        http,
        url: http_url(provider)?,
    })))
}

#[async_trait]
impl SendMessage for GoogleChat {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let request = Request::post_json(self.url.clone(), &fitted_card(message));
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn fitted_card(message: &Message<'_>) -> Value {
    let longest_message = LONGEST_TEXT - RED.0.len() - RED.1.len();
    let text = cut_utf16(message.text(), longest_message);
    let text = if message.is_templated() {
        without_half_entity(text)
    } else {
        text
    };
    let with_an_empty_field = Fitted {
        message: String::new(),
        fields: vec![(String::new(), String::new())],
    };
    let room = LONGEST_BODY.saturating_sub(card(message, with_an_empty_field).to_string().len());
    let around_a_field = key_value("", "").to_string().len() + 1;
    card(
        message,
        fit(
            JSON_BYTES,
            room,
            &text,
            message.shown_fields(),
            around_a_field,
        ),
    )
}

/// The card. Flux's notification-controller writes the nulls too; Google ignores them.
fn card(message: &Message<'_>, content: Fitted) -> Value {
    let text = if message.is_error() {
        format!("{}{}{}", RED.0, content.message, RED.1)
    } else {
        content.message
    };
    let mut sections = vec![
        json!({ "header": "", "widgets": [{ "textParagraph": { "text": text },
            "keyValue": null }] }),
    ];
    if !content.fields.is_empty() {
        let widgets: Vec<Value> = content
            .fields
            .iter()
            .map(|(key, value)| key_value(key, value))
            .collect();
        sections.push(json!({ "header": "", "widgets": widgets }));
    }
    if !message.links().is_empty() {
        let buttons: Vec<Value> = message.links().iter().map(button).collect();
        sections.push(json!({ "header": "", "widgets": [{ "buttons": buttons }] }));
    }
    let header = json!({
        "title": message.title(),
        "subtitle": message.event.reporting_controller,
        "imageUrl": null,
        "imageStyle": null,
    });
    TYPE.size_limits
        .applied_to(json!({ "cards": [{ "header": header, "sections": sections }] }))
}

fn button(link: &Link) -> Value {
    json!({ "textButton": { "text": link.label, "onClick": { "openLink": { "url": link.url } } } })
}

fn key_value(key: &str, value: &str) -> Value {
    let pair = json!({ "topLabel": key, "content": value, "contentMultiline": false,
        "bottomLabel": null, "icon": null });
    json!({ "textParagraph": null, "keyValue": pair })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample};
    use super::*;

    #[tokio::test]
    async fn a_webhook_gets_a_card() {
        let provider = sample::provider("googlechat", |provider| {
            provider.address = "https://h/v1/messages?key=k&token=t".into()
        });
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::error()).await
        ));
    }

    #[test]
    fn without_metadata_there_is_one_section() {
        let mut sample = Sample::info();
        sample.metadata.clear();
        let sections = fitted_card(&sample.message())["cards"][0]["sections"].clone();
        assert_eq!(
            sections,
            json!([{ "header": "", "widgets": [{ "textParagraph": {
                "text": sample.event.message }, "keyValue": null }] }])
        );
    }

    #[test]
    fn text_and_body_stay_within_their_limits() {
        let mut sample = Sample::error().with_message("é\"".repeat(5_000));
        let text = |card: &Value| {
            card["cards"][0]["sections"][0]["widgets"][0]["textParagraph"]["text"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let card = fitted_card(&sample.message());
        assert_eq!(text(&card).chars().count(), LONGEST_TEXT);
        assert!(text(&card).ends_with("…</font>"));
        for number in 0..200 {
            sample
                .metadata
                .insert(format!("key-{number}"), "\n".repeat(150));
        }
        let size = fitted_card(&sample.message()).to_string().len();
        assert!(
            (LONGEST_BODY - 600..=LONGEST_BODY).contains(&size),
            "{size}"
        );
    }
}
