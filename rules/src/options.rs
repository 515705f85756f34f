//! The options that apply to all rules.

/// The options that apply to all rules. Operators set them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The memory of the compiled patterns of all Alerts, in bytes.
    pub pattern_bytes: usize,
    /// Alerts select only events of their own namespace.
    pub no_cross_namespace_refs: bool,
    /// The namespaces whose Alerts may use `namespace: "*"` for all namespaces.
    pub namespace_wildcard_for: Vec<String>,
    /// The cluster whose events Alerts select; all clusters if `None`.
    pub local_cluster: Option<String>,
}

/// The memory of compiled patterns, unless the memory limit of the process is small.
pub const MOST_PATTERN_BYTES: usize = 128 << 20;

impl Default for Options {
    fn default() -> Self {
        Self {
            pattern_bytes: MOST_PATTERN_BYTES,
            no_cross_namespace_refs: false,
            namespace_wildcard_for: Vec::new(),
            local_cluster: None,
        }
    }
}
