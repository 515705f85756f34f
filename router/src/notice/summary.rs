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
    /// Whether there are more dead letters, for the next notice.
    pub(super) is_cut: bool,
}

impl Summary {
    /// Counts a dead letter.
    pub(super) fn add(&mut self, letter: &DeadLetter) {
        let delivery = letter.delivery.as_ref();
        if delivery.is_some_and(|delivery| !delivery.notice.is_empty()) {
            self.of_notices += 1;
            return;
        }
        self.total += 1;
        let provider = delivery.and_then(|delivery| delivery.provider.as_ref());
        let provider = provider.map_or_else(String::new, |provider| {
            format!("{}/{}", provider.namespace, provider.name)
        });
        let pair = (short(&provider), short(&letter.reason));
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
        let least = if self.is_cut { "at least " } else { "" };
        let since = since.map_or_else(String::new, |since| format!(" since {}", at(since)));
        line(
            text,
            format_args!("{least}{deliveries} given up{since}, see `tidings dead list`:"),
        );
        let mut pairs: Vec<_> = self.pairs.iter().collect();
        pairs.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((provider, reason), count) in pairs.iter().take(MOST_NAMED) {
            line(text, format_args!("- {provider}: {reason} ({count})"));
        }
        let named = pairs.iter().take(MOST_NAMED).map(|(_, count)| **count);
        let others = self.total - named.sum::<u64>();
        if others > 0 {
            line(text, format_args!("- others ({others})"));
        }
    }
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
    for circuit in circuits.iter().take(MOST_NAMED) {
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

    fn letter(provider: &str, reason: &str, notice: &str) -> DeadLetter {
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
            summary.add(&letter(provider, reason, notice));
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
    fn the_end_of_a_notice_is_no_reason_for_one() {
        let mut summary = Summary::default();
        summary.add(&letter("hook", "rejected", "watchdog"));
        assert_eq!(summary.message(&[], None, OPEN_FOR), None);
    }

    #[test]
    fn a_notice_has_a_bound_and_nothing_that_a_terminal_acts_on() {
        let mut summary = Summary::default();
        for number in 0..5000 {
            let provider = format!("{number}\u{1b}[2J\n{}", "x".repeat(10_000));
            summary.add(&letter(&provider, &"r".repeat(10_000), ""));
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
