//! The console with users of the Kubernetes API: what they see and may do is decided by namespace.

mod bed;

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use tidings_rig::eventually;

use bed::Bed;

/// What must be in no answer to a user who may read only the other namespace.
const FOREIGN: &str = "foreign";

/// A request, and what the reader of the namespace `own` gets.
struct Case {
    /// The path as the router has it.
    route: &'static str,
    method: Method,
    path: String,
    body: Value,
    status: u16,
    /// Whether the answer to a user who sees all is about the other namespace.
    shows_all: bool,
}

impl Case {
    fn get(route: &'static str, path: impl Into<String>, status: u16, shows_all: bool) -> Self {
        Self {
            route,
            method: Method::GET,
            path: path.into(),
            body: Value::Null,
            status,
            shows_all,
        }
    }

    fn post(route: &'static str, body: Value, status: u16) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(route, route, status, false)
        }
    }
}

/// Every route of the API.
fn routes() -> BTreeSet<String> {
    let of = |source: &str, prefix: &str| -> Vec<String> {
        let parts = source.split(".route(").skip(1);
        let paths = parts.filter_map(|part| part.trim_start().strip_prefix('"')?.split('"').next());
        paths.map(|path| format!("/api{prefix}{path}")).collect()
    };
    let api = of(include_str!("../../src/console/api.rs"), "");
    let actions = of(include_str!("../../src/console/api/action.rs"), "/actions");
    assert!(api.len() >= 11 && actions.len() >= 5, "{api:?} {actions:?}");
    api.into_iter().chain(actions).collect()
}

fn cases(bed: &Bed) -> Vec<Case> {
    let foreign_event = bed.foreign_event.as_str();
    let foreign_dead = format!("/api/dead/{}", bed.foreign_dead);
    let own_dead = format!("/api/dead/{}", bed.own_dead);
    let event_of = |id: &str| format!("/api/trace?event={id}");
    let object = format!("/api/trace?object=Kustomization/{}/app", bed.foreign);
    let commit = "/api/trace?commit=abcdef0123";
    let pasted = tidings_rig::event("tried");
    let provider = json!({"provider": format!("{}/hook-foreign", bed.foreign)});
    let dead = json!({"sequences": [bed.foreign_dead]});
    vec![
        Case::get("/api/session", "/api/session", 200, false),
        Case::get("/api/overview", "/api/overview", 200, true),
        Case::get("/api/providers", "/api/providers", 200, true),
        Case::get("/api/alerts", "/api/alerts", 200, true),
        Case::get("/api/deliveries", "/api/deliveries", 200, true),
        Case::get("/api/audit", "/api/audit?since=1h", 200, true),
        Case::get("/api/dead", "/api/dead", 200, true),
        Case::get("/api/dead", "/api/dead?order=newest", 200, true),
        Case::get("/api/dead/count", "/api/dead/count", 200, false),
        Case::get("/api/dead/{sequence}", foreign_dead, 404, true),
        Case::get("/api/dead/{sequence}", own_dead, 200, false),
        Case::get("/api/events", "/api/events?outcomes=true", 200, true),
        Case::get("/api/trace", event_of(foreign_event), 200, true),
        Case::get("/api/trace", event_of(&bed.own_event), 200, true),
        Case::get("/api/trace", commit, 200, true),
        Case::get("/api/trace", object, 403, true),
        Case::post("/api/tester", json!({"id": foreign_event}), 404),
        Case::post("/api/tester", json!({"id": bed.own_event}), 200),
        Case::post("/api/tester", json!({"event": pasted}), 200),
        Case::post("/api/actions/providers/pause", provider.clone(), 403),
        Case::post("/api/actions/providers/resume", provider.clone(), 403),
        Case::post("/api/actions/providers/test", provider, 403),
        Case::post("/api/actions/dead/replay", dead.clone(), 404),
        Case::post("/api/actions/dead/drop", dead, 404),
    ]
}

#[tokio::test]
async fn nothing_of_another_namespace_is_visible_on_any_path() {
    let bed = Bed::start().await;
    let provider = json!({"provider": format!("{}/slow-foreign", bed.foreign)});
    let admin = bed.token("admin").await;
    bed.post(&admin, "/api/actions/providers/pause", &provider)
        .await;
    let cases = cases(&bed);
    let covered: BTreeSet<_> = cases.iter().map(|case| case.route.to_owned()).collect();
    assert_eq!(covered, routes(), "each route needs a case here");
    for account in ["reader", "operator"] {
        let token = bed.token(account).await;
        for case in &cases {
            let what = format!("{account} {} {} {}", case.method, case.path, case.body);
            let (status, text) = bed.answer(&token, case).await;
            assert_eq!(status, case.status, "{what}: {text}");
            assert!(!text.contains(FOREIGN), "{what}: {text}");
        }
    }
    for case in cases.iter().filter(|case| case.shows_all) {
        let (_, text) = bed.answer(&admin, case).await;
        assert!(text.contains(FOREIGN), "{}: {text}", case.path);
    }

    let reader = bed.token("reader").await;
    for (path, rows) in [
        ("/api/providers", 2),
        ("/api/alerts", 2),
        ("/api/deliveries", 1),
        ("/api/dead", 1),
    ] {
        let answer = bed.json(&reader, path).await;
        let lists = answer.as_object().into_iter().flatten();
        let lengths = lists.filter_map(|(_, list)| Some(list.as_array()?.len()));
        assert_eq!(lengths.max(), Some(rows), "{path}: {answer}");
    }
    let trace = bed
        .json(&reader, &format!("/api/trace?event={}", bed.own_event))
        .await;
    let deliveries = trace["events"][0]["deliveries"].as_array().map(Vec::len);
    assert_eq!(deliveries, Some(2), "{trace}");
    let of_foreign = format!("/api/trace?event={}", bed.foreign_event);
    assert_eq!(bed.json(&reader, &of_foreign).await["events"], json!([]));

    // Both kinds of rules decide.
    let half = bed.token("half").await;
    let alerts = bed.json(&half, "/api/alerts").await;
    assert_eq!(
        (&alerts["alerts"], &alerts["problems"]),
        (&json!([]), &json!([]))
    );
    bed.leave();
}

#[tokio::test]
async fn nothing_is_done_without_update_in_the_namespace() {
    let bed = Bed::start().await;
    let own = json!({"provider": format!("{}/hook-own", bed.own)});
    let foreign = json!({"provider": format!("{}/hook-foreign", bed.foreign)});
    let (reader, operator) = (bed.token("reader").await, bed.token("operator").await);
    let refused = (403, "namespace-not-allowed".to_owned());
    let pause = "/api/actions/providers/pause";
    for (token, body) in [(&reader, &own), (&reader, &foreign), (&operator, &foreign)] {
        for action in ["pause", "resume", "test"] {
            let path = format!("/api/actions/providers/{action}");
            assert_eq!(
                bed.error(token, &path, body).await,
                refused,
                "{path} {body}"
            );
        }
    }
    let own_dead = json!({"sequences": [bed.own_dead]});
    for action in ["replay", "drop"] {
        let path = format!("/api/actions/dead/{action}");
        assert_eq!(
            bed.error(&reader, &path, &own_dead).await,
            refused,
            "{path}"
        );
        let all = bed.post(&reader, &path, &json!({"filter": {}})).await;
        assert_eq!(all, json!({"done": 0, "next": null}), "{path}");
    }
    for (token, role) in [(&reader, "view"), (&operator, "operate")] {
        assert_eq!(bed.json(token, "/api/session").await["role"], role);
    }
    assert_eq!(bed.json(&reader, "/api/dead/count").await["count"], 0);
    assert_eq!(bed.json(&operator, "/api/dead/count").await["count"], 1);

    assert_eq!(bed.post(&operator, pause, &own).await, json!({}));
    let all = json!({"filter": {}});
    let dropped = bed.post(&operator, "/api/actions/dead/drop", &all).await;
    assert_eq!(dropped["done"], 1);
    let admin = bed.token("admin").await;
    assert_eq!(bed.json(&admin, "/api/dead").await["stored"], 2);
    let audit = bed.json(&reader, "/api/audit").await;
    let rows = audit["actions"].as_array().unwrap().iter();
    let done: Vec<_> = rows.map(|row| (&row["action"], &row["who"])).collect();
    let who = json!(format!("system:serviceaccount:{}:operator", bed.own));
    assert_eq!(
        done,
        [
            (&json!("dead-drop"), &who),
            (&json!("provider-pause"), &who)
        ]
    );
    assert_eq!(bed.post(&admin, pause, &foreign).await, json!({}));

    let other_audience = bed.server.token_of(&bed.own, "admin", &["other"]).await;
    for token in ["garbage", &other_audience] {
        let answer = bed.error(token, pause, &own).await;
        assert_eq!(answer, (401, "unauthenticated".to_owned()));
    }
    for token in [&reader, &operator, &admin, &other_audience] {
        let signature = token.rsplit('.').next().unwrap_or_default();
        assert!(!bed.up.log().iter().any(|line| line.contains(signature)));
    }
    bed.leave();
}

#[tokio::test]
async fn one_account_leaves_the_console_to_others_and_the_audit_to_all() {
    let bed = Bed::start().await;
    let (reader, operator) = (bed.token("reader").await, bed.token("operator").await);
    let mut open = Vec::new();
    for _ in 0..4 {
        let stream = bed.stream(&reader).await;
        assert_eq!(stream.status(), 200);
        open.push(stream);
    }
    assert_eq!(bed.stream(&reader).await.status(), 503);
    assert_eq!(bed.stream(&operator).await.status(), 200);
    drop(open);
    eventually("the streams of the account are free again", async || {
        (bed.stream(&reader).await.status() == 200).then_some(())
    })
    .await;

    let own = json!({"provider": format!("{}/hook-own", bed.own)});
    let pause = "/api/actions/providers/pause";
    for _ in 0..60 {
        bed.post(&operator, pause, &own).await;
    }
    let busy = (503, "console-busy".to_owned());
    assert_eq!(bed.error(&operator, pause, &own).await, busy);
    let admin = bed.token("admin").await;
    assert_eq!(bed.post(&admin, pause, &own).await, json!({}));
    bed.leave();
}
