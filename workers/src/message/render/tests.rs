//! Each provider type with a template and with links, and without.

use proptest::prelude::*;
use tidings_rules::ResolvedProvider;

use super::*;
use crate::http::Request;
use crate::notifier::PROVIDERS;
use crate::notifier::contract::ProviderType;
use crate::notifier::sample::{self, Sample, secret};

const TITLE: &str = "Rollout of webapp";
const TEXT: &str = "now at 8f5d3c1 by hand";

fn words() -> Renderer {
    Renderer::new(&LinksSettings {
        enabled: false,
        commit: Some("https://git.example.com/c/{{ commit }}".into()),
        dashboard: Some(
            "https://grafana.example.com/d/x?ns={{ namespace }}&name={{ name }}".into(),
        ),
        commit_status: Some("https://status.example.com/{{ cluster }}/{{ short_commit }}".into()),
    })
    .unwrap()
}

/// A Provider of a type that can be used, as far as its notifier looks.
fn provider(row: &ProviderType) -> ResolvedProvider {
    sample::provider(row.kind, |provider| {
        provider.kind.family = row.family;
        provider.address = match row.kind {
            "azuredevops" => "https://dev.azure.com/org/fleet/_git/deploy".into(),
            "bitbucketserver" => "https://bbs.example.com/scm/ACME/deploy.git".into(),
            "sentry" => "https://key@sentry.example.com/42".into(),
            "azureeventhub" => "hub".into(),
            "googlepubsub" => "project".into(),
            "nats" => "nats://nats.example.com:4222".into(),
            _ => "https://hooks.example.com/acme/deploy".into(),
        };
        provider.secret = secret(&[("token", "user:token")]);
    })
}

/// What all requests of a type for the sample say.
async fn sent(row: &ProviderType, sample: &Sample) -> String {
    let requests: Vec<Request> = sample::requests(row, &provider(row), sample).await;
    let text = |request: &Request| match row.kind {
        "zulip" => url::form_urlencoded::parse(&request.body)
            .map(|(_, value)| value)
            .collect(),
        _ => String::from_utf8_lossy(&request.body).into_owned(),
    };
    requests.iter().map(text).collect()
}

fn sample(row: &ProviderType) -> Sample {
    let mut sample = Sample::error();
    sample.metadata.insert("change_request".into(), "7".into());
    if row.kind == "zulip" {
        sample.channel = "general/flux".into();
    }
    sample
}

/// Types that a dry run can show, but those that send the event as it is, and commit statuses.
fn worded_types() -> impl Iterator<Item = &'static ProviderType> {
    let is_worded = |row: &&ProviderType| {
        !EVENT_AS_IT_IS.contains(&row.kind) && row.family != Family::CommitStatus
    };
    PROVIDERS.iter().copied().filter(is_worded)
}

#[tokio::test]
async fn every_type_has_a_place_for_title_text_and_links() {
    for row in worded_types() {
        let mut sample = sample(row);
        let provider = ResolvedProvider {
            links: Some(true),
            ..provider(row)
        };
        let source = format!("{{% set title = '{TITLE}' %}}now at {{{{ short_commit }}}} by hand");
        sample.rendered = words().rendered(&sample.notification(), &provider, || Ok(Some(source)));
        assert_eq!(sample.rendered.template_error, "", "{}", row.kind);
        let sent = sent(row, &sample).await;
        for part in [TITLE, TEXT, "https://grafana.example.com/d/x?ns=apps"] {
            assert!(sent.contains(part), "{}: {part} in {sent}", row.kind);
        }
        // incident.io has one link.
        let commit = "https://git.example.com/c/8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";
        assert!(
            sent.contains(commit) || row.kind == "incident.io",
            "{}: {sent}",
            row.kind
        );
        assert!(
            !sent.contains("Health check failed after 30s"),
            "{}: the message is the template's: {sent}",
            row.kind
        );
    }
}

#[tokio::test]
async fn what_is_not_worded_is_sent_as_it_always_was() {
    for row in worded_types() {
        let mut sample = sample(row);
        let standard = sent(row, &sample).await;
        sample.rendered = words().rendered(&sample.notification(), &provider(row), || Ok(None));
        assert_eq!(sample.rendered, RenderedMessage::default(), "{}", row.kind);
        sample.rendered = words().rendered(&sample.notification(), &provider(row), || {
            Ok(Some("{{ event.no.such }}".into()))
        });
        assert!(
            sample.rendered.template_error.starts_with("line 1: "),
            "{}",
            sample.rendered.template_error
        );
        assert_eq!(
            without_times(&sent(row, &sample).await),
            without_times(&standard),
            "{}",
            row.kind
        );
    }
}

/// An envelope says when it was sent.
fn without_times(text: &str) -> String {
    text.lines()
        .filter(|line| !line.contains("sent_at"))
        .collect()
}

#[tokio::test]
async fn links_alone_stand_beside_the_standard_form() {
    for row in worded_types() {
        let mut sample = sample(row);
        sample
            .metadata
            .insert("repository".into(), "git@github.com:acme/deploy.git".into());
        let provider = ResolvedProvider {
            links: Some(true),
            ..provider(row)
        };
        sample.rendered = words().rendered(&sample.notification(), &provider, || Ok(None));
        let page = "https://github.com/acme/deploy/commit/8f5d3c1e7a9b4f60d2c1e0a9b8f7e6d5c4b3a291";
        assert_eq!(
            sample.rendered.links[0].url, page,
            "the event's repository goes before the pattern"
        );
        let sent = sent(row, &sample).await;
        assert!(
            sent.contains("https://grafana.example.com/d/x?ns=apps"),
            "{}: {sent}",
            row.kind
        );
    }
}

#[test]
fn the_setting_counts_where_the_provider_says_nothing() {
    let words = Renderer {
        links_by_default: true,
        ..words()
    };
    let links = |links| {
        let provider = sample::provider("slack", |provider| provider.links = links);
        words
            .rendered(&Sample::info().notification(), &provider, || Ok(None))
            .links
            .len()
    };
    assert_eq!(
        [links(None), links(Some(false)), links(Some(true))],
        [2, 0, 2]
    );
}

#[test]
fn links_that_use_what_an_event_does_not_have_are_left_out() {
    let mut sample = Sample::info();
    sample.metadata.remove("revision");
    let provider = sample::provider("slack", |provider| provider.links = Some(true));
    let rendered = words().rendered(&sample.notification(), &provider, || {
        Ok(Some("{{ links.commit }}{{ links|length }}".into()))
    });
    assert_eq!(
        rendered
            .links
            .iter()
            .map(|link| link.key)
            .collect::<Vec<_>>(),
        ["dashboard"]
    );
    assert_eq!(rendered.text.as_deref(), Some("1"));
}

#[test]
fn values_are_escaped_where_the_type_asks_for_it() {
    let sample = Sample::info().with_message("<!channel> & co");
    for (kind, expected) in [
        ("slack", "*&lt;!channel&gt; &amp; co*"),
        ("webex", "*<!channel> & co*"),
    ] {
        let provider = sample::provider(kind, |_| ());
        let rendered = words().rendered(&sample.notification(), &provider, || {
            Ok(Some("*{{ event.message }}*".into()))
        });
        assert_eq!(rendered.text.as_deref(), Some(expected));
    }
}

#[test]
fn a_template_that_is_not_there_leaves_the_standard_form() {
    let missing = || {
        Err(Unresolved::Missing(
            "there is no key text in ConfigMap apps/texts for spec.template".into(),
        ))
    };
    let rendered = words().rendered(
        &Sample::info().notification(),
        &sample::provider("slack", |_| ()),
        missing,
    );
    assert!(
        rendered.text.is_none()
            && rendered
                .template_error
                .contains("no key text in ConfigMap apps/texts"),
        "{rendered:?}"
    );
}

#[test]
fn a_template_is_compiled_once() {
    let words = words();
    let first = words.program("{{ a }}".into(), Escape::None);
    assert!(Arc::ptr_eq(
        &first,
        &words.program("{{ a }}".into(), Escape::None)
    ));
    assert!(!Arc::ptr_eq(
        &first,
        &words.program("{{ a }}".into(), Escape::Entities)
    ));
    for number in 0..2 * MOST_PROGRAMS {
        words.program(format!("{number}"), Escape::None);
    }
    assert!(words.programs.lock().len() <= MOST_PROGRAMS);
}

#[tokio::test]
async fn commit_statuses_link_to_what_a_pattern_says() {
    for row in PROVIDERS
        .iter()
        .filter(|row| row.family == Family::CommitStatus)
    {
        let mut sample = sample(row);
        sample.event.cluster = "eu 1".into();
        sample.rendered = words().rendered(&sample.notification(), &provider(row), || {
            panic!("no template is asked for")
        });
        assert!(
            sent(row, &sample)
                .await
                .contains("\"https://status.example.com/eu%201/8f5d3c1\""),
            "{}",
            row.kind
        );
        let own = |provider: &mut ResolvedProvider| {
            provider.commit_status.target_url = Some("https://own/{{ name }}".into())
        };
        let mut with_own = provider(row);
        own(&mut with_own);
        assert_eq!(
            words()
                .rendered(&sample.notification(), &with_own, || Ok(None))
                .target_url
                .as_deref(),
            Some("https://own/webapp")
        );
        let long = ResolvedProvider {
            commit_status: Default::default(),
            ..with_own
        };
        sample.event.cluster = "x".repeat(300);
        assert_eq!(
            words()
                .rendered(&sample.notification(), &long, || Ok(None))
                .target_url,
            None
        );
    }
}

#[tokio::test]
async fn the_event_is_sent_as_it_is_where_a_type_does_that() {
    for row in PROVIDERS
        .iter()
        .filter(|row| EVENT_AS_IT_IS.contains(&row.kind))
    {
        let provider = ResolvedProvider {
            links: Some(true),
            ..provider(row)
        };
        let rendered = words().rendered(&sample(row).notification(), &provider, || {
            panic!("no template is asked for")
        });
        assert_eq!(rendered, RenderedMessage::default(), "{}", row.kind);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn whatever_the_template_and_the_event_are_there_is_something_to_send(
        template in prop_oneof![
            "\\PC{0,60}",
            proptest::collection::vec(prop_oneof![
                Just("{{ event.message }}"), Just("{% for a, b in metadata|items %}"), Just("{% endfor %}"), Just("{{ a|upper }}"),
                Just("{% set title %}"), Just("{% endset %}"), Just("{{ links.commit ~ commit }}"), Just("{{ branch|truncate(2) }}"),
                Just("{% if metadata.x %}"), Just("{% endif %}"), Just("{{ event"), Just("\n"), Just("&<"),
            ], 0..12).prop_map(|parts| parts.concat()),
        ],
        message in "\\PC{0,40}",
        key in "\\PC{0,10}",
        value in "\\PC{0,40}",
    ) {
        let mut sample = Sample::error().with_message(message.repeat(2_000));
        sample.metadata.insert(key, value.clone());
        sample.metadata.insert("repository".into(), value.clone());
        sample.metadata.insert("revision".into(), value);
        let provider = sample::provider("slack", |provider| provider.links = Some(true));
        let rendered = words().rendered(&sample.notification(), &provider, || Ok(Some(template)));
        prop_assert_eq!(rendered.text.is_none(), !rendered.template_error.is_empty());
        prop_assert!(rendered.text.as_ref().is_none_or(|text| !text.is_empty() && text.len() <= 64 << 10));
        prop_assert!(rendered.title.as_ref().is_none_or(|title| title.chars().count() <= 256 * "&amp;".len()));
        prop_assert!(rendered.template_error.chars().count() <= 300);
    }
}
