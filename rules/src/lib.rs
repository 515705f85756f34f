//! What users write: Alert, Provider, Secret; read, checked and compiled.
//!
//! ```text
//!  folder ─► document ─► Object ─► check ─► Alert, Provider, … ─► Rules (one snapshot) ─► Live
//! ```
//!
//! A bad object is refused alone, with a [`Problem`]; all others stay in force.

pub mod alert;
pub mod check;
pub mod cluster;
pub mod crd;
pub mod document;
pub mod duration;
pub mod folder;
pub mod glob;
mod index;
pub mod kind;
mod last_good;
pub mod live;
pub mod object;
pub mod pattern;
pub mod problem;
pub mod provider;
mod resolve;
pub mod resolved;
pub mod resource;
pub mod secret;
pub mod snapshot;
pub mod status_fields;
pub mod template;
#[doc(hidden)]
pub mod testing;

pub use alert::{Alert, Severities, Source};
pub use check::Options;
pub use folder::Folder;
pub use kind::{Family, Kind, Kinds};
pub use live::Live;
pub use object::{Identity, Object, Origin};
pub use problem::{Problem, Severity};
pub use provider::{CommitStatusOptions, Provider, RateLimit};
pub use resolved::{Proxy, ResolvedProvider, SecretData, SecretValue, Tls, Unresolved};
pub use snapshot::{Entry, Rules};
pub use template::Template;
