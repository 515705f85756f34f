//! Asks the Kubernetes API what a user may do: SubjectAccessReview.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Client;
use tidings_ingest::authentication::User;
use tidings_ingest::authentication::kubernetes_api::{ReviewKind, ask};

use super::Authorizer;

/// The API group of Alerts and Providers.
const GROUP: &str = "notification.toolkit.fluxcd.io";
const KIND: ReviewKind = ReviewKind {
    path: "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    kind: "SubjectAccessReview",
    resource: "subjectaccessreviews.authorization.k8s.io",
};

/// Asks an API server.
pub struct KubernetesAuthorizer {
    client: Client,
}

impl KubernetesAuthorizer {
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Authorizer for KubernetesAuthorizer {
    async fn may(
        &self,
        user: &User,
        verb: &'static str,
        resource: &'static str,
        namespace: &str,
    ) -> Result<bool, String> {
        let attributes = ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: user.uid.clone(),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let review = ask(&self.client, &KIND, &review).await?;
        let status = review.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }
}
