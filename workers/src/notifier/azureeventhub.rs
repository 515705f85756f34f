//! `azureeventhub`: the event as JSON to an event hub of Azure.
//!
//! Contract: Microsoft's "Event Hubs service REST API", Send event, with its common headers. There
//! are two ways to log in. The address is a connection string with `SharedAccessKey` and
//! `EntityPath`, from which a token is signed ("Authenticate access to Event Hubs resources using
//! shared access signatures"). Or the Secret has a Microsoft Entra token, the address is the hub
//! and the channel is the namespace. Managed identity is not supported. A retry after a lost
//! response sends twice.
//!
//! 201 is success. Other statuses (401, 403, 404, 500, 503) mean what the shared table says.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, header};
use sha2::Sha256;
use tidings_core::{Failure, Reason};
use tidings_rules::{Family, ResolvedProvider};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use crate::http::classify::classify;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::http::{Http, Request};
use crate::message::Message;
use crate::message::render::Content;
use crate::notifier::contract::limits::{BodyLimit, SizeLimits, SizeUnit};
use crate::notifier::contract::need::Demand::{Either, Optional};
use crate::notifier::contract::need::Need;
use crate::notifier::payload::fit_body::fit_event;

/// The content type that Event Hubs needs for every body, including JSON.
const CONTENT_TYPE: &str = "application/atom+xml;type=entry;charset=utf-8";
const SIGNATURE_SECONDS: i64 = 3600;
/// All but the unreserved characters of a URL (RFC 3986, section 2.3).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// In bytes: 1 MB, which is the limit of all tiers but Basic (256 KB).
const LONGEST_BODY: usize = 1_000_000;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "azureeventhub",
    family: Family::Message,
    summary: "Azure Event Hubs, the event as JSON",
    needs: &[
        Need::key(
            "address",
            Either,
            "a connection string with EntityPath",
            "Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=your-key;EntityPath=flux",
        ),
        Need::field(
            "address",
            Either,
            "the hub's name, with channel and token",
            "",
        ),
        Need::field("channel", Optional, "the hub's namespace, with token", ""),
        Need::key(
            "token",
            Either,
            "a Microsoft Entra ID token for Event Hubs, where the address is the name of the hub",
            "",
        ),
    ],
    cut_at: "1 MB",
    sent_twice: "twice",
    build,
    confirmation: Confirmation::Status,
    content: Content::Event,
    mentions: Mentions::EVENT,
    size_limits: SizeLimits {
        source: "https://learn.microsoft.com/en-us/azure/event-hubs/event-hubs-quotas",
        body: BodyLimit::AtMost(SizeUnit::Bytes, LONGEST_BODY),
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

struct EventHub {
    http: Http,
    login: Login,
}

enum Login {
    /// The parts of a connection string.
    SharedKey {
        host: String,
        hub: String,
        key_name: String,
        key: String,
    },
    /// A token that the user renews.
    Token { hub: String, token: String },
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let login = match (
        provider.address.contains("SharedAccessKey"),
        provider.secret.token(),
    ) {
        (true, None) => shared_key(&provider.address)?,
        (true, Some(_)) => {
            return Err(Invalid::from(
                "both a connection string and a token: remove the key token from the Secret, or \
                 set the address to the hub's name",
            ));
        }
        (false, _) if provider.address.is_empty() => {
            return Err(Invalid::from(
                "no event hub: set the address to its name or to a connection string with \
                 EntityPath",
            ));
        }
        (false, Some(token)) => Login::Token {
            hub: provider.address.clone(),
            token: token.to_owned(),
        },
        (false, None) => {
            return Err(Invalid::from(
                "no credentials: set the address to a connection string with SharedAccessKey, or \
                 the key token in the Secret of spec.secretRef; managed identity is not supported",
            ));
        }
    };
    Ok(Notifier::Message(Box::new(EventHub { http, login })))
}

/// Reads `Endpoint=sb://HOST/;SharedAccessKeyName=NAME;SharedAccessKey=KEY;EntityPath=HUB`, in any
/// order.
fn shared_key(connection_string: &str) -> Result<Login, Invalid> {
    let part = |wanted: &str| {
        let mut pairs = connection_string
            .split(';')
            .filter_map(|pair| pair.trim().split_once('='));
        let value = pairs
            .find(|(key, _)| key.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.to_owned());
        value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Invalid(format!("the connection string has no {wanted}; add it")))
    };
    let endpoint = Url::parse(&part("Endpoint")?).ok();
    let host = endpoint
        .and_then(|url| url.host_str().map(str::to_owned))
        .filter(|host| !host.is_empty());
    Ok(Login::SharedKey {
        host: host.ok_or("Endpoint in the connection string is not sb://HOST/")?,
        hub: part("EntityPath")?,
        key_name: part("SharedAccessKeyName")?,
        key: part("SharedAccessKey")?,
    })
}

#[async_trait]
impl SendMessage for EventHub {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let body = fit_event(
            LONGEST_BODY,
            message.event,
            &message.metadata_with_cluster(),
        );
        let (url, authorization) = self.login.target(message.channel, Timestamp::now())?;
        let request = Request::new(Method::POST, url)
            .body(CONTENT_TYPE, body)
            .secret_header(header::AUTHORIZATION, &authorization);
        classify(&self.http.send(request).await?).map(Sent::accepted)
    }
}

impl Login {
    /// The URL, and the `Authorization` header.
    fn target(&self, channel: &str, now: Timestamp) -> Result<(Url, String), Failure> {
        let (host, hub) = match self {
            Self::SharedKey { host, hub, .. } => (host.clone(), hub),
            Self::Token { hub, .. } => (namespace_host(channel)?, hub),
        };
        let resource = format!("https://{host}/{}", utf8_percent_encode(hub, ESCAPED));
        let unusable = |_| {
            Failure::permanent(
                Reason::Misconfigured,
                "the namespace of the event hub is not a valid host name; correct spec.channel",
            )
        };
        let url =
            Url::parse(&format!("{resource}/messages?api-version=2014-01")).map_err(unusable)?;
        let authorization = match self {
            Self::SharedKey { key_name, key, .. } => signature(
                &resource,
                key_name,
                key,
                now.as_second() + SIGNATURE_SECONDS,
            ),
            Self::Token { token, .. } => format!("Bearer {token}"),
        };
        Ok((url, authorization))
    }
}

fn namespace_host(channel: &str) -> Result<String, Failure> {
    match channel {
        "" => {
            let detail = "no namespace: set spec.channel to the namespace of the event hub";
            Err(Failure::permanent(Reason::Misconfigured, detail))
        }
        host if host.contains(".servicebus.") => Ok(host.to_owned()),
        name => Ok(format!("{name}.servicebus.windows.net")),
    }
}

/// A shared access signature over the resource and the time of expiry.
fn signature(resource: &str, key_name: &str, key: &str, expires: i64) -> String {
    let resource = utf8_percent_encode(resource, ESCAPED).to_string();
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{resource}\n{expires}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let signature = utf8_percent_encode(&signature, ESCAPED);
    let key_name = utf8_percent_encode(key_name, ESCAPED);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}&skn={key_name}")
}

#[cfg(test)]
mod tests {
    use tidings_core::model::flux;

    use super::*;
    use crate::notifier::sample::{self, Sample};

    const CONNECTION: &str = "Endpoint=sb://ns-a.servicebus.windows.net/;SharedAccessKeyName=send-a;SharedAccessKey=bWFkZS11cC1rZXk=;EntityPath=hub-a";

    fn provider(address: &str, secret: &[(&str, &str)]) -> ResolvedProvider {
        sample::provider("azureeventhub", |provider| {
            provider.address = address.into();
            provider.secret = sample::secret(secret);
        })
    }

    #[tokio::test]
    async fn an_event_goes_to_the_hub_of_the_connection_string() {
        let request = sample::request(&TYPE, &provider(CONNECTION, &[]), &Sample::info()).await;
        assert_eq!(request.method, Method::POST);
        assert_eq!(
            request.url.as_str(),
            "https://ns-a.servicebus.windows.net/hub-a/messages?api-version=2014-01"
        );
        assert_eq!(request.headers["content-type"], CONTENT_TYPE);
        assert!(request.headers["authorization"].is_sensitive());
        assert_eq!(
            request.body,
            flux::to_json(&Sample::info().event, &Sample::info().metadata)
        );
    }

    #[test]
    fn a_signature_is_over_resource_and_expiry() {
        // The expected value is that of `openssl dgst -hmac` over the two lines.
        assert_eq!(
            signature(
                "https://ns-a.servicebus.windows.net/hub-a",
                "send-a",
                "bWFkZS11cC1rZXk=",
                1_795_239_008
            ),
            "SharedAccessSignature sr=https%3A%2F%2Fns-a.servicebus.windows.net%2Fhub-a\
             &sig=iVW7skMWOhG5i8tH30P%2FW6lvP0zZHDay62%2B%2Fp91zP6w%3D&se=1795239008&skn=send-a"
        );
    }

    #[tokio::test]
    async fn a_token_goes_to_the_hub_of_the_namespace() {
        for (channel, host) in [
            ("ns-a", "ns-a.servicebus.windows.net"),
            (
                "ns-a.servicebus.usgovcloudapi.net",
                "ns-a.servicebus.usgovcloudapi.net",
            ),
        ] {
            let mut event = Sample::info();
            event.channel = channel.into();
            let request = sample::request(
                &TYPE,
                &provider("hub-a", &[("token", "eyJ.made.up")]),
                &event,
            )
            .await;
            assert_eq!(request.url.host_str(), Some(host));
            assert_eq!(request.headers["authorization"], "Bearer eyJ.made.up");
        }
        assert_eq!(
            sample::meaning(namespace_host("")),
            Some((Reason::Misconfigured, false))
        );
    }

    #[test]
    fn missing_or_conflicting_credentials_are_rejected() {
        for (address, secret, word) in [
            ("", vec![], "no event hub"),
            ("hub", vec![], "managed identity"),
            (CONNECTION, vec![("token", "x")], "both"),
            (
                "Endpoint=sb://ns/;SharedAccessKeyName=k;SharedAccessKey=SECRET",
                vec![],
                "no EntityPath",
            ),
            (
                "Endpoint=ns;SharedAccessKeyName=k;SharedAccessKey=SECRET;EntityPath=h",
                vec![],
                "Endpoint",
            ),
        ] {
            let build_error = sample::build_error(&TYPE, &provider(address, &secret));
            assert!(
                build_error.contains(word) && !build_error.contains("SECRET"),
                "{build_error}"
            );
        }
    }
}
