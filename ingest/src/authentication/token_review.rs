//! Asks the Kubernetes API about tokens: TokenReview.

use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::client::Body;

use super::audience;
use super::reviews::{Review, Reviewer};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// The largest answer. It repeats the token, and lists the groups of the user.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// Asks an API server.
///
/// The request is sent and read here, because the client of `kube` logs answers that it cannot
/// decode, and an answer repeats the token.
pub struct KubernetesReviewer {
    client: Client,
    audiences: Vec<String>,
}

impl KubernetesReviewer {
    /// A token must have one of the audiences.
    pub fn new(client: Client, audiences: Vec<String>) -> Self {
        Self { client, audiences }
    }

    fn request(&self, token: &str) -> Option<Request<Body>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(self.audiences.clone()),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let body = serde_json::to_vec(&review).ok()?;
        let request = Request::post(PATH).header(CONTENT_TYPE, "application/json");
        request.body(Body::from(body)).ok()
    }
}

impl Reviewer for KubernetesReviewer {
    /// Texts that no service account can have would make a review each.
    fn can_know(&self, token: &str) -> bool {
        audience::is_named(token, &self.audiences)
    }

    async fn review(&self, token: &str) -> Result<Review, String> {
        let request = self
            .request(token)
            .ok_or("the request cannot be written".to_owned())?;
        let sent = self.client.send(request).await;
        let answer =
            sent.map_err(|error| format!("the Kubernetes API cannot be asked: {error}"))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(rejected(status));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await;
        let body = body.map_err(|_| "the answer of the Kubernetes API broke off".to_owned())?;
        let review: TokenReview = serde_json::from_slice(&body.to_bytes())
            .map_err(|_| "the answer of the Kubernetes API is no TokenReview".to_owned())?;
        Ok(read(review.status.unwrap_or_default(), &self.audiences))
    }
}

fn rejected(status: StatusCode) -> String {
    let hint = match status {
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
            "; permit ingest's account to create tokenreviews.authentication.k8s.io"
        }
        _ => "",
    };
    format!("the Kubernetes API answered {status} to a TokenReview{hint}")
}

/// A server that does not know audiences lists none, and then the token is one for the API itself.
fn read(status: TokenReviewStatus, audiences: &[String]) -> Review {
    let listed = status.audiences.unwrap_or_default();
    let has_audience = listed.iter().any(|listed| audiences.contains(listed));
    match status.user.and_then(|user| user.username) {
        Some(user) if status.authenticated == Some(true) && has_audience && !user.is_empty() => {
            Review::Valid(user)
        }
        _ => Review::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_valid_only_with_a_user_and_one_of_our_audiences() {
        let read = |status: serde_json::Value| {
            let status = serde_json::from_value(status).unwrap();
            super::read(status, &["tidings".to_owned(), "other".to_owned()])
        };
        let user = json!({"username": "flux"});
        let valid = json!({"authenticated": true, "user": user, "audiences": ["x", "tidings"]});
        assert_eq!(read(valid), Review::Valid("flux".to_owned()));
        for invalid in [
            json!({}),
            json!({"authenticated": true, "user": user}),
            json!({"authenticated": true, "user": user, "audiences": []}),
            json!({"authenticated": true, "user": user, "audiences": ["kubernetes"]}),
            json!({"authenticated": false, "user": user, "audiences": ["tidings"]}),
            json!({"user": user, "audiences": ["tidings"]}),
            json!({"authenticated": true, "audiences": ["tidings"]}),
            json!({"authenticated": true, "user": {}, "audiences": ["tidings"]}),
        ] {
            assert_eq!(read(invalid.clone()), Review::Invalid, "{invalid}");
        }
    }
}
