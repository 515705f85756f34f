//! `rocket`: an incoming webhook of Rocket.Chat.
//!
//! Contract: Rocket.Chat's "Integrations" (incoming webhook, in Slack's format). A message has up
//! to 5,000 characters by default; the server's setting is `Message_MaxAllowedSize`. A retry after
//! a lost response can post twice.

use async_trait::async_trait;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::{AT_NAME, Mentions};
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::Optional;
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::UTF16;
use crate::notifier::payload::slack_form::{Links, Sender, SlackForm};

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "rocket",
    family: Family::Message,
    summary: "Rocket.Chat, by webhook",
    needs: &[
        Need::webhook("https://rocket.example.com/hooks/your-id/your-token"),
        Need::field(
            "channel",
            Optional,
            "a channel other than the webhook's",
            "",
        ),
        Need::field("username", Optional, "the name to post under", ""),
    ],
    cut_at: "text 5,000, all 30,000",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::JsonOrOk(&[("success", Is::True)]),
    mentions: Mentions::of(
        "https://docs.rocket.chat/docs/mention-in-channels-and-direct-messages",
        &[AT_NAME],
    ),
    size_limits: SizeLimits {
        source: "https://docs.rocket.chat/docs/message",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::utf16("/username", FORM.longest_name),
            SizeLimit::utf16("/attachments/0/text", FORM.longest_text),
            SizeLimit::items("/attachments/0/fields", FORM.most_fields),
            SizeLimit::utf16("/attachments/0/fields/*/value", FORM.longest_value),
        ],
    },
    ..ProviderType::DEFAULT
};

const FORM: SlackForm = SlackForm {
    info: "#0076D7",
    error: "#FF0000",
    longest_name: 1_000,
    longest_text: 5_000,
    longest_value: 5_000,
    most_fields: 100,
    links: Links::Buttons,
    longest_attachment: 30_000,
    unit: UTF16,
    around_a_field: 0,
};

struct Rocket {
    http: Http,
    url: Url,
    username: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    Ok(Notifier::Message(Box::new(Rocket {
        http,
        url,
        username: provider.username.clone(),
    })))
}

#[async_trait]
impl SendMessage for Rocket {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        // Without a name, Rocket.Chat shows the webhook's name.
        let sender = Sender {
            username: &self.username,
            channel: message.channel,
            fallback: "",
        };
        let request = Request::post_json(self.url.clone(), &FORM.body(message, &sender));
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample};
    use super::*;

    #[tokio::test]
    async fn a_webhook_gets_slacks_form_with_its_own_colors() {
        let provider = sample::provider("rocket", |_| ());
        insta::assert_snapshot!(sample::shown(
            &sample::request(&TYPE, &provider, &Sample::info()).await
        ));
        let error = sample::request(
            &TYPE,
            &provider,
            &Sample::error().with_message("m".repeat(6_000)),
        )
        .await;
        let attachment = sample::body(&error)["attachments"][0].clone();
        assert_eq!(attachment["color"], "#FF0000");
        assert_eq!(attachment["text"], format!("{}…", "m".repeat(4_999)));
    }
}
