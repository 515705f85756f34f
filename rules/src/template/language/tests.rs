//! Accepted and rejected templates.

use super::*;

fn rejection(source: &str) -> String {
    check(source, SyntaxConfig::default())
        .err()
        .unwrap_or_default()
}

#[test]
fn common_templates_are_accepted() {
    for source in [
        "{{ event.reason ~ ' of ' ~ event.involvedObject.name }}",
        "{% for key, value in event.metadata|items %}{{ loop.index + 1 }} {{ key }}={{ value }}\
         {% else %}none{% endfor %}",
        "{% set colors = {'error': 'red', 'info': event.reason} %}\
         {{ colors[event.severity]|default('gray') }}",
        "{% set url %}https://h/{{ cluster }}{% endset %}{{ url }}",
        "{% with name = event.involvedObject.name|upper %}{{ name[:10] }}{% endwith %}",
        "{% if 'a' ~ b == 'ac' and c is not defined %}x{% elif a > 1 %}y{% endif %}\
         {# comment #}{% raw %}{{ }}{% endraw %}",
    ] {
        assert_eq!(rejection(source), "", "{source}");
    }
}

#[test]
fn unbounded_constructs_are_rejected_with_their_line() {
    for (source, message) in [
        (
            "{% set a = 'x' ~ b %}",
            "line 1: ~ is not supported in an assigned value; use {% set NAME %}…{% endset %}",
        ),
        ("\n{{ 'x' * 9 }}", "line 2: * and ** are not supported"),
        ("{{ a + b }}", "line 1: + requires"),
        (
            "{% set a = [1] %}{% set a = [a, a] %}",
            "line 1: a list or map cannot contain a",
        ),
        (
            "{% for a in b %}{% set c = {'k': a|upper} %}{% endfor %}",
            "cannot contain a",
        ),
        ("{% for a in [c ~ c] %}{% endfor %}", "~ is not supported"),
        ("{% for a in b recursive %}{% endfor %}", "recursive loops"),
        ("{{ range(9) }}", "functions are not supported"),
        ("{{ loop.cycle() }}", "functions are not supported"),
        ("{% do a() %}", "functions are not supported"),
        ("{% set a.b = 1 %}", "only a plain name can be assigned"),
        (
            "{% autoescape false %}{% endautoescape %}",
            "autoescape is not supported",
        ),
        (
            "{{ a|format }}",
            "filter format is not supported; use one of ",
        ),
        (
            "{% filter chain(a) %}{% endfilter %}",
            "filter chain is not",
        ),
        ("{% macro a() %}{% endmacro %}", "unknown statement macro"),
        ("{% include 'a' %}", "unknown statement include"),
    ] {
        assert!(
            rejection(source).contains(message),
            "{source}: {}",
            rejection(source)
        );
    }
    assert!(
        rejection(&format!("{{{{ a{} }}}}", "~a".repeat(65))).contains("more than 64 uses of ~")
    );
}

#[test]
fn deep_nesting_is_rejected() {
    for (begin, end) in [
        ("{% if a %}", "{% endif %}"),
        ("{% for a in b %}", "{% endfor %}"),
        ("{{ (", ") }}"),
        ("{{ [", "] }}"),
    ] {
        let (begins, ends) = (begin.repeat(600), end.repeat(600));
        assert!(!rejection(&format!("{begins}{ends}")).is_empty(), "{begin}");
    }
    assert!(rejection(&format!("{{{{ {}a }}}}", "(".repeat(200))).contains("recursion"));
    // Operators nest without brackets as well.
    for (before, after) in [
        ("", " or a"),
        ("", "|upper"),
        ("not ", ""),
        ("-", ""),
        ("", ".b"),
        ("", " if a"),
        ("(", ")"),
    ] {
        let expression =
            |times: usize| format!("{{{{ {}a{} }}}}", before.repeat(times), after.repeat(times));
        assert!(
            rejection(&expression(2_000)).contains("more than 256"),
            "{before} {after}"
        );
        // The maximum depth.
        let _ = rejection(&expression(80));
        let _ = rejection(&expression(250));
    }
}
