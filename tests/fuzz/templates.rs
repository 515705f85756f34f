//! Templates of messages. The first line is the event's message, the rest is the template.

use serde_json::json;
use tidings_rules::template::{Escape, MAX_TEXT_BYTES, Program};

use crate::runner::{Target, split};

#[test]
fn any_template_renders_within_its_bounds_or_fails_with_a_message() {
    Target {
        name: "templates",
        dictionary: &[
            "{{ ",
            " }}",
            "{% ",
            " %}",
            "{# ",
            " #}",
            "for i in ",
            "endfor",
            "if ",
            "endif",
            "set x = ",
            "event.message",
            "metadata.revision",
            "alert.name",
            "|truncate(9)",
            "|default('x')",
            "|replace('a','aa')",
            "|upper",
            "range(1000000000)",
            "loop.index",
            "~",
            "*9",
            "[0]",
            "'",
            "-",
            "raw",
            "endraw",
            "is defined",
            "not ",
            "%}{%",
        ],
        check: |input| {
            let (message, source) = split(input);
            let context = json!({
                "event": {"message": message, "reason": "Failed", "metadata": {"a": message}},
                "metadata": {"revision": "main@sha1:0123", "summary": message},
                "alert": {"name": "errors", "namespace": "apps"},
                "object": {"kind": "Kustomization", "name": "web"},
            });
            for escape in [Escape::None, Escape::Entities, Escape::Url] {
                match Program::compile(&source, escape).and_then(|it| it.render(&context)) {
                    Ok(rendered) => assert!(rendered.text.len() <= MAX_TEXT_BYTES),
                    Err(message) => assert!(!message.is_empty()),
                }
            }
        },
    }
    .run();
}
