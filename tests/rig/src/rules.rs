//! A folder of rules that changes while roles read it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tidings_rules::testing;
pub use tidings_rules::testing::{Manifest, NAMESPACE, alert, config_map, grant, secret};

/// A Provider of type generic.
pub fn provider(name: &str, address: &str) -> Manifest {
    testing::provider(name, "generic").with("address", address)
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
            let path = self.folder.join(file_name(&manifest));
            let unfinished = path.with_extension("unfinished");
            fs::write(&unfinished, manifest.to_string()).expect("the rules folder is writable");
            fs::rename(&unfinished, &path).expect("the rules folder is writable");
        }
    }

    /// Writes a file with this text.
    pub fn put_text(&self, file_name: &str, text: &str) {
        fs::write(self.folder.join(file_name), text).expect("the rules folder is writable");
    }

    /// Deletes the file of an object.
    pub fn remove(&self, manifest: &Manifest) {
        fs::remove_file(self.folder.join(file_name(manifest))).expect("the object exists");
    }
}

fn file_name(manifest: &Manifest) -> String {
    let object = manifest.clone().value();
    let part = |value: &Value| {
        let text = value.as_str().expect("a manifest has a kind and a name");
        text.to_lowercase()
    };
    format!(
        "{}-{}.json",
        part(&object["kind"]),
        part(&object["metadata"]["name"])
    )
}
