//! The id of a commit status of a Provider without an expression.

use tidings_core::ObjectReference;

/// `<kind>/<name>/<first part of the Provider's uid>` in lower case, as in Flux.
pub fn default_id(object: &ObjectReference, provider_uid: &str) -> String {
    let part = provider_uid.split('-').next().unwrap_or_default();
    format!("{}/{}/{part}", object.kind, object.name).to_lowercase()
}

/// `<cluster>/<namespace>/<default id>` in lower case, which is unique in a fleet.
pub fn qualified(default: &str, cluster: &str, object: &ObjectReference) -> String {
    format!("{cluster}/{}/{default}", object.namespace).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kind_name_and_the_start_of_the_uid() {
        let object = ObjectReference {
            kind: "HelmRelease".into(),
            name: "PodInfo".into(),
            ..Default::default()
        };
        for (uid, id) in [
            (
                "f1b2c3d4-1111-2222-3333-444455556666",
                "helmrelease/podinfo/f1b2c3d4",
            ),
            ("nodashes", "helmrelease/podinfo/nodashes"),
            ("-lead", "helmrelease/podinfo/"),
        ] {
            assert_eq!(default_id(&object, uid), id);
        }
    }

    #[test]
    fn a_qualified_id_starts_with_cluster_and_namespace() {
        let object = ObjectReference {
            namespace: "apps".into(),
            ..Default::default()
        };
        assert_eq!(
            qualified("helmrelease/podinfo/f1b2c3d4", "EU-1", &object),
            "eu-1/apps/helmrelease/podinfo/f1b2c3d4"
        );
    }
}
