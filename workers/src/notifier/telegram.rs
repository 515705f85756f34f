//! `telegram`: a bot's message to a chat.
//!
//! Contract: Telegram's Bot API, "sendMessage", "MarkdownV2 style" and "InlineKeyboardButton". A
//! message has up to 4,096 characters. This type counts the escapes, too, and UTF-16 code units, so
//! that it never exceeds that. A 429 has its wait in `parameters.retry_after`. A retry after a lost
//! response can post twice.

use async_trait::async_trait;
use serde_json::{Value, json};
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{AT_NAME, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::classify::classify_with_wait;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::Message;
use crate::message::render::Link;
use crate::notifier::contract::limits::{
    BodyLimit, LimitScope, RateLimits, SizeLimit, SizeLimits, rate,
};
use crate::notifier::contract::need::Demand::Required;
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::{UTF16, Unit, fit};
use crate::text::{ELLIPSIS, cut_utf16};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "telegram",
    family: Family::Message,
    summary: "Telegram, as a bot",
    needs: &[
        Need::field(
            "channel",
            Required,
            "the chat's id or @name, and :THREAD for a topic",
            "-1001234567890",
        ),
        Need::key(
            "token",
            Required,
            "the bot's token",
            "1234567890:your-token",
        ),
    ],
    cut_at: "4,096",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[("ok", Is::True)]),
    // The limits of a chat and of a group.
    rate_limits: RateLimits {
        scope: LimitScope::Channel,
        rates: &[rate(1, 1), rate(20, 60)],
        source: "https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this",
    },
    mentions: Mentions::of("https://core.telegram.org/api/mentions", &[AT_NAME]),
    size_limits: SizeLimits {
        source: "https://core.telegram.org/bots/api#sendmessage",
        body: BodyLimit::Parts,
        parts: &[SizeLimit::utf16("/text", LONGEST_TEXT)],
    },
    ..ProviderType::DEFAULT
};

const LONGEST_TEXT: usize = 4_096;
/// The characters to escape in MarkdownV2, besides the backslash.
const SPECIAL: &str = "._-[]()~>`#+=|{}!*\\";
/// The unit for escaped text. A cut does not split an escape.
const ESCAPED: Unit = Unit {
    size: UTF16.size,
    cut: cut_escaped,
};

struct Telegram {
    http: Http,
    url: Url,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let token = provider
        .secret
        .token()
        .ok_or("no bot token: set the key token in the Secret of spec.secretRef")?;
    let mut url = Url::parse("https://api.telegram.org").expect("a fixed URL is valid");
    url.set_path(&format!("bot{token}/sendMessage"));
    Ok(Notifier::Message(Box::new(Telegram { http, url })))
}

#[async_trait]
impl SendMessage for Telegram {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let (chat, thread) = message
            .channel
            .split_once(':')
            .unwrap_or((message.channel, ""));
        if chat.is_empty() {
            let detail = "no chat: set spec.channel of the Provider to the chat's id or @name";
            return Err(Failure::permanent(Reason::Misconfigured, detail));
        }
        let mut body =
            json!({ "chat_id": chat, "text": text(message), "parse_mode": "MarkdownV2" });
        if !thread.is_empty() {
            body["message_thread_id"] = Value::from(thread);
        }
        if !message.links().is_empty() {
            let button = |link: &Link| json!({ "text": link.label, "url": link.url });
            let row: Vec<Value> = message.links().iter().map(button).collect();
            body["reply_markup"] = json!({ "inline_keyboard": [row] });
        }
        check(
            &self
                .http
                .send(Request::post_json(self.url.clone(), &body))
                .await?,
        )
        .map(Sent::accepted)
    }
}

fn text(message: &Message<'_>) -> String {
    let emoji = if message.is_error() { "🚨" } else { "💫" };
    let object = message.object;
    let standard_title = || {
        format!(
            "{}/{}/{}",
            object.kind.to_lowercase(),
            object.name,
            object.namespace
        )
    };
    let title = message.title_or(standard_title);
    let heading = format!("*{}*\n", escaped(&format!("{emoji} {title}")));
    let line = |key: &str, value: &str| format!("\\- *{key}*: {value}\n");
    let room = LONGEST_TEXT.saturating_sub((ESCAPED.size)(&heading) + 1);
    let fields = message
        .shown_fields()
        .map(|(key, value)| (escaped(key), escaped(value)));
    let fitted = fit(
        ESCAPED,
        room,
        &escaped(message.text()),
        fields,
        line("", "").len(),
    );
    let lines = fitted.lines(line);
    format!("{heading}{}\n{lines}", fitted.message)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if SPECIAL.contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn cut_escaped(text: &str, limit: usize) -> String {
    if (UTF16.size)(text) <= limit {
        return text.to_owned();
    }
    let mut cut = cut_utf16(text, limit);
    cut.pop();
    let backslashes = cut.len() - cut.trim_end_matches('\\').len();
    if backslashes % 2 == 1 {
        cut.pop();
    }
    cut.push(ELLIPSIS);
    cut
}

fn check(response: &Response) -> Result<u16, Failure> {
    classify_with_wait(response, |body| body["parameters"]["retry_after"].as_f64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sample::{self, Sample, meaning, response};
    use super::*;

    fn provider() -> ResolvedProvider {
        sample::provider("telegram", |provider| {
            provider.secret = sample::secret(&[("token", "12345:AA-a_b\n")])
        })
    }

    #[tokio::test]
    async fn a_bot_posts_to_a_topic_of_the_chat() {
        let mut sample = Sample::error();
        sample.channel = "-100200300:77".into();
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider(), &sample).await
        ));
    }

    #[tokio::test]
    async fn without_a_topic_no_thread_is_sent() {
        let body = sample::body(&sample::request(&TYPE, &provider(), &Sample::info()).await);
        assert_eq!(body["chat_id"], "general");
        assert!(body.get("message_thread_id").is_none());
    }

    #[tokio::test]
    async fn token_and_chat_are_required() {
        assert!(
            sample::build_error(&TYPE, &sample::provider("telegram", |_| ())).contains("token")
        );
        let mut sample = Sample::info();
        sample.channel.clear();
        let Ok(Notifier::Message(notifier)) = build(&provider(), Http::dry_run()) else {
            panic!("the sample is valid")
        };
        assert_eq!(
            meaning(notifier.send(&sample.message()).await),
            Some((Reason::Misconfigured, false))
        );
    }

    #[test]
    fn markdown_is_escaped() {
        assert_eq!(escaped(r"a.b_c \ <t> & 😀!"), r"a\.b\_c \\ <t\> & 😀\!");
        for (text, limit, cut) in [
            (r"a\.b", 4, r"a\.b"),
            (r"a\.bc", 4, r"a\.…"),
            (r"a\.bc", 3, "a…"),
            (r"\\\\", 3, r"\\…"),
            (r"\\\\", 2, "…"),
        ] {
            assert_eq!(cut_escaped(text, limit), cut, "{text} {limit}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_cut_text_keeps_to_the_limit_and_to_whole_escapes(message in r"[a.\\🚀]{3000,5000}",
            value in r"[b_\\]{0,4000}") {
            let mut sample = Sample::error().with_message(message);
            sample.metadata.insert("k".into(), value);
            let text = text(&sample.message());
            prop_assert!((UTF16.size)(&text) <= LONGEST_TEXT);
            let mut characters = text.chars();
            while let Some(character) = characters.next() {
                let mut escapes = || characters.next().is_some_and(|next| SPECIAL.contains(next));
                prop_assert!(character != '\\' || escapes());
            }
        }
    }

    #[test]
    fn the_wait_comes_from_the_parameters() {
        let limited = response(
            429,
            r#"{"ok":false,"error_code":429,"description":"Too Many Requests",
                "parameters":{"retry_after":35}}"#,
        );
        assert_eq!(meaning(check(&limited)), Some((Reason::RateLimited, true)));
        assert_eq!(sample::wait(check(&limited)), Some(35.0));
        let moved = response(
            400,
            r#"{"ok":false,"parameters":{"migrate_to_chat_id":-100}}"#,
        );
        assert_eq!(meaning(check(&moved)), Some((Reason::Rejected, false)));
    }
}
