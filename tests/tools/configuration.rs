//! Settings from a file, the environment and flags.

use tidings_rig::{Rig, Role};

use crate::TIDINGS;
use crate::command::{text, tidings_with};

#[tokio::test]
async fn all_mistakes_in_all_layers_are_reported_together() {
    let rig = Rig::start(TIDINGS).await;
    let file = rig.folder().join("settings.yaml");
    std::fs::write(
        &file,
        "nats:\n  replicas: none\n  pasword: hunter2\nlog: {format: xml}\n",
    )
    .unwrap();
    let environment = [
        ("TIDINGS_SHUTDOWN_GRACE", "soon"),
        ("TIDINGS_LISTENN", "127.0.0.1:1"),
        ("TIDINGS_NATS__PASSWORD", "hunter2"),
        ("TIDINGS_NATS__TLS__CERT", "cert.pem"),
    ];

    let arguments = [
        "ingest",
        "--config",
        text(&file),
        "--listen",
        "here",
        "--admin",
        "80:80",
        "--dedupe-interval",
        "5",
    ];
    let ended = tidings_with(&environment, &arguments).await;

    ended.assert_error_names(&[
        "nats.replicas (file ",
        "nats.pasword (file ",
        "log.format (file ",
        "shutdown_grace (variable TIDINGS_SHUTDOWN_GRACE)",
        "listenn (variable TIDINGS_LISTENN)",
        "nats.username: ",
        "nats.tls.key: ",
        "listen (flag --listen)",
        "admin (flag --admin)",
        "ingest.dedupe_interval (flag --dedupe-interval)",
    ]);
    assert_eq!(
        ended.stderr.matches("nats.replicas (file ").count(),
        1,
        "each mistake is reported once: {}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
}

#[tokio::test]
async fn flags_override_the_environment_which_overrides_the_file_and_no_secret_is_printed() {
    let rig = Rig::start_with(TIDINGS, |_| {
        "authorization { user: hub, password: hunter2 }".to_owned()
    })
    .await;
    let [file, secret] = ["settings.yaml", "password"].map(|name| rig.folder().join(name));
    std::fs::write(&secret, "hunter2\n").unwrap();
    let settings = format!(
        "cluster: from-file\nshutdown_grace: 7s\nnats: {{username: hub, password_file: {}}}\n",
        text(&secret)
    );
    std::fs::write(&file, settings).unwrap();
    let layers = Role::up().args([
        "--config",
        text(&file),
        "--cluster",
        "from-flag",
        "--log-level",
        "trace",
    ]);

    let mut up = rig
        .run(
            layers
                .env("TIDINGS_CLUSTER", "from-variable")
                .env("TIDINGS_ROUTER__CONCURRENCY", "17"),
        )
        .await;

    let settings = up.logs("starting").await.field("settings");
    let printed: serde_json::Value = serde_json::from_str(&settings).unwrap();
    assert_eq!(printed["cluster"], "from-flag");
    assert_eq!(printed["router"]["concurrency"], 17);
    assert_eq!(printed["shutdown_grace"], "7s");
    assert_eq!(
        (&printed["nats"]["username"], &printed["nats"]["password"]),
        (&"hub".into(), &"***".into())
    );
    assert_eq!(
        printed["shadow"],
        serde_json::Value::Null,
        "a default is left out"
    );
    assert!(up.terminate().await.success());
    let leaks: Vec<_> = up
        .log()
        .into_iter()
        .filter(|line| line.contains("hunter2"))
        .collect();
    assert!(leaks.is_empty(), "{leaks:?}");
}
