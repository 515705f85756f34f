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

    /// The object that was stored. A manifest is at most 100 levels deep when it is read from YAML,
    /// and JSON may be 127.
    pub(crate) fn object(&self) -> Object {
        Object {
            value: serde_json::from_str(&self.json).expect("it was written from a value"),
            origin: self.origin.clone(),
        }
    }
}
