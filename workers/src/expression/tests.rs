//! Expressions in real child processes: this test program starts itself as one.

use std::time::Instant;

use serde_json::json;
use tidings_core::FailureKind;

use super::*;

/// The test that becomes the child.
const CHILD: &str = "expression::tests::becomes_a_child";

/// This test program as the child.
pub fn executable() -> Executable {
    let arguments = ["--exact", CHILD, "--include-ignored", "--test-threads=1"];
    Executable {
        program: "/proc/self/exe".into(),
        arguments: arguments.map(Into::into).into(),
    }
}

#[test]
#[ignore = "no test: the child process of other tests"]
fn becomes_a_child() {
    // Without a socket, it was started by hand.
    let _ = child::run();
}

fn variables() -> Variables {
    Variables {
        event: json!({"reason": "Ready", "metadata": {"env": "prod",
            "revision": "main@sha1:abc"}}),
        alert: json!({"metadata": {"generation": 3},
            "spec": {"eventSources": [{"kind": "A"}, {"kind": "B"}]}}),
        provider: json!({"metadata": {"name": "gh", "uid": "0c9c2e41-d2f9"}}),
    }
}

async fn evaluated(source: &str) -> Result<String, Failure> {
    let owner = Owner {
        namespace: source.to_owned(),
        name: "gh".to_owned(),
    };
    Expression::new(owner, source).evaluate(variables()).await
}

async fn evaluate(source: &str) -> Result<String, String> {
    evaluated(source).await.map_err(|failure| failure.detail)
}

#[tokio::test]
async fn expressions_read_event_alert_and_provider() {
    for (source, text) in [
        ("event.reason", "Ready"),
        (
            "event.metadata['env'] + '/' + provider.metadata.uid.split('-')[0]",
            "prod/0c9c2e41",
        ),
        (
            "(provider.metadata.name + event.reason).lowerAscii()",
            "ghready",
        ),
        (
            "has(event.metadata.missing) ? event.metadata.missing : 'none'",
            "none",
        ),
        ("event.metadata.?missing.orValue('fallback')", "fallback"),
        ("alert.spec.eventSources.map(s, s.kind).join(',')", "A,B"),
        ("string(alert.metadata.generation + 1)", "4"),
    ] {
        assert_eq!(evaluate(source).await.as_deref(), Ok(text), "{source}");
    }
}

#[tokio::test]
async fn an_expression_that_gives_no_text_is_rejected_with_the_reason() {
    for (source, sentence) in [
        ("42", "convert it with string(…)"),
        (
            "''",
            "it gives an empty string; a commit status needs an id",
        ),
        ("event.metadata.missing", "missing"),
        ("unknown.metadata", "unknown"),
        ("event.", "not valid CEL"),
        ("'a' + 1", "fails for this event"),
        (&"a".repeat(evaluate::LONGEST + 1), "shorten it to 4096"),
    ] {
        let error = evaluate(source).await.unwrap_err();
        assert!(error.contains(sentence), "{source}: {error}");
    }
}

#[tokio::test]
async fn the_longest_expressions_give_a_text_or_an_error() {
    let terms = "'a'+".repeat(1023) + "'a'";
    assert_eq!(evaluate(&terms).await.map(|text| text.len()), Ok(1024));
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("!", ""),
        ("-", ""),
        ("{1:", "}"),
        ("true?'a':", ""),
        ("'a'.trim().", ""),
        ("a.", ""),
    ] {
        let deep = evaluate::LONGEST / (open.len() + close.len()) - 2;
        let source = format!("{}'a'{}", open.repeat(deep), close.repeat(deep));
        let found = evaluated(&source).await;
        let is_final = |failure: &Failure| failure.kind == FailureKind::Permanent;
        assert!(
            found.as_ref().err().is_none_or(is_final),
            "{open}: {found:?}"
        );
    }
}

/// Doubles a text this often.
fn doubled(times: usize) -> String {
    format!("['aaaaaaaaaaaaaaaa']{}[0]", ".map(x, x + x)".repeat(times))
}

/// Takes long, and needs no memory.
fn slow() -> String {
    let digits = "[1,2,3,4,5,6,7,8,9,0]";
    format!(
        "{digits}.all(a, {digits}.all(b, {digits}.all(c, {digits}.all(d, {digits}.all(e, \
         {digits}.all(f, {digits}.all(g, a + b + c + d + e + f + g < 1000))))))) ? 'y' : 'n'"
    )
}

#[tokio::test]
async fn a_costly_expression_is_refused_and_others_are_evaluated_meanwhile() {
    for (costly, what) in [(doubled(40), "MiB of memory"), (slow(), "s of CPU time")] {
        let (costly, other) = tokio::join!(evaluated(&costly), async {
            let mut others = 0;
            for _ in 0..20 {
                assert_eq!(evaluate("event.reason").await.as_deref(), Ok("Ready"));
                others += 1;
            }
            others
        });
        let failure = costly.unwrap_err();
        assert_eq!(other, 20);
        assert_eq!(
            (failure.kind, failure.reason),
            (FailureKind::Permanent, Reason::Misconfigured)
        );
        assert!(failure.detail.starts_with("expression too costly"));
        assert!(failure.detail.contains(what), "{failure}");
    }
}

#[tokio::test]
async fn a_refused_expression_is_not_evaluated_again() {
    let costly = doubled(39);
    let first = evaluate(&costly).await.unwrap_err();
    let began = Instant::now();
    let all = futures::future::join_all((0..1000).map(|_| evaluate(&costly))).await;
    assert!(all.iter().all(|it| *it == Err(first.clone())));
    assert!(began.elapsed().as_secs() < 5, "none has used its CPU time");
    assert_eq!(evaluate(&doubled(3)).await.map(|text| text.len()), Ok(128));
}

#[tokio::test]
async fn long_texts_are_cut_and_long_results_are_errors() {
    let mut variables = variables();
    variables.event["message"] = ("é".repeat(LONGEST_TEXT) + "end").into();
    let evaluate = async |source| {
        let expression = Expression::new(Owner::default(), source);
        let result = expression.evaluate(variables.clone()).await;
        result.map_err(|failure| failure.detail)
    };
    assert_eq!(
        evaluate("string(event.message.size())").await.as_deref(),
        Ok("32768")
    );
    assert_eq!(
        evaluate("event.message").await.map(|text| text.len()),
        Ok(LONGEST_TEXT)
    );
    let error = evaluate("event.message + '.'").await.unwrap_err();
    assert!(error.contains("65537 bytes; at most 65536"), "{error}");
    variables.event["metadata"]["many"] = json!(vec!["a".repeat(50_000); 21]);
    let expression = Expression::new(Owner::default(), "event.reason");
    let failure = expression.evaluate(variables).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Permanent);
    assert!(failure.detail.contains("1048576"), "{failure}");
}
