//! Senders with tokens of the Kubernetes API: TokenReview.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test too, but clippy.toml allows it in test functions only"
)]

use std::fs;
use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, decode_header, encode};
use reqwest::Client;
use serde_json::Value;
use tidings_rig::{HttpResponse, KubeApiServer, Process, Rig, Role, event, eventually};

use crate::TIDINGS;

const RBAC: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/deploy/components/token-review/rbac.yaml"
);

/// An account that may do only what the component permits.
async fn reviewer(server: &KubeApiServer, namespace: &str) -> String {
    let kubeconfig = server.kubeconfig_for(namespace, "tidings-ingest").await;
    kubeconfig.display().to_string()
}

/// Binds the role of the component to the account of [`reviewer`].
async fn permit(server: &KubeApiServer, namespace: &str) {
    let manifests = fs::read_to_string(Path::new(RBAC)).unwrap();
    let (role, binding) = manifests.split_once("---").unwrap();
    server.apply(namespace, role).await;
    // As Kustomize does; the binding of each test has its own name.
    let binding = binding
        .replacen("tidings-token-review", namespace, 1)
        .trim_end()
        .to_owned();
    let binding = format!("{binding}\n    namespace: {namespace}\n");
    server.apply(namespace, &binding).await;
}

fn role(kubeconfig: &str, users: &str) -> Role {
    Role::up()
        .args(["--kubeconfig", kubeconfig])
        .env("TIDINGS_INGEST__LABELS", "false")
        .env("TIDINGS_INGEST__AUTH__TOKEN_REVIEW__ENABLED", "true")
        .env("TIDINGS_INGEST__AUTH__TOKEN_REVIEW__USERS", users)
}

async fn account(server: &KubeApiServer, namespace: &str, name: &str) {
    server
        .kubectl(&["create", "serviceaccount", name, "--namespace", namespace])
        .await
        .expect_success();
}

async fn post(up: &Process, token: &str, message: &str) -> (u16, String) {
    let client = Client::builder().no_proxy().build().unwrap();
    let request = client.post(up.address()).bearer_auth(token);
    let answer = request
        .body(event(message).to_string())
        .send()
        .await
        .unwrap();
    let status = answer.status().as_u16();
    assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
    let answer = HttpResponse {
        status,
        headers: answer.headers().clone(),
        body: answer.text().await.unwrap(),
    };
    (status, answer.code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The same token, changed and signed with the key of the API server.
fn resigned(server: &KubeApiServer, token: &str, change: impl FnOnce(&mut Value)) -> String {
    let payload = token.split('.').nth(1).expect("a token has three parts");
    let payload =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    let mut claims: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    change(&mut claims);
    let mut header = Header::new(Algorithm::ES256);
    header.kid = decode_header(token).unwrap().kid;
    let key = fs::read(server.folder().join("accounts.key")).unwrap();
    encode(&header, &claims, &EncodingKey::from_ec_pem(&key).unwrap()).unwrap()
}

#[tokio::test]
async fn only_valid_tokens_of_allowed_accounts_are_accepted() {
    let server = KubeApiServer::shared().await;
    let namespace = server.namespace().await;
    let ns = namespace.as_str();
    let kubeconfig = reviewer(server, ns).await;
    for name in ["sender", "stranger"] {
        account(server, ns, name).await;
    }
    let rig = Rig::start(TIDINGS).await;
    let users = format!("someone,system:serviceaccount:{ns}:send*");
    let up = rig.spawn(role(&kubeconfig, &users));
    // Before it is permitted, no token can be checked.
    up.is_not_ready("token-review", "403").await;
    let token = server.token_of(ns, "sender", &["tidings", "other"]).await;
    let unavailable = refused(503, "authentication-unavailable");
    assert_eq!(post(&up, &token, "too early").await, unavailable);
    permit(server, ns).await;
    up.ready().await;

    assert_eq!(post(&up, &token, "first").await.0, 202);
    assert_eq!(post(&up, &token, "second").await.0, 202);
    let same = resigned(server, &token, |_| {});
    assert_eq!(post(&up, &same, "signed again").await.0, 202);

    let unauthenticated = refused(401, "unauthenticated");
    let expired = |claims: &mut Value| {
        let issued = claims["iat"].as_i64().unwrap() - 7200;
        (claims["iat"], claims["nbf"]) = (issued.into(), issued.into());
        claims["exp"] = (issued + 3600).into();
    };
    for (what, wrong) in [
        (
            "another audience",
            server.token_of(ns, "sender", &["other"]).await,
        ),
        (
            "the audience of the API",
            server.token_of(ns, "sender", &[]).await,
        ),
        ("expired", resigned(server, &token, expired)),
        (
            "a broken signature",
            format!("{}AAAA", &token[..token.len() - 4]),
        ),
        ("garbage", "garbage".to_owned()),
    ] {
        assert_eq!(post(&up, &wrong, what).await, unauthenticated, "{what}");
    }
    let stranger = server.token_of(ns, "stranger", &["tidings"]).await;
    let not_allowed = refused(403, "sender-not-allowed");
    assert_eq!(post(&up, &stranger, "not allowed").await, not_allowed);
    let no_token = up.post(&event("no token")).await.unwrap();
    assert_eq!((no_token.status, no_token.code()), unauthenticated);

    let reviewed = "tidings_ingest_authentications_total";
    for (outcome, count) in [("reviewed", 3.0), ("unknown", 5.0), ("not-allowed", 1.0)] {
        up.counts(reviewed, &format!("\"{outcome}\""), count).await;
    }
    for secret in [&token, &stranger] {
        let signature = secret.rsplit('.').next().unwrap();
        assert!(!up.log().iter().any(|line| line.contains(signature)));
    }
    rig.routed().await;
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_delays_senders_and_refuses_none() {
    let mut server = KubeApiServer::start().await;
    let namespace = server.namespace().await;
    let ns = namespace.as_str();
    let kubeconfig = reviewer(&server, ns).await;
    permit(&server, ns).await;
    account(&server, ns, "sender").await;
    let rig = Rig::start(TIDINGS).await;
    let up = rig.run(role(&kubeconfig, "")).await;
    let known = server.token_of(ns, "sender", &["tidings"]).await;
    let unknown = resigned(&server, &known, |claims| claims["jti"] = "other".into());
    assert_eq!(post(&up, &known, "before").await.0, 202);

    let unavailable = refused(503, "authentication-unavailable");
    server.freeze();
    assert_eq!(post(&up, &unknown, "frozen").await, unavailable);
    assert_eq!(post(&up, &known, "known").await.0, 202);
    // What cannot be a token of the cluster is refused without a review.
    let unknown_text = post(&up, "garbage", "garbage").await;
    assert_eq!(unknown_text, refused(401, "unauthenticated"));
    let readiness = up.readiness().await;
    assert_eq!(readiness.status, 200);
    assert!(readiness.problem("token-review").is_some());
    up.logs("token-review-failed").await;
    server.thaw();
    server.kill();
    assert_eq!(post(&up, &unknown, "killed").await, unavailable);
    server.restart().await;
    eventually("the sender is accepted after its retry", async || {
        (post(&up, &unknown, "afterwards").await.0 == 202).then_some(())
    })
    .await;
    up.logs("token-review-recovered").await;
    rig.routed().await;
}
