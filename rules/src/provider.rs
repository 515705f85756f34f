//! A compiled Provider, without the contents of its Secrets.

mod fields;

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tidings_core::model::object_state::ReasonStates;
use tidings_core::model::retry::RetryPolicy;
use url::Url;

use crate::duration;
use crate::kind::{Kind, Kinds};
use crate::report::Report;
use crate::resource::{ProviderSpec, Version};
use crate::template::Template;

/// The default of `spec.timeout`.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest time that an attempt may take.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The default of `spec.pool`.
pub const DEFAULT_POOL: &str = "default";

/// A compiled Provider.
#[derive(Clone)]
pub struct Provider {
    /// The namespace of the Provider and of its Secrets.
    pub namespace: String,
    /// The name of the Provider.
    pub name: String,
    /// The uid, or a UUIDv5 if the manifest has none.
    pub uid: String,
    /// The provider type.
    pub kind: Kind,
    /// `spec.suspend`; defaults to false.
    pub suspended: bool,
    /// `spec.address`; may be empty.
    pub address: String,
    /// `spec.apiAddress`: an http or https URL without user info, query and fragment.
    pub api_address: Option<Url>,
    /// `spec.channel`; may be empty.
    pub channel: String,
    /// `spec.username`; may be empty.
    pub username: String,
    /// The timeout of one attempt.
    pub timeout: Duration,
    /// `spec.proxy`; may be empty.
    pub proxy: String,
    /// The name of the Secret with address, token and so on.
    pub secret: Option<String>,
    /// The name of the Secret with certificates.
    pub cert_secret: Option<String>,
    /// The name of the Secret with the proxy.
    pub proxy_secret: Option<String>,
    /// The service account for workload identity, which is not supported.
    pub service_account: Option<String>,
    /// The CEL expression for the commit status ID; `None` if empty.
    pub commit_status_expr: Option<String>,
    /// The maximum number of deliveries per period.
    pub rate_limit: Option<RateLimit>,
    /// The maximum number of concurrent deliveries.
    pub max_in_flight: Option<u32>,
    /// The limits of retries.
    pub retry: RetryPolicy,
    /// The worker pool.
    pub pool: String,
    /// The message template.
    pub template: Option<Template>,
    /// Whether to add links to messages; the setting of the worker decides if `None`.
    pub links: Option<bool>,
    /// Whether a service that answers a write with 301, 302 or 303 has accepted it.
    pub accept_redirects: bool,
    /// Whether the JSON of the event names the cluster.
    pub cluster_field: bool,
    /// The options of commit statuses.
    pub commit_status: CommitStatusOptions,
    /// The states of reasons; they precede the table.
    pub reason_states: ReasonStates,
    /// The manifest, with namespace and uid filled in.
    pub manifest: Value,
}

/// Shows only type and name, because the address may contain a secret.
impl fmt::Debug for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Provider({} {}/{})",
            self.kind.name, self.namespace, self.name
        )
    }
}

/// The options of commit statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitStatusOptions {
    /// Whether the default ID contains the cluster and the namespace.
    pub qualified_id: bool,
    /// Whether to report progress as pending even for types that skip it.
    pub pending: bool,
    /// The template of the link of a status.
    pub target_url: Option<String>,
}

/// A rate limit, such as `10/1s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The maximum number of deliveries per period.
    pub count: u32,
    /// The period.
    pub per: Duration,
}

impl RateLimit {
    /// Parses a rate limit, such as `10/1s`.
    fn parse(text: &str) -> Result<Self, String> {
        let invalid =
            || format!("\"{text}\" is not a rate limit; use a number and a period, such as 10/1s");
        let (count, per) = text.split_once('/').ok_or_else(invalid)?;
        let count = count
            .parse()
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(invalid)?;
        let per = duration::parse(per)
            .ok()
            .filter(|per| !per.is_zero())
            .ok_or_else(invalid)?;
        Ok(Self { count, per })
    }
}

impl Provider {
    /// Compiles a manifest. Problems go to the report; an error in it rejects the Provider.
    pub fn compile(version: Version, kinds: Kinds, report: &mut Report<'_>) -> Option<Self> {
        let spec = report.spec::<ProviderSpec>()?;
        fields::check_strings(&spec, version, report);
        let kind = fields::supported_kind(&spec, kinds, report);
        let identity = report.object.identity();
        Some(Self {
            uid: report.uid(),
            kind,
            suspended: spec.suspend.unwrap_or_default(),
            timeout: fields::timeout(spec.timeout.as_deref(), report),
            rate_limit: spec.rate_limit.and_then(|text| {
                fields::valid_or_report(RateLimit::parse(&text), "spec.rateLimit", report)
            }),
            max_in_flight: spec
                .max_in_flight
                .and_then(|number| fields::max_in_flight(number, report)),
            retry: fields::retry(spec.retry, report),
            pool: fields::pool(spec.pool, report),
            template: Template::compile(spec.template, report),
            links: spec.links,
            accept_redirects: spec.accept_redirects.unwrap_or_default(),
            cluster_field: fields::cluster_field(spec.cluster_field, kind, report),
            commit_status: fields::commit_status(
                spec.commit_status,
                spec.commit_status_expr.as_deref(),
                kind,
                report,
            ),
            commit_status_expr: fields::expression(spec.commit_status_expr, kind, report),
            reason_states: fields::reason_states(
                spec.reason_states.unwrap_or_default(),
                kind,
                report,
            ),
            address: spec.address.unwrap_or_default(),
            api_address: spec
                .api_address
                .and_then(|text| fields::api_address(&text, kind, report)),
            channel: spec.channel.unwrap_or_default(),
            username: spec.username.unwrap_or_default(),
            proxy: spec.proxy.unwrap_or_default(),
            secret: spec.secret_ref.map(|reference| reference.name),
            cert_secret: spec.cert_secret_ref.map(|reference| reference.name),
            proxy_secret: spec.proxy_secret_ref.map(|reference| reference.name),
            service_account: spec.service_account_name.filter(|name| !name.is_empty()),
            manifest: report.manifest(),
            namespace: identity.namespace,
            name: identity.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_core::model::object_state::ObjectState;

    use super::*;
    use crate::kind::Family;
    use crate::testing::provider;

    const KINDS: Kinds = &[
        Kind::new("slack", Family::Message),
        Kind {
            fields: &["apiAddress"],
            ..Kind::new("github", Family::CommitStatus)
        },
    ];

    fn compile(version: Version, spec: Value) -> (Option<Provider>, Vec<String>) {
        let object = provider("p", "slack").with_fields(spec).object();
        let mut report = Report::new(&object);
        let provider = Provider::compile(version, KINDS, &mut report);
        (
            provider,
            report.problems.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn a_provider_with_only_a_type_has_the_defaults() {
        let (provider, problems) =
            compile(Version::V1beta3, json!({"type": "slack", "timeout": "0s"}));
        let provider = provider.unwrap();
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            (provider.timeout, provider.pool.as_str()),
            (DEFAULT_TIMEOUT, "default")
        );
        assert_eq!(provider.retry, RetryPolicy::default());
        assert_eq!(provider.manifest["metadata"]["uid"], provider.uid.as_str());
    }

    #[test]
    fn extensions_are_compiled() {
        let retry = json!({"maxAge": "48h", "min": "15m"});
        let spec = json!({
            "type": "slack", "rateLimit": "10/1s", "maxInFlight": 5, "retry": retry, "pool": "eu-1",
        });
        let provider = compile(Version::V1beta3, spec).0.unwrap();
        assert_eq!(
            provider.rate_limit,
            Some(RateLimit {
                count: 10,
                per: Duration::from_secs(1)
            })
        );
        assert_eq!(
            (provider.max_in_flight, provider.pool.as_str()),
            (Some(5), "eu-1")
        );
        assert_eq!(
            (provider.retry.min, provider.retry.max),
            (Duration::from_secs(900), Duration::from_secs(900))
        );
        assert_eq!(provider.retry.max_age, Duration::from_secs(48 * 3600));
    }

    #[test]
    fn an_invalid_field_rejects_the_provider() {
        for (fields, field) in [
            (json!({"type": "Slack"}), "spec.type"),
            (json!({"type": null}), "spec.type"),
            (json!({"timeout": "1h"}), "spec.timeout"),
            (json!({"timeout": ""}), "spec.timeout"),
            (json!({"timeout": "10"}), "spec.timeout"),
            (json!({"interval": "1d"}), "spec.interval"),
            (json!({"address": "a".repeat(2049)}), "spec.address"),
            (json!({"proxy": "HTTP://p"}), "spec.proxy"),
            (json!({"secretRef": {}}), "spec.secretRef.name"),
            (json!({"secretRef": "s"}), "spec.secretRef"),
            (json!({"commitStatusExpr": "'a'"}), "spec.commitStatusExpr"),
            (json!({"rateLimit": "10"}), "spec.rateLimit"),
            (json!({"rateLimit": "0/1s"}), "spec.rateLimit"),
            (json!({"maxInFlight": 0}), "spec.maxInFlight"),
            (
                json!({"retry": {"min": "2m", "max": "1m"}}),
                "spec.retry.min",
            ),
            (json!({"retry": {"maxAge": "0s"}}), "spec.retry.maxAge"),
            (json!({"pool": "EU"}), "spec.pool"),
            (json!({"links": "yes"}), "spec.links"),
            (json!({"acceptRedirects": "yes"}), "spec.acceptRedirects"),
            (
                json!({"commitStatus": {"pending": true}}),
                "spec.commitStatus",
            ),
            (
                json!({"type": "github", "commitStatus": {"id": "long"}}),
                "spec.commitStatus.id",
            ),
            (
                json!({
                    "type": "github", "commitStatusExpr": "'a'",
                    "commitStatus": {"id": "qualified"},
                }),
                "spec.commitStatus.id",
            ),
            (json!({"template": {}}), "spec.template"),
            (
                json!({"type": "github", "commitStatus": {"targetURL": "a".repeat(2049)}}),
                "spec.commitStatus.targetURL",
            ),
        ] {
            let mut spec = json!({"type": "slack"});
            spec.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            let problems = compile(Version::V1beta3, spec).1;
            assert!(
                problems
                    .first()
                    .is_some_and(|text| text.starts_with(&format!("Provider apps/p: {field}: "))),
                "{fields}: {problems:?}"
            );
        }
        assert_eq!(
            compile(Version::V1beta1, json!({"type": "slack", "address": "x"}))
                .1
                .len(),
            1
        );
    }

    #[test]
    fn an_api_address_is_a_url_without_secrets_for_types_with_an_api() {
        let of = |kind: &str, api: &str| {
            let (provider, problems) =
                compile(Version::V1beta3, json!({"type": kind, "apiAddress": api}));
            let url = provider.and_then(|provider| provider.api_address);
            (url.map(|url| url.to_string()), problems)
        };
        for api in [
            "https://h/gitlab",
            "http://10.0.0.1:8080/",
            "https://[::1]/a%20b",
        ] {
            assert_eq!(of("github", api), (Some(api.into()), vec![]));
        }
        assert_eq!(of("github", ""), (None, vec![]));
        for api in [
            "https://me:s3cret@h/x",
            "https://s3cret@h",
            "https://h/x?token=s3cret",
            "https://h/#s3cret",
            "ftp://h/s3cret",
            "HTTPS:s3cret",
            "https://",
            "//h/s3cret",
            "s3cret",
            " https://h",
            "https://h/a b",
        ] {
            let problems = of("github", api).1;
            assert_eq!(problems.len(), 1, "{api}: {problems:?}");
            assert!(
                problems[0].starts_with("Provider apps/p: spec.apiAddress: must ")
                    && !problems[0].contains("s3cret"),
                "{problems:?}"
            );
        }
        let problems = of("slack", "https://h").1;
        assert!(
            problems[0].contains("not supported by type slack"),
            "{problems:?}"
        );
    }

    #[test]
    fn options_of_commit_statuses_are_compiled() {
        let of = |options: Value| {
            let (provider, problems) = compile(
                Version::V1beta3,
                json!({"type": "github", "commitStatus": options}),
            );
            (provider.unwrap().commit_status, problems)
        };
        let target = "https://h/{{ name }}";
        let expected = CommitStatusOptions {
            qualified_id: true,
            pending: true,
            target_url: Some(target.into()),
        };
        assert_eq!(
            of(json!({"id": "qualified", "pending": true, "targetURL": target})),
            (expected, vec![])
        );
        let (options, problems) = of(json!({"id": "default", "targetURL": "https://h/{{ name"}));
        assert_eq!(options, CommitStatusOptions::default());
        assert!(
            problems[0].contains("spec.commitStatus.targetURL: line 1: ")
                && problems[0].ends_with("without a link"),
            "{problems:?}"
        );
    }

    #[test]
    fn reasons_get_states_at_types_that_write_states() {
        let of = |kind: &str, states: Value| {
            let spec = json!({"type": kind, "reasonStates": states});
            let (provider, problems) = compile(Version::V1beta3, spec);
            (
                provider.map_or_else(ReasonStates::new, |provider| provider.reason_states),
                problems,
            )
        };
        let states = json!({"Deployed": "success", "Drifted": "none"});
        let expected = [
            ("Deployed".to_owned(), ObjectState::Success),
            ("Drifted".to_owned(), ObjectState::None),
        ];
        assert_eq!(of("github", states.clone()), (expected.into(), vec![]));
        assert_eq!(of("slack", json!({})).1, Vec::<String>::new());
        for (kind, states, field) in [
            ("slack", states, "spec.reasonStates"),
            (
                "github",
                json!({"Deployed": "ok"}),
                "spec.reasonStates.Deployed",
            ),
        ] {
            let problems = of(kind, states).1;
            assert!(
                problems[0].starts_with(&format!("Provider apps/p: {field}: ")),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn an_invalid_template_is_only_a_warning() {
        let (provider, problems) = compile(
            Version::V1beta3,
            json!({"type": "slack", "template": {"inline": "{{ a"}}),
        );
        assert!(provider.is_some());
        assert!(
            problems[0].starts_with("Provider apps/p: spec.template.inline: line 1: "),
            "{problems:?}"
        );
    }

    #[test]
    fn an_empty_expression_counts_as_absent() {
        let (provider, problems) = compile(
            Version::V1beta3,
            json!({"type": "slack", "commitStatusExpr": ""}),
        );
        assert!(provider.unwrap().commit_status_expr.is_none() && problems.is_empty());
        assert!(
            compile(
                Version::V1beta3,
                json!({"type": "github", "commitStatusExpr": "'a'"})
            )
            .0
            .unwrap()
            .commit_status_expr
            .is_some()
        );
    }
}
