//! Asks the Kubernetes API about tokens: TokenReview.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;

use super::audience;
use super::kubernetes_api::{ReviewKind, ask};
use super::reviews::{Review, Reviewer};
use super::user::User;

const KIND: ReviewKind = ReviewKind {
    path: "/apis/authentication.k8s.io/v1/tokenreviews",
    kind: "TokenReview",
    resource: "tokenreviews.authentication.k8s.io",
};

/// Asks an API server.
pub struct KubernetesReviewer {
    client: Client,
    audiences: Vec<String>,
}

impl KubernetesReviewer {
    /// A token must have one of the audiences.
    pub fn new(client: Client, audiences: Vec<String>) -> Self {
        Self { client, audiences }
    }
}

impl Reviewer for KubernetesReviewer {
    /// Texts that no service account can have would make a review each.
    fn can_know(&self, token: &str) -> bool {
        audience::is_named(token, &self.audiences)
    }

    async fn review(&self, token: &str) -> Result<Review, String> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(self.audiences.clone()),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let review = ask(&self.client, &KIND, &review).await?;
        Ok(read(review.status.unwrap_or_default(), &self.audiences))
    }
}

/// A server that does not know audiences lists none, and then the token is one for the API itself.
fn read(status: TokenReviewStatus, audiences: &[String]) -> Review {
    let listed = status.audiences.unwrap_or_default();
    let has_audience = listed.iter().any(|listed| audiences.contains(listed));
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    if status.authenticated != Some(true) || !has_audience || name.is_empty() {
        return Review::Invalid;
    }
    Review::Valid(User {
        name,
        uid: user.uid,
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
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
        let user = json!({"username": "flux", "groups": ["a"], "extra": {"key": ["value"]}});
        let valid = json!({"authenticated": true, "user": user, "audiences": ["x", "tidings"]});
        let flux = User {
            name: "flux".to_owned(),
            uid: None,
            groups: vec!["a".to_owned()],
            extra: [("key".to_owned(), vec!["value".to_owned()])].into(),
        };
        assert_eq!(read(valid), Review::Valid(flux));
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
