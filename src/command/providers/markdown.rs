//! Generates the tables of docs/providers.md.

use std::fmt::Write as _;

use tidings_rules::{Family, RateLimit};
use tidings_workers::notifier::PROVIDERS;
use tidings_workers::notifier::contract::ProviderType;
use tidings_workers::notifier::contract::limits::RateLimits;
use tidings_workers::notifier::contract::need::Place;

/// Each family with its heading and an introduction.
const FAMILIES: &[(Family, &str, &str)] = &[
    (Family::Generic, "Webhooks", "They accept every event."),
    (
        Family::Message,
        "Chats, observability, queues",
        "They accept every event except `commit_status: update`.",
    ),
    (
        Family::Incident,
        "Incidents",
        "They accept every event except `commit_status: update`. A failure of an object opens an \
         incident, and only a success resolves it ([states](reference/states.md)). The newest \
         state wins.",
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

/// Returns, for each family, a table of its types and a section for each type.
pub fn page() -> String {
    let mut page = String::new();
    for (family, heading, meaning) in FAMILIES {
        let rows = || PROVIDERS.iter().filter(|row| row.family == *family);
        let _ = writeln!(
            page,
            "## {heading}\n\n{meaning}\n\n\
             | type | is | size limit | rate limit | duplicates |\n|---|---|---|---|---|"
        );
        for row in rows() {
            let _ = writeln!(
                page,
                "| [`{}`](#{}) | {} | {} | {} | {} |",
                row.kind,
                anchor(row.kind),
                row.summary,
                format_args!("[{}]({})", row.cut_at, row.size_limits.source),
                rate_limits(&row.rate_limits),
                row.sent_twice
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
    let _ = write!(page, "{}", mentions(row));
    let _ = writeln!(page, "\n```yaml\n{}```\n", row.example());
}

/// The mentions that texts from events never have; empty if the service has none.
fn mentions(row: &ProviderType) -> String {
    let examples = row.mentions.forms.iter().map(|form| form.example);
    let examples: Vec<String> = examples.map(|example| format!("`{example}`")).collect();
    if examples.is_empty() {
        return String::new();
    }
    let source = row.mentions.source;
    format!(
        "\n[Mentions]({source}) that are broken in texts from events: {}\n",
        examples.join(", ")
    )
}

/// The rate limits in words, with a link to their source.
fn rate_limits(limits: &RateLimits) -> String {
    let rate = |rate: &RateLimit| match rate.per.as_secs() {
        1 => format!("{} a second", rate.count),
        60 => format!("{} a minute", rate.count),
        3600 => format!("{} an hour", rate.count),
        seconds => format!("{} in {seconds} seconds", rate.count),
    };
    if limits.rates.is_empty() {
        return "–".to_owned();
    }
    let rates: Vec<String> = limits.rates.iter().map(rate).collect();
    let (rates, scope) = (rates.join(", "), limits.scope.as_str());
    format!("[{rates}]({}) for each {scope}", limits.source)
}

/// The anchor that GitHub derives from a heading.
fn anchor(kind: &str) -> String {
    kind.replace('.', "")
}
