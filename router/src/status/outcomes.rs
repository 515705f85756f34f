//! What outcomes tell about an Alert and a Provider. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tidings_core::Outcome as Word;
use tidings_core::model::time::from_proto;
use tidings_core::wire::Outcome;
use tidings_rules::Identity;
use tidings_rules::status_fields::LastError;

use crate::status::ready_condition::cut;

/// Longer messages are cut.
const LONGEST_MESSAGE_BYTES: usize = 1024;
/// The reason of an error that costs a notification nothing but its own words.
const TEMPLATE: &str = "template";

/// The times in the status of an object.
///
/// # Guarantees
/// [`News::merge`] takes the newest of each, so the order in which outcomes are read, and how
/// often, does not matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    /// When an event last matched; of Alerts only.
    pub last_match: Option<Time>,
    /// When a service last accepted a notification.
    pub last_delivery: Option<Time>,
    /// What last went wrong.
    pub last_error: Option<LastError>,
}

impl News {
    /// Takes over what is newer; tells whether anything was.
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

/// What an outcome that was told at this time says, of which objects. An Alert that has another uid
/// is another one.
pub fn news(outcome: &Outcome, told: Timestamp) -> Vec<(Identity, Option<String>, News)> {
    let Some(attempt) = &outcome.attempt else {
        return Vec::new();
    };
    let told = seconds(told);
    let told_at = told.clone();
    let failed = [Word::Retrying, Word::Dead]
        .iter()
        .any(|word| word.as_str() == attempt.outcome);
    let of_provider = News {
        last_match: None,
        last_delivery: (attempt.outcome == Word::Delivered.as_str()).then(|| told.clone()),
        last_error: failed.then(|| LastError {
            time: told,
            reason: attempt.reason.clone(),
            message: cut(&attempt.detail, LONGEST_MESSAGE_BYTES),
        }),
    };
    let planned = from_proto(outcome.planned_at);
    let mut of_alert = News {
        last_match: planned.map(seconds),
        ..of_provider.clone()
    };
    if !failed && !attempt.template_error.is_empty() {
        of_alert.last_error = Some(LastError {
            time: told_at,
            reason: TEMPLATE.to_owned(),
            message: cut(&attempt.template_error, LONGEST_MESSAGE_BYTES),
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
        .filter(|(.., news)| *news != News::default())
        .collect()
}

/// The time as an API server keeps it: in whole seconds, so that what is read back is equal.
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

    fn outcome(word: &str, planned: i64) -> Outcome {
        let attempt = Attempt {
            outcome: word.into(),
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

    fn times(news: &News) -> [Option<i64>; 3] {
        let second = |time: &Time| time.0.as_second();
        let error = news.last_error.as_ref().map(|error| second(&error.time));
        [
            news.last_match.as_ref().map(second),
            news.last_delivery.as_ref().map(second),
            error,
        ]
    }

    #[test]
    fn each_outcome_tells_what_it_shows() {
        for (word, of_alert, of_provider) in [
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
            let told = news(&outcome(word, 5), at(9));
            assert_eq!(
                (told[0].0.to_string().as_str(), told[0].1.as_deref()),
                ("Alert apps/a", Some("u")),
                "{word}"
            );
            assert_eq!(times(&told[0].2), of_alert, "{word}");
            assert_eq!(
                told.get(1).map(|(.., news)| times(news)),
                of_provider,
                "{word}"
            );
        }
    }

    #[test]
    fn old_news_overwrites_nothing_and_news_twice_is_none() {
        let of_alert =
            |word: &str, planned, told| news(&outcome(word, planned), at(told)).remove(0).2;
        let mut kept = News::default();
        assert!(kept.merge(of_alert("dead", 50, 60)));
        assert!(kept.merge(of_alert("delivered", 51, 70)));
        for old in [
            of_alert("dead", 50, 60),
            of_alert("delivered", 40, 65),
            of_alert("retrying", 1, 59),
        ] {
            assert!(!kept.merge(old));
        }
        assert_eq!(times(&kept), [Some(51), Some(70), Some(60)]);
    }

    #[test]
    fn a_delivery_that_another_stood_for_is_news_of_its_provider_only() {
        let told = news(
            &Outcome {
                alert: None,
                planned_at: None,
                ..outcome("delivered", 0)
            },
            at(9),
        );
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0.to_string(), "Provider apps/p");
    }

    #[test]
    fn a_template_that_cant_be_used_is_the_alerts_last_error_though_the_notification_was_delivered()
    {
        let mut outcome = outcome("delivered", 5);
        outcome.attempt.as_mut().unwrap().template_error = "line 1: no such value".into();
        let told = news(&outcome, at(9));
        assert_eq!(
            (times(&told[0].2), times(&told[1].2)),
            ([Some(5), Some(9), Some(9)], [None, Some(9), None])
        );
        let error = told[0].2.last_error.as_ref().unwrap();
        assert_eq!(
            (error.reason.as_str(), error.message.as_str()),
            ("template", "line 1: no such value")
        );
    }

    #[test]
    fn a_long_message_is_cut_between_letters() {
        let mut long = outcome("dead", 1);
        long.attempt.as_mut().unwrap().detail = "é".repeat(1000);
        let message = news(&long, at(9)).remove(0).2.last_error.unwrap().message;
        assert!(
            message.len() <= LONGEST_MESSAGE_BYTES && message.ends_with("é…"),
            "{}",
            message.len()
        );
    }
}
