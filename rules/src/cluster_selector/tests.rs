use serde_json::json;

use super::*;
use crate::check::check_one;
use crate::options::Options;
use crate::testing::alert;

fn selector(text: &str) -> ClusterSelector {
    ClusterSelector::read(text).unwrap_or_else(|| panic!("{text}"))
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn problems(value: Value) -> Vec<String> {
    let object = alert("a", "p").with("clusterSelector", value).object();
    let checked = check_one(&object, &[], &Options::default());
    checked.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_selector_matches_as_in_kubernetes() {
    for (text, of, expected) in [
        ("env=prod", "env=prod,tier=web", true),
        ("env=prod", "env=dev", false),
        ("env=prod", "", false),
        ("env==prod,tier=web", "env=prod", false),
        ("env in (prod, stage)", "env=stage", true),
        ("env in (prod,stage)", "env=dev", false),
        ("env!=prod", "env=dev", true),
        ("env!=prod", "env=prod", false),
        ("env notin (prod,stage)", "", true),
        ("env", "env=dev", true),
        ("env", "", false),
        ("!env", "", true),
        ("! env , tier", "tier=web", true),
        ("!env", "env=dev", false),
        ("env=a,env=b", "env=a", false),
        ("env=", "env=", true),
    ] {
        assert_eq!(selector(text).matches(&labels(of)), expected, "{text} {of}");
    }
    assert!(ClusterSelector::default().matches(&labels("")));
}

#[test]
fn a_selector_is_read_as_it_is_written() {
    for text in [
        "a=1,b in (1,2),c notin (1,2),d,!e",
        "example.com/a=1",
        "a in (1),a notin (1)",
    ] {
        let first = selector(text);
        assert_eq!(selector(&first.to_string()), first, "{text}");
    }
}

#[test]
fn a_text_that_is_no_selector_is_refused() {
    for text in [
        "",
        ",",
        "a=1,",
        "a b",
        "a in",
        "a in 1",
        "a within (1)",
        "a in (1",
        "a in 1)",
        "!",
        "=1",
        "(a)",
    ] {
        assert!(parse(text).is_err(), "{text}: {:?}", parse(text));
    }
}

#[test]
fn an_invalid_selector_rejects_the_alert() {
    let one = |expression: Value| json!({"matchExpressions": [expression]});
    let many: BTreeMap<_, _> = (0..101).map(|number| (format!("k{number}"), "v")).collect();
    let large: Vec<_> = (0..3)
        .map(|key| {
            let values: Vec<_> = (0..100).map(|value| format!("{value:x>63}")).collect();
            json!({"key": format!("k{key}"), "operator": "In", "values": values})
        })
        .collect();
    for (value, field) in [
        (
            json!({"matchLabels": {"bad key": "a"}}),
            "spec.clusterSelector.matchLabels",
        ),
        (
            json!({"matchLabels": {"env": "a b"}}),
            "spec.clusterSelector.matchLabels",
        ),
        (json!({"matchLabels": many}), "spec.clusterSelector"),
        (json!({"matchExpressions": large}), "spec.clusterSelector"),
        (
            one(json!({"key": "env", "operator": "in", "values": ["a"]})),
            "spec.clusterSelector.matchExpressions[0].operator",
        ),
        (
            one(json!({"key": "env", "operator": "In"})),
            "spec.clusterSelector.matchExpressions[0].values",
        ),
        (
            one(json!({"key": "env", "operator": "NotIn", "values": []})),
            "spec.clusterSelector.matchExpressions[0].values",
        ),
        (
            one(json!({"key": "env", "operator": "NotIn", "values": ["-"]})),
            "spec.clusterSelector.matchExpressions[0].values",
        ),
        (
            one(json!({"key": "env", "operator": "Exists", "values": ["a"]})),
            "spec.clusterSelector.matchExpressions[0].values",
        ),
        (
            one(json!({"key": "a/b/c", "operator": "Exists"})),
            "spec.clusterSelector.matchExpressions[0].key",
        ),
    ] {
        let problems = problems(value);
        let start = format!("Alert apps/a: {field}: ");
        assert!(problems[0].starts_with(&start), "{field}: {problems:?}");
    }
    let valid = json!({
        "matchLabels": {"env": "prod"},
        "matchExpressions": [
            {"key": "example.com/tier", "operator": "NotIn", "values": ["web", ""]},
            {"key": "legacy", "operator": "DoesNotExist", "values": []},
        ],
    });
    assert_eq!(problems(valid), Vec::<String>::new());
    assert_eq!(problems(json!({})).len(), 1, "an empty one is doubtful");
}
