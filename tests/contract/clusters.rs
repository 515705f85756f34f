//! Every message of every type names its cluster, unless the cluster is `default`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tidings_core::bus::clusters::Clusters;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::runtime::config::LinksSettings;
use tidings_core::wire::Cluster;
use tidings_core::{Event, Outcome};
use tidings_rules::Family;
use tidings_workers::attempt::prepare;
use tidings_workers::http::{Http, Request};
use tidings_workers::message::render::{Content, Renderer};
use tidings_workers::notifier::PROVIDERS;
use tidings_workers::notifier::contract::ProviderType;

use crate::subject::{attempt_rendered, event, filled_example, http_types, resolve};

const CLUSTER: &str = "prod-eu";

/// How a message is made.
#[derive(Default)]
struct Case<'a> {
    cluster: &'a str,
    message: &'a str,
    template: Option<&'a str>,
    metadata: BTreeMap<String, String>,
    /// The Provider option of types that send the event.
    cluster_field: bool,
    without_uid: bool,
    links: bool,
}

impl Case<'_> {
    fn event(&self) -> Event {
        let mut event = event(self.message);
        event.cluster = self.cluster.into();
        if self.without_uid {
            event.involved_object.get_or_insert_default().uid.clear();
        }
        event
    }

    /// All requests of a type, each as its headers and its body.
    async fn sent(&self, row: &ProviderType) -> Vec<String> {
        let mut provider = resolve(&filled_example(row)).unwrap();
        provider.cluster_field = self.cluster_field;
        provider.links = Some(self.links);
        let http = Http::dry_run();
        let prepared = prepare(Arc::new(provider), |_| Ok(http.clone()));
        let prepared = prepared.unwrap_or_else(|error| panic!("{}: {error}", row.kind));
        let template = || Ok(self.template.map(str::to_owned));
        let (event, renderer) = (self.event(), renderer());
        let ended = attempt_rendered(&prepared, &event, &self.metadata, |message| {
            renderer.rendered(message, &prepared.provider, row.content, template)
        });
        let outcome = ended.await.map(|ended| ended.outcome);
        assert_eq!(outcome, Ok(Outcome::Delivered), "{}", row.kind);
        http.recorded().iter().map(shown).collect()
    }
}

fn renderer() -> Renderer {
    let known = Cluster {
        labels: BTreeMap::from([("tier".to_owned(), "web".to_owned())]),
        dashboard: "https://eu.example.com/{{ cluster_labels.tier }}/{{ name }}".into(),
        ..Cluster::default()
    };
    let clusters = Clusters::from([(CLUSTER.to_owned(), known)]);
    let settings = LinksSettings {
        dashboard: Some("https://all.example.com/{{ name }}".into()),
        ..LinksSettings::default()
    };
    let renderer = Renderer::new(&settings).unwrap();
    renderer.with_clusters(LiveClusters::fixed(clusters))
}

/// The headers and the body of a request, without the time of sending.
fn shown(request: &Request) -> String {
    let is_token = |name: &str| name == "authorization";
    let headers = request.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = if is_token(name.as_str()) {
            "".into()
        } else {
            value
        };
        format!("{name}: {value}\n")
    });
    let body = String::from_utf8_lossy(&request.body);
    let lines = body.lines().filter(|line| !line.contains("sent_at"));
    let body: Vec<&str> = lines.collect();
    format!("{}{}", headers.collect::<String>(), body.join("\n"))
}

/// The data of Pub/Sub is in Base64.
fn data(request: &str) -> String {
    let body = request.lines().last().unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let data = body["messages"][0]["data"].as_str();
    let decoded = data.and_then(|data| STANDARD.decode(data).ok());
    decoded.map_or_else(String::new, |bytes| {
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[tokio::test]
async fn every_message_names_a_cluster_that_is_not_default() {
    let many = (0..500).map(|number| (format!("a{number:03}"), "v".repeat(400)));
    let claimed = BTreeMap::from([("cluster".to_owned(), "Production".to_owned())]);
    let cases = [
        Case {
            cluster: CLUSTER,
            message: "Health check failed",
            ..Case::default()
        },
        Case {
            cluster: CLUSTER,
            message: &"long ".repeat(400_000),
            ..Case::default()
        },
        Case {
            cluster: CLUSTER,
            message: "m",
            metadata: many.collect(),
            ..Case::default()
        },
        Case {
            cluster: CLUSTER,
            message: "m",
            metadata: claimed,
            ..Case::default()
        },
        Case {
            cluster: CLUSTER,
            message: "m",
            template: Some("by hand"),
            ..Case::default()
        },
        Case {
            cluster: CLUSTER,
            message: "m",
            template: Some("{% set title %}{{ name }}{% endset %}by hand"),
            ..Case::default()
        },
    ];
    assert_eq!(
        PROVIDERS.len(),
        http_types().count() + 1,
        "nats has a test of its own"
    );
    for (number, case) in cases.iter().enumerate() {
        for row in http_types() {
            // Telegram escapes the dash.
            let sent = case.sent(row).await.join("\n").replace("\\\\-", "-");
            let beginning: String = sent.chars().take(2_000).collect();
            assert!(
                sent.contains(CLUSTER),
                "case {number}, {}: {beginning}",
                row.kind
            );
        }
    }
}

#[tokio::test]
async fn the_messages_of_the_cluster_default_are_those_of_events_without_a_cluster() {
    for template in [None, Some("{% set title %}T{% endset %}by hand")] {
        for (cluster_field, without_uid) in [(false, false), (true, true)] {
            for row in http_types() {
                let [default, without] = ["default", ""].map(|cluster| Case {
                    cluster,
                    message: "Health check failed",
                    template,
                    cluster_field,
                    without_uid,
                    ..Case::default()
                });
                let default = default.sent(row).await;
                assert_eq!(default, without.sent(row).await, "{}", row.kind);
                let all = default.join("\n");
                assert!(!all.contains("tidings-cluster"), "{}: {all}", row.kind);
            }
        }
    }
}

#[tokio::test]
async fn types_that_send_the_event_name_the_cluster_beside_it_and_within_if_asked_to() {
    let is_event = |row: &&&ProviderType| row.content == Content::Event;
    for row in http_types().collect::<Vec<_>>().iter().filter(is_event) {
        let case = |cluster_field| Case {
            cluster: CLUSTER,
            message: "m",
            cluster_field,
            ..Case::default()
        };
        let beside = case(false).sent(row).await.join("\n");
        let within = case(true).sent(row).await.join("\n");
        let field = format!("\"cluster\":\"{CLUSTER}\"");
        let has_header = beside.contains("tidings-cluster");
        let has_field = |sent: &str| sent.contains(&field) || data(sent).contains(&field);
        assert_ne!(has_header, has_field(&beside), "{}: {beside}", row.kind);
        assert!(has_field(&within), "{}: {within}", row.kind);
    }
}

#[tokio::test]
async fn ids_without_a_uid_contain_a_cluster_that_is_not_default() {
    // Sorted, and only types that name an object at the service.
    for kind in [
        "giteapullrequestcomment",
        "githubpullrequestcomment",
        "gitlabmergerequestcomment",
        "incident.io",
        "opsgenie",
        "pagerduty",
    ] {
        let row = PROVIDERS.iter().find(|row| row.kind == kind).unwrap();
        let ids = async |cluster| {
            let case = Case {
                cluster,
                message: "m",
                without_uid: true,
                ..Case::default()
            };
            id(&case.sent(row).await.join("\n"))
        };
        let [default, eu, us] = [ids("default").await, ids(CLUSTER).await, ids("us").await];
        assert!(
            default != eu && eu != us && default != us,
            "{kind}: {default} {eu} {us}"
        );
        let with_uid = async |cluster| {
            let case = Case {
                cluster,
                message: "m",
                ..Case::default()
            };
            id(&case.sent(row).await.join("\n"))
        };
        let same = row.family == Family::Incident;
        assert_eq!(
            with_uid("default").await == with_uid(CLUSTER).await,
            same,
            "{kind}"
        );
    }
}

/// The id that a service keeps: of an incident, an alert or a comment.
fn id(sent: &str) -> String {
    let marks = [
        "\"dedup_key\":\"",
        "\"deduplication_key\":\"",
        "\"alias\":\"",
        "<!-- ",
        "\\u003c!-- ",
    ];
    let found = marks.iter().find_map(|mark| Some(sent.split_once(mark)?.1));
    let id = found.unwrap_or_else(|| panic!("no id in {sent}"));
    id.split(['"', '>']).next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_link_leads_to_the_dashboard_of_the_cluster() {
    for row in http_types() {
        let is_text = matches!(row.content, Content::Text(_));
        if !is_text || row.family == Family::CommitStatus {
            continue;
        }
        for (cluster, dashboard) in [
            (CLUSTER, "https://eu.example.com/web/apps"),
            ("other", "https://all.example.com/apps"),
        ] {
            let case = Case {
                cluster,
                message: "m",
                links: true,
                ..Case::default()
            };
            let sent = case.sent(row).await.join("\n");
            let form = dashboard.replace(':', "%3A").replace('/', "%2F");
            let is_linked = sent.contains(dashboard) || sent.contains(&form);
            assert!(is_linked, "{} {cluster}: {sent}", row.kind);
        }
    }
}
