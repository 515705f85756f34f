//! What is taken, and what is refused with which sentence.

use super::*;

fn refusal(source: &str) -> String {
    check(source, SyntaxConfig::default())
        .err()
        .unwrap_or_default()
}

#[test]
fn what_people_write_is_taken() {
    for source in [
        "{{ event.reason ~ ' of ' ~ event.involvedObject.name }}",
        "{% for key, value in event.metadata|items %}{{ loop.index + 1 }} {{ key }}={{ value }}{% else %}none{% endfor %}",
        "{% set colours = {'error': 'red', 'info': event.reason} %}{{ colours[event.severity]|default('grey') }}",
        "{% set url %}https://h/{{ cluster }}{% endset %}{{ url }}",
        "{% with name = event.involvedObject.name|upper %}{{ name[:10] }}{% endwith %}",
        "{% if 'a' ~ b == 'ac' and c is not defined %}x{% elif a > 1 %}y{% endif %}{# comment #}{% raw %}{{ }}{% endraw %}",
    ] {
        assert_eq!(refusal(source), "", "{source}");
    }
}

#[test]
fn what_can_grow_is_refused_with_its_line() {
    for (source, sentence) in [
        (
            "{% set a = 'x' ~ b %}",
            "line 1: ~ can't be part of a value that gets a name; write {% set NAME %}…{% endset %}",
        ),
        ("\n{{ 'x' * 9 }}", "line 2: * and ** are not there"),
        ("{{ a + b }}", "line 1: + is for numbers"),
        (
            "{% set a = [1] %}{% set a = [a, a] %}",
            "line 1: a list or map can't hold a",
        ),
        (
            "{% for a in b %}{% set c = {'k': a|upper} %}{% endfor %}",
            "can't hold a",
        ),
        ("{% for a in [c ~ c] %}{% endfor %}", "~ can't be part"),
        (
            "{% for a in b recursive %}{% endfor %}",
            "can't be recursive",
        ),
        ("{{ range(9) }}", "no functions to call"),
        ("{{ loop.cycle() }}", "no functions to call"),
        ("{% do a() %}", "no functions to call"),
        ("{% set a.b = 1 %}", "only a plain name can be set"),
        ("{% autoescape false %}{% endautoescape %}", "no autoescape"),
        ("{{ a|format }}", "no filter format; there are "),
        ("{% filter chain(a) %}{% endfilter %}", "no filter chain"),
        ("{% macro a() %}{% endmacro %}", "unknown statement macro"),
        ("{% include 'a' %}", "unknown statement include"),
    ] {
        assert!(
            refusal(source).contains(sentence),
            "{source}: {}",
            refusal(source)
        );
    }
    assert!(refusal(&format!("{{{{ a{} }}}}", "~a".repeat(65))).contains("more than 64 of ~"));
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    for (begin, end) in [
        ("{% if a %}", "{% endif %}"),
        ("{% for a in b %}", "{% endfor %}"),
        ("{{ (", ") }}"),
        ("{{ [", "] }}"),
    ] {
        let (begins, ends) = (begin.repeat(600), end.repeat(600));
        assert!(!refusal(&format!("{begins}{ends}")).is_empty(), "{begin}");
    }
    assert!(refusal(&format!("{{{{ {}a }}}}", "(".repeat(200))).contains("recursion"));
    // Without brackets operators nest as well.
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
            refusal(&expression(2_000)).contains("more than 256"),
            "{before} {after}"
        );
        // As deep as it may be.
        let _ = refusal(&expression(80));
        let _ = refusal(&expression(250));
    }
}
