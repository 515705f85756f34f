//! What users write: Alert, Provider, Secret; read, checked and compiled.

pub mod kind;
pub mod resolved;

pub use kind::{Family, Kind, Kinds};
pub use resolved::{Proxy, ResolvedProvider, SecretData, SecretValue, Tls, Unresolved};
