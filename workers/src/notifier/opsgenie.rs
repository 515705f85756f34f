//! `opsgenie`: one alert for each event.
//!
//! Contract: Opsgenie's "Alert API", Create Alert, and its limits: message 130 characters,
//! description 15,000, details 8,000 in total. The alias is the same for the same reason of the
//! same object, so that repetitions (and a retry after a lost response) increase the count of one
//! open alert. As in Flux, alerts are never closed, and success opens one too.
//!
//! 202 means accepted for processing. An alert that can't be processed is 422, which is permanent.

use async_trait::async_trait;
use reqwest::header;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tidings_core::Failure;
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::{Message, present};
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits};
use crate::notifier::contract::need::Demand::Required;
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit::{JSON_UTF16, fit};
use crate::text::cut_chars;

const MOST_OF_A_MESSAGE: usize = 130;
const MOST_OF_A_DESCRIPTION: usize = 15_000;
const MOST_OF_ALL_DETAILS: usize = 8_000;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "opsgenie",
    family: Family::Message,
    summary: "Opsgenie, an alert for each event",
    needs: &[
        Need::field(
            "address",
            Required,
            "https://api.opsgenie.com/v2/alerts, or that of the EU",
            "https://api.opsgenie.com/v2/alerts",
        ),
        Need::key("token", Required, "the API key", "your-token"),
    ],
    cut_at: "message 130, description 15,000, details 8,000",
    sent_twice: "one alert, with a higher count",
    build,
    confirmation: Confirmation::JsonOrOk(&[("requestId", Is::Present)]),
    mentions: Mentions::none("teams and responders of the integration are notified"),
    size_limits: SizeLimits {
        source: "https://docs.opsgenie.com/docs/alert-api#create-alert",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::characters("/message", MOST_OF_A_MESSAGE),
            SizeLimit::id("/alias", 512),
            SizeLimit::characters("/description", MOST_OF_A_DESCRIPTION),
            SizeLimit::utf16("/details", MOST_OF_ALL_DETAILS),
        ],
    },
    ..ProviderType::DEFAULT
};

struct Opsgenie {
    http: Http,
    url: Url,
    token: String,
    /// A part of the alias.
    provider_uid: String,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    let token = provider
        .secret
        .token()
        .ok_or("no API key: set the key token in the Secret of spec.secretRef")?
        .to_owned();
    Ok(Notifier::Message(Box::new(Opsgenie {
        http,
        url,
        token,
        provider_uid: provider.uid.clone(),
    })))
}

#[async_trait]
impl SendMessage for Opsgenie {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let request = Request::post_json(self.url.clone(), &alert(message, &self.provider_uid))
            .secret_header(header::AUTHORIZATION, &format!("GenieKey {}", self.token));
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

fn alert(message: &Message<'_>, provider_uid: &str) -> Value {
    let (event, object) = (message.event, message.object);
    let path = message.object_path_in_fleet();
    let alias = format!("{provider_uid}/{path}/{}", event.reason);
    let standard_title = || format!("{}/{}", object.kind, object.name);
    json!({
        "message": cut_chars(&message.title_or(standard_title), MOST_OF_A_MESSAGE),
        "alias": hex::encode(Sha256::digest(alias)),
        "description": cut_chars(message.text(), MOST_OF_A_DESCRIPTION),
        "details": details(message),
    })
}

/// The severity, links and metadata. The value that exceeds the limit is cut, and later values are
/// dropped.
fn details(message: &Message<'_>) -> Map<String, Value> {
    let severity = ("severity", message.event.severity.as_str());
    let links = message
        .links()
        .iter()
        .map(|link| (link.key, link.url.as_str()));
    let fields = present([severity])
        .chain(links)
        .chain(message.fields().filter(|(key, _)| *key != "severity"));
    // Counted in JSON, because Opsgenie does not state how it counts. The braces need one byte more
    // than the missing comma.
    let around_a_detail = r#""":"","#.len();
    let fitted = fit(
        JSON_UTF16,
        MOST_OF_ALL_DETAILS - 1,
        "",
        fields,
        around_a_detail,
    );
    let detail = |(key, value): (String, String)| (key, Value::from(value));
    fitted.fields.into_iter().map(detail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::sample::{self, Sample};

    fn provider() -> ResolvedProvider {
        sample::provider("opsgenie", |provider| {
            provider.address = "https://api.opsgenie.com/v2/alerts".into();
            provider.secret = sample::secret(&[("token", " genie\n")]);
        })
    }

    #[tokio::test]
    async fn an_event_becomes_an_alert() {
        let request = sample::request(&TYPE, &provider(), &Sample::info()).await;
        insta::assert_snapshot!(sample::shown(&request), @r#"
        POST https://api.opsgenie.com/v2/alerts
        authorization: GenieKey genie (secret)
        content-type: application/json

        {
          "message": "Kustomization/webapp",
          "alias": "e319b274fa80ec25f2e7719920449fe884c6d235cb2e186aa1b61ec529ab56ff",
          "description": "Reconciliation finished in 1.35s",
          "details": {
            "severity": "info",
            "summary": "Production is affected",
            "cluster": "prod-1",
            "revision": "main@sha1:8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291"
          }
        }
        "#);
    }

    #[tokio::test]
    async fn texts_are_cut_at_the_services_limits() {
        let mut event = Sample::info().with_message("m".repeat(20_000));
        event.metadata.insert("a".into(), "v".repeat(9_000));
        event.event.involved_object.as_mut().unwrap().name = "n".repeat(200);
        let body = sample::body(&sample::request(&TYPE, &provider(), &event).await);
        assert_eq!(body["message"].as_str().unwrap().chars().count(), 130);
        assert_eq!(
            body["description"].as_str().unwrap().chars().count(),
            15_000
        );
        assert_eq!(body["details"].to_string().chars().count(), 8_000);
        let details = body["details"].as_object().unwrap();
        assert_eq!(
            details.keys().collect::<Vec<_>>(),
            ["severity", "summary", "a"]
        );
    }

    #[test]
    fn without_an_api_key_the_provider_is_invalid() {
        let provider = sample::provider("opsgenie", |_| {});
        assert!(sample::build_error(&TYPE, &provider).contains("token"));
    }
}
