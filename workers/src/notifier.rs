//! The table of provider types. Each type is one file in this folder and one line in the table.

use std::sync::LazyLock;

use tidings_rules::{Kind, Kinds};

use contract::ProviderType;

pub(crate) mod channel_check;
pub mod contract;
pub(crate) mod forge;
mod payload;
#[cfg(test)]
pub(crate) mod sample;

/// Declares the modules of the types, and lists their rows.
macro_rules! provider_types {
    ($($module:ident,)*) => {
        $(mod $module;)*

        /// All provider types. The CRDs, the docs, the consumers and the contract tests derive
        /// from this table.
        pub const PROVIDERS: &[&ProviderType] = &[$(&$module::TYPE),*];
    };
}

provider_types! {
    alertmanager,
    azuredevops,
    azureeventhub,
    bitbucket,
    bitbucketserver,
    datadog,
    discord,
    generic,
    generic_hmac,
    gitea,
    giteapullrequestcomment,
    github,
    githubdispatch,
    githubpullrequestcomment,
    gitlab,
    gitlabmergerequestcomment,
    googlechat,
    googlepubsub,
    grafana,
    incident_io,
    lark,
    matrix,
    msteams,
    nats,
    opsgenie,
    otel,
    pagerduty,
    rocket,
    sentry,
    slack,
    telegram,
    webex,
    zoom,
    zulip,
}

/// The row of a provider type.
pub fn provider_type(kind: &str) -> Option<&'static ProviderType> {
    PROVIDERS.iter().copied().find(|row| row.kind == kind)
}

/// What the crate `rules` needs to know about all types.
pub fn kinds() -> Kinds {
    static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
        PROVIDERS
            .iter()
            .map(|row| Kind {
                fields: row.fields().leak(),
                keys: row.secret_keys().leak(),
                raw_key: row.raw_key,
                channel_key: row.channel_key,
                sends_headers: row.uses_http && row.sends_headers,
                own_headers: row.own_headers,
                ..Kind::new(row.kind, row.family)
            })
            .collect()
    });
    &KINDS
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::contract::limits::SizeLimits;
    use super::*;

    /// The contract tests take their expectations from the rows, so a wrong row would pass them.
    /// Review every change of this snapshot with the vendor's documentation.
    #[test]
    fn the_rows_have_the_reviewed_limits_and_rules() {
        let mut rows = String::new();
        for row in PROVIDERS {
            let (kind, family, content) = (row.kind, row.family, row.content);
            writeln!(rows, "{kind}: {family:?}, {content:?}").unwrap();
            writeln!(rows, "  confirms by {:?}", row.confirmation).unwrap();
            for rate in row.rate_limits.rates {
                let (count, per, scope) = (rate.count, rate.per, row.rate_limits.scope);
                writeln!(
                    rows,
                    "  {count} calls in {per:?} for each {}",
                    scope.as_str()
                )
                .unwrap();
            }
            let SizeLimits {
                source,
                body,
                parts,
            } = row.size_limits;
            writeln!(rows, "  body {body:?}: {source}").unwrap();
            for limit in parts {
                let (part, most, unit) = (limit.part, limit.most, limit.unit);
                let id = if limit.is_id { ", an id" } else { "" };
                writeln!(rows, "  {part}: {most} {unit:?}{id}").unwrap();
            }
            assert!(
                !row.mentions.source.is_empty(),
                "{kind} states its mentions"
            );
            let mentions = row.mentions;
            writeln!(rows, "  mentions: {}", mentions.source).unwrap();
            for form in mentions.forms {
                let after_word = if form.after_word { ", after words" } else { "" };
                writeln!(rows, "    {}: {}{after_word}", form.example, form.pattern).unwrap();
            }
            for rule in row.status_rules {
                writeln!(rows, "  {rule:?}").unwrap();
            }
            if row.most_links != usize::MAX {
                writeln!(rows, "  at most {} links", row.most_links).unwrap();
            }
            if !row.uses_http {
                writeln!(rows, "  no HTTP").unwrap();
            }
        }
        insta::assert_snapshot!(rows);
    }
}
