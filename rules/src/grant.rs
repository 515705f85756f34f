//! ProviderGrant: shares Providers with the Alerts of other namespaces, like Gateway API's
//! ReferenceGrant. It is in the namespace of the Providers.

use std::collections::BTreeSet;

use crate::object::{GRANT_GROUP, GRANT_VERSION};
use crate::report::Report;
use crate::resource::ProviderGrantSpec;

/// The most namespaces, and the most Providers, of a grant.
const MOST: usize = 100;

/// A compiled ProviderGrant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderGrant {
    /// The namespace of the grant and of the Providers.
    pub namespace: String,
    /// The namespaces whose Alerts may reference the Providers.
    pub from: BTreeSet<String>,
    /// The names of the Providers; all of the namespace if empty.
    pub providers: BTreeSet<String>,
}

impl ProviderGrant {
    /// Compiles a manifest. Problems go to the report; an error in it rejects the grant.
    pub fn compile(report: &mut Report<'_>) -> Option<Self> {
        let api_version = report.object.text(&["apiVersion"]);
        if api_version != format!("{GRANT_GROUP}/{GRANT_VERSION}") {
            let message =
                format!("\"{api_version}\" is not supported; use {GRANT_GROUP}/{GRANT_VERSION}");
            report.error("apiVersion", message);
        }
        let spec = report.spec::<ProviderGrantSpec>()?;
        let from: Vec<_> = spec.from.into_iter().map(|from| from.namespace).collect();
        if from.is_empty() || from.len() > MOST {
            report.error("spec.from", format!("must list 1 to {MOST} namespaces"));
        }
        for (position, namespace) in from.iter().enumerate() {
            if !is_namespace(namespace) {
                report.error(
                    &format!("spec.from[{position}].namespace"),
                    "must be the name of a namespace; patterns are not supported",
                );
            }
        }
        let providers = spec.providers.unwrap_or_default();
        if providers.len() > MOST || providers.iter().any(String::is_empty) {
            report.error(
                "spec.providers",
                format!("must list at most {MOST} names; remove it to share all Providers"),
            );
        }
        Some(Self {
            namespace: report.object.identity().namespace,
            from: from.into_iter().collect(),
            providers: providers.into_iter().collect(),
        })
    }

    /// Whether Alerts of a namespace may reference a Provider of the grant's namespace.
    pub fn allows(&self, from: &str, provider: &str) -> bool {
        self.from.contains(from) && (self.providers.is_empty() || self.providers.contains(provider))
    }
}

/// What to do so that Alerts of a namespace may reference a Provider.
pub(crate) fn missing(from: &str, namespace: &str, provider: &str) -> String {
    format!(
        "Provider {namespace}/{provider} is not shared with namespace {from}; create a \
         ProviderGrant in namespace {namespace} with spec.from: [{{namespace: {from}}}]"
    )
}

/// Whether the name can be that of a namespace.
pub fn is_namespace(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= 63
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(inner)
}

#[cfg(test)]
mod tests;
