//! Rules from the Kubernetes API.

mod catalog;
mod served;

pub use catalog::{Catalog, Seen};
pub use served::{Capabilities, DiscoverError, Served};
