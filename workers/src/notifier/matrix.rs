//! `matrix`: a message to a Matrix room.
//!
//! Contract: Matrix's Client-Server API, "PUT /rooms/{roomId}/send/{eventType}/{txnId}", in its
//! first version, r0, which homeservers still serve. The transaction's id is the delivery's, so a
//! retry after a lost response does not post twice. An event has up to 65,536 bytes, of which a
//! tenth is left for what the homeserver adds. A 429 has its wait in `retry_after_ms`. If an event
//! had a mention, `m.mentions` (version 1.7) lists whom the message mentions.

use async_trait::async_trait;
use reqwest::Method;
use serde_json::{Value, json};
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{Form, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify_with_wait;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request, Response};
use crate::message::Message;
use crate::notifier::contract::limits::{BodyLimit, SizeLimits, SizeUnit};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::{JSON_BYTES, fit};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "matrix",
    family: Family::Message,
    summary: "a Matrix room",
    needs: &[
        Need::field(
            "address",
            Required,
            "the homeserver",
            "https://matrix.example.com",
        ),
        Need::field("channel", Required, "the room's id", "!room:example.com"),
        Need::key(
            "token",
            Optional,
            "the bot's access token; homeservers reject messages without it",
            "your-token",
        ),
    ],
    cut_at: "58,977 bytes",
    sent_twice: "one message",
    build,
    confirmation: Confirmation::JsonOrOk(&[("event_id", Is::Present)]),
    mentions: Mentions::of(
        "https://spec.matrix.org/v1.7/client-server-api/#user-and-room-mentions",
        &[
            Form {
                example: "@alice:example.com",
                pattern: r"(@)[A-Za-z0-9._=/+-]+:[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*",
                after_word: false,
            },
            Form {
                example: "@room",
                pattern: "(@)room",
                // Servers search for it with word boundaries, and there is one after a letter.
                after_word: true,
            },
            Form {
                example: "https://matrix.to/#/%40alice:example.com",
                pattern: r"(matrix\.to/#/)%40",
                after_word: true,
            },
        ],
    ),
    size_limits: SizeLimits {
        source: "https://spec.matrix.org/latest/client-server-api/#size-limits",
        body: BodyLimit::AtMost(SizeUnit::Bytes, 65_536),
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

/// In bytes of JSON.
const LONGEST_BODY: usize = 65_536 / 10 * 9;
/// The most users in `m.mentions`, which are in the tenth that is left.
const MOST_USERS: usize = 20;
/// In bytes.
const LONGEST_USER_ID: usize = 255;

struct Matrix {
    http: Http,
    homeserver: Url,
    token: Option<String>,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let homeserver = http_url(provider)?;
    Ok(Notifier::Message(Box::new(Matrix {
        http,
        homeserver,
        token: provider.secret.token().map(str::to_owned),
    })))
}

#[async_trait]
impl SendMessage for Matrix {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        if message.channel.is_empty() {
            let detail = "no room: set spec.channel of the Provider to the room's id";
            return Err(Failure::permanent(Reason::Misconfigured, detail));
        }
        let url = send_url(&self.homeserver, message.channel, message.delivery_id);
        let text = body(message);
        let mut body = json!({ "msgtype": "m.text", "body": text });
        if message.own_mentions.has_broken {
            body["m.mentions"] = intentional_mentions(message, &text);
        }
        let mut request = Request::new(Method::PUT, url).json(&body);
        if let Some(token) = &self.token {
            request = request.bearer(token);
        }
        check(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn send_url(homeserver: &Url, room: &str, transaction: &str) -> Url {
    let mut url = homeserver.clone();
    url.set_query(None);
    url.set_fragment(None);
    // This escapes the segments. An http URL always has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        let segments = [
            "_matrix",
            "client",
            "r0",
            "rooms",
            room,
            "send",
            "m.room.message",
            transaction,
        ];
        path.pop_if_empty().extend(segments);
    }
    url
}

/// `m.mentions`: with it, clients notify whom it lists, and not whom the body names by chance, such
/// as the user `alice` in a broken `@alice:example.com`.
fn intentional_mentions(message: &Message<'_>, text: &str) -> Value {
    let left = message.own_mentions.left_in(text);
    let is_room = |mention: &&str| mention.eq_ignore_ascii_case("@room");
    let is_user = |mention: &&str| mention.starts_with('@') && mention.len() <= LONGEST_USER_ID;
    let users = left
        .iter()
        .filter(|mention| is_user(mention) && !is_room(mention));
    let users: Vec<&&str> = users.take(MOST_USERS).collect();
    let mut mentions = json!({});
    if !users.is_empty() {
        mentions["user_ids"] = json!(users);
    }
    if left.iter().any(is_room) {
        mentions["room"] = Value::Bool(true);
    }
    mentions
}

fn body(message: &Message<'_>) -> String {
    let emoji = if message.is_error() { "🚨" } else { "💫" };
    let heading = format!("{emoji} {}\n", message.title());
    let links: String = message
        .links()
        .iter()
        .map(|link| format!("- {}: {}\n", link.label, link.url))
        .collect();
    let around = json!({ "msgtype": "m.text", "body": format!("{heading}\n{links}") })
        .to_string()
        .len();
    let room = LONGEST_BODY.saturating_sub(around);
    // A line break is two bytes in JSON.
    let fitted = fit(
        JSON_BYTES,
        room,
        message.text(),
        message.shown_fields(),
        "- : \\n".len(),
    );
    let lines: String = fitted
        .fields
        .iter()
        .map(|(key, value)| format!("- {key}: {value}\n"))
        .collect();
    format!("{heading}{}\n{lines}{links}", fitted.message)
}

fn check(response: &Response) -> Result<u16, Failure> {
    classify_with_wait(response, |body| {
        Some(body["retry_after_ms"].as_f64()? / 1_000.0)
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample, meaning, response};
    use super::*;

    #[tokio::test]
    async fn a_room_gets_plain_text_under_the_id_of_the_delivery() {
        let mut sample = Sample::error();
        sample.channel = "!room:example.com".into();
        let provider = sample::provider("matrix", |provider| {
            provider.secret = sample::secret(&[("token", "syt\n")])
        });
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &sample).await
        ));
    }

    #[tokio::test]
    async fn without_a_token_there_is_no_header_and_without_a_room_no_request() {
        let mut sample = Sample::info();
        let provider = sample::provider("matrix", |_| ());
        assert!(
            !sample::request(&TYPE, &provider, &sample)
                .await
                .headers
                .contains_key("authorization")
        );
        sample.channel.clear();
        let Ok(Notifier::Message(notifier)) = build(&provider, Http::dry_run()) else {
            panic!("the sample is valid")
        };
        assert_eq!(
            meaning(notifier.send(&sample.message()).await),
            Some((Reason::Misconfigured, false))
        );
    }

    #[test]
    fn the_room_is_escaped_and_slashes_are_not_doubled() {
        for (homeserver, room, path) in [
            (
                "https://m.example.com",
                "!r:example.com",
                "/_matrix/client/r0/rooms/!r:example.com/send/m.room.message/d",
            ),
            (
                "https://m.example.com/",
                "#ops:example.com",
                "/_matrix/client/r0/rooms/%23ops:example.com/send/m.room.message/d",
            ),
            (
                "https://m.example.com/sub/?q=1#f",
                "a/b?",
                "/sub/_matrix/client/r0/rooms/a%2Fb%3F/send/m.room.message/d",
            ),
        ] {
            let url = send_url(&homeserver.parse().unwrap(), room, "d");
            assert_eq!(
                (url.path(), url.query()),
                (path, None),
                "{homeserver} {room}"
            );
        }
    }

    #[test]
    fn only_a_text_above_the_limit_is_cut() {
        let whole = Sample::info().with_message("m".repeat(45_000));
        assert!(body(&whole.message()).contains(&whole.event.message));
        let cut = Sample::info().with_message("\n".repeat(45_000));
        let event = json!({ "msgtype": "m.text", "body": body(&cut.message()) });
        assert!((LONGEST_BODY - 5..=LONGEST_BODY).contains(&event.to_string().len()));
    }

    #[test]
    fn the_wait_is_in_milliseconds() {
        let limited = response(
            429,
            r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too many requests","retry_after_ms":1500}"#,
        );
        assert_eq!(sample::wait(check(&limited)), Some(1.5));
        assert_eq!(meaning(check(&limited)), Some((Reason::RateLimited, true)));
        assert_eq!(
            meaning(check(&response(403, r#"{"errcode":"M_FORBIDDEN"}"#))),
            Some((Reason::Unauthorized, true))
        );
    }
}
