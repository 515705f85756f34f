//! `googlepubsub`: the event as JSON to a topic of Google Cloud Pub/Sub.
//!
//! Contract: Google's "Cloud Pub/Sub REST API", `projects.topics.publish`; the Secret's `headers`
//! become the message's attributes. The service account's key signs a token for the API itself
//! ("Self-signed JWTs", AIP-4111), so no token is exchanged. Workload identity is not
//! supported. A retry after a lost response publishes twice.
//!
//! By "Pub/Sub error codes", 409 (aborted) and 499 (canceled) can be retried, too.

use std::collections::BTreeMap;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::classify::{StatusRule, classify_with};
use crate::http::confirmation::{Confirmation, Is};
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::message::render::Content;
use crate::notifier::contract::limits::{BodyLimit, SizeLimit, SizeLimits, SizeUnit};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;
use crate::notifier::generic::{CLUSTER_FIELD, CLUSTER_HEADER, metadata};
use crate::notifier::payload::fit_body::fit_event;
use crate::text::cut_bytes;

/// The audience of tokens, and the base of all URLs.
const API: &str = "https://pubsub.googleapis.com/";
/// The longest lifetime of a token that Google accepts.
const TOKEN_SECONDS: i64 = 3600;

/// In bytes: 10 MB.
const LONGEST_BODY: usize = 10_000_000;
/// What JSON writes around the event and the attributes, with room to spare.
const AROUND_THE_EVENT: usize = 1_000;
const MOST_ATTRIBUTES: usize = 100;
/// In bytes.
const LONGEST_ATTRIBUTE: usize = 1_024;
const LONGEST_ATTRIBUTE_KEY: usize = 256;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "googlepubsub",
    family: Family::Message,
    summary: "Google Cloud Pub/Sub, the event as JSON",
    needs: &[
        Need::field("address", Required, "the project's id", "acme-project"),
        Need::field("channel", Required, "the topic's id", "flux"),
        Need::key(
            "token",
            Required,
            "a service account's JSON key",
            "{\n  \"client_email\": \"flux@acme-project.iam.gserviceaccount.com\",\n  \
             \"private_key_id\": \"your-key-id\",\n  \"private_key\": \"your-private-key\"\n}\n",
        ),
        Need::key(
            "headers",
            Optional,
            "attributes of every message, as a YAML map",
            "",
        ),
        CLUSTER_FIELD,
    ],
    cut_at: "10 MB",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::Json(&[("messageIds", Is::Present)]),
    content: Content::Event,
    sends_headers: false,
    status_rules: &[
        StatusRule::retry(409..=409, Reason::ServerError),
        StatusRule::retry(499..=499, Reason::ServerError),
    ],
    mentions: Mentions::EVENT,
    size_limits: SizeLimits {
        source: "https://cloud.google.com/pubsub/quotas#resource_limits",
        body: BodyLimit::AtMost(SizeUnit::Bytes, LONGEST_BODY),
        parts: &[
            SizeLimit::items("/messages/0/attributes", MOST_ATTRIBUTES),
            SizeLimit::bytes("/messages/0/attributes/*", LONGEST_ATTRIBUTE),
        ],
    },
    ..ProviderType::DEFAULT
};

struct PubSub {
    http: Http,
    project: String,
    account: Account,
    attributes: BTreeMap<String, String>,
    cluster_field: bool,
}

/// The service account and its signing key.
struct Account {
    email: String,
    key_id: Option<String>,
    key: EncodingKey,
}

/// The used fields of a service account's JSON key.
#[derive(Deserialize)]
struct AccountFile {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(Deserialize, Debug, PartialEq))]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: i64,
    exp: i64,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    if provider.address.is_empty() {
        return Err(Invalid::from(
            "no project: set spec.address to the id of the Google Cloud project",
        ));
    }
    let file = provider.secret.token().ok_or(
        "no service account: set the key token in the Secret of spec.secretRef to its JSON key; \
         workload identity is not supported",
    )?;
    check_attributes(&provider.headers)?;
    let project = provider.address.clone();
    Ok(Notifier::Message(Box::new(PubSub {
        http,
        project,
        account: account(file)?,
        attributes: provider.headers.clone(),
        cluster_field: provider.cluster_field,
    })))
}

fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), Invalid> {
    if attributes.len() > MOST_ATTRIBUTES {
        return Err(Invalid(format!(
            "headers in the Secret has {} attributes; Pub/Sub accepts {MOST_ATTRIBUTES}",
            attributes.len()
        )));
    }
    let is_long = |(key, value): &(&String, &String)| {
        key.len() > LONGEST_ATTRIBUTE_KEY || value.len() > LONGEST_ATTRIBUTE
    };
    match attributes.iter().find(is_long) {
        None => Ok(()),
        Some((key, _)) => Err(Invalid(format!(
            "the attribute {:?} in headers of the Secret is too long; Pub/Sub accepts keys of \
             {LONGEST_ATTRIBUTE_KEY} bytes and values of {LONGEST_ATTRIBUTE}",
            cut_bytes(key, LONGEST_ATTRIBUTE_KEY)
        ))),
    }
}

fn account(file: &str) -> Result<Account, Invalid> {
    // The errors of serde and of the decoder may quote the key.
    let file: AccountFile = serde_json::from_str(file).map_err(|_| {
        Invalid::from(
            "the key token in the Secret is not a service account's JSON key with client_email and \
             private_key",
        )
    })?;
    let key = EncodingKey::from_rsa_pem(file.private_key.as_bytes()).map_err(|_| {
        Invalid::from("private_key in the Secret's token is not an RSA key in PEM format")
    })?;
    Ok(Account {
        email: file.client_email,
        key_id: file.private_key_id,
        key,
    })
}

#[async_trait]
impl SendMessage for PubSub {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let url = topic_url(&self.project, message.channel)?;
        // Base64 writes four characters for three bytes.
        let mut attributes = self.attributes.clone();
        let cluster = message.cluster_header();
        attributes.extend(cluster.map(|name| (CLUSTER_HEADER.to_owned(), name)));
        let around = AROUND_THE_EVENT + json!(attributes).to_string().len();
        let event = fit_event(
            (LONGEST_BODY - around) / 4 * 3,
            message.event,
            &metadata(message, self.cluster_field),
        );
        let mut pubsub_message = json!({ "data": STANDARD.encode(event) });
        if !attributes.is_empty() {
            pubsub_message["attributes"] = json!(attributes);
        }
        let request = Request::post_json(url, &json!({ "messages": [pubsub_message] }))
            .bearer(&self.account.token(Timestamp::now())?);
        classify_with(&self.http.send(request).await?, TYPE.status_rules).map(Sent::accepted)
    }
}

fn topic_url(project: &str, topic: &str) -> Result<Url, Failure> {
    if topic.is_empty() {
        let detail =
            "no topic: set spec.channel of the Provider, or of the Alert, to the topic's id";
        return Err(Failure::permanent(Reason::Misconfigured, detail));
    }
    let mut url = Url::parse(API).expect("the address of the API is a URL");
    let mut segments = url
        .path_segments_mut()
        .expect("the address of the API has a path");
    segments.pop_if_empty().extend([
        "v1",
        "projects",
        project,
        "topics",
        &format!("{topic}:publish"),
    ]);
    drop(segments);
    Ok(url)
}

impl Account {
    /// A self-signed token for the API.
    fn token(&self, now: Timestamp) -> Result<String, Failure> {
        let issued = now.as_second();
        let (iss, sub) = (self.email.clone(), self.email.clone());
        let claims = Claims {
            iss,
            sub,
            aud: API.to_owned(),
            iat: issued,
            exp: issued + TOKEN_SECONDS,
        };
        let mut header = Header::new(Algorithm::RS256);
        header.kid = self.key_id.clone();
        let unusable = "private_key in the Secret's token can't sign: it must be an RSA key of \
                        at least 2048 bits";
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|_| Failure::permanent(Reason::Misconfigured, unusable))
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};

    use tidings_core::model::flux;

    use super::*;
    use crate::notifier::sample::{self, Sample};

    /// Made for this test.
    const PRIVATE_KEY: &str = include_str!("googlepubsub/test-key.pem");
    const PUBLIC_KEY: &str = include_str!("googlepubsub/test-key.pub.pem");

    fn provider() -> ResolvedProvider {
        let file = json!({ "client_email": "flux@proj.iam.gserviceaccount.com",
            "private_key_id": "k1", "private_key": PRIVATE_KEY });
        sample::provider("googlepubsub", |provider| {
            provider.address = "proj".into();
            provider.secret = sample::secret(&[("token", &file.to_string())]);
            provider.headers.insert("env".into(), "prod".into());
        })
    }

    #[tokio::test]
    async fn an_event_becomes_a_message_with_attributes() {
        let request = sample::request(&TYPE, &provider(), &Sample::info()).await;
        assert_eq!(
            request.url.as_str(),
            "https://pubsub.googleapis.com/v1/projects/proj/topics/general:publish"
        );
        let body = sample::body(&request);
        let data = STANDARD
            .decode(body["messages"][0]["data"].as_str().unwrap())
            .unwrap();
        assert_eq!(
            data,
            flux::to_json(&Sample::info().event, &Sample::info().metadata)
        );
        assert_eq!(body["messages"][0]["attributes"], json!({ "env": "prod" }));
    }

    #[tokio::test]
    async fn the_token_is_signed_by_the_account() {
        let request = sample::request(&TYPE, &provider(), &Sample::info()).await;
        let header = &request.headers["authorization"];
        assert!(header.is_sensitive());
        let token = header.to_str().unwrap().strip_prefix("Bearer ").unwrap();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&[API]);
        let key = DecodingKey::from_rsa_pem(PUBLIC_KEY.as_bytes()).unwrap();
        let token = jsonwebtoken::decode::<Claims>(token, &key, &validation).unwrap();
        assert_eq!(token.header.kid.as_deref(), Some("k1"));
        assert_eq!(token.claims.iss, "flux@proj.iam.gserviceaccount.com");
        assert_eq!(token.claims.sub, token.claims.iss);
        assert_eq!(token.claims.exp - token.claims.iat, TOKEN_SECONDS);
    }

    #[tokio::test]
    async fn without_a_topic_nothing_is_sent() {
        assert_eq!(
            sample::meaning(topic_url("proj", "")),
            Some((Reason::Misconfigured, false))
        );
        assert_eq!(
            topic_url("a/b", "t").unwrap().path(),
            "/v1/projects/a%2Fb/topics/t:publish"
        );
    }

    #[test]
    fn an_invalid_service_account_is_rejected() {
        for (token, word) in [
            ("", "workload identity"),
            ("{}", "client_email"),
            (
                r#"{"client_email": "a", "private_key": "SECRET"}"#,
                "private_key",
            ),
        ] {
            let mut provider = provider();
            provider.secret = sample::secret(&[("token", token)]);
            let build_error = sample::build_error(&TYPE, &provider);
            assert!(
                build_error.contains(word) && !build_error.contains("SECRET"),
                "{build_error}"
            );
        }
    }

    #[test]
    fn an_aborted_publish_is_retried() {
        for (status, expected) in [
            (200, None),
            (400, Some((Reason::Rejected, false))),
            (404, Some((Reason::NotFound, false))),
            (409, Some((Reason::ServerError, true))),
            (429, Some((Reason::RateLimited, true))),
            (499, Some((Reason::ServerError, true))),
            (503, Some((Reason::ServerError, true))),
        ] {
            assert_eq!(
                sample::meaning(classify_with(
                    &sample::response(status, ""),
                    TYPE.status_rules
                )),
                expected,
                "{status}"
            );
        }
    }
}
