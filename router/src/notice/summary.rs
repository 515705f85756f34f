//! The text of a fallback notice: how many, which Providers, which reasons. Pure.
//!
//! Details of failures are left out. They are for those who may read dead letters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use tidings_core::DeadLetter;
use tidings_core::model::text::{cut_bytes, visible};

use super::circuits::OpenCircuit;
use super::shown;

/// The most pairs of Provider and reason that are counted apart, and how many a notice names.
const MOST_PAIRS: usize = 1000;
const MOST_NAMED: usize = 10;
/// How many of them one namespace has before others.
const NAMED_OF_NAMESPACE: usize = 3;
/// The longest name or reason in a notice, in bytes.
const LONGEST: usize = 100;

/// Dead letters that were counted.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// By Provider and reason.
    pairs: BTreeMap<(String, String), u64>,
    total: u64,
    /// Dead letters that were notices.
    pub(super) of_notices: u64,
    /// The number of dead letters that were too many to read.
    pub(super) unread: u64,
}

impl Summary {
    /// Counts a dead letter.
    pub(super) fn add(&mut self, dead_letter: &DeadLetter) {
        let delivery = dead_letter.delivery.as_ref();
        if delivery.is_some_and(|delivery| !delivery.notice.is_empty()) {
            self.of_notices += 1;
            return;
        }
        self.total += 1;
        let provider = delivery.and_then(|delivery| delivery.provider.as_ref());
        let provider = provider.map_or_else(String::new, |provider| {
            format!("{}/{}", provider.namespace, provider.name)
        });
        let pair = (short(&provider), short(&dead_letter.reason));
        if self.pairs.len() < MOST_PAIRS || self.pairs.contains_key(&pair) {
            *self.pairs.entry(pair).or_default() += 1;
        }
    }

    /// The text; `None` if there is nothing to report.
    pub(super) fn message(
        &self,
        circuits: &[OpenCircuit],
        since: Option<Timestamp>,
        open_for: Duration,
    ) -> Option<String> {
        let mut text = String::new();
        if self.total > 0 {
            self.write_dead_letters(&mut text, since);
        }
        if !circuits.is_empty() {
            write_circuits(&mut text, circuits, open_for);
        }
        (!text.is_empty()).then(|| text.trim_end().to_owned())
    }

    fn write_dead_letters(&self, text: &mut String, since: Option<Timestamp>) {
        let deliveries = count(self.total, "delivery was", "deliveries were");
        let least = if self.unread > 0 { "at least " } else { "" };
        let since = since.map_or_else(String::new, |since| format!(" since {}", at(since)));
        line(
            text,
            format_args!("{least}{deliveries} given up{since}, see `tidings dead list`:"),
        );
        let mut pairs: Vec<_> = self.pairs.iter().collect();
        pairs.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let named = shared_out(pairs, |((provider, _), _)| provider);
        for ((provider, reason), count) in &named {
            line(text, format_args!("- {provider}: {reason} ({count})"));
        }
        let others = self.total - named.iter().map(|(_, count)| **count).sum::<u64>();
        if others > 0 {
            line(text, format_args!("- others ({others})"));
        }
        if self.unread > 0 {
            let more = self.unread;
            line(
                text,
                format_args!("- up to {more} more, which are too many to read"),
            );
        }
    }
}

/// As many as a notice names. Each namespace has a share of them, and takes what others leave.
fn shared_out<T>(all: Vec<T>, provider: impl Fn(&T) -> &str) -> Vec<T> {
    let mut of_namespace: BTreeMap<String, usize> = BTreeMap::new();
    let (first, rest): (Vec<T>, Vec<T>) = all.into_iter().partition(|one| {
        let (namespace, _) = provider(one).split_once('/').unwrap_or_default();
        let count = of_namespace.entry(namespace.to_owned()).or_default();
        *count += 1;
        *count <= NAMED_OF_NAMESPACE
    });
    first.into_iter().chain(rest).take(MOST_NAMED).collect()
}

fn write_circuits(text: &mut String, circuits: &[OpenCircuit], open_for: Duration) {
    let total = u64::try_from(circuits.len()).unwrap_or(u64::MAX);
    let circuits_are = count(total, "circuit is", "circuits are");
    let open_for = shown(open_for);
    line(
        text,
        format_args!(
            "{circuits_are} open for {open_for} or longer, see `tidings providers circuits`:"
        ),
    );
    for circuit in shared_out(circuits.iter().collect(), |circuit| &circuit.provider) {
        let (provider, since) = (short(&circuit.provider), at(circuit.since));
        line(text, format_args!("- {provider}, since {since}"));
    }
    let others = circuits.len().saturating_sub(MOST_NAMED);
    if others > 0 {
        line(text, format_args!("- others ({others})"));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "{line}");
}

/// Any client of the bus may have written the name.
fn short(text: &str) -> String {
    cut_bytes(&visible(&cut_bytes(text, LONGEST)), LONGEST)
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// In whole seconds.
fn at(time: Timestamp) -> String {
    let second = Timestamp::from_second(time.as_second());
    second.unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use tidings_core::{Delivery, ProviderReference};

    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(900);

    fn dead_letter(provider: &str, reason: &str, notice: &str) -> DeadLetter {
        DeadLetter {
            delivery: Some(Delivery {
                provider: Some(ProviderReference {
                    namespace: "apps".into(),
                    name: provider.into(),
                    ..ProviderReference::default()
                }),
                notice: notice.into(),
                ..Delivery::default()
            }),
            reason: reason.into(),
            detail: "token=hunter2".into(),
            ..DeadLetter::default()
        }
    }

    fn circuit(provider: &str) -> OpenCircuit {
        OpenCircuit {
            provider: provider.into(),
            since: Timestamp::new(60, 5).unwrap(),
        }
    }

    #[test]
    fn a_notice_says_how_many_which_providers_and_why() {
        let mut summary = Summary::default();
        for (provider, reason, notice) in [
            ("chat", "rejected", ""),
            ("chat", "rejected", ""),
            ("hook", "not-found", ""),
            ("hook", "not-found", "fallback"),
        ] {
            summary.add(&dead_letter(provider, reason, notice));
        }
        let since = Timestamp::from_second(3600).unwrap();
        let text = summary.message(&[circuit("apps/mail")], Some(since), OPEN_FOR);
        let expected = "3 deliveries were given up since 1970-01-01T01:00:00Z, see `tidings dead \
                        list`:\n- apps/chat: rejected (2)\n- apps/hook: not-found (1)\n1 circuit \
                        is open for 15m or longer, see `tidings providers circuits`:\n- apps/mail, \
                        since 1970-01-01T00:01:00Z";
        assert_eq!(text.as_deref(), Some(expected));
        assert_eq!(summary.of_notices, 1);
    }

    #[test]
    fn a_namespace_with_many_failures_leaves_room_for_others() {
        let mut summary = Summary::default();
        for number in 0..40 {
            summary.add(&dead_letter(
                &format!("p{:02}", number % 20),
                "rejected",
                "",
            ));
        }
        let mut of_other = dead_letter("hook", "not-found", "");
        let provider = of_other.delivery.as_mut().unwrap().provider.as_mut();
        provider.unwrap().namespace = "other".into();
        summary.add(&of_other);
        summary.unread = 7;
        let mut circuits: Vec<_> = (0..20).map(|_| circuit("apps/p")).collect();
        circuits.push(circuit("other/hook"));
        let text = summary.message(&circuits, None, OPEN_FOR).unwrap();
        assert!(text.starts_with("at least 41 deliveries"), "{text}");
        assert!(text.contains("- other/hook: not-found (1)"), "{text}");
        assert!(text.contains("- other/hook, since"), "{text}");
        assert!(text.contains("- others (22)"), "{text}");
        assert!(text.contains("- up to 7 more"), "{text}");
    }

    #[test]
    fn the_end_of_a_notice_is_no_reason_for_one() {
        let mut summary = Summary::default();
        summary.add(&dead_letter("hook", "rejected", "watchdog"));
        assert_eq!(summary.message(&[], None, OPEN_FOR), None);
    }

    #[test]
    fn a_notice_has_a_bound_and_nothing_that_a_terminal_acts_on() {
        let mut summary = Summary::default();
        for number in 0..5000 {
            let provider = format!("{number}\u{1b}[2J\n{}", "x".repeat(10_000));
            summary.add(&dead_letter(&provider, &"r".repeat(10_000), ""));
        }
        assert_eq!(summary.pairs.len(), MOST_PAIRS);
        let circuits: Vec<_> = (0..500).map(|_| circuit(&"c".repeat(10_000))).collect();
        let text = summary.message(&circuits, None, OPEN_FOR).unwrap();
        assert!(text.len() < 5000, "{}", text.len());
        assert!(text.starts_with("5000 deliveries were given up"), "{text}");
        assert!(text.contains("- others (4990)") && text.contains("- others (490)"));
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), 24);
    }
}
