//! TLS and authentication of the event endpoint.

use std::fs;
use std::path::PathBuf;

use reqwest::{Certificate, Client};
use tidings_rig::{Authority, Process, Rig, Role, event, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::TIDINGS;

const TOKEN: &str = "the-first-token-0123456789";
const OTHER: &str = "the-other-token-0123456789";

/// An ingest whose certificate and tokens are in the rig's folder.
struct Bed {
    rig: Rig,
    authority: Authority,
}

/// What a sender got: the status and the code of the error.
type Answer = (u16, String);

impl Bed {
    async fn start() -> Self {
        let bed = Self {
            rig: Rig::start(TIDINGS).await,
            authority: Authority::new(),
        };
        bed.write_certificate(&bed.authority);
        bed.write_tokens(&format!("# of a test\nci {TOKEN}\n"));
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.rig.folder().join(name)
    }

    fn write_certificate(&self, authority: &Authority) {
        let (cert, key) = authority.certificate_for("127.0.0.1");
        fs::write(self.path("tls.crt"), cert).expect("the folder is writable");
        fs::write(self.path("tls.key"), key).expect("the folder is writable");
    }

    /// By a rename, so that no reading sees a half of it.
    fn write_tokens(&self, text: &str) {
        let new = self.path("tokens.new");
        fs::write(&new, text).expect("the folder is writable");
        fs::rename(new, self.path("tokens")).expect("the folder is writable");
    }

    fn role(&self) -> Role {
        let shown = |path: PathBuf| path.display().to_string();
        Role::up()
            .env("TIDINGS_INGEST__TLS__CERT", &shown(self.path("tls.crt")))
            .env("TIDINGS_INGEST__TLS__KEY", &shown(self.path("tls.key")))
            .env("TIDINGS_INGEST__AUTH__TOKENS", &shown(self.path("tokens")))
    }
}

fn url(up: &Process) -> String {
    up.address().replace("http://", "https://")
}

/// A client that trusts this authority only.
fn client(authority: &Authority) -> Client {
    let root = Certificate::from_pem(authority.pem().as_bytes()).expect("it is PEM");
    Client::builder()
        .no_proxy()
        .tls_certs_only([root])
        .build()
        .expect("the client's settings are valid")
}

async fn post(client: &Client, up: &Process, token: Option<&str>, message: &str) -> Answer {
    let request = client.post(url(up)).body(event(message).to_string());
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let answer = request.send().await.expect("ingest answers");
    let status = answer.status().as_u16();
    let challenge = answer.headers().get("www-authenticate").cloned();
    assert_eq!(challenge.is_some(), status == 401, "{challenge:?}");
    let body = answer.json::<serde_json::Value>().await.unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

fn unauthenticated() -> Answer {
    (401, "unauthenticated".to_owned())
}

#[tokio::test]
async fn only_senders_with_a_token_are_accepted_and_tokens_change_without_a_restart() {
    let bed = Bed::start().await;
    let up = bed.rig.run(bed.role()).await;
    let client = client(&bed.authority);
    assert_eq!(post(&client, &up, None, "none").await, unauthenticated());
    assert_eq!(
        post(&client, &up, Some(OTHER), "x").await,
        unauthenticated()
    );
    assert_eq!(post(&client, &up, Some(TOKEN), "first").await.0, 202);
    assert_eq!(post(&client, &up, Some(TOKEN), "first").await.0, 429);
    up.counts("tidings_ingest_events_total", "unauthorized", 2.0)
        .await;
    for (outcome, count) in [("missing", 1.0), ("unknown", 1.0), ("token", 2.0)] {
        up.counts("tidings_ingest_authentications_total", outcome, count)
            .await;
    }
    up.logs_with(
        "sender-refused",
        [("reason", "no bearer token"), ("peer", "127.0.0.1:")],
    )
    .await;

    bed.write_tokens(&format!("ci {OTHER}\n"));
    eventually("the new token is accepted", async || {
        let answer = post(&client, &up, Some(OTHER), "second").await;
        (answer.0 == 202).then_some(())
    })
    .await;
    assert_eq!(
        post(&client, &up, Some(TOKEN), "y").await,
        unauthenticated()
    );

    bed.write_tokens(&format!("ci {OTHER}\nshort s3cr3t\n"));
    let invalid = up.logs_with("tokens-invalid", [("error", "short")]).await;
    assert!(!invalid.field("error").contains("s3cr3t"));
    assert_eq!(post(&client, &up, Some(OTHER), "third").await.0, 202);
    for secret in [TOKEN, OTHER, "s3cr3t"] {
        let is_logged = up.log().iter().any(|line| line.contains(secret));
        assert!(!is_logged && !up.metrics().await.contains(secret));
    }
    bed.rig.routed().await;
}

#[tokio::test]
async fn a_sender_without_a_token_is_answered_before_it_sends_its_body() {
    let bed = Bed::start().await;
    let without_tls = Role::up().env(
        "TIDINGS_INGEST__AUTH__TOKENS",
        &bed.path("tokens").display().to_string(),
    );
    let up = bed.rig.run(without_tls).await;
    let address = up.address()["http://".len()..]
        .trim_end_matches('/')
        .to_owned();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\nExpect: 100-continue\r\n";
    for (header, expected) in [
        (String::new(), "HTTP/1.1 401"),
        (format!("Authorization: Bearer {OTHER}\r\n"), "HTTP/1.1 401"),
        (format!("Authorization: Bearer {TOKEN}\r\n"), "HTTP/1.1 100"),
    ] {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        let request = format!("{head}{header}\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut start = [0; 12];
        connection.read_exact(&mut start).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&start), expected, "{header}");
    }
    // A sender that does not ask first sees the answer, too.
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    let refused = up
        .post_text(large)
        .await
        .expect("the answer is not cut off");
    assert_eq!((refused.status, refused.code()), unauthenticated());
}

#[tokio::test]
async fn a_certificate_changes_without_closing_connections_and_a_broken_one_is_not_used() {
    let bed = Bed::start().await;
    let up = bed.rig.run(bed.role()).await;
    let old = client(&bed.authority);
    let expiry = "tidings_ingest_tls_certificate_expire_timestamp_seconds";
    assert!(up.metric(expiry, "").await > 0.0);
    assert_eq!(post(&old, &up, Some(TOKEN), "before").await.0, 202);

    let next = Authority::new();
    let (cert, _) = next.certificate_for("127.0.0.1");
    fs::write(bed.path("tls.crt"), cert).unwrap();
    up.logs_with("certificate-invalid", [("error", "ingest.tls.key")])
        .await;
    // `client` has no idle connection: this one is new, with the old certificate.
    let fresh = client(&bed.authority);
    assert_eq!(post(&fresh, &up, Some(TOKEN), "broken").await.0, 202);

    bed.write_certificate(&next);
    let trusting_next = client(&next);
    eventually("new connections get the new certificate", async || {
        let request = trusting_next.get(url(&up)).send().await;
        request.is_ok().then_some(())
    })
    .await;
    assert_eq!(post(&trusting_next, &up, Some(TOKEN), "new").await.0, 202);
    // It trusts the old authority only, so this is the connection from before.
    assert_eq!(post(&old, &up, Some(TOKEN), "same connection").await.0, 202);
    assert!(client(&bed.authority).get(url(&up)).send().await.is_err());
    bed.rig.routed().await;
}

#[tokio::test]
async fn handshakes_that_never_end_cost_no_other_sender() {
    let bed = Bed::start().await;
    let up = bed.rig.run(bed.role()).await;
    let client = client(&bed.authority);
    assert_eq!(post(&client, &up, Some(TOKEN), "open").await.0, 202);
    let address = up.address()["http://".len()..]
        .trim_end_matches('/')
        .to_owned();
    let mut slow = Vec::new();
    for number in 0..1500 {
        let mut connection = TcpStream::connect(&address).await.expect("it is accepted");
        // Nothing, or the start of a ClientHello.
        if number % 2 == 0 {
            let _ = connection.write_all(&[22, 3, 1, 2, 0, 1]).await;
        }
        slow.push(connection);
        if number % 250 == 0 {
            let kept = post(&client, &up, Some(TOKEN), &format!("kept {number}")).await;
            assert_eq!(kept.0, 202, "{number}");
            let new = self::client(&bed.authority);
            let new = post(&new, &up, Some(TOKEN), &format!("new {number}")).await;
            assert_eq!(new.0, 202, "{number}");
        }
    }
    assert!(up.metric("tidings_ingest_tls_handshakes ", "").await <= 256.0);
    let failed = "tidings_ingest_tls_handshakes_failed_total";
    up.counts_any(failed, "displaced").await;
    // No open connection was closed for them.
    assert_eq!(
        up.metric("tidings_http_connections_closed_total", "").await,
        0.0
    );
    eventually("handshakes that do not end are closed", async || {
        (up.metric(failed, "timed-out").await > 0.0).then_some(())
    })
    .await;
    eventually("no handshake is left", async || {
        let open = up.metric("tidings_ingest_tls_handshakes ", "").await;
        (open < 1.0).then_some(())
    })
    .await;
    bed.rig.routed().await;
}

#[tokio::test]
async fn a_sender_without_tls_gets_an_answer_that_names_the_problem() {
    let bed = Bed::start().await;
    let up = bed.rig.run(bed.role()).await;
    let refused = up.post(&event("without TLS")).await.unwrap();
    let expected = (400, "tls-required".to_owned());
    assert_eq!((refused.status, refused.code()), expected);
    let failed = "tidings_ingest_tls_handshakes_failed_total";
    eventually("the failure is counted", async || {
        (up.metric(failed, "plaintext").await > 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_start_with_unusable_files_names_the_setting_and_the_fix() {
    let bed = Bed::start().await;
    let fails = async |text: &str| {
        let mut up = bed.rig.spawn(bed.role());
        up.prints(text).await;
        assert!(!up.ended().await.success());
    };
    let replaced = |name: &str, text: &str| fs::write(bed.path(name), text).unwrap();
    replaced("tokens", "ci short\n");
    fails("ingest.auth.tokens: line 1: the token is shorter than 16 characters").await;
    replaced("tokens", &format!("ci {TOKEN}\n"));
    replaced("tls.key", "not a key");
    fails("ingest.tls.key: the file has no private key").await;
    fs::remove_file(bed.path("tls.crt")).unwrap();
    fails("ingest.tls.cert: ").await;
}
