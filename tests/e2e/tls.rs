//! The mode `standard` with TLS between the pods, and between its NATS servers.

use std::time::Duration;

use tidings_rig::Authority;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use crate::cluster::{kill_container, secret};
use crate::load::{balance, post, send_during};
use crate::release::Release;
use crate::standard::{FLAGS, WORKLOADS};

const NAMESPACE: &str = "tls";
const SECRET: &str = "nats-tls";
/// The names that docs/install.md asks for.
const HOSTS: [&str; 2] = ["tidings-nats", "*.tidings-nats-headless"];

/// Writes a Secret as cert-manager does.
async fn issue(authority: &Authority) {
    let (certificate, key) = authority.certificate_of_peer(&HOSTS);
    let data = [
        ("ca.crt", &*authority.pem()),
        ("tls.crt", &certificate),
        ("tls.key", &key),
    ];
    secret(NAMESPACE, SECRET, &data).await;
}

/// What a NATS server sends to its clients before they log in.
async fn greeting(address: &str) -> String {
    let connection = TcpStream::connect((address, 4222)).await;
    let connection = connection.expect("the server accepts connections");
    let mut line = String::new();
    let read = BufReader::new(connection).read_line(&mut line).await;
    read.expect("the server greets its clients");
    line
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: run `make e2e`"]
async fn the_pods_of_a_release_speak_tls_and_lose_nothing_when_the_certificate_changes() {
    let authority = Authority::new();
    issue(&authority).await;
    let flags = [&FLAGS[..], &["--set=nats.tlsSecret=nats-tls"]].concat();
    let release = Release {
        name: "tidings",
        namespace: NAMESPACE,
        mode: "standard",
        workloads: &WORKLOADS,
    };
    let release = release.installed(&flags).await;
    let greeting = greeting(&release.service("tidings-nats").await).await;
    assert!(greeting.contains(r#""tls_required":true"#), "{greeting}");
    let receiver = release.receiver().await;
    let address = release.address().await;
    let mut posted = post(&address, "first", 1, Duration::from_secs(1)).await;
    balance("tls, the first event", &posted, &receiver).await;

    let changes = async {
        kill_container(NAMESPACE, "tidings-nats-0").await;
        release.ready().await;
        println!("killed a NATS server");
        issue(&authority).await;
        release.restart("statefulset/tidings-nats").await;
        println!("replaced the certificate");
        release.delete_pod("worker").await;
        println!("deleted a worker");
    };
    posted.extend(send_during(&address, "changes", 10, changes).await);
    balance("tls, with all changes", &posted, &receiver).await;
    release.uninstall().await;
}
