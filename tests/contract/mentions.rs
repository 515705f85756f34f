//! Texts from events mention nobody; the Alert and its template may.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tidings_core::Event;
use tidings_core::runtime::config::LinksSettings;
use tidings_rules::template::Escape;
use tidings_workers::attempt::prepare;
use tidings_workers::http::{Http, Request};
use tidings_workers::message::render::{Content, RenderedMessage, Renderer};
use tidings_workers::notifier::PROVIDERS;
use tidings_workers::notifier::contract::ProviderType;

use crate::subject::{attempt_rendered, event, filled_example, resolve};

/// Live mentions of each vendor, by hand and not from the table. No other type mentions anybody.
const LIVE: &[(&str, &[&str])] = &[
    ("datadog", &["@all", "@slack-ops", "@alice"]),
    (
        "discord",
        &[
            "@everyone",
            "@here",
            "<@123456>",
            "<@!123456>",
            "<@&123456>",
        ],
    ),
    ("giteapullrequestcomment", FORGE),
    ("githubpullrequestcomment", FORGE),
    ("gitlabmergerequestcomment", FORGE),
    ("googlechat", &["<users/all>", "<users/123456>"]),
    ("lark", &["<at id=all>", "<at user_id=\"all\">"]),
    ("matrix", &["@room", "@alice:example.com"]),
    ("msteams", &["<at>alice</at>"]),
    ("rocket", &["@all", "@here", "@alice"]),
    (
        "slack",
        &[
            "<!channel>",
            "<!here>",
            "<!everyone>",
            "<!subteam^S012AB3CD>",
            "<@U012AB3CD>",
            "@channel",
            "@here",
        ],
    ),
    ("telegram", &["@alice", "@all"]),
    ("webex", &["<@all>", "<@personEmail:a@example.com>"]),
    ("zoom", &["<!all|all>"]),
    (
        "zulip",
        &["@**all**", "@**alice**", "@*team*", "@_**alice**"],
    ),
];
const FORGE: &[&str] = &["@alice", "@org/team", "@all", "&#64;alice"];

fn live(row: &ProviderType) -> &'static [&'static str] {
    let known = LIVE.iter().find(|(kind, _)| *kind == row.kind);
    known.map_or(&[], |(_, live)| live)
}

/// Every mention of every vendor.
fn hostile() -> String {
    let all: Vec<&str> = LIVE.iter().flat_map(|(_, live)| *live).copied().collect();
    format!("{} _{}_", all.join(" "), all.join("_ ("))
}

/// An event with this text in every field that it can have.
fn hostile_event(text: &str) -> Event {
    let mut event = event(text);
    event.reason = text.into();
    event.reporting_controller = text.into();
    event.reporting_instance = text.into();
    let group = "event.toolkit.fluxcd.io";
    event.metadata.extend([
        (format!("{group}/summary"), text.to_owned()),
        (format!("{group}/{text}"), text.to_owned()),
    ]);
    let object = event.involved_object.get_or_insert_default();
    object.kind = text.to_uppercase();
    object.name = text.into();
    object.namespace = text.into();
    object.uid = text.into();
    event
}

/// The metadata of a delivery, as the router merges it without an Alert's own.
fn merged(event: &Event) -> BTreeMap<String, String> {
    let of_user = |(key, value): (&String, &String)| {
        let key = key.strip_prefix("event.toolkit.fluxcd.io/")?;
        Some((key.to_owned(), value.clone()))
    };
    event.metadata.iter().filter_map(of_user).collect()
}

/// The texts of all requests for an event.
async fn sent(
    row: &'static ProviderType,
    event: &Event,
    metadata: &BTreeMap<String, String>,
    template: Option<String>,
) -> String {
    let provider = resolve(&filled_example(row)).unwrap();
    let http = Http::dry_run();
    let prepared = prepare(Arc::new(provider), |_| Ok(http.clone())).unwrap();
    let renderer = Renderer::new(&LinksSettings {
        enabled: true,
        commit: None,
        dashboard: None,
        commit_status: None,
    });
    let renderer = renderer.unwrap();
    let ended = attempt_rendered(&prepared, event, metadata, |message| {
        let provider = &prepared.provider;
        match &template {
            None => RenderedMessage::default(),
            Some(_) => renderer.rendered(message, provider, row.content, || Ok(template.clone())),
        }
    })
    .await;
    assert!(ended.is_ok(), "{}: {ended:?}", row.kind);
    http.recorded()
        .iter()
        .map(texts)
        .collect::<Vec<_>>()
        .join("\n")
}

/// All texts in the body of a request.
fn texts(request: &Request) -> String {
    fn collect(value: &Value, texts: &mut Vec<String>) {
        match value {
            Value::String(text) => texts.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
            Value::Object(fields) => fields.iter().for_each(|(key, value)| {
                texts.push(key.clone());
                collect(value, texts);
            }),
            _ => {}
        }
    }
    let mut found = Vec::new();
    match serde_json::from_slice(&request.body) {
        Ok(json) => collect(&json, &mut found),
        Err(_) => found.extend(
            url::form_urlencoded::parse(&request.body).map(|(_, value)| value.into_owned()),
        ),
    }
    found.join("\n")
}

#[test]
fn the_types_with_mentions_are_known() {
    let with_forms = PROVIDERS
        .iter()
        .filter(|row| !row.mentions.forms.is_empty());
    let kinds: Vec<&str> = with_forms.map(|row| row.kind).collect();
    let known: Vec<&str> = LIVE.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, known);
}

#[tokio::test]
async fn no_text_of_an_event_mentions_anybody() {
    let text = hostile();
    let event = hostile_event(&text);
    for row in PROVIDERS.iter().filter(|row| !live(row).is_empty()) {
        let sent = sent(row, &event, &merged(&event), None)
            .await
            .to_lowercase();
        for mention in live(row) {
            let is_live = sent.contains(&mention.to_lowercase());
            assert!(!is_live, "{}: {mention} in {sent}", row.kind);
        }
        assert!(sent.contains('\u{200b}'), "{}: {sent}", row.kind);
    }
}

#[tokio::test]
async fn a_type_without_mentions_gets_the_text_unchanged() {
    let text = "@everyone <!channel> @**all**";
    let event = event(text);
    for kind in ["generic", "alertmanager", "pagerduty", "opsgenie"] {
        let row = PROVIDERS.iter().find(|row| row.kind == kind).unwrap();
        let sent = sent(row, &event, &BTreeMap::new(), None).await;
        assert!(sent.contains(text), "{kind}: {sent}");
        assert!(!sent.contains('\u{200b}'), "{kind}: {sent}");
    }
}

#[tokio::test]
async fn the_alerts_own_metadata_may_mention() {
    for row in PROVIDERS.iter().filter(|row| !live(row).is_empty()) {
        let mention = live(row)[0];
        let event = event("happened");
        let own = BTreeMap::from([("summary".to_owned(), mention.to_owned())]);
        let shown = sent(row, &event, &own, None).await;
        assert!(shown.contains(mention), "{}: {shown}", row.kind);
    }
}

#[tokio::test]
async fn a_template_mentions_only_what_it_says_itself() {
    for row in PROVIDERS.iter().filter(|row| !live(row).is_empty()) {
        let [mention, .., hostile] = live(row) else {
            continue;
        };
        let event = hostile_event(&format!("({hostile})"));
        let source = format!(
            "{mention}\n{{{{ event.message }}}} {{{{ event.message|replace('\u{200b}', '') }}}} \
             {{{{ event.reason|lower }}}} {{{{ metadata.summary }}}}"
        );
        let sent = sent(row, &event, &merged(&event), Some(source)).await;
        // Telegram and escaped values write some characters in another way.
        if row.kind != "telegram" {
            assert!(sent.contains(mention), "{}: {sent}", row.kind);
        }
        assert!(!sent.contains(hostile), "{}: {sent}", row.kind);
    }
}

#[tokio::test]
async fn a_template_cannot_put_a_mention_together_from_values() {
    let row = PROVIDERS.iter().find(|row| row.kind == "discord").unwrap();
    assert_eq!(row.content, Content::Text(Escape::None));
    let mut event = event("@");
    event.reason = "everyone".into();
    event.reporting_instance = "80351110224678912".into();
    let source = "{{ event.message }}{{ event.reason }} @{{ event.reason }} \
                  <@{{ event.reportingInstance }}> {{ event.message }}here";
    let sent = sent(row, &event, &BTreeMap::new(), Some(source.to_owned())).await;
    for mention in ["@everyone", "<@80351110224678912>", "@here"] {
        assert!(!sent.contains(mention), "{mention} in {sent}");
    }
}
