//! `discord`: a webhook, in Slack's format.
//!
//! Contract: Discord's "Execute Slack-Compatible Webhook". The attachment becomes an embed with up
//! to 4,096 characters of description, 25 fields of 256 and 1,024, a name of 256, and 6,000 in
//! total ("Embed Limits"). The sender's name has up to 80. The body of a 429 has a more exact wait
//! than `Retry-After` ("Rate Limits"). A retry after a lost response can post twice.

use async_trait::async_trait;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{Form, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify_with_wait;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::Message;
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimit, SizeLimits, rate,
};
use crate::notifier::contract::need::Demand::Optional;
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::UTF16;
use crate::notifier::payload::slack_form::{Links, Sender, SlackForm, username_or_controller};
use crate::text::cut_utf16;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "discord",
    family: Family::Message,
    summary: "Discord, by webhook",
    needs: &[
        Need::webhook("https://discord.com/api/webhooks/1234567890/your-token"),
        Need::field(
            "username",
            Optional,
            "the sender's name; default: the controller",
            "",
        ),
    ],
    cut_at: "text 4,096, 25 fields, value 1,024, all 6,000",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::Status,
    // As a webhook's responses state in X-RateLimit-Limit.
    rate_limits: RateLimits {
        scope: LimitScope::Provider,
        rates: &[rate(5, 2)],
        source: "https://discord.com/developers/docs/topics/rate-limits",
    },
    mentions: Mentions::of(
        "https://docs.discord.com/developers/reference#message-formatting",
        &[
            Form {
                example: "@everyone",
                pattern: "(@)(?:everyone|here)",
                after_word: true,
            },
            Form {
                example: "<@80351110224678912>",
                pattern: "(<@)[!&]?[A-Za-z0-9]+",
                after_word: true,
            },
            Form {
                example: "<#80351110224678912>",
                pattern: "(<)#[0-9]+",
                after_word: true,
            },
            Form {
                example: "<!everyone>",
                pattern: "(<)!(?:channel|here|everyone)",
                after_word: true,
            },
        ],
    ),
    size_limits: SizeLimits {
        source: "https://discord.com/developers/docs/resources/message#embed-object-embed-limits",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::utf16("/username", LONGEST_USERNAME),
            SizeLimit::utf16("/attachments/0/author_name", FORM.longest_name),
            SizeLimit::utf16("/attachments/0/text", FORM.longest_text),
            SizeLimit::items("/attachments/0/fields", FORM.most_fields),
            SizeLimit::utf16("/attachments/0/fields/*/title", FORM.longest_name),
            SizeLimit::utf16("/attachments/0/fields/*/value", FORM.longest_value),
        ],
    },
    ..ProviderType::DEFAULT
};

const FORM: SlackForm = SlackForm {
    info: "good",
    error: "danger",
    longest_name: 256,
    longest_text: 4_096,
    longest_value: 1_024,
    most_fields: 25,
    // A user's webhook can't show buttons.
    links: Links::Field,
    longest_attachment: 6_000,
    unit: UTF16,
    around_a_field: 0,
};

const LONGEST_USERNAME: usize = 80;

struct Discord {
    http: Http,
    url: Url,
    username: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = slack_compatible(http_url(provider)?);
    Ok(Notifier::Message(Box::new(Discord {
        http,
        url,
        username: provider.username.clone(),
    })))
}

/// The webhook's URL with `/slack` at the end of its path.
fn slack_compatible(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if path.ends_with("/slack") {
        path
    } else {
        format!("{path}/slack")
    };
    url.set_path(&path);
    url
}

#[async_trait]
impl SendMessage for Discord {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let username = cut_utf16(
            username_or_controller(&self.username, message),
            LONGEST_USERNAME,
        );
        let sender = Sender {
            username: &username,
            channel: "",
            fallback: "",
        };
        let mut body = FORM.body(message, &sender);
        if username.is_empty() {
            // Discord rejects an empty name. Without one, it shows the webhook's name.
            body.as_object_mut().map(|body| body.remove("username"));
        }
        let request = Request::post_json(self.url.clone(), &body);
        check(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn check(response: &Response) -> Result<u16, Failure> {
    classify_with_wait(response, |body| body["retry_after"].as_f64())
}

#[cfg(test)]
mod tests {
    use tidings_core::Reason;

    use super::super::sample::{self, Sample, meaning, response};
    use super::*;

    #[tokio::test]
    async fn a_webhook_gets_slacks_form() {
        let provider = sample::provider("discord", |_| ());
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::error()).await
        ));
    }

    #[test]
    fn the_path_ends_in_slack_once() {
        for (address, expected) in [
            (
                "https://h/api/webhooks/1/t",
                "https://h/api/webhooks/1/t/slack",
            ),
            (
                "https://h/api/webhooks/1/t/",
                "https://h/api/webhooks/1/t/slack",
            ),
            (
                "https://h/api/webhooks/1/t/slack",
                "https://h/api/webhooks/1/t/slack",
            ),
            (
                "https://h/api/webhooks/1/t/slack/",
                "https://h/api/webhooks/1/t/slack",
            ),
            (
                "https://h/api/webhooks/1/t?thread_id=5",
                "https://h/api/webhooks/1/t/slack?thread_id=5",
            ),
            (
                "https://h/api/webhooks/1/t/slack?wait=true",
                "https://h/api/webhooks/1/t/slack?wait=true",
            ),
        ] {
            assert_eq!(
                slack_compatible(address.parse().unwrap()).as_str(),
                expected
            );
        }
    }

    #[tokio::test]
    async fn an_embed_stays_within_its_limits() {
        let mut sample = Sample::info().with_message("m".repeat(5_000));
        sample.metadata.insert("long".into(), "v".repeat(1_500));
        let body = sample::body(
            &sample::request(&TYPE, &sample::provider("discord", |_| ()), &sample).await,
        );
        let attachment = &body["attachments"][0];
        assert_eq!(attachment["text"].as_str().unwrap().chars().count(), 4_096);
        assert_eq!(
            attachment["fields"][2]["value"]
                .as_str()
                .unwrap()
                .chars()
                .count(),
            1_024
        );
    }

    #[test]
    fn the_wait_comes_from_the_body_or_the_header() {
        let limited = sample::with_header(
            response(429, r#"{"retry_after":0.75,"global":false}"#),
            "retry-after",
            "1",
        );
        assert_eq!(sample::wait(check(&limited)), Some(0.75));
        let from_a_gateway = sample::with_header(response(429, "slow down"), "retry-after", "9");
        assert_eq!(sample::wait(check(&from_a_gateway)), Some(9.0));
        assert_eq!(
            meaning(check(&response(400, r#"{"retry_after":1}"#))),
            Some((Reason::Rejected, false))
        );
        assert_eq!(meaning(check(&response(204, ""))), None);
    }
}
