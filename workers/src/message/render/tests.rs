//! Templates and links of one message. The contract tests check them with each provider type.

use proptest::prelude::*;

use super::*;
use crate::message::sample::{self, Sample};

const TEXT: Content = Content::Text(Escape::Entities);

fn renderer() -> Renderer {
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

#[test]
fn the_setting_decides_about_links_if_the_provider_does_not() {
    let renderer = Renderer {
        links_by_default: true,
        ..renderer()
    };
    let links = |links| {
        let provider = sample::provider("slack", |provider| provider.links = links);
        renderer
            .rendered(&Sample::info().message(), &provider, TEXT, || Ok(None))
            .links
            .len()
    };
    assert_eq!(
        [links(None), links(Some(false)), links(Some(true))],
        [2, 0, 2]
    );
}

#[test]
fn a_link_with_a_missing_variable_is_not_shown() {
    let mut sample = Sample::info();
    sample.metadata.remove("revision");
    let provider = sample::provider("slack", |provider| provider.links = Some(true));
    let rendered = renderer().rendered(&sample.message(), &provider, TEXT, || {
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
fn values_are_escaped_as_the_markup_needs() {
    let sample = Sample::info().with_message("<!channel> & co");
    let provider = sample::provider("slack", |_| ());
    for (escape, expected) in [
        (Escape::Entities, "*&lt;!channel&gt; &amp; co*"),
        (Escape::None, "*<!channel> & co*"),
    ] {
        let content = Content::Text(escape);
        let rendered = renderer().rendered(&sample.message(), &provider, content, || {
            Ok(Some("*{{ event.message }}*".into()))
        });
        assert_eq!(rendered.text.as_deref(), Some(expected));
    }
}

#[test]
fn without_its_template_a_message_is_sent_in_the_standard_form() {
    let missing = || {
        Err(Unresolved::Missing(
            "there is no key text in ConfigMap apps/texts for spec.template".into(),
        ))
    };
    let rendered = renderer().rendered(
        &Sample::info().message(),
        &sample::provider("slack", |_| ()),
        TEXT,
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
    let renderer = renderer();
    let first = renderer.program("{{ a }}".into(), Escape::None);
    assert!(Arc::ptr_eq(
        &first,
        &renderer.program("{{ a }}".into(), Escape::None)
    ));
    assert!(!Arc::ptr_eq(
        &first,
        &renderer.program("{{ a }}".into(), Escape::Entities)
    ));
    for number in 0..2 * MOST_PROGRAMS {
        renderer.program(format!("{number}"), Escape::None);
    }
    assert!(renderer.programs.lock().len() <= MOST_PROGRAMS);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_template_and_event_give_text_within_the_limits_or_an_error(
        template in prop_oneof![
            "\\PC{0,60}",
            proptest::collection::vec(prop_oneof![
                Just("{{ event.message }}"), Just("{% for a, b in metadata|items %}"),
                    Just("{% endfor %}"), Just("{{ a|upper }}"),
                Just("{% set title %}"), Just("{% endset %}"),
                    Just("{{ links.commit ~ commit }}"), Just("{{ branch|truncate(2) }}"),
                Just("{% if metadata.x %}"), Just("{% endif %}"), Just("{{ event"), Just("\n"),
                    Just("&<"),
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
        let rendered = renderer().rendered(&sample.message(), &provider, TEXT,
            || Ok(Some(template)));
        prop_assert_eq!(rendered.text.is_none(), !rendered.template_error.is_empty());
        prop_assert!(rendered.text.as_ref().is_none_or(|text| !text.is_empty() && text.len() <=
            64 << 10));
        prop_assert!(rendered.title.as_ref().is_none_or(|title| title.chars().count() <=
            256 * "&amp;".len()));
        prop_assert!(rendered.template_error.chars().count() <= 300);
    }
}
