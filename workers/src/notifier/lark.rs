//! `lark`: a custom bot of a Lark or Feishu group.
//!
//! Contract: Lark's "Use custom bots in a group" (interactive card). A request has at most 20 KB. A
//! rejection is a 200 with a `code` other than 0. 11232 and 99991400 are rate limits, as are some
//! texts with other codes. 19001 is an unknown webhook. 19021 and 19022 are a wrong signature and
//! an IP address that is not allowed. A retry after a lost response can post twice.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{AT_TAG, Form, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::{classify, describe};
use crate::http::confirmation::{Confirmation, Doubt};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::Message;
use crate::message::render::Link;
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimits, SizeUnit, rate,
};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::{JSON_BYTES, fit};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "lark",
    family: Family::Message,
    summary: "Lark or Feishu, as a custom bot",
    needs: &[Need::webhook(
        "https://open.larksuite.com/open-apis/bot/v2/hook/your-token",
    )],
    cut_at: "20 KB",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[]),
    // The limit of a bot.
    rate_limits: RateLimits {
        scope: LimitScope::Provider,
        rates: &[rate(5, 1), rate(100, 60)],
        source: "https://open.larksuite.com/document/client-docs/bot-v3/add-custom-bot",
    },
    mentions: Mentions::of(
        "https://open.larksuite.com/document/common-capabilities/message-card/message-cards-content/using-markdown-tags",
        &[
            AT_TAG,
            Form {
                example: "<person id=ou_1></person>",
                pattern: r"(<)/?person\b[^<>]*",
                after_word: true,
            },
        ],
    ),
    size_limits: SizeLimits {
        source: "https://open.larksuite.com/document/client-docs/bot-v3/add-custom-bot",
        body: BodyLimit::AtMost(SizeUnit::Bytes, LONGEST_BODY),
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

/// In bytes.
const LONGEST_BODY: usize = 20_000;

struct Lark {
    http: Http,
    url: Url,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    Ok(Notifier::Message(Box::new(Lark {
        http,
        url: http_url(provider)?,
    })))
}

#[async_trait]
impl SendMessage for Lark {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let request = Request::post_json(self.url.clone(), &fitted_card(message));
        check(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn fitted_card(message: &Message<'_>) -> Value {
    let content = |text: &str, lines: &str| match message.is_templated() {
        true => text.to_owned(),
        false => format!("**{text}**\n\n{lines}"),
    };
    let room = LONGEST_BODY.saturating_sub(card(message, &content("", "")).to_string().len());
    // A line break is two bytes in JSON.
    let fitted = fit(
        JSON_BYTES,
        room,
        message.text(),
        message.shown_fields(),
        ": \\n".len(),
    );
    let lines: String = fitted
        .fields
        .iter()
        .map(|(key, value)| format!("{key}: {value}\n"))
        .collect();
    card(message, &content(&fitted.message, &lines))
}

fn card(message: &Message<'_>, content: &str) -> Value {
    let (emoji, template) = if message.is_error() {
        ("🚨", "red")
    } else {
        ("💫", "turquoise")
    };
    let title = format!("{emoji} {}", message.title());
    let mut elements =
        vec![json!({ "tag": "div", "text": { "tag": "lark_md", "content": content } })];
    if !message.links().is_empty() {
        let actions: Vec<Value> = message.links().iter().map(button).collect();
        elements.push(json!({ "tag": "action", "actions": actions }));
    }
    json!({
        "msg_type": "interactive",
        "card": {
            "config": { "wide_screen_mode": true },
            "header": { "title": { "tag": "plain_text", "content": title }, "template": template },
            "elements": elements,
        },
    })
}

fn button(link: &Link) -> Value {
    json!({ "tag": "button", "text": { "tag": "plain_text", "content": link.label },
        "type": "default", "url": link.url })
}

/// Older webhooks send `StatusCode`, newer ones `code`, and some both.
#[derive(Default, Deserialize)]
struct LarkAnswer {
    code: Option<i64>,
    #[serde(rename = "StatusCode")]
    status_code: Option<i64>,
    #[serde(default)]
    msg: String,
}

fn check(response: &Response) -> Result<u16, Failure> {
    let status = classify(response)?;
    if response.json::<Value>().is_none() {
        return Ok(status);
    }
    let LarkAnswer {
        code,
        status_code,
        msg,
    } = response.parsed()?;
    let Some(code) = code.or(status_code) else {
        return Err(response.unconfirmed(Doubt::Foreign));
    };
    if code == 0 {
        return Ok(status);
    }
    let detail = describe(response);
    let failure = match code {
        _ if is_rate_limit(code, &msg) => Failure::transient(Reason::RateLimited, detail),
        19001 => Failure::permanent(Reason::NotFound, detail),
        19021 | 19022 => Failure::transient(Reason::Unauthorized, detail),
        _ => Failure::permanent(Reason::Rejected, detail),
    };
    Err(failure.with_status(status))
}

/// The code alone does not identify a rate limit: 9499 is also a malformed request.
fn is_rate_limit(code: i64, msg: &str) -> bool {
    let msg = msg.to_lowercase();
    matches!(code, 11232 | 99991400)
        || msg.contains("frequency limit")
        || msg.contains("too many request")
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample, response};
    use super::*;

    #[tokio::test]
    async fn a_bot_gets_a_card() {
        let provider = sample::provider("lark", |_| ());
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::error()).await
        ));
    }

    #[test]
    fn the_whole_body_keeps_to_20_kb() {
        let mut sample = Sample::error();
        for (message, value) in [
            ("m\n".repeat(20_000), 10),
            ("é".into(), 30_000),
            ("\"".repeat(30_000), 30_000),
        ] {
            sample.event.message = message;
            sample.metadata.insert("long".into(), "v".repeat(value));
            let size = fitted_card(&sample.message()).to_string().len();
            assert!((LONGEST_BODY - 10..=LONGEST_BODY).contains(&size), "{size}");
        }
    }

    #[test]
    fn a_code_in_a_200_is_a_failure() {
        for (status, body, meaning) in [
            (200, r#"{"code":0,"msg":"success","data":{}}"#, None),
            (200, r#"{"StatusCode":0,"StatusMessage":"success"}"#, None),
            (
                200,
                r#"{"StatusCode":0,"StatusMessage":"success","code":0,"msg":"success"}"#,
                None,
            ),
            (200, "ok", None),
            (
                200,
                r#"{"code":11232,"msg":"frequency limited"}"#,
                Some((Reason::RateLimited, true)),
            ),
            (
                200,
                r#"{"code":9499,"msg":"too many request"}"#,
                Some((Reason::RateLimited, true)),
            ),
            (
                200,
                r#"{"code":9499,"msg":"frequency limited psm"}"#,
                Some((Reason::RateLimited, true)),
            ),
            (
                200,
                r#"{"code":9499,"msg":"Bad Request"}"#,
                Some((Reason::Rejected, false)),
            ),
            (
                200,
                r#"{"code":19001,"msg":"token invalid"}"#,
                Some((Reason::NotFound, false)),
            ),
            (
                200,
                r#"{"code":19021,"msg":"sign match fail"}"#,
                Some((Reason::Unauthorized, true)),
            ),
            (
                200,
                r#"{"StatusCode":19024,"StatusMessage":"Key Words Not Found"}"#,
                Some((Reason::Rejected, false)),
            ),
            (500, r#"{"code":0}"#, Some((Reason::ServerError, true))),
        ] {
            assert_eq!(
                sample::meaning(check(&response(status, body))),
                meaning,
                "{status} {body}"
            );
        }
    }
}
