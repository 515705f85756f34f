//! Proxies of tenants are checked like services; the operator's proxy is not.

use serde_json::json;
use tidings_rig::{Receiver, Reply, Rig, Role, alert, event, eventually, provider, secret};

use crate::TIDINGS;

/// A worker as in a cluster, where loopback is refused.
fn up() -> Role {
    Role::up().env("TIDINGS_WORKER__ADDRESSES__LOOPBACK", "false")
}

/// `http://HOST:PORT` of a receiver, as the URL of a proxy.
fn proxy(receiver: &Receiver) -> &str {
    receiver.url().trim_end_matches("/hook")
}

#[tokio::test]
async fn the_proxy_of_a_tenant_reaches_no_refused_address_and_its_answer_is_not_shown() {
    let internal = Receiver::start().await;
    internal.answer_with(Reply::Text(403, "s3cret of the internal service"));
    let rig = Rig::start(TIDINGS).await;
    let url = proxy(&internal);
    let named = url.replace("127.0.0.1", "localhost");
    rig.rules().put([
        secret("key", json!({"proxy": url})),
        secret("proxy", json!({"address": named})),
        provider("by-field", "http://192.0.2.1/").with("proxy", url),
        provider("by-key", "http://192.0.2.1/").with("secretRef", json!({"name": "key"})),
        provider("by-secret", "http://192.0.2.1/").with("proxySecretRef", json!({"name": "proxy"})),
        alert("by-field", "by-field"),
        alert("by-key", "by-key"),
        alert("by-secret", "by-secret"),
    ]);
    let up = rig.run(up()).await;

    up.post(&event("happened")).await.expect("ingest responds");
    let dead = eventually("each way has a dead letter", async || {
        let dead = rig.dead_letters().await;
        (dead.len() == 3).then_some(dead)
    })
    .await;

    for dead in dead {
        let detail = dead.detail;
        assert_eq!(dead.reason, "misconfigured", "{detail}");
        let named = [
            "spec.proxy",
            "spec.secretRef, the key proxy",
            "spec.proxySecretRef",
        ]
        .into_iter()
        .any(|field| detail.contains(field));
        assert!(
            named && detail.contains("worker.addresses.allow"),
            "{detail}"
        );
        assert!(!detail.contains("s3cret"), "{detail}");
    }
    assert_eq!(internal.count(), 0);
}

#[tokio::test]
async fn the_proxy_of_the_operator_may_have_any_address() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules().put([
        provider("hook", "http://192.0.2.1/hook"),
        alert("all", "hook"),
    ]);
    let up = rig.run(up().env("HTTP_PROXY", proxy(&receiver))).await;

    up.post(&event("through")).await.expect("ingest responds");

    receiver.accepts("through").await;
}
