//! What a tap may do: create and read consumers with fixed names and its filter.

use tidings_core::bus::streams::EVENTS;
use tidings_core::model::access::MEMBER_API;
use tidings_core::model::tap_access::TapAccess;

use crate::command::fleet::permissions::{self, Grant, User};

/// The subjects that a tap may publish to.
pub fn publish(name: &str, filter: &str) -> Vec<Grant> {
    let access = TapAccess::new(name, filter);
    let requests = |action: &str| {
        let consumers = access.consumers.iter();
        let requests =
            consumers.map(|name| format!("{MEMBER_API}.CONSUMER.{action}.{EVENTS}.{name}"));
        requests.collect::<Vec<_>>()
    };
    let acknowledge = access.consumers.iter();
    let acknowledge = acknowledge.map(|name| format!("$JS.ACK.{EVENTS}.{name}.>"));
    vec![
        Grant {
            purpose: "create consumers with these names and this filter",
            subjects: access.create_requests(),
        },
        Grant {
            purpose: "read with them, and delete them",
            subjects: [requests("INFO"), requests("MSG.NEXT"), requests("DELETE")].concat(),
        },
        Grant {
            purpose: "acknowledge what they delivered",
            subjects: acknowledge.collect(),
        },
    ]
}

/// The section of the reference.
pub fn section() -> String {
    let tap = User::Tap("NAME".to_owned(), "FILTER".to_owned());
    let section = permissions::section("tap", &tap);
    format!(
        "{}\nThe account of a tap maps `$JS.API.>` to `{MEMBER_API}.>`, so clients need no \
         prefix.\n",
        section
            .replace("-NAME-", "-<NAME>-")
            .replace(".FILTER`", ".<FILTER>`")
    )
}

#[cfg(test)]
mod tests {
    use tidings_core::model::access::matches;

    use super::*;

    #[test]
    fn a_tap_may_read_its_filter_with_its_own_consumers_and_nothing_else() {
        let tap = User::Tap("audit".to_owned(), "events.*.apps.>".to_owned());
        let allowed = tap.allowed();
        let may = |subject: &str| allowed.iter().any(|filter| matches(filter, subject));
        let api = "tidings.api.CONSUMER";
        for subject in [
            format!("{api}.CREATE.EVENTS.tap-audit-0.events.*.apps.>"),
            format!("{api}.CREATE.EVENTS.tap-audit-3.events.prod.apps.Pod.*"),
            format!("{api}.MSG.NEXT.EVENTS.tap-audit-0"),
            "$JS.ACK.EVENTS.tap-audit-0.1.1.1.1.0".to_owned(),
        ] {
            assert!(may(&subject), "{subject}");
        }
        for subject in [
            format!("{api}.CREATE.EVENTS.tap-audit-0"),
            format!("{api}.CREATE.EVENTS.tap-audit-0.events.>"),
            format!("{api}.CREATE.EVENTS.tap-audit-0.events.*.>"),
            format!("{api}.CREATE.EVENTS.tap-audit-0.events.*.db.>"),
            format!("{api}.CREATE.EVENTS.tap-audit-4.events.*.apps.>"),
            format!("{api}.CREATE.EVENTS.tap-other-0.events.*.apps.>"),
            format!("{api}.CREATE.EVENTS.router.events.*.apps.>"),
            format!("{api}.MSG.NEXT.EVENTS.router"),
            "tidings.api.STREAM.INFO.EVENTS".to_owned(),
            "events.prod.apps.Pod.info".to_owned(),
        ] {
            assert!(!may(&subject), "{subject}");
        }
        let exports = permissions::exports();
        for service in tap.services() {
            let is_exported = |(filter, _): &(String, bool)| {
                matches(filter, &service.hub) || *filter == service.hub
            };
            assert!(exports.iter().any(is_exported), "{}", service.hub);
        }
        assert_eq!(tap.subscribe(), ["_INBOX.>"]);
    }
}
