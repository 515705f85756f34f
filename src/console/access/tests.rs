use axum::http::HeaderValue;
use futures::executor::block_on;

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn only_own_names_and_addresses_are_answered() {
    let access = Access {
        hosts: vec!["tidings.example.com".to_owned()],
        ..Access::default()
    };
    let own = |host: &'static str, uri: &'static str| {
        let checked = access.check_host(&headers(&[("host", host)]), &Uri::from_static(uri));
        checked.is_ok()
    };
    for host in [
        "localhost",
        "LOCALHOST:8090",
        "127.0.0.1:8090",
        "10.1.2.3",
        "[::1]:8090",
        "[::1]",
        "Tidings.Example.com:443",
    ] {
        assert!(own(host, "/"), "{host}");
    }
    for host in [
        "",
        "evil.example.com",
        "localhost.evil.example.com",
        "tidings.example.com.evil.example.com",
        "127.0.0.1.evil.example.com:8090",
        "localhost:x",
        "user@localhost",
        "::1",
        "[localhost]",
    ] {
        assert!(!own(host, "/"), "{host}");
    }
    assert!(own("localhost", "http://127.0.0.1:8090/"));
    assert!(!own("localhost", "http://evil.example.com/"));
    for pairs in [&[][..], &[("host", "localhost"), ("host", "localhost")]] {
        let checked = access.check_host(&headers(pairs), &Uri::from_static("/"));
        assert_eq!(checked, Err(Refusal::WrongHost), "{pairs:?}");
    }
}

#[test]
fn requests_from_pages_of_other_sites_are_refused() {
    let host = ("host", "localhost:8090");
    let check = |more: &[(&'static str, &'static str)]| {
        let mut pairs = vec![host];
        pairs.extend_from_slice(more);
        block_on(Access::default().check(&headers(&pairs)))
    };
    let viewer = Caller {
        name: None,
        role: Role::View,
        user: None,
        is_limited: false,
    };
    for own in [
        &[][..],
        &[("origin", "http://localhost:8090")],
        &[("origin", "https://LOCALHOST:8090")],
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
    ] {
        assert_eq!(check(own), Ok(viewer.clone()), "{own:?}");
    }
    for other in [
        &[("origin", "http://localhost:8091")][..],
        &[("origin", "null")],
        &[("origin", "http://localhost")],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "cross-site")],
        &[("origin", "http://localhost:8090"), ("origin", "null")],
        &[
            ("origin", "http://localhost:8090"),
            ("sec-fetch-site", "cross-site"),
        ],
    ] {
        assert_eq!(check(other), Err(Refusal::CrossSite), "{other:?}");
    }
}

#[test]
fn a_token_has_the_role_of_its_list() {
    const VIEW: &str = "the-view-token-0123456789";
    const OPERATE: &str = "the-operate-token-0123456789";
    let folder = std::env::temp_dir().join(format!("tidings-console-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let tokens = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        Some(Tokens::from_path("console.tokens", path).unwrap().current())
    };
    let access = Access {
        hosts: Vec::new(),
        view: tokens("view", format!("ann {VIEW}\nboth {OPERATE}\n")),
        operate: tokens("operate", format!("bob {OPERATE}\n")),
        kubernetes: None,
    };
    std::fs::remove_dir_all(&folder).unwrap();
    let check = |value: &str| {
        let mut headers = headers(&[("host", "localhost")]);
        headers.insert("authorization", HeaderValue::from_str(value).unwrap());
        let checked = block_on(access.check(&headers));
        checked.map(|caller| (caller.name.unwrap_or_default().to_string(), caller.role))
    };
    assert_eq!(
        check(&format!("Bearer {VIEW}")),
        Ok(("ann".to_owned(), Role::View))
    );
    assert_eq!(
        check(&format!("Bearer {OPERATE}")),
        Ok(("bob".to_owned(), Role::Operate))
    );
    for value in ["", "Bearer another-token-0123456789", "Basic YTpi"] {
        assert_eq!(check(value), Err(Refusal::Unauthenticated), "{value}");
    }
    let none = block_on(access.check(&headers(&[("host", "localhost")])));
    assert_eq!(none, Err(Refusal::Unauthenticated));
}
