//! `generic-hmac`: like `generic`, with a signature of the body.
//!
//! Contract: Flux's notification API, "generic webhook with HMAC": `X-Signature: sha256=<hex>`, the
//! HMAC-SHA256 of the exact bytes of the body. The key is the Secret's `token` as stored, including
//! white space, since receivers use the same bytes.

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tidings_core::Failure;
use tidings_core::model::token::hex;
use tidings_rules::{Family, ResolvedProvider, SecretValue};
use url::Url;

use super::contract::mentions::Mentions;
use super::contract::{Notifier, ProviderType, SendMessage, Sent};
use super::generic::{CLUSTER_FIELD, CLUSTER_HEADER, event_body, event_request};
use crate::http::Http;
use crate::http::address::http_url;
use crate::http::classify::classify;
use crate::http::confirmation::Confirmation;
use crate::http::invalid::Invalid;
use crate::message::Message;
use crate::message::render::Content;
use crate::notifier::contract::limits::{BodyLimit, SizeLimits};
use crate::notifier::contract::need::Demand::{Optional, Required};
use crate::notifier::contract::need::Need;

/// The row of this type.
pub const TYPE: ProviderType = ProviderType {
    kind: "generic-hmac",
    family: Family::Generic,
    summary: "any webhook, the event as JSON with a signature",
    needs: &[
        Need::field(
            "address",
            Required,
            "any http or https address",
            "https://hooks.example.com/flux",
        ),
        Need::key("token", Required, "the signing key", "your-signing-key"),
        Need::key("headers", Optional, "more headers, as a YAML map", ""),
        CLUSTER_FIELD,
    ],
    cut_at: "none",
    sent_twice: "the receiver recognizes it (`Idempotency-Key`)",
    build,
    confirmation: Confirmation::Status,
    content: Content::Event,
    raw_key: "token",
    own_headers: &["idempotency-key", "x-signature", CLUSTER_HEADER],
    mentions: Mentions::EVENT,
    size_limits: SizeLimits {
        source: "https://fluxcd.io/flux/components/notification/providers/#generic-webhook-with-hmac",
        body: BodyLimit::Unlimited("the receiver is your own"),
        parts: &[],
    },
    ..ProviderType::DEFAULT
};

struct GenericHmac {
    http: Http,
    url: Url,
    key: SecretValue,
    cluster_field: bool,
}

fn build(provider: &ResolvedProvider, http: Http) -> Result<Notifier, Invalid> {
    let url = http_url(provider)?;
    let key = provider
        .secret
        .get("token")
        .filter(|key| !key.bytes().is_empty());
    let key = key
        .ok_or("no signing key: set the key token in the Secret of spec.secretRef")?
        .clone();
    Ok(Notifier::Message(Box::new(GenericHmac {
        http,
        url,
        key,
        cluster_field: provider.cluster_field,
    })))
}

#[async_trait]
impl SendMessage for GenericHmac {
    async fn send(&self, message: &Message<'_>) -> Result<Sent, Failure> {
        let body = event_body(message, self.cluster_field);
        let signature = signature(self.key.bytes(), &body);
        let request = event_request(self.url.clone(), message, body);
        classify(
            &self
                .http
                .send(request.header("x-signature", &signature))
                .await?,
        )
        .map(Sent::accepted)
    }
}

fn signature(key: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, Sample};
    use super::*;

    #[tokio::test]
    async fn the_body_is_signed_with_the_stored_bytes_of_the_token() {
        let provider = sample::provider("generic-hmac", |provider| {
            provider.secret = sample::secret(&[("token", "key\n")]);
            provider.headers.insert("X-Signature".into(), "mine".into());
        });
        let request = sample::request(&TYPE, &provider, &Sample::info()).await;
        assert_eq!(
            request.headers["x-signature"],
            signature(b"key\n", &request.body)
        );
        assert_ne!(
            request.headers["x-signature"],
            signature(b"key", &request.body)
        );
        insta::assert_snapshot!(sample::shown(&request));
    }

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        let signed = signature(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(
            signed,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn without_a_key_the_provider_is_invalid() {
        for secret in [sample::secret(&[]), sample::secret(&[("token", "")])] {
            let provider = sample::provider("generic-hmac", |provider| provider.secret = secret);
            assert!(sample::build_error(&TYPE, &provider).contains("token"));
        }
    }
}
