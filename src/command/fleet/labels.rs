//! Names and labels of clusters. No I/O.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use tidings_core::model::origin::{MAX_CLUSTER_NAME, is_cluster_name};
use tidings_rules::alert::is_label;
use tidings_rules::grant::is_namespace;

/// The most labels of a cluster.
const MAX_LABELS: usize = 64;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Checks the name of a cluster.
///
/// # Errors
/// It is empty, too long, or has other characters than letters, digits, `.`, `_` and `-`.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    ensure!(
        is_cluster_name(name),
        "cluster {name:?}: expected up to {MAX_CLUSTER_NAME} letters, digits, `.`, `_` and `-`, \
         starting with a letter or digit"
    );
    Ok(())
}

/// Parses `KEY=VALUE`.
///
/// # Errors
/// There is no `=`, or a part is not valid for a label of Kubernetes.
pub fn parse(text: &str) -> anyhow::Result<(String, String)> {
    let (key, value) = text
        .split_once('=')
        .with_context(|| format!("label {text:?}: expected KEY=VALUE"))?;
    ensure!(
        is_label(key, value),
        "label {text:?}: expected a label as in Kubernetes: key and value start and end with a \
         letter or digit, and have up to 63 letters, digits, `.`, `_` and `-`; the key may have a \
         prefix such as `example.com/`"
    );
    Ok((key.to_owned(), value.to_owned()))
}

/// Applies `KEY=VALUE` (set) and `KEY-` (remove).
///
/// # Errors
/// A change has neither form, or there are too many labels.
pub fn apply(labels: &mut Labels, changes: &[String]) -> anyhow::Result<()> {
    for change in changes {
        match change.strip_suffix('-') {
            Some(key) if is_label(key, "") => {
                labels.remove(key);
            }
            _ if change.contains('=') => labels.extend([parse(change)?]),
            _ => bail!("label {change:?}: expected KEY=VALUE, or KEY- to remove it"),
        }
    }
    ensure!(
        labels.len() <= MAX_LABELS,
        "a cluster has at most {MAX_LABELS} labels"
    );
    Ok(())
}

/// Checks the name of a namespace.
///
/// # Errors
/// It cannot be that of a namespace.
pub fn check_namespace(name: &str) -> anyhow::Result<()> {
    ensure!(
        is_namespace(name),
        "--visible-to {name:?}: expected a namespace: up to 63 lowercase letters, digits and `-`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_characters_that_are_special_in_paths_or_subjects() {
        for (name, is_valid) in [
            ("prod-eu", true),
            ("eu.1", true),
            ("", false),
            (".", false),
            ("a/b", false),
            ("a*", false),
            ("a b", false),
            ("é", false),
            (&"a".repeat(253), true),
            (&"a".repeat(254), false),
        ] {
            assert_eq!(check_name(name).is_ok(), is_valid, "{name:?}");
        }
    }

    #[test]
    fn labels_are_set_and_removed() {
        let mut labels = Labels::from([("env".to_owned(), "dev".to_owned())]);
        let changes = ["env=prod", "example.com/region=eu", "gone-"].map(str::to_owned);
        apply(&mut labels, &changes).unwrap();
        assert_eq!(labels["env"], "prod");
        assert_eq!(labels["example.com/region"], "eu");
        apply(&mut labels, &["env-".to_owned()]).unwrap();
        assert!(!labels.contains_key("env"));
        for invalid in ["env", "=x", "a b=c", "-", "a b-", "a=b=c"] {
            let result = apply(&mut labels, &[invalid.to_owned()]);
            assert!(result.is_err(), "{invalid}");
        }
    }
}
