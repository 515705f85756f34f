//! What an object came to when it was good stays in force while it is refused.

use std::collections::HashMap;

use crate::check::{Checked, Resource};
use crate::object::Identity;

/// The last good state of each object that is there.
#[derive(Default)]
pub(crate) struct LastGood(HashMap<Identity, (String, Resource)>);

impl LastGood {
    /// Lets the last good state stand in for what is refused, and keeps what is good for the next
    /// time. An object that was made anew under the same name, with another uid, begins anew.
    pub(crate) fn stand_in(&mut self, checked: &mut [Checked]) {
        let earlier = std::mem::take(&mut self.0);
        for checked in checked {
            if checked.refusal.is_some() {
                let last = earlier
                    .get(&checked.identity)
                    .filter(|(uid, _)| *uid == checked.uid);
                checked.resource = last.map(|(_, resource)| resource.clone());
            }
            if let Some(resource) = &checked.resource {
                self.0.insert(
                    checked.identity.clone(),
                    (checked.uid.clone(), resource.clone()),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::{Options, check_one};
    use crate::kind::{Family, Kind, Kinds};
    use crate::object::Object;

    const KINDS: Kinds = &[Kind {
        name: "slack",
        family: Family::Message,
    }];

    /// The address in force after the Provider was written so.
    fn address(good: &mut LastGood, uid: &str, kind: &str, address: &str) -> Option<String> {
        let object = Object::new(json!({
            "apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "kind": "Provider",
            "metadata": {"name": "p", "namespace": "apps", "uid": uid}, "spec": {"type": kind, "address": address},
        }));
        let mut checked = [check_one(&object, KINDS, &Options::default())];
        good.stand_in(&mut checked);
        match checked[0].resource.clone()? {
            Resource::Provider(provider) => Some(provider.address.clone()),
            _ => None,
        }
    }

    #[test]
    fn the_last_good_state_stands_in_for_the_same_object_only() {
        let mut good = LastGood::default();
        assert_eq!(address(&mut good, "1", "slack", "a").as_deref(), Some("a"));
        for _ in 0..2 {
            assert_eq!(address(&mut good, "1", "pigeon", "b").as_deref(), Some("a"));
        }
        assert_eq!(address(&mut good, "1", "slack", "c").as_deref(), Some("c"));
        assert_eq!(
            address(&mut good, "2", "pigeon", "d"),
            None,
            "made anew under the same name"
        );
    }
}
