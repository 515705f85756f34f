//! `webex`: a message to a Webex room.
//!
//! Contract: Webex's "Create a Message": `markdown` has up to 7,439 bytes. 429, and 423 for a room
//! that is locked for a moment, have a `Retry-After`. The token is a bot's. A retry after a lost
//! response can post twice.

use async_trait::async_trait;
use serde_json::{Value, json};
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{Form, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::StatusRule;
use crate::http::classify::classify_with;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::{BYTES, fit};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "webex",
    family: Family::Message,
    summary: "Webex, as a bot",
    needs: &[
        Need::field(
            "address",
            Required,
            "https://webexapis.com/v1/messages",
            "https://webexapis.com/v1/messages",
        ),
        Need::field(
            "channel",
            Optional,
            "the room's id; Webex rejects messages without it",
            "your-room",
        ),
        Need::key(
            "token",
            Optional,
            "the bot's token; Webex rejects messages without it",
            "your-token",
        ),
    ],
    cut_at: "7,439 bytes",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[("id", Is::Present)]),
    mentions: Mentions::of(
        "https://developer.webex.com/docs/api/basics#formatting-messages",
        &[
            Form {
                example: "<@all>",
                pattern: "(<@)[A-Za-z0-9]+[^<>]*",
                after_word: true,
            },
            Form {
                example: "<spark-mention>",
                pattern: "(<)spark-mention[^<>]*",
                after_word: true,
            },
        ],
    ),
    size_limits: SizeLimits {
        source: "https://developer.webex.com/docs/api/v1/messages/create-a-message",
        body: BodyLimit::Parts,
        parts: &[SizeLimit::bytes("/markdown", LONGEST_MARKDOWN)],
    },
    status_rules: &[StatusRule::retry(423..=423, Reason::ServerError)],
    ..ProviderType::DEFAULT
};

const LONGEST_MARKDOWN: usize = 7_439;

struct Webex {
    http: Http,
    url: Url,
    token: Option<String>,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    Ok(Notifier::Message(Box::new(Webex {
        http,
        url,
        token: provider.secret.token().map(str::to_owned),
    })))
}

#[async_trait]
impl SendMessage for Webex {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let mut body = json!({ "markdown": markdown(message) });
        if !message.channel.is_empty() {
            body["roomId"] = Value::from(message.channel);
        }
        let mut request = Request::post_json(self.url.clone(), &body);
        if let Some(token) = &self.token {
            request = request.bearer(token);
        }
        classify_with(&self.http.send(request).await?, TYPE.status_rules).map(Sent::accepted)
    }
}

fn markdown(message: &Message<'_>) -> String {
    let emoji = if message.is_error() { "💣" } else { "✅" };
    let heading = format!("{emoji} **{}**\n", message.title());
    let links = message.markdown_links("\n");
    let line = |key: &str, value: &str| format!(">**{key}**: {value}\n");
    let room = LONGEST_MARKDOWN.saturating_sub(heading.len() + links.len() + 2);
    let fitted = fit(
        BYTES,
        room,
        message.text(),
        message.shown_fields(),
        line("", "").len(),
    );
    let lines = fitted.lines(line);
    // An empty line ends the quote.
    let links = if links.is_empty() {
        links
    } else {
        format!("\n{links}")
    };
    format!("{heading}{}\n{lines}{links}", fitted.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Response;
    use crate::notifier::sample::{self, Sample, meaning, response};

    #[tokio::test]
    async fn a_bot_posts_to_the_room() {
        let provider = sample::provider("webex", |provider| {
            provider.secret = sample::secret(&[("token", "wx\n")])
        });
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::error()).await
        ));
    }

    #[tokio::test]
    async fn without_token_and_room_neither_is_sent() {
        let mut sample = Sample::info();
        sample.channel.clear();
        let request = sample::request(&TYPE, &sample::provider("webex", |_| ()), &sample).await;
        assert!(!request.headers.contains_key("authorization"));
        assert_eq!(sample::body(&request)["roomId"], Value::Null);
    }

    #[test]
    fn a_long_message_is_cut_above_the_metadata() {
        let sample = Sample::info().with_message("ü".repeat(5_000));
        let text = markdown(&sample.message());
        assert!(
            (LONGEST_MARKDOWN - 3..=LONGEST_MARKDOWN).contains(&text.len()),
            "{}",
            text.len()
        );
        assert!(text.contains("ü…\n>**summary**: Production is affected\n"));
        assert!(text.ends_with("4b3a291\n"));
    }

    fn check(response: &Response) -> Result<u16, Failure> {
        classify_with(response, TYPE.status_rules)
    }

    #[test]
    fn a_locked_room_is_retried() {
        let locked = sample::with_header(response(423, ""), "retry-after", "3");
        assert_eq!(meaning(check(&locked)), Some((Reason::ServerError, true)));
        assert_eq!(sample::wait(check(&locked)), Some(3.0));
        assert_eq!(
            meaning(check(&response(400, ""))),
            Some((Reason::Rejected, false))
        );
    }
}
