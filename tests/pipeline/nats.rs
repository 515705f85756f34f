//! Providers of type `nats`, with a nats-server that is not the bus.

use async_nats::{ConnectOptions, Subscriber};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tidings_rig::{
    Authority, Manifest, NatsServer, PATIENCE, Rig, Role, alert, event, eventually, provider,
    secret, self_signed,
};

use crate::TIDINGS;

/// A way to log in: the server's configuration and the matching Provider.
struct Login {
    /// More lines in the server's configuration.
    server: String,
    /// The user info in the address.
    user_info: &'static str,
    /// The data of the Provider's Secret.
    secret: Value,
    /// How the test logs in.
    options: ConnectOptions,
}

/// Delivers one event to a server with this login, and returns what its subscriber received.
async fn delivered_with(login: Login) -> Value {
    let rig = Rig::start(TIDINGS).await;
    let folder = rig.folder().join("other");
    std::fs::create_dir(&folder).expect("the rig's folder is writable");
    let server = NatsServer::start(&folder, &login.server).await;
    let mut subscriber = subscribe(&server, login.options).await;
    let address = server
        .url()
        .replace("nats://", &format!("nats://{}", login.user_info));
    rig.rules().put([secret("login", login.secret)]);
    rig.rules().put([
        nats("other", &address).with("secretRef", json!({"name": "login"})),
        alert("all", "other"),
    ]);
    let up = rig.run(Role::up()).await;

    up.post(&event("by another bus"))
        .await
        .expect("ingest responds");

    let received = next(&mut subscriber).await;
    rig.drained().await;
    received
}

fn nats(name: &str, address: &str) -> Manifest {
    provider(name, address)
        .with("type", "nats")
        .with("channel", "flux.events")
}

async fn subscribe(server: &NatsServer, options: ConnectOptions) -> Subscriber {
    let client = options
        .connect(server.url())
        .await
        .expect("the test may log in");
    let subscriber = client
        .subscribe("flux.>")
        .await
        .expect("the test may subscribe");
    client.flush().await.expect("the server responds");
    subscriber
}

async fn next(subscriber: &mut Subscriber) -> Value {
    let message = tokio::time::timeout(PATIENCE, subscriber.next())
        .await
        .expect("the event is published")
        .expect("the subscription is open");
    assert_eq!(message.subject.as_str(), "flux.events");
    serde_json::from_slice(&message.payload).expect("the event is JSON")
}

fn assert_is_the_event(received: &Value) {
    assert_eq!(
        (&received["message"], &received["involvedObject"]["kind"]),
        (&json!("by another bus"), &json!("Kustomization")),
        "{received}"
    );
}

#[tokio::test]
async fn an_event_is_published_without_credentials() {
    let (server, options) = (String::new(), ConnectOptions::new());
    let received = delivered_with(Login {
        server,
        user_info: "",
        secret: json!({"other": "x"}),
        options,
    })
    .await;
    assert_is_the_event(&received);
}

#[tokio::test]
async fn a_token_in_the_address_logs_in() {
    let server = "authorization { token: t0ken }".to_owned();
    let options = ConnectOptions::with_token("t0ken".into());
    assert_is_the_event(
        &delivered_with(Login {
            server,
            user_info: "t0ken@",
            secret: json!({"other": "x"}),
            options,
        })
        .await,
    );
}

#[tokio::test]
async fn user_and_password_of_the_secret_log_in() {
    let server = "authorization { user: flux, password: p4ss }".to_owned();
    let options = ConnectOptions::with_user_and_password("flux".into(), "p4ss".into());
    let secret = json!({"username": "flux", "password": "p4ss"});
    assert_is_the_event(
        &delivered_with(Login {
            server,
            user_info: "",
            secret,
            options,
        })
        .await,
    );
}

#[tokio::test]
async fn an_nkey_logs_in() {
    let key = KeyPair::new_user();
    let seed = key.seed().unwrap();
    let server = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}",
        key.public_key()
    );
    let options = ConnectOptions::with_nkey(seed.clone());
    assert_is_the_event(
        &delivered_with(Login {
            server,
            user_info: "",
            secret: json!({"nkey": seed}),
            options,
        })
        .await,
    );
}

#[tokio::test]
async fn a_credentials_file_logs_in() {
    let [operator, account, system, user] = [
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    ];
    let accounts = [&account, &system].map(|key| {
        (
            key.public_key(),
            claim(&operator, &key.public_key(), "account"),
        )
    });
    let preload = accounts
        .iter()
        .map(|(name, claim)| format!("{name}: {claim}\n"))
        .collect::<String>();
    let server = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{\n{preload}}}",
        claim(&operator, &operator.public_key(), "operator"),
        system.public_key()
    );
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        claim(&account, &user.public_key(), "user"),
        user.seed().unwrap()
    );
    let options = ConnectOptions::with_credentials(&creds).unwrap();
    assert_is_the_event(
        &delivered_with(Login {
            server,
            user_info: "",
            secret: json!({"creds": creds}),
            options,
        })
        .await,
    );
}

/// A claim for a key, signed by another key, as `nsc` writes it.
fn claim(issuer: &KeyPair, subject: &str, kind: &str) -> String {
    let limits = match kind {
        "account" => {
            json!({
                "subs": -1, "data": -1, "payload": -1,
                "imports": -1, "exports": -1, "conn": -1, "leaf": -1,
            })
        }
        _ => json!({"subs": -1, "data": -1, "payload": -1}),
    };
    let mut nats = json!({"type": kind, "version": 2, "pub": {}, "sub": {}});
    match (kind, &mut nats, limits) {
        ("account", nats, limits) => nats["limits"] = limits,
        ("user", Value::Object(nats), Value::Object(limits)) => nats.extend(limits),
        _ => {}
    }
    let claims = json!({
        "jti": subject,
        "iat": 1_700_000_000,
        "iss": issuer.public_key(),
        "name": kind,
        "sub": subject,
        "nats": nats,
    });
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let signed = format!(
        "{}.{}",
        encoded(&json!({"typ": "JWT", "alg": "ed25519-nkey"})),
        encoded(&claims)
    );
    let signature = issuer
        .sign(signed.as_bytes())
        .expect("the issuer has a seed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn a_certificate_must_match_the_host_of_the_address() {
    let rig = Rig::start(TIDINGS).await;
    rig.leaves_deliveries(
        2,
        "two Providers do not trust the certificate of their server",
    );
    let folder = rig.folder().join("other");
    std::fs::create_dir(&folder).unwrap();
    let authority = Authority::new();
    let (certificate, key) = authority.certificate_for("localhost");
    let [certificate_file, key_file] = ["server.crt", "server.key"].map(|name| folder.join(name));
    std::fs::write(&certificate_file, certificate).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let tls = format!("tls {{ cert_file: {certificate_file:?}, key_file: {key_file:?} }}");
    let server = NatsServer::start(&folder, &tls).await;
    let options = ConnectOptions::new()
        .add_root_certificates(authority.file())
        .require_tls(true);
    let url = server.url().replace("127.0.0.1", "localhost");
    let client = options.connect(&url).await.unwrap();
    let mut subscriber = client.subscribe("flux.>").await.unwrap();
    client.flush().await.unwrap();
    rig.rules()
        .put([secret("ca", json!({"ca.crt": authority.pem()}))]);
    rig.rules()
        .put([secret("other", json!({"ca.crt": Authority::new().pem()}))]);
    let by_address = nats("by-address", server.url()).with("certSecretRef", json!({"name": "ca"}));
    let by_name = nats("by-name", &url).with("certSecretRef", json!({"name": "ca"}));
    let of_another = nats("of-another", &url).with("certSecretRef", json!({"name": "other"}));
    rig.rules().put([
        by_name,
        by_address.that_retries_soon(),
        of_another.that_retries_soon(),
    ]);
    rig.rules().put([
        alert("name", "by-name"),
        alert("address", "by-address"),
        alert("another", "of-another"),
    ]);
    let up = rig.run(Role::up()).await;

    up.post(&event("by another bus")).await.unwrap();

    assert_is_the_event(&next(&mut subscriber).await);
    // The two others fail and are parked. Nothing else is published by then.
    for provider in ["by-address", "of-another"] {
        let untrusted = [("provider", provider), ("reason", "untrusted-certificate")];
        up.logs_with("delivery-parked", untrusted).await;
    }
    assert!(
        futures::poll!(subscriber.next()).is_pending(),
        "only the host of the certificate is accepted"
    );
}

#[tokio::test]
async fn a_server_whose_certificate_is_the_configured_authority_is_trusted() {
    let rig = Rig::start(TIDINGS).await;
    let folder = rig.folder().join("other");
    std::fs::create_dir(&folder).unwrap();
    let (certificate, key) = self_signed("localhost");
    let [certificate_file, key_file] = ["server.crt", "server.key"].map(|name| folder.join(name));
    std::fs::write(&certificate_file, &certificate).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let tls = format!("tls {{ cert_file: {certificate_file:?}, key_file: {key_file:?} }}");
    let server = NatsServer::start(&folder, &tls).await;
    let url = server.url().replace("127.0.0.1", "localhost");
    rig.rules()
        .put([secret("ca", json!({"ca.crt": certificate}))]);
    rig.rules().put([
        nats("other", &url).with("certSecretRef", json!({"name": "ca"})),
        alert("all", "other"),
    ]);
    let up = rig.run(Role::up()).await;

    up.post(&event("by another bus")).await.unwrap();

    let outcome = eventually("an attempt ended", async || {
        rig.outcomes().await.pop()?.attempt
    })
    .await;
    assert_eq!(outcome.outcome, "delivered", "{outcome:?}");
    rig.drained().await;
}

#[tokio::test]
async fn a_header_names_a_cluster_that_is_not_default() {
    for (name, expected) in [("default", None), ("prod-eu", Some("prod-eu"))] {
        let rig = Rig::start(TIDINGS).await;
        let folder = rig.folder().join("other");
        std::fs::create_dir(&folder).expect("the rig's folder is writable");
        let server = NatsServer::start(&folder, "").await;
        let mut subscriber = subscribe(&server, ConnectOptions::new()).await;
        rig.rules()
            .put([nats("other", server.url()), alert("all", "other")]);
        let up = rig.run(Role::up().args(["--cluster", name])).await;
        up.post(&event("by another bus"))
            .await
            .expect("ingest responds");

        let message = tokio::time::timeout(PATIENCE, subscriber.next()).await;
        let message = message.expect("it is published").expect("it is open");
        let headers = message.headers.unwrap_or_default();
        let cluster = headers.get("Tidings-Cluster").map(|value| value.as_str());
        assert_eq!(cluster, expected);
        let received: Value = serde_json::from_slice(&message.payload).expect("it is JSON");
        assert_is_the_event(&received);
        assert_eq!(received["metadata"], Value::Null);
        rig.drained().await;
    }
}
