//! The generated part of docs/providers.md.

use std::fmt::Write as _;

use tidings_rules::Family;
use tidings_workers::notifier::PROVIDERS;
use tidings_workers::notifier::contract::ProviderType;
use tidings_workers::notifier::contract::need::Place;

/// Each family with its heading and an introduction.
const FAMILIES: &[(Family, &str, &str)] = &[
    (Family::Generic, "Webhooks", "They accept every event."),
    (
        Family::Message,
        "Chats, incidents, observability, queues",
        "They accept every event except `commit_status: update`.",
    ),
    (
        Family::CommitStatus,
        "Commit statuses",
        "They accept events that name a commit. The newest state wins; an unchanged state makes no \
         call.",
    ),
    (
        Family::ChangeRequest,
        "Comments on change requests",
        "They accept events with the annotation `event.toolkit.fluxcd.io/change_request` on the \
         object. Each object gets one comment, which is edited. The newest state wins.",
    ),
];

/// All types by family: a table of types, then a section for each type.
pub fn page() -> String {
    let mut page = String::new();
    for (family, heading, meaning) in FAMILIES {
        let rows = || PROVIDERS.iter().filter(|row| row.family == *family);
        let _ = writeln!(
            page,
            "## {heading}\n\n{meaning}\n\n\
             | type | is | size limit | duplicates |\n|---|---|---|---|"
        );
        for row in rows() {
            let limits = if row.limits.is_empty() {
                "–"
            } else {
                row.limits
            };
            let _ = writeln!(
                page,
                "| [`{}`](#{}) | {} | {limits} | {} |",
                row.kind,
                anchor(row.kind),
                row.summary,
                row.again
            );
        }
        page.push('\n');
        rows().for_each(|row| section(&mut page, row));
    }
    page
}

fn section(page: &mut String, row: &ProviderType) {
    let _ = writeln!(
        page,
        "### {}\n\n| in | name | | |\n|---|---|---|---|",
        row.kind
    );
    for need in row.needs {
        let place = match need.place {
            Place::Field => "`spec`",
            Place::Key => "Secret",
        };
        let _ = writeln!(
            page,
            "| {place} | `{}` | {} | {} |",
            need.name,
            need.demand.as_str(),
            need.meaning
        );
    }
    let _ = writeln!(page, "\n```yaml\n{}```\n", row.example());
}

/// The anchor that GitHub derives from a heading.
fn anchor(kind: &str) -> String {
    kind.replace('.', "")
}
