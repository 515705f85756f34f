//! Authentication and TLS of the connection to NATS.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use tidings_rig::{Receiver, Rig, Role, alert, event, eventually, provider};

use crate::TIDINGS;
use crate::command::{text, tidings_with};

/// The right and a wrong password or token.
const SECRET: &str = "c0rrecth0rse";
const WRONG: &str = "wr0ngh0rse";

/// Writes a private CA (ca.pem), a certificate for 127.0.0.1 (server.pem) and one for clients
/// (client.pem).
fn write_certificates(folder: &Path) {
    let key = || KeyPair::generate().expect("the library supports its default algorithm");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key()).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (name, usage) in [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = key();
        std::fs::write(
            folder.join(format!("{name}.pem")),
            params.signed_by(&key, &authority).unwrap().pem(),
        )
        .unwrap();
        std::fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}

/// The section `tls` of nats-server's configuration, with `more` added.
fn tls(folder: &Path, more: &str) -> String {
    write_certificates(folder);
    let file = |name: &str| serde_json::Value::from(text(&folder.join(name))).to_string();
    format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}, {more} }}",
        file("server.pem"),
        file("server-key.pem"),
        file("ca.pem")
    )
}

/// The role with these environment variables.
fn with(role: Role, variables: &[(&str, &str)]) -> Role {
    variables
        .iter()
        .fold(role, |role, (name, value)| role.env(name, value))
}

/// Asserts that all roles and a tool connect with these variables, and do not log the secret.
async fn assert_connects(rig: &Rig, variables: &[(&str, &str)]) {
    let receiver = Receiver::start().await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let mut up = rig
        .run(with(Role::up().args(["--log-level", "trace"]), variables))
        .await;
    assert_eq!(
        up.post(&event("through authentication"))
            .await
            .unwrap()
            .status,
        202
    );
    receiver.accepts("through authentication").await;
    let url = rig.url();
    assert_eq!(
        tidings_with(variables, &["dead", "list", "--nats", url])
            .await
            .lines(),
        Vec::<&str>::new()
    );
    assert!(up.terminate().await.success());
    assert!(
        up.log().iter().all(|line| !line.contains(SECRET)),
        "the log contains the secret"
    );
}

/// Asserts that a role with these variables is not ready and reports `reason`, and that a tool
/// fails.
async fn assert_rejected(rig: &Rig, variables: &[(&str, &str)], reason: &str) {
    let waiting = rig.spawn(with(Role::worker(), variables));
    let what = format!("/readyz reports {reason:?}");
    eventually(&what, async || {
        let answer = waiting.readiness_if_up().await?;
        assert_eq!(answer.status, 503, "{}", answer.body);
        answer
            .body
            .to_lowercase()
            .contains(&reason.to_lowercase())
            .then_some(())
    })
    .await;
    let unreachable = waiting.logs("nats-unreachable").await;
    let error = unreachable.field("error");
    assert!(
        error.to_lowercase().contains(&reason.to_lowercase()),
        "{error}"
    );
    assert!(
        waiting.log().iter().all(|line| !line.contains(WRONG)),
        "the log contains the secret"
    );
    let url = rig.url();
    let ended = tidings_with(variables, &["dead", "list", "--nats", url]).await;
    ended.assert_error_names(&[url]);
    assert!(!ended.stderr.contains(WRONG), "{}", ended.stderr);
}

#[tokio::test]
async fn a_client_authenticates_with_user_and_password() {
    let rig = Rig::start_with(TIDINGS, |_| {
        format!("authorization {{ user: hub, password: {SECRET} }}")
    })
    .await;
    let login = |password| {
        [
            ("TIDINGS_NATS__USERNAME", "hub"),
            ("TIDINGS_NATS__PASSWORD", password),
        ]
    };
    assert_rejected(&rig, &login(WRONG), "authorization violation").await;
    assert_rejected(&rig, &[], "authorization violation").await;
    assert_connects(&rig, &login(SECRET)).await;
}

#[tokio::test]
async fn a_client_authenticates_with_user_and_password_in_the_url() {
    let rig = Rig::start_with(TIDINGS, |_| {
        format!("authorization {{ user: hub, password: {SECRET} }}")
    })
    .await;
    let address = rig
        .url()
        .replace("nats://", &format!("nats://hub:{SECRET}@"));

    let ended = tidings_with(&[("TIDINGS_NATS__URL", &address)], &["streams", "apply"]).await;

    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains(SECRET), "{}", ended.stderr);
}

#[tokio::test]
async fn a_client_authenticates_with_a_token() {
    let rig = Rig::start_with(TIDINGS, |_| format!("authorization {{ token: {SECRET} }}")).await;
    let file = rig.folder().join("token");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    assert_rejected(
        &rig,
        &[("TIDINGS_NATS__TOKEN", WRONG)],
        "authorization violation",
    )
    .await;
    assert_connects(&rig, &[("TIDINGS_NATS__TOKEN_FILE", text(&file))]).await;
}

#[tokio::test]
async fn a_private_ca_is_trusted() {
    let rig = Rig::start_with(TIDINGS, |folder| tls(folder, "")).await;
    let ca = rig.folder().join("ca.pem");
    assert_rejected(&rig, &[], "certificate").await;
    assert_connects(&rig, &[("TIDINGS_NATS__TLS__CA", text(&ca))]).await;
}

#[tokio::test]
async fn a_client_authenticates_with_a_certificate() {
    let rig = Rig::start_with(TIDINGS, |folder| tls(folder, "verify: true")).await;
    let [ca, certificate, key] =
        ["ca.pem", "client.pem", "client-key.pem"].map(|name| rig.folder().join(name));
    assert_rejected(&rig, &[("TIDINGS_NATS__TLS__CA", text(&ca))], "certificate").await;
    let variables = [
        ("TIDINGS_NATS__TLS__CA", text(&ca)),
        ("TIDINGS_NATS__TLS__CERT", text(&certificate)),
        ("TIDINGS_NATS__TLS__KEY", text(&key)),
    ];
    assert_connects(&rig, &variables).await;
}

#[tokio::test]
async fn a_server_without_the_required_tls_is_rejected() {
    let rig = Rig::start(TIDINGS).await;
    assert_rejected(&rig, &[("TIDINGS_NATS__TLS__REQUIRED", "true")], "tls").await;
}

#[tokio::test]
async fn an_unreadable_certificate_is_reported_with_its_setting() {
    let rig = Rig::start(TIDINGS).await;
    let (missing, broken) = (
        rig.folder().join("missing.pem"),
        rig.folder().join("broken.pem"),
    );
    std::fs::write(&broken, "not a certificate").unwrap();
    let url = rig.url();
    for file in [&missing, &broken] {
        let variables = [("TIDINGS_NATS__TLS__CA", text(file))];
        let ended = tidings_with(
            &variables,
            &[
                "ingest",
                "--nats",
                url,
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ],
        )
        .await;
        ended.assert_error_names(&["nats.tls.ca", text(file)]);
    }
}
