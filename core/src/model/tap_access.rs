//! What the credentials of a tap permit: consumers on EVENTS with fixed names and one filter.
//!
//! The request that creates a consumer has its name and its filter in its subject, so the server
//! enforces both. The name must be literal: a client that may create any name could replace the
//! filter of the consumer `router`.

use crate::model::access::MEMBER_API;
use crate::model::token::Token;

/// The number of consumers that a tap may have at the same time.
pub const MAX_CONSUMERS: usize = 4;
/// The stream that taps read.
const STREAM: &str = "EVENTS";
/// The prefix of the names of their consumers.
pub const PREFIX: &str = "tap-";
/// The number of tokens in the subject of an event.
const TOKENS: usize = 5;
/// The longest filter, in bytes. A token has at most 100.
const MAX_FILTER: usize = 520;

/// The consumers that a tap may create, and their filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapAccess {
    /// The names of the consumers.
    pub consumers: Vec<String>,
    /// The subjects that they may read, such as `events.prod-eu.>`.
    pub filter: String,
}

impl TapAccess {
    /// The consumers of a tap with this name.
    pub fn new(name: &str, filter: &str) -> Self {
        let name = Token::new(name);
        let consumers = (0..MAX_CONSUMERS).map(|number| format!("{PREFIX}{name}-{number}"));
        Self {
            consumers: consumers.collect(),
            filter: filter.to_owned(),
        }
    }

    /// The subjects of the requests that create the consumers.
    pub fn create_requests(&self) -> Vec<String> {
        let consumers = self.consumers.iter();
        consumers
            .map(|name| format!("{}{name}.{}", prefix(), self.filter))
            .collect()
    }

    /// Finds the consumers among the subjects that a user may publish to.
    pub fn of_permissions(publish: &[String]) -> Option<Self> {
        let mut found: Option<Self> = None;
        for subject in publish {
            let Some(request) = subject.strip_prefix(&prefix()) else {
                continue;
            };
            let Some((name, filter)) = request.split_once('.') else {
                continue;
            };
            if name.starts_with(PREFIX) {
                let access = found.get_or_insert_with(|| Self {
                    consumers: Vec::new(),
                    filter: filter.to_owned(),
                });
                access.consumers.push(name.to_owned());
            }
        }
        found
    }

    /// The filter for the events that both this tap and `wanted` include. `None` if there are none.
    pub fn within(&self, wanted: &str) -> Option<String> {
        let (mut own, mut wanted) = (self.filter.split('.'), wanted.split('.'));
        let mut common = Vec::new();
        loop {
            let (mine, other) = match (own.next(), wanted.next()) {
                (None, None) => return Some(common.join(".")),
                (Some(">"), Some(other)) => {
                    let rest = std::iter::once(other).chain(wanted.by_ref());
                    common.extend(rest);
                    return Some(common.join("."));
                }
                (Some(mine), Some(">")) => {
                    let rest = std::iter::once(mine).chain(own.by_ref());
                    common.extend(rest);
                    return Some(common.join("."));
                }
                (Some(mine), Some(other)) => (mine, other),
                _ => return None,
            };
            match (mine, other) {
                ("*", part) | (part, "*") => common.push(part),
                _ if mine == other => common.push(mine),
                _ => return None,
            }
        }
    }
}

fn prefix() -> String {
    format!("{MEMBER_API}.CONSUMER.CREATE.{STREAM}.")
}

/// Checks the filter of a tap.
///
/// A filter without `>` needs all tokens of an event's subject. Otherwise a request could name `>`
/// in place of a last `*`, and would read more than the filter.
///
/// # Errors
/// The text is no filter for events.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let expected = "expected `events.CLUSTER.NAMESPACE.KIND.SEVERITY` with encoded names, where \
                    `*` stands for any, or `events.CLUSTER.>`";
    let tokens: Vec<&str> = filter.split('.').collect();
    let (Some((first, rest)), true) = (tokens.split_first(), filter.len() <= MAX_FILTER) else {
        return Err(expected.to_owned());
    };
    let ends_open = rest.last() == Some(&">");
    let is_literal = |token: &&str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
        !token.is_empty() && token.bytes().all(is_part)
    };
    let named = if ends_open {
        &rest[..rest.len() - 1]
    } else {
        rest
    };
    let has_parts = named.iter().all(|token| *token == "*" || is_literal(token));
    let has_length = match ends_open {
        true => tokens.len() <= TOKENS,
        false => tokens.len() == TOKENS,
    };
    if *first == "events" && has_parts && has_length {
        Ok(())
    } else {
        Err(expected.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_consumers_of_a_tap_are_found_in_its_permissions() {
        let access = TapAccess::new("audit.eu", "events.*.apps.>");
        assert_eq!(access.consumers[0], "tap-audit=2Eeu-0");
        let mut publish = vec!["tidings.api.CONSUMER.INFO.EVENTS.tap-audit=2Eeu-0".to_owned()];
        assert_eq!(TapAccess::of_permissions(&publish), None);
        publish.extend(access.create_requests());
        assert_eq!(TapAccess::of_permissions(&publish), Some(access));
        let member = "tidings.api.CONSUMER.CREATE.EVENTS.ingest-a-0.events.a.>".to_owned();
        assert_eq!(TapAccess::of_permissions(&[member]), None);
    }

    #[test]
    fn a_tap_reads_what_it_may_and_what_is_wanted() {
        for (own, wanted, common) in [
            ("events.prod.>", "events.*.*.*.*", Some("events.prod.*.*.*")),
            (
                "events.prod.>",
                "events.prod.apps.*.*",
                Some("events.prod.apps.*.*"),
            ),
            ("events.prod.>", "events.dev.*.*.*", None),
            (
                "events.*.*.*.error",
                "events.*.apps.*.*",
                Some("events.*.apps.*.error"),
            ),
            ("events.*.*.*.error", "events.*.*.*.info", None),
            (
                "events.*.*.*.error",
                "events.prod.>",
                Some("events.prod.*.*.error"),
            ),
            ("events.>", "events.>", Some("events.>")),
            ("events.a.b.c.d", "events.a.b.c", None),
        ] {
            let access = TapAccess::new("x", own);
            assert_eq!(access.within(wanted).as_deref(), common, "{own} {wanted}");
        }
    }

    #[test]
    fn a_filter_has_all_tokens_or_ends_open() {
        for valid in [
            "events.>",
            "events.prod-eu.>",
            "events.prod=2Eeu.apps.Kustomization.>",
            "events.*.*.*.error",
            "events.=.=.=.other",
        ] {
            assert!(check_filter(valid).is_ok(), "{valid}");
        }
        for invalid in [
            "",
            "events",
            "events.",
            "events.*",
            "events.prod-eu",
            "events.prod.eu.apps.Kustomization.info",
            "events.a.b.c.d.>",
            "events.>.apps",
            "events.prod eu.>",
            "events.prod*.>",
            ">",
            "deliveries.>",
            "$KV.>",
        ] {
            assert!(check_filter(invalid).is_err(), "{invalid}");
        }
    }
}
