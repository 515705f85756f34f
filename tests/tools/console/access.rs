//! Who may use the console.

use std::fs;

use reqwest::{Certificate, Client, Method};
use tidings_rig::{Authority, Rig, Role, eventually};

use super::client::{Console, OPERATE, PATHS, VIEW, free_address, with_console};
use crate::TIDINGS;
use crate::command::tidings_with;

#[tokio::test]
async fn nothing_is_visible_without_a_token_and_the_token_decides_the_role() {
    let console = Console::start().await;
    for path in PATHS.into_iter().chain(["/api/other", "/api/dead/x"]) {
        for token in [None, Some("another-token-0123456789")] {
            let mut request = console.request(Method::GET, path);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = console.send(request).await;
            let expected = (401, "unauthenticated".to_owned());
            assert_eq!(answer.error(), expected, "{path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{path}");
        }
    }
    for in_other_places in ["/api/overview?token=", "/api/overview?access_token="] {
        let path = format!("{in_other_places}{VIEW}");
        let answer = console.send(console.request(Method::GET, &path)).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    for (token, name, role) in [(VIEW, "ann", "view"), (OPERATE, "bob", "operate")] {
        let request = console.request(Method::GET, "/api/session");
        let answer = console.send(request.bearer_auth(token)).await;
        let session = answer.json();
        assert_eq!(
            (&session["name"], &session["role"]),
            (&name.into(), &role.into())
        );
    }
    let refused = console
        .up
        .metric("tidings_console_requests_total", "unauthenticated");
    assert!(refused.await >= 20.0);
    console
        .up
        .logs_with("console-refused", [("peer", "127.0.0.1:")])
        .await;
    let log = console.up.log().concat();
    assert!(!log.contains(VIEW) && !log.contains(OPERATE));

    fs::write(console.rig.folder().join("view"), "").unwrap();
    eventually("a removed token is no longer valid", async || {
        (console.get("/api/session").await.status == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pages_of_other_sites_and_other_names_are_refused() {
    let console = Console::start().await;
    let get = |path: &str| console.request(Method::GET, path).bearer_auth(VIEW);
    for path in ["/", "/app.js", "/api/overview"] {
        for host in ["evil.example.com", "localhost.evil.example.com", ""] {
            let answer = console.send(get(path).header("host", host)).await;
            assert_eq!(
                answer.error(),
                (403, "wrong-host".to_owned()),
                "{host} {path}"
            );
        }
        let (_, port) = console.address.split_once(':').unwrap();
        let local = format!("localhost:{port}");
        for host in ["tidings.example.com", &local, "[::1]:8090"] {
            let answer = console.send(get(path).header("host", host)).await;
            assert_eq!(answer.status, 200, "{host} {path}");
        }
    }
    let own = format!("http://{}", console.address);
    for (header, value, is_own) in [
        ("origin", own.as_str(), true),
        ("origin", "http://evil.example.com", false),
        ("origin", "null", false),
        ("sec-fetch-site", "same-origin", true),
        ("sec-fetch-site", "cross-site", false),
    ] {
        let answer = console
            .send(get("/api/overview").header(header, value))
            .await;
        assert_eq!(answer.status == 200, is_own, "{header}: {value}");
        if !is_own {
            assert_eq!(answer.error().1, "cross-site");
        }
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}

#[tokio::test]
async fn the_page_is_protected_and_no_request_changes_anything() {
    let console = Console::start().await;
    for path in [
        "/",
        "/app.js",
        "/app.css",
        "/icon.svg",
        "/other",
        "/api/overview",
    ] {
        let answer = console.get(path).await;
        assert_eq!(
            answer.status,
            if path == "/other" { 404 } else { 200 },
            "{path}"
        );
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self';",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("x-frame-options", "DENY"),
            ("cache-control", "no-store"),
            ("set-cookie", ""),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {name}");
        }
    }
    let page = console.get("/").await;
    assert!(!page.text.contains("http://") && !page.text.contains("https://"));
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
    ] {
        for path in PATHS.into_iter().chain(["/"]) {
            let request = console.request(method.clone(), path).bearer_auth(OPERATE);
            let answer = console.send(request).await;
            let expected = (405, "method-not-allowed".to_owned());
            assert_eq!(answer.error(), expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn an_address_that_is_not_loopback_needs_tokens() {
    for role in ["up", "router"] {
        let arguments = [role, "--rules", ".", "--console", "0.0.0.0:0"];
        let ended = tidings_with(&[], &arguments).await;
        ended.assert_error_names(&["console.listen", "console.tokens.view"]);
    }
}

#[tokio::test]
async fn without_tokens_a_router_on_loopback_may_be_viewed() {
    let (rig, address) = (Rig::start(TIDINGS).await, free_address());
    let _router = rig.run(with_console(Role::router(), &address)).await;
    let url = format!("http://{address}/api/session");
    let client = Client::builder().no_proxy().build().unwrap();
    let session: serde_json::Value = client.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&session["name"], &session["role"]),
        (&().into(), &"view".into())
    );
}

#[tokio::test]
async fn with_a_certificate_the_console_takes_https_only() {
    let (rig, address, authority) = (Rig::start(TIDINGS).await, free_address(), Authority::new());
    let file = |name: &str, text: &str| {
        let path = rig.folder().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, key) = authority.certificate_for("127.0.0.1");
    let role = with_console(Role::up(), &address)
        .env("TIDINGS_CONSOLE__TLS__CERT", &file("console.crt", &cert))
        .env("TIDINGS_CONSOLE__TLS__KEY", &file("console.key", &key));
    let up = rig.run(role).await;
    let root = Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let client = Client::builder()
        .no_proxy()
        .tls_certs_only([root])
        .build()
        .unwrap();
    let get = |scheme| {
        client
            .get(format!("{scheme}://{address}/api/session"))
            .send()
    };
    assert_eq!(get("https").await.unwrap().status(), 200);
    assert_eq!(get("http").await.unwrap().status(), 400);
    up.counts(
        "tidings_console_tls_handshakes_failed_total",
        "plaintext",
        1.0,
    )
    .await;
    let expires = up.metric(
        "tidings_console_tls_certificate_expire_timestamp_seconds",
        "",
    );
    assert!(expires.await > 0.0);
}
