//! Every provider type with a template and with links, and without them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidings_core::runtime::config::LinksSettings;
use tidings_core::{Event, Outcome};
use tidings_rules::{Family, ResolvedProvider, Unresolved};
use tidings_workers::attempt::prepare;
use tidings_workers::http::{Http, Request};
use tidings_workers::message::render::{Content, RenderedMessage, Renderer};
use tidings_workers::notifier::PROVIDERS;
use tidings_workers::notifier::contract::ProviderType;

use crate::subject::{attempt_rendered, event, filled_example, resolve};

const TITLE: &str = "Rollout of webapp";
const TEXT: &str = "now at 8f5d3c1 by hand";
const COMMIT: &str = "https://git.example.com/c/8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";
const DASHBOARD: &str = "https://grafana.example.com/d/x?ns=apps";

type Template = Result<Option<String>, Unresolved>;

fn renderer() -> Renderer {
    Renderer::new(&LinksSettings {
        enabled: false,
        commit: Some("https://git.example.com/c/{{ commit }}".into()),
        dashboard: Some("https://grafana.example.com/d/x?ns={{ namespace }}".into()),
        commit_status: Some("https://status.example.com/{{ cluster }}/{{ short_commit }}".into()),
    })
    .unwrap()
}

fn provider(row: &ProviderType, links: Option<bool>) -> ResolvedProvider {
    ResolvedProvider {
        links,
        ..resolve(&filled_example(row)).unwrap_or_else(|error| panic!("{}: {error}", row.kind))
    }
}

/// The text of all requests for an event, and the rendered message.
async fn sent(
    row: &ProviderType,
    provider: ResolvedProvider,
    event: &Event,
    template: impl FnOnce() -> Template,
) -> (String, RenderedMessage) {
    let http = Http::dry_run();
    let prepared = prepare(Arc::new(provider), |_| Ok(http.clone()))
        .unwrap_or_else(|error| panic!("{}: {error}", row.kind));
    let mut rendered = RenderedMessage::default();
    let ended = attempt_rendered(&prepared, event, &BTreeMap::new(), |message| {
        let provider = &prepared.provider;
        rendered = renderer().rendered(message, provider, row.content, template);
        rendered.clone()
    })
    .await;
    let outcome = ended.as_ref().map(|ended| ended.outcome);
    assert_eq!(outcome, Ok(Outcome::Delivered), "{}: {ended:?}", row.kind);
    (http.recorded().iter().map(body).collect(), rendered)
}

/// The body as text; forms are decoded.
fn body(request: &Request) -> String {
    let is_form = request
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "application/x-www-form-urlencoded");
    if is_form {
        let pairs = url::form_urlencoded::parse(&request.body);
        return pairs.map(|(_, value)| value.into_owned()).collect();
    }
    String::from_utf8_lossy(&request.body).into_owned()
}

/// The types that a template and links apply to.
fn text_types() -> impl Iterator<Item = &'static ProviderType> {
    PROVIDERS
        .iter()
        .copied()
        .filter(|row| matches!(row.content, Content::Text(_)) && row.family != Family::CommitStatus)
}

#[tokio::test]
async fn every_type_sends_the_templates_title_and_text_and_the_links() {
    for row in text_types() {
        let source = format!("{{% set title = '{TITLE}' %}}now at {{{{ short_commit }}}} by hand");
        let event = event("Health check failed");
        let (sent, rendered) =
            sent(row, provider(row, Some(true)), &event, || Ok(Some(source))).await;
        assert_eq!(rendered.template_error, "", "{}", row.kind);
        for part in [TITLE, TEXT] {
            assert!(sent.contains(part), "{}: {part} in {sent}", row.kind);
        }
        assert!(sent.contains(DASHBOARD), "{}: {sent}", row.kind);
        let links = [COMMIT, DASHBOARD].into_iter();
        let shown = links.filter(|link| sent.contains(link)).count();
        assert_eq!(shown, row.most_links.min(2), "{}: {sent}", row.kind);
        assert!(
            !sent.contains("Health check failed"),
            "{}: {sent}",
            row.kind
        );
    }
}

#[tokio::test]
async fn a_message_without_a_usable_template_is_sent_in_the_standard_form() {
    for row in text_types() {
        let event = event("Health check failed");
        let (standard, rendered) = sent(row, provider(row, None), &event, || Ok(None)).await;
        assert_eq!(rendered, RenderedMessage::default(), "{}", row.kind);
        let bad = || Ok(Some("{{ event.no.such }}".into()));
        let (sent, rendered) = sent(row, provider(row, None), &event, bad).await;
        let error = rendered.template_error;
        assert!(error.starts_with("line 1: "), "{}: {error}", row.kind);
        assert_eq!(
            without_times(&sent),
            without_times(&standard),
            "{}",
            row.kind
        );
    }
}

/// Removes the lines with the time of sending.
fn without_times(text: &str) -> String {
    text.lines()
        .filter(|line| !line.contains("sent_at"))
        .collect()
}

#[tokio::test]
async fn links_are_added_to_the_standard_form() {
    for row in text_types() {
        let event = event("Health check failed");
        let (sent, _) = sent(row, provider(row, Some(true)), &event, || Ok(None)).await;
        assert!(sent.contains(DASHBOARD), "{}: {sent}", row.kind);
    }
}

#[tokio::test]
async fn a_commit_status_links_to_the_target_url() {
    for row in PROVIDERS
        .iter()
        .filter(|row| row.family == Family::CommitStatus)
    {
        let mut event = event("Health check failed");
        event.cluster = "eu 1".into();
        let no_template = || panic!("a commit status needs no template");
        let (sent_by_pattern, _) = sent(row, provider(row, None), &event, no_template).await;
        let target = "\"https://status.example.com/eu%201/8f5d3c1\"";
        assert!(
            sent_by_pattern.contains(target),
            "{}: {sent_by_pattern}",
            row.kind
        );
        let mut with_own = provider(row, None);
        with_own.commit_status.target_url = Some("https://own/{{ name }}".into());
        let (_, rendered) = sent(row, with_own, &event, no_template).await;
        assert_eq!(rendered.target_url.as_deref(), Some("https://own/apps"));
        event.cluster = "x".repeat(300);
        let (_, rendered) = sent(row, provider(row, None), &event, no_template).await;
        assert_eq!(rendered.target_url, None, "{}: it is too long", row.kind);
    }
}

#[tokio::test]
async fn templates_and_links_do_not_apply_to_types_that_send_the_event() {
    let is_event = |row: &&&ProviderType| row.content == Content::Event && row.uses_http;
    for row in PROVIDERS.iter().filter(is_event) {
        let event = event("Health check failed");
        let no_template = || panic!("no template is needed");
        let (_, rendered) = sent(row, provider(row, Some(true)), &event, no_template).await;
        assert_eq!(rendered, RenderedMessage::default(), "{}", row.kind);
    }
}
