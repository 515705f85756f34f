//! A folder of rules that changes while roles read it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The namespace of all objects of the rig.
pub const NAMESPACE: &str = "apps";

/// An object of the rules.
#[derive(Clone, Debug)]
pub struct Manifest(Value);

/// An Alert for all Kustomizations, from severity info.
pub fn alert(name: &str, provider: &str) -> Manifest {
    let sources = json!([{"kind": "Kustomization", "name": "*"}]);
    Manifest::new(
        "Alert",
        name,
        json!({"providerRef": {"name": provider}, "eventSeverity": "info", "eventSources": sources}),
    )
}

/// A Provider of type generic.
pub fn provider(name: &str, address: &str) -> Manifest {
    Manifest::new(
        "Provider",
        name,
        json!({"type": "generic", "address": address}),
    )
}

impl Manifest {
    fn new(kind: &str, name: &str, spec: Value) -> Self {
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        Self(
            json!({"apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "kind": kind, "metadata": metadata, "spec": spec}),
        )
    }

    /// Sets a field of the spec.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.0["spec"][field] = value;
        self
    }

    /// Moves the object to another namespace than [`NAMESPACE`].
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.0["metadata"]["namespace"] = namespace.into();
        self
    }

    /// Shortens the backoff of a Provider, so that tests are quick.
    pub fn that_retries_soon(self) -> Self {
        self.with("retry", json!({"min": "100ms", "max": "1s"}))
    }

    fn file_name(&self) -> String {
        let part = |value: &Value| {
            value
                .as_str()
                .expect("a manifest has a kind and a name")
                .to_lowercase()
        };
        format!(
            "{}-{}.json",
            part(&self.0["kind"]),
            part(&self.0["metadata"]["name"])
        )
    }
}

/// A folder with a file for each object.
pub struct Rules {
    folder: PathBuf,
}

impl Rules {
    pub(crate) fn in_folder(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("the rig's folder is writable");
        Self { folder }
    }

    /// Its path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes objects; each atomically replaces the one of the same kind and name.
    pub fn put<const N: usize>(&self, manifests: [Manifest; N]) {
        for manifest in manifests {
            let path = self.folder.join(manifest.file_name());
            let unfinished = path.with_extension("unfinished");
            fs::write(&unfinished, manifest.0.to_string()).expect("the rules folder is writable");
            fs::rename(&unfinished, &path).expect("the rules folder is writable");
        }
    }

    /// Writes a file with this text.
    pub fn put_text(&self, file_name: &str, text: &str) {
        fs::write(self.folder.join(file_name), text).expect("the rules folder is writable");
    }

    /// Deletes the file of an object.
    pub fn remove(&self, manifest: &Manifest) {
        fs::remove_file(self.folder.join(manifest.file_name())).expect("the object exists");
    }
}
