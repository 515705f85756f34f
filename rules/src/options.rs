//! Options of the operator that apply to all rules.

/// Options of the operator that apply to all rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Alerts select only events of their own namespace.
    pub no_cross_namespace_refs: bool,
    /// The namespaces whose Alerts may use `namespace: "*"` for all namespaces.
    pub namespace_wildcard_for: Vec<String>,
}
