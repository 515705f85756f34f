//! `msteams`: an adaptive card for a Teams workflow, or a message card for an Office 365 connector.
//!
//! Contract: Microsoft's "Create and send messages" (webhooks and connectors), "Adaptive Cards" 1.4
//! and the "Legacy actionable message card reference". A message has up to 28 KB, which Teams
//! counts as UTF-16. Connectors answer 200 even if the service behind them fails, with the failure
//! as text ("…returned HTTP error 429…"). A retry after a lost response can post twice.

use async_trait::async_trait;
use serde_json::{Value, json};
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{AT_TAG, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::{classify, describe, failure};
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::Message;
use crate::message::render::Link;
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimits, SizeUnit, rate,
};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::{Fitted, JSON_UTF16, fit};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "msteams",
    family: Family::Message,
    summary: "Microsoft Teams, by workflow or by Office 365 connector",
    needs: &[Need::webhook(
        "https://example.westeurope.logic.azure.com/workflows/your-workflow/triggers/manual/paths/invoke?sig=your-signature",
    )],
    cut_at: "28 KB, counted as UTF-16",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::Status,
    rate_limits: RateLimits {
        scope: LimitScope::Provider,
        rates: &[rate(4, 1)],
        source: "https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using",
    },
    mentions: Mentions::of(
        "https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format#user-mention-within-adaptive-cards",
        &[AT_TAG],
    ),
    size_limits: SizeLimits {
        source: "https://learn.microsoft.com/microsoftteams/platform/bots/how-to/format-your-bot-messages",
        body: BodyLimit::AtMost(SizeUnit::Utf16, LONGEST_BODY),
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

/// The longest body in UTF-16 code units: 28 KB.
const LONGEST_BODY: usize = 28 * 1024 / 2;
/// The most that a card writes around a fact: `{"title":"","value":""},`.
const AROUND_A_FACT: usize = 24;

struct Teams {
    http: Http,
    url: Url,
    card: Card,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Card {
    Adaptive,
    Message,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    let card = card_for(&url);
    let http = match card {
        Card::Adaptive => http,
        Card::Message => http.confirmed_by(Confirmation::Parsed),
    };
    Ok(Notifier::Message(Box::new(Teams { http, card, url })))
}

fn card_for(url: &Url) -> Card {
    if url
        .host_str()
        .is_some_and(|host| host.ends_with(".webhook.office.com"))
    {
        Card::Message
    } else {
        Card::Adaptive
    }
}

#[async_trait]
impl SendMessage for Teams {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let request = Request::post_json(self.url.clone(), &self.card.fitted(message));
        let response = self.http.send(request).await?;
        let check = if self.card == Card::Message {
            check_connector
        } else {
            classify
        };
        check(&response).map(Sent::accepted)
    }
}

impl Card {
    fn fitted(self, message: &Message<'_>) -> Value {
        let bare = self.body(
            message,
            Fitted {
                message: String::new(),
                fields: Vec::new(),
            },
        );
        let around = bare.to_string().encode_utf16().count() + r#","facts":[]"#.len();
        let room = LONGEST_BODY.saturating_sub(around);
        let text = match message.is_templated() {
            true => &lines_kept(message.text()),
            false => message.text(),
        };
        self.body(
            message,
            fit(
                JSON_UTF16,
                room,
                text,
                message.shown_fields(),
                AROUND_A_FACT,
            ),
        )
    }

    fn body(self, message: &Message<'_>, content: Fitted) -> Value {
        match self {
            Self::Adaptive => adaptive_card(message, content),
            Self::Message => message_card(message, content),
        }
    }
}

fn adaptive_card(message: &Message<'_>, content: Fitted) -> Value {
    let heading = json!({
        "type": "TextBlock", "text": message.title(), "size": "large", "weight": "bolder",
            "wrap": true,
    });
    let mut text = json!({ "type": "TextBlock", "text": content.message, "wrap": true });
    if message.is_error() {
        text["color"] = "attention".into();
    }
    let mut facts = json!({ "type": "FactSet" });
    if !content.fields.is_empty() {
        let fact = |(title, value)| json!({ "title": title, "value": value });
        facts["facts"] = content.fields.into_iter().map(fact).collect();
    }
    let mut card = json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [{ "type": "Container", "items": [heading, text, facts] }],
                "msteams": { "width": "Full" },
            },
        }],
    });
    if !message.links().is_empty() {
        let open =
            |link: &Link| json!({ "type": "Action.OpenUrl", "title": link.label, "url": link.url });
        card["attachments"][0]["content"]["actions"] = message.links().iter().map(open).collect();
    }
    card
}

fn message_card(message: &Message<'_>, content: Fitted) -> Value {
    let fact = |(name, value)| json!({ "name": name, "value": value });
    let mut card = json!({
        "@type": "MessageCard",
        "@context": "http://schema.org/extensions",
        "themeColor": if message.is_error() { "FF0000" } else { "0076D7" },
        "summary": message.title(),
        "sections": [{
            "activityTitle": content.message,
            "activitySubtitle": message.title(),
            "facts": content.fields.into_iter().map(fact).collect::<Vec<Value>>(),
        }],
    });
    if !message.links().is_empty() {
        let open = |link: &Link| {
            let targets = [json!({ "os": "default", "uri": link.url })];
            json!({ "@type": "OpenUri", "name": link.label, "targets": targets })
        };
        card["potentialAction"] = message.links().iter().map(open).collect();
    }
    card
}

/// Markdown in which every line break of the text is one in Teams, too. A single one is a line
/// break between the items of a list only; elsewhere Teams needs an empty line, and an empty line
/// in a list indents what follows ("Format cards in Teams", newlines for Adaptive Cards).
fn lines_kept(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let (mut is_in_list, mut is_after_empty) = (false, true);
    for (number, line) in text.lines().enumerate() {
        let is_empty = line.trim().is_empty();
        let continues = is_in_list && (is_item(line) || line.starts_with([' ', '\t']));
        kept.push_str(match number {
            0 => "",
            // An empty line separates already.
            _ if continues || is_empty || is_after_empty => "\n",
            _ => "\n\n",
        });
        kept.push_str(line);
        (is_in_list, is_after_empty) = (is_item(line) || continues, is_empty);
    }
    kept
}

/// Whether a line is an item of a list: `- Text`, `* Text`, `+ Text` or `1. Text`.
fn is_item(line: &str) -> bool {
    let line = line.trim_start();
    let numbered = line.trim_start_matches(|digit: char| digit.is_ascii_digit());
    ["- ", "* ", "+ "].iter().any(|mark| line.starts_with(mark))
        || (numbered.len() < line.len() && numbered.starts_with(". "))
}

/// A connector's success is the body `1`. Any other 200 is a failure only if its text says so, or
/// if it is a page.
fn check_connector(response: &Response) -> Result<u16, Failure> {
    let status = classify(response)?;
    let text = String::from_utf8_lossy(&response.body);
    if let Some(inner) = inner_status(&text) {
        return Err(failure(&Response {
            status: inner,
            ..response.clone()
        }));
    }
    if text.contains("message delivery failed") {
        return Err(Failure::permanent(Reason::Rejected, describe(response)).with_status(status));
    }
    Ok(status)
}

/// The status in `…HTTP error 429…`.
fn inner_status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("HTTP error ")?;
    after.get(..3)?.parse().ok().filter(|status| *status >= 400)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample, response};
    use super::*;

    #[tokio::test]
    async fn a_workflow_gets_an_adaptive_card() {
        let provider = sample::provider("msteams", |_| ());
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::error()).await
        ));
    }

    #[tokio::test]
    async fn a_connector_gets_a_message_card() {
        let provider = sample::provider("msteams", |provider| {
            provider.address = "https://a.webhook.office.com/w".into()
        });
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::info()).await
        ));
    }

    #[test]
    fn the_host_decides_which_card_is_sent() {
        for (address, card) in [
            (
                "https://acorp.webhook.office.com/webhookb2/1",
                Card::Message,
            ),
            ("https://acorp.webhook.office.com:8443/w", Card::Message),
            ("https://webhook.office.com/w", Card::Adaptive),
            (
                "https://flow.example.com/?h=.webhook.office.com",
                Card::Adaptive,
            ),
        ] {
            assert_eq!(card_for(&address.parse().unwrap()), card, "{address}");
        }
    }

    #[test]
    fn the_whole_body_keeps_to_28_kb() {
        let mut sample = Sample::error();
        for (message, value) in [
            ("m".repeat(45_000), 10),
            ("\"🚀\n".repeat(9_000), 10),
            ("m".into(), 50_000),
            ("é".repeat(20_000), 20_000),
        ] {
            sample.event.message = message;
            sample.metadata.insert("long".into(), "\\".repeat(value));
            for card in [Card::Adaptive, Card::Message] {
                let body = card.fitted(&sample.message()).to_string();
                let size = body.encode_utf16().count();
                assert!((LONGEST_BODY - 50..=LONGEST_BODY).contains(&size), "{size}");
                assert!(body.contains('…'));
            }
        }
    }

    #[test]
    fn a_connector_reports_failures_in_a_200() {
        let failed = |status| {
            format!(
                "Webhook message delivery failed with error: Microsoft Teams endpoint returned \
                 HTTP error {status} with ContextId"
            )
        };
        for (status, body, meaning) in [
            (200, "1".to_owned(), None),
            (200, "ok".to_owned(), None),
            (200, failed(429), Some((Reason::RateLimited, true))),
            (200, failed(503), Some((Reason::ServerError, true))),
            (200, failed(413), Some((Reason::Rejected, false))),
            (
                200,
                "Webhook message delivery failed with error: unknown".to_owned(),
                Some((Reason::Rejected, false)),
            ),
            (
                400,
                "Summary or Text is required.".to_owned(),
                Some((Reason::Rejected, false)),
            ),
            (429, String::new(), Some((Reason::RateLimited, true))),
        ] {
            assert_eq!(
                sample::meaning(check_connector(&response(status, &body))),
                meaning,
                "{status} {body}"
            );
        }
    }

    #[test]
    fn every_line_of_markdown_stays_a_line() {
        for (text, kept) in [
            ("one line", "one line"),
            ("first\nsecond\r\nthird", "first\n\nsecond\n\nthird"),
            ("first\n\nsecond", "first\n\nsecond"),
            ("list:\n- a\n- b\nend", "list:\n\n- a\n- b\n\nend"),
            (
                "1. a\n2. b\n   more\n   text\n",
                "1. a\n2. b\n   more\n   text",
            ),
            ("**bold**\n*italic*", "**bold**\n\n*italic*"),
            ("", ""),
        ] {
            assert_eq!(lines_kept(text), kept, "{text:?}");
        }
    }

    #[test]
    fn a_template_decides_about_lines_and_a_message_is_sent_as_flux_sends_it() {
        let mut sample = Sample::error();
        let text = |sample: &Sample| {
            let card = Card::Adaptive.fitted(&sample.message());
            card["attachments"][0]["content"]["body"][0]["items"][1]["text"].clone()
        };
        assert_eq!(text(&sample), sample.event.message.as_str());
        sample.rendered.text = Some("Failed:\nnot ready".into());
        assert_eq!(text(&sample), "Failed:\n\nnot ready");
    }
}
