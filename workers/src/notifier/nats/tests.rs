use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use tidings_core::model::flux;

use super::*;
use crate::notifier::sample::{self, Sample};

const INFO: &str = concat!(
    r#"INFO {"server_id":"S","version":"2.12.0","headers":true,"max_payload":1048576,"#,
    r#""proto":1,"nonce":"n"}"#,
    "\r\n"
);

/// How a server behaves.
#[derive(Clone, Copy)]
enum Server {
    Accepts,
    DeniesLogin,
    DeniesSubject,
    DeniesInboxes,
    Disconnects,
}

/// A server for one connection on a loopback port. Returns the options of CONNECT and the
/// published messages.
async fn serve(server: Server) -> (String, JoinHandle<(String, Vec<(String, Vec<u8>)>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(INFO.as_bytes()).await.unwrap();
        let (mut connect, mut published, mut sid) = (String::new(), Vec::new(), String::new());
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let said = match (words[0].as_str(), server) {
                ("CONNECT", _) => {
                    connect = line.trim_start_matches("CONNECT ").trim().to_owned();
                    String::new()
                }
                ("PING", Server::DeniesLogin) => "-ERR 'Authorization Violation'\r\n".to_owned(),
                ("PING", _) => "PONG\r\n".to_owned(),
                ("SUB", Server::DeniesInboxes) => {
                    format!(
                        "-ERR 'Permissions Violation for Subscription to \"{}\"'\r\n",
                        words[1]
                    )
                }
                ("SUB", _) => {
                    sid.clone_from(&words[words.len() - 1]);
                    String::new()
                }
                ("PUB" | "HPUB", _) => {
                    let size: usize = words[words.len() - 1].parse().unwrap();
                    let mut payload = vec![0; size + 2];
                    stream.read_exact(&mut payload).await.unwrap();
                    payload.truncate(size);
                    let is_event = !words[1].starts_with("_INBOX.");
                    if is_event {
                        published.push((words[1].clone(), payload));
                    }
                    match (is_event, server) {
                        (true, Server::DeniesSubject) => {
                            format!(
                                "-ERR 'Permissions Violation for Publish to \"{}\"'\r\n",
                                words[1]
                            )
                        }
                        (true, Server::Disconnects) => break,
                        (false, Server::Accepts | Server::DeniesSubject) => {
                            format!("HMSG {} {sid} 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", words[2])
                        }
                        _ => String::new(),
                    }
                }
                _ => String::new(),
            };
            if stream.write_all(said.as_bytes()).await.is_err() {
                break;
            }
            line.clear();
        }
        (connect, published)
    });
    (address, task)
}

async fn send(address: &str, secret: &[(&str, &str)]) -> Result<Sent, Failure> {
    send_sample(address, secret, &Sample::info()).await
}

async fn send_sample(
    address: &str,
    secret: &[(&str, &str)],
    sample: &Sample,
) -> Result<Sent, Failure> {
    let provider = sample::provider("nats", |provider| {
        provider.address = address.into();
        provider.secret = sample::secret(secret);
    });
    let http = Http::new(&provider, &sample::http_clients()).unwrap();
    match build(&provider, http).unwrap() {
        Notifier::Message(notifier) => notifier.send(&sample.message()).await,
        Notifier::State(_) => unreachable!("nats sends messages"),
    }
}

#[tokio::test]
async fn an_event_is_published_to_the_subject() {
    let (address, server) = serve(Server::Accepts).await;
    send(&address, &[("username", "nu"), ("password", "np")])
        .await
        .unwrap();
    let (connect, published) = server.await.unwrap();
    let connect: serde_json::Value = serde_json::from_str(&connect).unwrap();
    assert_eq!(
        (&connect["name"], &connect["user"], &connect["pass"]),
        (&NAME.into(), &"nu".into(), &"np".into())
    );
    let event = Sample::info();
    assert_eq!(
        published,
        [(
            "general".to_owned(),
            flux::to_json(&event.event, &event.metadata)
        )]
    );
}

#[tokio::test]
async fn an_event_is_cut_to_the_payload_that_the_server_accepts() {
    let (address, server) = serve(Server::Accepts).await;
    let sample = Sample::error().with_message("<".repeat(2 << 20));
    send_sample(&address, &[], &sample).await.unwrap();
    let (_, published) = server.await.unwrap();
    let payload = &published[0].1;
    assert!((1_048_500..=1_048_576).contains(&payload.len()));
    let event: serde_json::Value = serde_json::from_slice(payload).unwrap();
    assert!(event["message"].as_str().unwrap().ends_with("<…"));
    assert_eq!(event["involvedObject"]["name"], "webapp");
}

#[tokio::test]
async fn credentials_in_the_address_are_used_if_the_secret_has_none() {
    for (user_info, secret, expected) in [
        ("u%40x:p", vec![], ["u@x", "p", ""]),
        ("tok", vec![], ["", "", "tok"]),
        (
            "u:p",
            vec![("username", "nu"), ("password", "np")],
            ["nu", "np", ""],
        ),
    ] {
        let (address, server) = serve(Server::Accepts).await;
        send(&format!("nats://{user_info}@{address}"), &secret)
            .await
            .unwrap();
        let connect: serde_json::Value = serde_json::from_str(&server.await.unwrap().0).unwrap();
        let sent =
            ["user", "pass", "auth_token"].map(|key| connect[key].as_str().unwrap_or_default());
        assert_eq!(sent, expected);
    }
}

#[tokio::test]
async fn an_error_of_the_server_is_a_failure() {
    for (server, expected) in [
        (Server::Accepts, None),
        (Server::DeniesInboxes, None),
        (Server::DeniesLogin, Some((Reason::Unauthorized, true))),
        (Server::DeniesSubject, Some((Reason::Unauthorized, true))),
        (Server::Disconnects, Some((Reason::Unreachable, true))),
    ] {
        let (address, _server) = serve(server).await;
        let sent = send(&address, &[]).await;
        assert_eq!(sample::meaning(sent.clone()), expected, "{sent:?}");
    }
}

/// A server that sends a start and then one part again and again. Returns its address and the
/// number of bytes that it could send.
async fn floods(start: String, part: &'static [u8]) -> (String, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let flood = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut written = 0;
        while written < 64 << 20 && stream.write_all(part).await.is_ok() {
            written += part.len();
        }
        written
    });
    (address, flood)
}

#[tokio::test]
async fn what_a_server_sends_is_limited() {
    let info = |rest: &str| format!("{INFO}PONG\r\n{rest}");
    for (start, part) in [
        ("INFO {".to_owned(), &[b'a'; 64 << 10][..]),
        (String::new(), b"-ERR\r\n"),
        (info("MSG a 1 9999999999\r\n"), &[b'a'; 64 << 10]),
        (info("-ERR '"), &[b'a'; 64 << 10]),
        (info(""), b"-ERR\r\n"),
        (info(""), b"HMSG a 1 0 18446744073709551615\r\n"),
    ] {
        let (address, flood) = floods(start.clone(), part).await;
        let failure = send(&address, &[]).await.unwrap_err();
        let expected = [Reason::Unreachable, Reason::ServerError];
        assert!(expected.contains(&failure.reason), "{start}: {failure:?}");
        let written = flood.await.unwrap();
        assert!(written < 16 << 20, "{start}: {written} bytes");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert_eq!(
        sample::meaning(send(&address, &[]).await),
        Some((Reason::Unreachable, true))
    );
}

#[tokio::test]
async fn an_invalid_seed_is_permanent() {
    let (address, _server) = serve(Server::Accepts).await;
    assert_eq!(
        sample::meaning(send(&address, &[("nkey", "SUBAD")]).await),
        Some((Reason::Misconfigured, false))
    );
}

#[tokio::test]
async fn a_dry_run_opens_no_connection() {
    let provider = sample::provider("nats", |provider| provider.address = "nats.invalid".into());
    assert!(
        sample::requests(&TYPE, &provider, &Sample::info())
            .await
            .is_empty()
    );
}

#[test]
fn an_invalid_provider_is_rejected() {
    for (address, secret, word) in [
        ("", vec![], "no address"),
        ("http://nats.example.com", vec![], "NATS server"),
        ("nats.example.com", vec![("creds", "SECRET")], "creds"),
    ] {
        let provider = sample::provider("nats", |provider| {
            provider.address = address.into();
            provider.secret = sample::secret(&secret);
        });
        let build_error = sample::build_error(&TYPE, &provider);
        assert!(
            build_error.contains(word) && !build_error.contains("SECRET"),
            "{build_error}"
        );
    }
}
