//! Results and limits of templates.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn render_with(source: &str, escape: Escape) -> Result<Rendered, String> {
    let scope = json!({
        "a": "<b> & c", "long": "m".repeat(16 << 10), "list": [1, 2, 3], "none": null,
        "event": {"message": "one\ntwo", "metadata": {"k": "v", "l": "w"}},
    });
    Program::compile(source, escape)?.render(&scope)
}

fn text(source: &str) -> Result<String, String> {
    render_with(source, Escape::None).map(|rendered| rendered.text)
}

#[test]
fn blocks_leave_no_empty_lines_and_set_the_title() {
    let source = "{% set title %}\n  of {{ a }}\n{% endset %}\n\
                  {% for k, v in event.metadata|items %}\n- {{ k }}: {{ v }}\n{% endfor %}\nend";
    let rendered = render_with(source, Escape::None).unwrap();
    assert_eq!(
        rendered,
        Rendered {
            title: Some("of <b> & c".into()),
            text: "- k: v\n- l: w\nend".into()
        }
    );
    assert_eq!(
        render_with("{% set title = none %}x", Escape::None)
            .unwrap()
            .title,
        None
    );
}

#[test]
fn values_are_escaped_once_and_the_template_is_not() {
    let source = "{% set title = a %}{% set block %}<i>{{ a }}</i>{% endset %}\
                  <u>{{ block }} {{ a|safe }} {{ a|escape }}</u>";
    let rendered = render_with(source, Escape::Entities).unwrap();
    assert_eq!(
        rendered.text,
        "<u><i>&lt;b&gt; &amp; c</i> <b> & c &lt;b&gt; &amp; c</u>"
    );
    assert_eq!(rendered.title.as_deref(), Some("&lt;b&gt; &amp; c"));
    assert_eq!(
        render_with("https://h/?a={{ a }}", Escape::Url)
            .unwrap()
            .text,
        "https://h/?a=%3Cb%3E%20%26%20c"
    );
}

#[test]
fn a_long_title_is_truncated() {
    let title = |length: usize| {
        let source = format!("{{% set title = '{}' %}}x", "ä".repeat(length));
        render_with(&source, Escape::None).unwrap().title.unwrap()
    };
    assert_eq!(title(256), "ä".repeat(256));
    assert_eq!(title(257), format!("{}…", "ä".repeat(255)));
}

#[test]
fn own_filters_behave_as_in_jinja() {
    for (source, expected) in [
        ("{{ list|join(', ') }}", "1, 2, 3"),
        (
            "{{ 'cab'|sort|join }}{{ list|sort(reverse=true)|list }}{{ b|list }}",
            "abc[3, 2, 1][]",
        ),
        ("{{ event.message|lines|join('|') }}", "one|two"),
        ("{{ event.message|split('o')|length }}", "3"),
        ("{{ event.message|replace('one', '1')|first }}", "1"),
        ("{{ long|truncate(5) }}{{ a|truncate(7) }}", "mmmm…<b> & c"),
        ("{{ none }}{{ event.missing }}.", "."),
    ] {
        assert_eq!(text(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn a_template_that_exceeds_a_limit_is_stopped() {
    let endless = "{% for a in long %}{% for b in long %}{% endfor %}{% endfor %}x";
    assert!(
        text(endless).unwrap_err().contains("fuel"),
        "{:?}",
        text(endless)
    );
    for source in [
        "{% for a in long|lower %}{{ long }}{% endfor %}",
        "{% set a %}{% for a in long %}{{ long }}{% endfor %}{% endset %}x",
        "{{ long|replace('m', long) }}",
        "{{ event.message|join(long) }}",
        "{% for a in list %}{% for a in list %}{% for a in list %}{{ long }}\
         {% endfor %}{% endfor %}{% endfor %}",
    ] {
        assert!(
            text(source)
                .unwrap_err()
                .contains("has more than 65536 bytes"),
            "{source}: {:?}",
            text(source)
        );
    }
    let raw = format!(
        "{{% for a in long %}}{}{{% endfor %}}",
        "r".repeat(10 << 10)
    );
    assert_eq!(
        text(&raw).unwrap_err(),
        "the result has more than 65536 bytes"
    );
    assert!(
        text(&"x".repeat(MAX_SOURCE_BYTES + 1))
            .unwrap_err()
            .contains("at most 16384")
    );
    for filter in ["split('')", "list", "sort", "replace('m', '\n')|lines"] {
        assert!(
            text(&format!("{{{{ long|{filter} }}}}"))
                .unwrap_err()
                .contains("1000 elements"),
            "{filter}"
        );
    }
}

/// Test threads have the same stack size as worker threads.
#[test]
fn the_deepest_valid_template_does_not_exhaust_the_stack() {
    let signs = [
        ("", " or a"),
        ("", "|upper"),
        ("not ", ""),
        ("-", ""),
        ("", ".b"),
        ("", " if a"),
        ("(", ")"),
        ("[", "]"),
    ];
    for depth in [0, 40, 70, 100, 140, 149] {
        for (before, after) in signs {
            for length in [40, 80, 120, 250] {
                let (begin, end) = ("{% if a %}".repeat(depth), "{% endif %}".repeat(depth));
                let _ = text(&format!(
                    "{begin}{{{{ {}a{} }}}}{end}",
                    before.repeat(length),
                    after.repeat(length)
                ));
            }
        }
    }
}

#[test]
fn errors_contain_the_line() {
    for (source, expected) in [
        ("\n{{ a", "line 2: "),
        ("{{ b.c }}", "line 1: "),
        ("{{ 1 + a }}", "line 1: "),
        (" \n {% if false %}x{% endif %}", "the result is empty"),
        ("{{ a / 0 }}", "line 1: "),
    ] {
        assert!(
            text(source).unwrap_err().starts_with(expected),
            "{source}: {:?}",
            text(source)
        );
    }
    assert!(render_with("{{ missing }}", Escape::Url).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_template_panics_or_exceeds_a_limit(source in "\\PC{0,80}") {
        let _ = text(&source);
    }

    #[test]
    fn no_template_of_jinja_keywords_panics_or_exceeds_a_limit(
        words in proptest::collection::vec(prop_oneof![
            Just("{% for a in "), Just("long"), Just(" %}"), Just("{% endfor %}"), Just("{{ "),
            Just(" }}"), Just("{% set a = "), Just("{% set a %}"), Just("{% endset %}"),
            Just("a"), Just("list"), Just("|join"), Just("|replace(a, long)"), Just("|split('')"),
            Just("|list"), Just("|sort"), Just("[1:]"), Just("[a]"), Just(" ~ "), Just(" + "),
            Just("1"), Just(" / "), Just("0"), Just("event"), Just(".metadata"), Just("|items"),
            Just("|dictsort"), Just("|round(999)"), Just("|int"), Just("[::-1]"),
            Just("|truncate(-1)"), Just("{% if "), Just("{% endif %}"), Just(" in "),
            Just("|float"), Just("|abs"), Just(" // "), Just(" % "), Just("-9223372036854775808"),
            Just("loop"), Just(".index"),
        ], 0..24),
    ) {
        if let Ok(text) = text(&words.concat()) {
            prop_assert!(text.len() <= MAX_TEXT_BYTES);
        }
    }
}
