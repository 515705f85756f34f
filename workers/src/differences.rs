//! Where Tidings differs from notification-controller 1.9 on purpose. `make docs` writes
//! `docs/reference/differences.md` from this table, and `tidings shadow report` shows the rows that
//! concern what it found.

/// A difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is about.
    pub area: Area,
    /// The provider types that it concerns; empty for all of them, or if it is about none.
    pub types: &'static [&'static str],
    /// What notification-controller does.
    pub controller: &'static str,
    /// What Tidings does.
    pub tidings: &'static str,
    /// Why.
    pub why: &'static str,
}

/// What a difference is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Events that arrive.
    Ingest,
    /// Which Alerts match.
    Routing,
    /// What is sent.
    Deliveries,
    /// Commit statuses.
    CommitStatuses,
}

impl Area {
    /// Every area, in the order of the docs.
    pub const ALL: [Self; 4] = [
        Self::Ingest,
        Self::Routing,
        Self::Deliveries,
        Self::CommitStatuses,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ingest => "Events that arrive",
            Self::Routing => "Which alerts match",
            Self::Deliveries => "What is sent",
            Self::CommitStatuses => "Commit statuses",
        }
    }
}

/// The types that write commit statuses.
const STATUSES: &[&str] = &[
    "azuredevops",
    "bitbucket",
    "bitbucketserver",
    "gitea",
    "github",
    "gitlab",
];

macro_rules! differences {
    ($($area:ident, $types:expr, $controller:literal, $tidings:literal, $why:literal;)*) => {
        /// Every difference, by area.
        pub const DIFFERENCES: &[Difference] = &[$(Difference {
            area: Area::$area,
            types: $types,
            controller: $controller,
            tidings: $tidings,
            why: $why,
        }),*];
    };
}

differences! {
    Ingest, &[],
        "Accepts any method and any path.",
        "Accepts POST to `/`. Else 405 or 404.",
        "No controller uses anything else, and a wrong address should show.";
    Ingest, &[],
        "Answers 202 to events without an object's kind or name.",
        "Answers 400 with a JSON body that names the field.",
        "No alert can match such an event.";
    Ingest, &[],
        "An event is a duplicate of one with another severity or reason if the texts are equal.",
        "Severity and reason are parts of the key.",
        "An error with the text of an earlier info was lost.";
    Ingest, &[],
        "Answers 429 to duplicates with `X-RateLimit` headers, and `Retry-After` as a date.",
        "No such headers; `Retry-After` in seconds.",
        "Controllers read neither.";
    Ingest, &[],
        "Reads field names in any case.",
        "Reads exact names.",
        "No controller needs it.";
    Ingest, &[],
        "An event that arrives while the list of Alerts fails is lost, with 202.",
        "It is stored, and routed when the rules can be read.",
        "No event that was accepted may be lost.";
    Routing, &[],
        "`matchLabels: {}` needs the object to exist.",
        "Matches without a lookup.",
        "An empty selector selects everything.";
    Routing, &[],
        "Patterns with lookaround and backreferences, and some others, are refused.",
        "The same, but a few patterns that Go refuses are accepted.",
        "They have a meaning in another regular expression library.";
    Routing, &[],
        "`eventSeverity` defaults to `info` in every version, and is `info` or `error`.",
        "In manifests of v1beta1 the default is `error`. `warn` and lists are accepted, too.",
        "The guides for v1beta1 say so, and users of such manifests rely on it.";
    Routing, &[],
        "Source kinds outside of Flux's list are refused.",
        "Any kind is accepted.",
        "Kubernetes Events can be about any object.";
    Deliveries, &[
            "datadog", "discord", "googlechat", "grafana", "lark", "matrix", "msteams", "otel",
            "rocket", "slack", "telegram", "webex", "zoom",
        ],
        "Shows metadata in random order.",
        "Sorted by key, `summary` first.",
        "Readers find it in the same place.";
    Deliveries, &[],
        "Retries within one call, up to five times. Then the notification is lost.",
        "Retries for 24 h, and keeps what failed as a dead letter.",
        "A service may be away for longer than a call.";
    Deliveries, &[
            "datadog", "discord", "googlechat", "lark", "msteams", "opsgenie", "rocket", "slack",
            "telegram", "webex", "zoom", "zulip",
        ],
        "Sends long texts as they are. Services refuse them.",
        "Cut at the limit of the service, with a mark.",
        "The notification would be lost.";
    Deliveries, &[
            "azuredevops", "bitbucket", "bitbucketserver", "gitea", "github", "githubdispatch",
            "githubpullrequestcomment", "gitlab", "gitlabmergerequestcomment", "lark", "matrix",
            "sentry",
        ],
        "Ignores the Provider's proxy.",
        "Every type uses it.",
        "A proxy is often the only way out.";
    Deliveries, &[
            "discord", "github", "githubdispatch", "githubpullrequestcomment", "googlechat",
            "lark", "telegram",
        ],
        "Ignores `certSecretRef` (the GitHub types: on github.com).",
        "Every type uses it.",
        "The API says that it is used.";
    Deliveries, &[],
        "Drops malformed credentials, and sends without them.",
        "The Provider is invalid, and says which key is wrong.",
        "The request cannot succeed, and the cause would not show.";
    Deliveries, &["matrix", "otel", "webex"],
        "Sends `Authorization: Bearer` without a token.",
        "No such header, or an invalid Provider.",
        "It only gives 401.";
    Deliveries, &["otel"],
        "Uses credentials only together with `headers`, and sends them to the proxy, too.",
        "Uses them always, and never for the proxy.",
        "The proxy must not learn the token.";
    Deliveries, &[],
        "White space around a token makes an invalid header.",
        "It is removed. A signing key is used as it is stored.",
        "A line break at the end is the most common mistake in a Secret.";
    Deliveries, &["lark", "otel", "sentry", "slack"],
        "Some refusals count as delivered.",
        "They fail, with the service's reason.",
        "A lost notification must show.";
    Deliveries, &["discord"],
        "Looks for `/slack` at the end of the whole address, with its query.",
        "At the end of the path.",
        "`/slack/slack` does not exist.";
    Deliveries, &["matrix"],
        "Pastes the room into the URL as it is.",
        "The room is encoded. The transaction id is another text.",
        "`#alias` cut the URL.";
    Deliveries, &["incident.io", "pagerduty"],
        "The dedupe key of an object without uid is empty.",
        "A key from kind, namespace and name.",
        "One object would resolve another's incident.";
    Deliveries, &["alertmanager"],
        "`endsAt` is the year 1.",
        "It is left out.",
        "It means the same to Alertmanager.";
    Deliveries, &[],
        "Redirects with 301, 302 and 303 are followed by a GET, and its 200 counts as delivered.",
        "Only 307 and 308 are followed, and each address is checked.",
        "A login page is no delivery.";
    Deliveries, &[],
        "`timeout: 0s` makes every request fail.",
        "It means the default.",
        "Nobody means that.";
    Deliveries, &[],
        "A text of an event can mention people and channels.",
        "Such mentions have no effect.",
        "A commit message must not page a channel.";
    CommitStatuses, STATUSES,
        "A success is written only with the metadata key `commit`, or `commit_status: update`.",
        "A success of a Kustomization is written, too, if its revision holds a commit.",
        "Flux's guides show that, and older controllers send nothing else.";
    CommitStatuses, STATUSES,
        "Any 40 bytes after the last `:` or `/` are a commit.",
        "A commit has 40 hexadecimal digits.",
        "Others give requests that can only fail.";
    CommitStatuses, STATUSES,
        "Refuses a `commitStatusExpr` that is not a string for certain, such as `event.reason`.",
        "Accepts it if its value is a string.",
        "It is what people write first.";
    CommitStatuses, &["gitlab"],
        "An older status with the same text suppresses the new one.",
        "Only the newest status of that name counts.",
        "Success, failure, success left the commit failed.";
    CommitStatuses, &["bitbucketserver"],
        "Posts the user name and password of the address in `url`.",
        "They are removed.",
        "Secrets must not leave.";
    CommitStatuses, STATUSES,
        "Keeps the port of SSH addresses for HTTPS, and a slash at the end.",
        "Both are dropped.",
        "The API is not on the port of SSH.";
}

/// The differences that concern one of these provider types, or all of them.
pub fn that_concern<'a>(
    types: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = Difference> + 'a {
    DIFFERENCES
        .iter()
        .copied()
        .filter(move |row| row.types.is_empty() || row.types.iter().any(|kind| types(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notifier::{PROVIDERS, provider_type};

    #[test]
    fn every_difference_names_types_that_exist() {
        for row in DIFFERENCES {
            for kind in row.types {
                assert!(provider_type(kind).is_some(), "{kind}: {}", row.controller);
            }
        }
    }

    #[test]
    fn the_types_of_commit_statuses_are_all_of_them() {
        let mut of_table: Vec<&str> = PROVIDERS
            .iter()
            .filter(|row| row.family == tidings_rules::Family::CommitStatus)
            .map(|row| row.kind)
            .collect();
        of_table.sort_unstable();
        assert_eq!(of_table, STATUSES);
    }

    #[test]
    fn a_difference_of_another_type_is_left_out() {
        let of_slack: Vec<_> = that_concern(|kind| kind == "slack").collect();
        assert!(of_slack.iter().any(|row| row.types.contains(&"slack")));
        assert!(of_slack.iter().any(|row| row.types.is_empty()));
        assert!(of_slack.iter().all(|row| row.types != ["discord"]));
    }
}
