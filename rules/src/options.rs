//! The options that apply to all rules.

/// The options that apply to all rules. Operators set them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Alerts select only events of their own namespace.
    pub no_cross_namespace_refs: bool,
    /// The namespaces whose Alerts may use `namespace: "*"` for all namespaces.
    pub namespace_wildcard_for: Vec<String>,
}
