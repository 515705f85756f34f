//! Reads, checks and compiles rules: Alerts, Providers, Secrets and ConfigMaps.
//!
//! ```text
//!  folder ──► document ─► Object ─► check ─► Alert, Provider, … ─► Rules (snapshot) ─► LiveRules
//!  cluster ─────────────────┘
//! ```
//!
//! [`folder::follow`] and [`cluster::follow`] keep the current snapshot up to date. An invalid
//! object is rejected with a [`Problem`] and does not affect others. Its last good state stays in
//! effect.

pub mod alert;
pub mod check;
pub mod cluster;
pub mod cluster_selector;
pub mod crd;
pub mod document;
mod doubt;
pub mod duration;
pub mod extensions;
pub mod folder;
pub mod grant;
mod index;
pub mod kind;
mod last_good;
pub mod lines;
pub mod live;
pub mod object;
pub mod options;
pub mod pattern;
mod pattern_memory;
pub mod problem;
pub mod provider;
mod recognize;
pub mod report;
mod resolve;
pub mod resolved;
pub mod resource;
pub mod secret;
mod secret_keys;
pub mod severities;
pub mod snapshot;
pub mod source;
pub mod status_fields;
mod stored_object;
mod structure;
pub mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verify;

pub use alert::{Alert, EventSource};
pub use folder::Folder;
pub use grant::ProviderGrant;
pub use kind::{Family, Kind, Kinds};
pub use live::LiveRules;
pub use object::{Identity, Object, Origin};
pub use options::Options;
pub use problem::{Problem, Severity};
pub use provider::{CommitStatusOptions, Provider, RateLimit};
pub use resolved::{Proxy, ResolvedProvider, SecretData, SecretValue, Tls, Unresolved};
pub use severities::Severities;
pub use snapshot::{LostExtensions, RuleEntry, Rules};
pub use source::{RulesOrigin, RulesSource};
pub use template::Template;
pub use verify::TypeChecks;
