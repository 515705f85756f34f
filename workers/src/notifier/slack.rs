//! `slack`: an incoming webhook, or the Web API's `chat.postMessage` with a bot's token.
//!
//! Contract: Slack's "Sending messages using incoming webhooks", "chat.postMessage" and "Legacy
//! secondary attachments" (links are its link buttons). Slack shows 8,000 characters of an
//! attachment's text and truncates a message at 40,000 ("Truncating really long messages"). There
//! is no idempotency key, so a retry after a lost response can post twice.

use async_trait::async_trait;
use serde::Deserialize;
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{Form, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::{classify, retry_after};
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::Message;
use crate::message::render::Content;
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimit, SizeLimits, SizeUnit, rate,
};
use crate::notifier::contract::need::Demand::Optional;
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::JSON_UTF16;
use crate::notifier::payload::slack_form::{Links, Sender, SlackForm, username_or_controller};
use tidings_rules::template::Escape;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "slack",
    family: Family::Message,
    summary: "Slack, by webhook or as a bot",
    needs: &[
        Need::webhook("https://hooks.slack.com/services/T00000000/B00000000/your-token"),
        Need::field(
            "channel",
            Optional,
            "the channel; required for a bot",
            "deployments",
        ),
        Need::field(
            "username",
            Optional,
            "the sender's name; default: the controller",
            "",
        ),
        Need::key(
            "token",
            Optional,
            "the bot's token, with the address https://slack.com/api/chat.postMessage",
            "",
        ),
    ],
    cut_at: "text 8,000, all 40,000",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::Status,
    content: Content::Text(Escape::Entities),
    // The limit applies to webhooks too.
    rate_limits: RateLimits {
        scope: LimitScope::Channel,
        rates: &[rate(1, 1)],
        source: "https://docs.slack.dev/apis/web-api/rate-limits",
    },
    mentions: Mentions::of(
        "https://docs.slack.dev/messaging/formatting-message-text",
        &[
            Form {
                example: "<!channel>",
                pattern: r"(<)!(?:channel|here|everyone|group|all|subteam(?:\^[A-Z0-9]+)?)",
                after_word: true,
            },
            Form {
                example: "<@U012AB3CD>",
                pattern: "(<@)[A-Za-z0-9]+",
                after_word: true,
            },
            Form {
                example: "<#C012AB3CD>",
                pattern: "(<)#[CDG][A-Z0-9]+",
                after_word: true,
            },
            // With link_names, and at Mattermost, which accepts the same body.
            Form {
                example: "@here",
                pattern: "(@)(?:channel|here|everyone|group|all)",
                after_word: false,
            },
        ],
    ),
    size_limits: SizeLimits {
        source: "https://docs.slack.dev/changelog/2018-04-truncating-really-long-messages",
        body: BodyLimit::AtMost(SizeUnit::Characters, 40_000),
        parts: &[
            SizeLimit::utf16("/username", FORM.longest_name),
            SizeLimit::utf16("/attachments/0/text", FORM.longest_text),
            SizeLimit::utf16("/attachments/0/fallback", FORM.longest_text),
            SizeLimit::items("/attachments/0/fields", FORM.most_fields),
        ],
    },
    ..ProviderType::DEFAULT
};

const FORM: SlackForm = SlackForm {
    info: "good",
    error: "danger",
    longest_name: 1_000,
    longest_text: 8_000,
    longest_value: 8_000,
    most_fields: 100,
    links: Links::Buttons,
    // In JSON. With the fallback, the names and links, the body stays below 40,000.
    longest_attachment: 28_000,
    unit: JSON_UTF16,
    // `{"title":"","value":"","short":false},`
    around_a_field: 39,
};

/// The only URL whose responses have the result in the body.
const WEB_API: &str = "https://slack.com/api/chat.postMessage";

struct Slack {
    http: Http,
    url: Url,
    is_web_api: bool,
    username: String,
    token: Option<String>,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    let token = provider.secret.token().map(str::to_owned);
    let is_web_api = url.as_str() == WEB_API;
    let http = match is_web_api {
        true => http.confirmed_by(Confirmation::Parsed),
        false => http,
    };
    Ok(Notifier::Message(Box::new(Slack {
        http,
        url,
        is_web_api,
        username: provider.username.clone(),
        token,
    })))
}

#[async_trait]
impl SendMessage for Slack {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let first_line = message.text().lines().next().unwrap_or_default();
        let sender = Sender {
            username: username_or_controller(&self.username, message),
            channel: message.channel,
            fallback: &format!("{}: {first_line}", message.title()),
        };
        let mut request = Request::post_json(self.url.clone(), &FORM.body(message, &sender));
        if let Some(token) = &self.token {
            request = request.bearer(token);
        }
        let response = self.http.send(request).await?;
        let check = if self.is_web_api {
            check_web_api
        } else {
            classify
        };
        check(&response).map(Sent::accepted)
    }
}

#[derive(Deserialize)]
struct WebApiAnswer {
    ok: bool,
    #[serde(default)]
    error: String,
}

/// What stands for the answer in a dry run.
impl Default for WebApiAnswer {
    fn default() -> Self {
        Self {
            ok: true,
            error: String::new(),
        }
    }
}

/// The Web API reports failures in the body of a 200. Other statuses mean what they usually mean.
fn check_web_api(response: &Response) -> Result<u16, Failure> {
    let status = classify(response)?;
    match response.parsed()? {
        WebApiAnswer { ok: true, .. } => Ok(status),
        WebApiAnswer { error, .. } => Err(web_api_failure(&error, response).with_status(status)),
    }
}

fn web_api_failure(error: &str, response: &Response) -> Failure {
    let detail = format!("{} answered: {error}", response.host);
    match error {
        "ratelimited" | "rate_limited" | "message_limit_exceeded" => {
            Failure::transient(Reason::RateLimited, detail)
                .after(retry_after(response, jiff::Timestamp::now()))
        }
        "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org" => Failure::transient(Reason::ServerError, detail),
        "invalid_auth"
        | "not_authed"
        | "account_inactive"
        | "token_expired"
        | "token_revoked"
        | "missing_scope"
        | "no_permission"
        | "access_denied"
        | "not_allowed_token_type"
        | "ekm_access_denied"
        | "org_login_required" => Failure::transient(Reason::Unauthorized, detail),
        "channel_not_found" | "is_archived" => Failure::permanent(Reason::NotFound, detail),
        _ => Failure::permanent(Reason::Rejected, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample, response};
    use super::*;

    #[tokio::test]
    async fn a_bot_posts_to_the_channel() {
        let provider = sample::provider("slack", |provider| {
            provider.address = WEB_API.into();
            provider.secret = sample::secret(&[("token", " xoxb-1\n")]);
        });
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::error()).await
        ));
    }

    #[tokio::test]
    async fn a_webhook_needs_no_token() {
        let provider = sample::provider("slack", |provider| provider.username = "bot".into());
        let request = sample::request(&TYPE, &provider, &Sample::info()).await;
        assert!(!request.headers.contains_key("authorization"));
        assert_eq!(sample::body(&request)["username"], "bot");
    }

    #[tokio::test]
    async fn a_long_message_is_cut() {
        let request = sample::request(
            &TYPE,
            &sample::provider("slack", |_| ()),
            &Sample::info().with_message("m".repeat(45_000)),
        )
        .await;
        let attachment = sample::body(&request)["attachments"][0].clone();
        assert_eq!(attachment["text"], format!("{}…", "m".repeat(7_999)));
        assert_eq!(
            attachment["fallback"].as_str().unwrap().chars().count(),
            8_000
        );
    }

    #[test]
    fn status_and_body_decide_for_the_web_api() {
        for (status, body, meaning) in [
            (200, r#"{"ok":true}"#, None),
            (400, r#"{"ok":true}"#, Some((Reason::Rejected, false))),
            (
                429,
                r#"{"ok":false,"error":"ratelimited"}"#,
                Some((Reason::RateLimited, true)),
            ),
            (
                200,
                r#"{"ok":false,"error":"ratelimited"}"#,
                Some((Reason::RateLimited, true)),
            ),
            (
                200,
                r#"{"ok":false,"error":"invalid_auth"}"#,
                Some((Reason::Unauthorized, true)),
            ),
            (
                200,
                r#"{"ok":false,"error":"internal_error"}"#,
                Some((Reason::ServerError, true)),
            ),
            (
                200,
                r#"{"ok":false,"error":"channel_not_found"}"#,
                Some((Reason::NotFound, false)),
            ),
            (
                200,
                r#"{"ok":false,"error":"no_text"}"#,
                Some((Reason::Rejected, false)),
            ),
            (200, r#"{"ok":false}"#, Some((Reason::Rejected, false))),
            (200, "<html>", Some((Reason::Rejected, false))),
            (200, r#"{"ok":"#, Some((Reason::AnswerUnknown, true))),
        ] {
            assert_eq!(
                sample::meaning(check_web_api(&response(status, body))),
                meaning,
                "{status} {body}"
            );
        }
        let limited = sample::with_header(
            response(200, r#"{"ok":false,"error":"ratelimited"}"#),
            "retry-after",
            "30",
        );
        assert_eq!(sample::wait(check_web_api(&limited)), Some(30.0));
    }
}
