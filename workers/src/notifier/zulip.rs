//! `zulip`: a bot's message to a topic of a Zulip channel.
//!
//! Contract: Zulip's REST API, "Send a message" and "Error handling". A message has up to 10,000
//! characters (`max_message_length`). A 429 has its wait in the body's `retry-after`, too. A retry
//! after a lost response can post twice.

use async_trait::async_trait;
use reqwest::Method;
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::{Url, form_urlencoded};

use super::contract::mentions::{Form, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify_with_wait;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::Message;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::{UTF16, fit};
use crate::text::cut_id;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "zulip",
    family: Family::Message,
    summary: "Zulip, as a bot",
    needs: &[
        Need::field(
            "address",
            Required,
            "the server",
            "https://acme.zulipchat.com",
        ),
        Need::field("channel", Required, "CHANNEL/TOPIC", "deployments/flux"),
        Need::key(
            "username",
            Optional,
            "the bot's email; Zulip rejects messages without it",
            "flux-bot@acme.zulipchat.com",
        ),
        Need::key("password", Optional, "the bot's API key", "your-api-key"),
    ],
    cut_at: "10,000, topic 60",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[("result", Is::Text("success"))]),
    mentions: Mentions::of(
        "https://zulip.com/help/mention-a-user-or-group",
        &[Form {
            example: "@**all**",
            pattern: r"(@)_?\*{1,2}[^*@\n]*",
            after_word: true,
        }],
    ),
    size_limits: SizeLimits {
        source: "https://zulip.com/api/send-message",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::characters("/content", LONGEST_CONTENT),
            SizeLimit::id("/topic", LONGEST_TOPIC),
        ],
    },
    ..ProviderType::DEFAULT
};

/// In UTF-16 code units, which are never fewer than the characters.
const LONGEST_CONTENT: usize = 10_000;

/// In characters.
const LONGEST_TOPIC: usize = 60;

struct Zulip {
    http: Http,
    url: Url,
    credentials: Option<(String, String)>,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let mut url = http_url(provider)?;
    url.set_path("/api/v1/messages");
    let credentials = provider
        .secret
        .basic()
        .map(|(username, password)| (username.to_owned(), password.to_owned()));
    Ok(Notifier::Message(Box::new(Zulip {
        http,
        url,
        credentials,
    })))
}

#[async_trait]
impl SendMessage for Zulip {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let Some((channel, topic)) = channel_and_topic(message.channel) else {
            let detail = "no topic: spec.channel of the Provider must be CHANNEL/TOPIC";
            return Err(Failure::permanent(Reason::Misconfigured, detail));
        };
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("type", "stream"),
                ("to", channel),
                ("topic", &cut_id(topic, LONGEST_TOPIC)),
                ("content", &content(message)),
            ])
            .finish();
        let mut request = Request::new(Method::POST, self.url.clone())
            .body("application/x-www-form-urlencoded", form.into_bytes());
        if let Some((username, password)) = &self.credentials {
            request = request.basic(username, password);
        }
        check(&self.http.send(request).await?).map(Sent::accepted)
    }
}

/// Both parts of `CHANNEL/TOPIC`. The topic may contain slashes.
fn channel_and_topic(text: &str) -> Option<(&str, &str)> {
    text.split_once('/')
        .filter(|(channel, topic)| !channel.is_empty() && !topic.is_empty())
}

/// The text, with the metadata in order of its keys as in comments on change requests, but without
/// the number of the change request.
fn content(message: &Message<'_>) -> String {
    let emoji = if message.is_error() {
        "⚠️ "
    } else {
        "ℹ️ "
    };
    let heading = match &message.rendered.title {
        Some(_) => format!("## {emoji}{}\n\n", message.title()),
        None => {
            let title = message.title_or(|| message.object_path());
            format!("## Flux Status\n\n{emoji}{title}\n\n")
        }
    };
    let metadata_heading = if message.is_templated() {
        "\n"
    } else {
        "\n\nMetadata:\n"
    };
    let links = if message.links().is_empty() {
        String::new()
    } else {
        format!("\n{}", message.markdown_links("\n"))
    };
    let line = |key: &str, value: &str| format!("* `{key}`: {value}\n");
    let room = LONGEST_CONTENT
        .saturating_sub((UTF16.size)(&heading) + metadata_heading.len() + (UTF16.size)(&links));
    let fields = message
        .metadata
        .iter()
        .filter(|(key, _)| *key != "change_request" && !message.is_templated());
    let fitted = fit(UTF16, room, message.text(), fields, line("", "").len());
    let lines = fitted.lines(line);
    format!(
        "{heading}{}{metadata_heading}{lines}{links}",
        fitted.message
    )
}

fn check(response: &Response) -> Result<u16, Failure> {
    classify_with_wait(response, |body| body["retry-after"].as_f64())
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample, meaning, response};
    use super::*;

    #[tokio::test]
    async fn a_bot_posts_to_the_topic() {
        let mut sample = Sample::error();
        sample.channel = "general/flux a/b".into();
        sample.metadata.insert("change_request".into(), "7".into());
        let provider = sample::provider("zulip", |provider| {
            provider.address = "https://zulip.example.com/some/path?x=1".into();
            provider.secret =
                sample::secret(&[("username", "bot@zulip.example.com"), ("password", "key")]);
        });
        let request = sample::request(&TYPE, &provider, &sample).await;
        let form: Vec<_> = form_urlencoded::parse(&request.body)
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        insta::assert_snapshot!(format!("{}\n\n{}", sample::shown(&request), form.concat()));
    }

    #[tokio::test]
    async fn a_channel_needs_a_topic() {
        for (text, parts) in [
            ("a b/c/d", Some(("a b", "c/d"))),
            ("general", None),
            ("general/", None),
            ("/topic", None),
            ("", None),
        ] {
            assert_eq!(channel_and_topic(text), parts, "{text}");
        }
        let Ok(Notifier::Message(notifier)) =
            build(&sample::provider("zulip", |_| ()), Http::dry_run())
        else {
            panic!("the sample is valid")
        };
        assert_eq!(
            meaning(notifier.send(&Sample::info().message()).await),
            Some((Reason::Misconfigured, false))
        );
    }

    #[test]
    fn a_long_message_is_cut_above_the_metadata() {
        let text = content(&Sample::info().with_message("m".repeat(45_000)).message());
        assert_eq!((UTF16.size)(&text), LONGEST_CONTENT);
        assert!(text.contains("m…\n\nMetadata:\n* `cluster`: prod-1\n"));
    }

    #[test]
    fn the_wait_comes_from_the_body() {
        let limited = response(
            429,
            r#"{"code":"RATE_LIMIT_HIT","msg":"API usage exceeded rate limit","result":"error",
                "retry-after":28.5}"#,
        );
        assert_eq!(sample::wait(check(&limited)), Some(28.5));
        assert_eq!(
            meaning(check(&response(401, ""))),
            Some((Reason::Unauthorized, true))
        );
    }
}
