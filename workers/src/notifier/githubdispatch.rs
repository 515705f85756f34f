//! `githubdispatch`: starts GitHub Actions workflows that listen for `repository_dispatch`.
//!
//! API: <https://docs.github.com/en/rest/repos/repos#create-a-repository-dispatch-event>. A retry after
//! a lost response starts the workflows twice.

use async_trait::async_trait;
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use super::forge::github_api::{GitHub, NEEDS, RATE_LIMITS};
use super::forge::github_http::ACCEPT;
use crate::http::Http;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::message::Message;
use crate::message::render::Content;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::payload::fit_body::fit_event_value;
use crate::text::cut_id;

const LONGEST_EVENT_TYPE: usize = 100;
/// In bytes of JSON: less than 64 KB.
const LONGEST_PAYLOAD: usize = 64_000;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "githubdispatch",
    family: Family::Message,
    summary: "starts GitHub Actions workflows",
    needs: NEEDS,
    cut_at: "payload 64 KB, event type 100",
    sent_twice: "workflows start twice",
    build,
    confirmation: Confirmation::Empty,
    content: Content::Event,
    rate_limits: RATE_LIMITS,
    mentions: Mentions::EVENT,
    size_limits: SizeLimits {
        source: "https://docs.github.com/en/rest/repos/repos#create-a-repository-dispatch-event",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::id("/event_type", LONGEST_EVENT_TYPE),
            SizeLimit::bytes("/client_payload", LONGEST_PAYLOAD),
            SizeLimit::items("/client_payload", 10),
        ],
    },
    ..ProviderType::DEFAULT
};

struct GithubDispatch {
    github: GitHub,
}

#[derive(Serialize)]
struct Post {
    event_type: String,
    client_payload: Value,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    Ok(Notifier::Message(Box::new(GithubDispatch {
        github: GitHub::new(provider, http)?,
    })))
}

#[async_trait]
impl SendMessage for GithubDispatch {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let object = message.object;
        let event_type = format!("{}/{}.{}", object.kind, object.name, object.namespace);
        let post = Post {
            event_type: cut_id(&event_type, LONGEST_EVENT_TYPE),
            client_payload: fit_event_value(
                LONGEST_PAYLOAD,
                message.event,
                &message.metadata_with_cluster(),
            ),
        };
        let request = self
            .github
            .request(Method::POST, "dispatches", ACCEPT)
            .await?
            .json(&post);
        Ok(Sent::accepted(self.github.send(request).await?.status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample, body, request, secret};

    #[tokio::test]
    async fn the_event_is_the_payload_of_a_dispatch() {
        let provider = sample::provider("githubdispatch", |provider| {
            provider.address = "https://github.com/acme/deploy".into();
            provider.secret = secret(&[("token", "ghp")]);
        });
        let made = request(&TYPE, &provider, &Sample::info()).await;
        assert_eq!(
            made.url.as_str(),
            "https://api.github.com/repos/acme/deploy/dispatches"
        );
        let body = body(&made);
        assert_eq!(body["event_type"], "Kustomization/webapp.apps");
        assert_eq!(body["client_payload"]["metadata"]["cluster"], "prod-1");
        assert_eq!(body["client_payload"]["involvedObject"]["name"], "webapp");
    }
}
