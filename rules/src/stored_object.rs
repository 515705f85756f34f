//! A manifest as it is kept between two reads of a folder, in little memory.

use std::sync::Arc;

use crate::object::{Object, Origin};

/// A manifest as text. The JSON values of an object need ten times as much memory, and are needed
/// only while it is checked.
pub(crate) struct StoredObject {
    json: Box<str>,
    origin: Arc<Origin>,
}

impl StoredObject {
    /// Stores an object.
    pub(crate) fn new(object: &Object) -> Self {
        Self {
            json: object.value.to_string().into(),
            origin: object.origin.clone(),
        }
    }

    /// The object that was stored.
    pub(crate) fn object(&self) -> Object {
        Object {
            value: serde_json::from_str(&self.json).unwrap_or_default(),
            origin: self.origin.clone(),
        }
    }
}
