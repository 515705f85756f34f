//! Rules as YAML.

use tidings_rules::{Options, Rules, document};
use tidings_workers::notifier::kinds;

use crate::runner::Target;

/// The longest text of a problem. It names an object, a field and a fix, and quotes no document.
const LONGEST_PROBLEM: usize = 64 << 10;

#[test]
fn any_document_compiles_or_has_problems_and_every_provider_resolves_or_says_why_not() {
    Target {
        name: "rules",
        dictionary: &[
            "apiVersion: notification.toolkit.fluxcd.io/v1beta3\n",
            "kind: Alert\n",
            "kind: Provider\n",
            "kind: Secret\n",
            "spec:\n  ",
            "---\n",
            "&a ",
            "*a",
            "<<: ",
            "!!binary ",
            "|-\n",
            "- ",
            "? ",
            ": ",
            "{",
            "[",
            "\"",
            "~",
            "0x7fffffffffffffff",
            "1e400",
            ".inf",
            "name: '*'\n",
            "inclusionList: ['(']\n",
        ],
        check: |yaml| {
            let documents = document::read(&"rules.yaml".into(), yaml, usize::MAX);
            let rules = Rules::compile(&documents.objects, kinds(), &Options::default());
            for provider in rules.providers() {
                let _ = rules.resolve(&provider.namespace, &provider.name);
            }
            for problem in documents.problems.iter().chain(rules.problems()) {
                assert!(problem.to_string().len() <= LONGEST_PROBLEM);
            }
        },
    }
    .run();
}
