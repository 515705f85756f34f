//! Derives times and errors for the status of Alerts and Providers from outcomes. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tidings_core::Outcome as OutcomeLabel;
use tidings_core::model::text::cut_bytes;
use tidings_core::model::time::from_proto;
use tidings_core::wire::Outcome;
use tidings_rules::Identity;
use tidings_rules::status_fields::LastError;

/// The longest message of an error; longer ones are cut.
const MAX_MESSAGE_BYTES: usize = 1024;
/// The reason of a template error. The delivery still goes out, with the standard text.
const TEMPLATE: &str = "template";

/// The reason of two clusters that write one state. Each state is written.
const CONFLICT: &str = "conflict";

/// The times and the error in the status of an object.
///
/// # Guarantees
/// [`OutcomeSummary::merge`] keeps the newest value of each field, so outcomes may be read
/// repeatedly and in any order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutcomeSummary {
    /// When an event last matched. Set only for Alerts.
    pub last_match: Option<Time>,
    /// When a service last accepted a delivery.
    pub last_delivery: Option<Time>,
    /// The last error.
    pub last_error: Option<LastError>,
}

impl OutcomeSummary {
    /// Merges newer values. Returns whether anything changed.
    pub fn merge(&mut self, other: Self) -> bool {
        let before = self.clone();
        self.last_match = self.last_match.take().max(other.last_match);
        self.last_delivery = self.last_delivery.take().max(other.last_delivery);
        let is_newer = |error: &LastError| {
            self.last_error
                .as_ref()
                .is_none_or(|last| last.time < error.time)
        };
        if let Some(error) = other.last_error.filter(is_newer) {
            self.last_error = Some(error);
        }
        *self != before
    }
}

/// The summaries of an outcome: one for its Alert, with the Alert's uid, and one for its Provider.
pub fn summarize(
    outcome: &Outcome,
    published: Timestamp,
) -> Vec<(Identity, Option<String>, OutcomeSummary)> {
    let Some(attempt) = &outcome.attempt else {
        return Vec::new();
    };
    let time = seconds(published);
    let template_time = time.clone();
    let failed = [OutcomeLabel::Retrying, OutcomeLabel::Dead]
        .iter()
        .any(|label| label.as_str() == attempt.outcome);
    let conflict_time = time.clone();
    let mut of_provider = OutcomeSummary {
        last_match: None,
        last_delivery: (attempt.outcome == OutcomeLabel::Delivered.as_str()).then(|| time.clone()),
        last_error: failed.then(|| LastError {
            time,
            reason: attempt.reason.clone(),
            message: cut_bytes(&attempt.detail, MAX_MESSAGE_BYTES),
        }),
    };
    let planned = from_proto(outcome.planned_at);
    let mut of_alert = OutcomeSummary {
        last_match: planned.map(seconds),
        ..of_provider.clone()
    };
    if !failed && !attempt.template_error.is_empty() {
        of_alert.last_error = Some(LastError {
            time: template_time,
            reason: TEMPLATE.to_owned(),
            message: cut_bytes(&attempt.template_error, MAX_MESSAGE_BYTES),
        });
    }
    if !failed && !attempt.conflict.is_empty() {
        of_provider.last_error = Some(LastError {
            time: conflict_time,
            reason: CONFLICT.to_owned(),
            message: cut_bytes(&attempt.conflict, MAX_MESSAGE_BYTES),
        });
    }
    let identity = |kind: &str, namespace: &str, name: &str| Identity {
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let alert = outcome.alert.as_ref().map(|alert| {
        let uid = Some(alert.uid.clone()).filter(|uid| !uid.is_empty());
        (
            identity("Alert", &alert.namespace, &alert.name),
            uid,
            of_alert,
        )
    });
    let provider = outcome.provider.as_ref().map(|provider| {
        (
            identity("Provider", &provider.namespace, &provider.name),
            None,
            of_provider,
        )
    });
    alert
        .into_iter()
        .chain(provider)
        .filter(|(.., summary)| *summary != OutcomeSummary::default())
        .collect()
}

/// The time in whole seconds, as an API server stores it, so that it compares equal when read.
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use tidings_core::{AlertReference, Attempt, ProtoTimestamp, ProviderReference};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn outcome(label: &str, planned: i64) -> Outcome {
        let attempt = Attempt {
            outcome: label.into(),
            reason: "rejected".into(),
            detail: "h answered 400".into(),
            ..Attempt::default()
        };
        Outcome {
            alert: Some(AlertReference {
                namespace: "apps".into(),
                name: "a".into(),
                uid: "u".into(),
                ..Default::default()
            }),
            provider: Some(ProviderReference {
                namespace: "apps".into(),
                name: "p".into(),
                ..Default::default()
            }),
            attempt: Some(attempt),
            planned_at: Some(ProtoTimestamp {
                seconds: planned,
                nanos: 7,
            }),
            ..Outcome::default()
        }
    }

    fn times(summary: &OutcomeSummary) -> [Option<i64>; 3] {
        let second = |time: &Time| time.0.as_second();
        let error = summary.last_error.as_ref().map(|error| second(&error.time));
        [
            summary.last_match.as_ref().map(second),
            summary.last_delivery.as_ref().map(second),
            error,
        ]
    }

    #[test]
    fn each_outcome_changes_its_fields() {
        for (label, of_alert, of_provider) in [
            (
                "delivered",
                [Some(5), Some(9), None],
                Some([None, Some(9), None]),
            ),
            (
                "retrying",
                [Some(5), None, Some(9)],
                Some([None, None, Some(9)]),
            ),
            (
                "dead",
                [Some(5), None, Some(9)],
                Some([None, None, Some(9)]),
            ),
            ("duplicate", [Some(5), None, None], None),
            ("superseded", [Some(5), None, None], None),
            ("skipped", [Some(5), None, None], None),
        ] {
            let summaries = summarize(&outcome(label, 5), at(9));
            let (identity, uid, summary) = &summaries[0];
            assert_eq!(
                (identity.to_string().as_str(), uid.as_deref()),
                ("Alert apps/a", Some("u")),
                "{label}"
            );
            assert_eq!(times(summary), of_alert, "{label}");
            assert_eq!(
                summaries.get(1).map(|(.., summary)| times(summary)),
                of_provider,
                "{label}"
            );
        }
    }

    #[test]
    fn older_or_repeated_outcomes_change_nothing() {
        let of_alert = |label: &str, planned, published| {
            summarize(&outcome(label, planned), at(published))
                .remove(0)
                .2
        };
        let mut merged = OutcomeSummary::default();
        assert!(merged.merge(of_alert("dead", 50, 60)));
        assert!(merged.merge(of_alert("delivered", 51, 70)));
        for old in [
            of_alert("dead", 50, 60),
            of_alert("delivered", 40, 65),
            of_alert("retrying", 1, 59),
        ] {
            assert!(!merged.merge(old));
        }
        assert_eq!(times(&merged), [Some(51), Some(70), Some(60)]);
    }

    #[test]
    fn an_outcome_without_an_alert_changes_only_its_provider() {
        let summaries = summarize(
            &Outcome {
                alert: None,
                planned_at: None,
                ..outcome("delivered", 0)
            },
            at(9),
        );
        assert_eq!(summaries.len(), 1);
        assert_eq!(summaries[0].0.to_string(), "Provider apps/p");
    }

    #[test]
    fn a_conflict_is_the_providers_last_error_even_if_delivered() {
        let mut outcome = outcome("delivered", 5);
        outcome.attempt.as_mut().unwrap().conflict = "the clusters a and b".into();
        let summaries = summarize(&outcome, at(9));
        let errors: Vec<_> = summaries
            .iter()
            .map(|(.., summary)| summary.last_error.as_ref())
            .collect();
        let error = errors[1].expect("the Provider has an error");
        assert_eq!(error.message, "the clusters a and b");
        assert_eq!((error.reason.as_str(), errors[0]), ("conflict", None));
    }

    #[test]
    fn a_template_error_is_the_alerts_last_error_even_if_delivered() {
        let mut outcome = outcome("delivered", 5);
        outcome.attempt.as_mut().unwrap().template_error = "line 1: no such value".into();
        let summaries = summarize(&outcome, at(9));
        assert_eq!(
            (times(&summaries[0].2), times(&summaries[1].2)),
            ([Some(5), Some(9), Some(9)], [None, Some(9), None])
        );
        let error = summaries[0].2.last_error.as_ref().unwrap();
        assert_eq!(
            (error.reason.as_str(), error.message.as_str()),
            ("template", "line 1: no such value")
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut long = outcome("dead", 1);
        long.attempt.as_mut().unwrap().detail = "é".repeat(1000);
        let message = summarize(&long, at(9))
            .remove(0)
            .2
            .last_error
            .unwrap()
            .message;
        assert!(
            message.len() <= MAX_MESSAGE_BYTES && message.ends_with("é…"),
            "{}",
            message.len()
        );
    }
}
