//! Expressions of commit statuses, evaluated in a child process. The first line is the event's
//! message, the rest is the expression.

use serde_json::json;
use tidings_workers::expression::{
    Executable, Expression, NotEvaluated, Owner, Variables, start_children_with,
};
use tokio::runtime::Builder;

use crate::runner::{Target, split};

#[test]
fn any_expression_gives_a_text_or_an_error_or_is_too_costly() {
    start_children_with(Executable {
        program: env!("CARGO_BIN_EXE_tidings").into(),
        arguments: vec!["evaluate-expressions".into()],
    });
    Target {
        name: "expressions",
        dictionary: &[
            "event.message",
            "event.metadata['a']",
            "alert.metadata.name",
            "provider.spec.?x.orValue('y')",
            ".map(x, x + x)",
            ".filter(x, true)",
            ".all(x, x == x)",
            ".split('')",
            ".join(',')",
            ".replace('a', 'aa')",
            ".format([1, 2.5, 'x'])",
            "string(",
            "timestamp('2026-01-02T03:04:05Z')",
            ".getHours('+01:00')",
            "duration('1h')",
            "base64.encode(b'x')",
            "sets.contains([1], [2])",
            ".matches('a+')",
            "optional.of(",
            " ? ",
            " : ",
            "[0]",
            "9223372036854775807",
            "1e308",
            "{'a': 1}",
            "(",
            ")",
            "!",
            "-",
        ],
        check: |input| {
            let (message, source) = split(input);
            // Each has its own namespace: one that is too costly makes no other wait.
            let owner = Owner {
                namespace: source.clone(),
                name: "p".to_owned(),
            };
            let variables = Variables {
                event: json!({"message": message, "metadata": {"a": message}}),
                alert: json!({"metadata": {"name": "a", "generation": 3}}),
                provider: json!({"spec": {"type": "github"}}),
            };
            let expression = Expression::new(owner, &source);
            let runtime = Builder::new_current_thread().enable_time().build();
            let runtime = runtime.expect("a runtime can be built");
            match runtime.block_on(expression.check(variables)) {
                Ok(Ok(text)) => assert!(!text.is_empty() && text.len() <= 64 << 10),
                Ok(Err(wrong)) => assert!(wrong.sentence.chars().count() < 1000),
                Err(NotEvaluated::TooCostly(_)) => {}
                Err(why) => panic!("{}", why.sentence()),
            }
        },
    }
    .run();
}
