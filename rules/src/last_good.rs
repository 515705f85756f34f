//! Retains the last good state of each object, which stays in effect while the object is rejected.

use std::collections::HashMap;

use crate::check::{Checked, Resource};
use crate::object::Identity;

/// The last good state of each existing object, with its uid.
#[derive(Default)]
pub(crate) struct LastGood(HashMap<Identity, (String, Resource)>);

impl LastGood {
    /// Restores the last good state of rejected objects, and stores the state of valid ones. An
    /// object that was recreated with another uid has no last good state.
    pub(crate) fn restore(&mut self, checked: &mut [Checked]) {
        let earlier = std::mem::take(&mut self.0);
        for checked in checked {
            if checked.rejection.is_some() {
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
    use super::*;
    use crate::check::check_one;
    use crate::kind::{Family, Kind, Kinds};
    use crate::options::Options;
    use crate::testing::provider;

    const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

    /// The address in effect after this version of the Provider.
    fn address(good: &mut LastGood, uid: &str, kind: &str, address: &str) -> Option<String> {
        let object = provider("p", kind)
            .with("address", address)
            .set("/metadata/uid", uid)
            .object();
        let mut checked = [check_one(&object, KINDS, &Options::default())];
        good.restore(&mut checked);
        match checked[0].resource.clone()? {
            Resource::Provider(provider) => Some(provider.address.clone()),
            _ => None,
        }
    }

    #[test]
    fn the_last_good_state_is_restored_only_for_the_same_uid() {
        let mut good = LastGood::default();
        assert_eq!(address(&mut good, "1", "slack", "a").as_deref(), Some("a"));
        for _ in 0..2 {
            assert_eq!(address(&mut good, "1", "pigeon", "b").as_deref(), Some("a"));
        }
        assert_eq!(address(&mut good, "1", "slack", "c").as_deref(), Some("c"));
        assert_eq!(
            address(&mut good, "2", "pigeon", "d"),
            None,
            "recreated with the same name"
        );
    }
}
