//! Retains the last good state of each object, which stays in effect while the object is rejected.

use std::collections::HashMap;

use crate::check::{Checked, Resource};
use crate::object::{GRANT_KIND, Identity};
use crate::options::Options;
use crate::pattern_memory::{self, Automata};

/// The last good state of each existing object, with its uid.
#[derive(Default)]
pub(crate) struct LastGood(HashMap<Identity, (String, Resource)>);

impl LastGood {
    /// Rejects Alerts whose patterns need too much memory, restores the last good state of rejected
    /// objects, and stores the state of valid ones. An object that was recreated with another uid
    /// has no last good state. Returns the patterns of the Alerts in effect.
    pub(crate) fn restore(&mut self, checked: &mut [Checked], options: &Options) -> Automata {
        let earlier = std::mem::take(&mut self.0);
        let earlier = |checked: &Checked| {
            let (uid, resource) = earlier.get(&checked.identity)?;
            (*uid == checked.uid).then(|| resource.clone())
        };
        for checked in checked.iter_mut() {
            // A rejected grant grants nothing, since it may be meant to revoke.
            if checked.rejection.is_some() && checked.identity.kind != GRANT_KIND {
                checked.resource = earlier(checked);
            }
        }
        let automata = pattern_memory::limit(options.pattern_bytes, checked, earlier);
        for checked in checked {
            if let Some(resource) = &checked.resource {
                self.0.insert(
                    checked.identity.clone(),
                    (checked.uid.clone(), resource.clone()),
                );
            }
        }
        automata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check_one;
    use crate::kind::{Family, Kind, Kinds};
    use crate::testing::provider;

    const KINDS: Kinds = &[Kind::new("slack", Family::Message)];

    /// The address in effect after this version of the Provider.
    fn address(good: &mut LastGood, uid: &str, kind: &str, address: &str) -> Option<String> {
        let object = provider("p", kind)
            .with("address", address)
            .set("/metadata/uid", uid)
            .object();
        let mut checked = [check_one(&object, KINDS, &Options::default())];
        good.restore(&mut checked, &Options::default());
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
