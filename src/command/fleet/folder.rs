//! The folder of a fleet: keys, credentials and the configuration of the NATS server.
//!
//! ```text
//! DIR/nats.conf         configuration of nats-server
//! DIR/fleet.json        the server's address, and the public keys
//! DIR/lock          locked by the command that changes the folder
//! DIR/accounts/         accounts as the server knows them; nats-server writes here, too
//! DIR/members/*.jwt     the account of each member as it was last pushed
//! DIR/keys/*.nk         secret keys of operator and accounts: keep a backup, and no other copy
//! DIR/creds/*.creds     credentials files: of the hub's roles, and of each member
//! ```

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};
use tidings_core::model::token::Token;

/// The folder.
pub struct Folder(PathBuf);

/// The file `fleet.json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Description {
    /// The address of the server, for the commands of `tidings fleet`.
    pub url: String,
    /// A file with the certificate authority of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The public key of the hub's account.
    pub hub: String,
    /// The public key of the system account.
    pub system: String,
    /// The storage limit of the hub's account, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<u64>,
    /// The workers of pools, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub workers: BTreeMap<String, PoolWorker>,
    /// Public keys of users of the hub's account that are revoked, each with the time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revoked: BTreeMap<String, i64>,
}

/// A worker of a pool, as `fleet.json` describes it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "StoredPoolWorker", rename_all = "camelCase")]
pub struct PoolWorker {
    /// The pool.
    pub pool: String,
    /// The public key of its credentials. Older versions of Tidings did not write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// Both forms of a worker: older versions of Tidings wrote the pool only.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredPoolWorker {
    Pool(String),
    #[serde(rename_all = "camelCase")]
    Described {
        pool: String,
        #[serde(default)]
        public_key: Option<String>,
    },
}

impl From<StoredPoolWorker> for PoolWorker {
    fn from(stored: StoredPoolWorker) -> Self {
        match stored {
            StoredPoolWorker::Pool(pool) => Self {
                pool,
                public_key: None,
            },
            StoredPoolWorker::Described { pool, public_key } => Self { pool, public_key },
        }
    }
}

impl Folder {
    /// Creates the folder, which must be empty or missing.
    ///
    /// # Errors
    /// It is not empty, or cannot be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let folder = Self(path.to_owned());
        let is_used = path
            .read_dir()
            .is_ok_and(|mut files| files.next().is_some());
        ensure!(
            !is_used,
            "{} is not empty: a fleet is created in a new folder",
            path.display()
        );
        for name in ["", "accounts", "members", "keys", "creds"] {
            let path = folder.0.join(name);
            let mut builder = std::fs::DirBuilder::new();
            let created = builder.recursive(true).mode(0o700).create(&path);
            created.with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(folder)
    }

    /// Opens the folder of a fleet.
    ///
    /// # Errors
    /// It holds no fleet.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Description)> {
        let folder = Self(path.to_owned());
        let file = folder.0.join("fleet.json");
        let text = std::fs::read(&file).with_context(|| {
            format!(
                "cannot read {}: create a fleet with `tidings fleet init DIR`, and pass --dir DIR",
                file.display()
            )
        })?;
        let description = serde_json::from_slice(&text)
            .with_context(|| format!("{} is invalid", file.display()))?;
        Ok((folder, description))
    }

    /// Waits until no other command changes the folder. Others wait as long as the returned file is
    /// open.
    ///
    /// # Errors
    /// The lock file cannot be written.
    pub fn lock(path: &Path) -> anyhow::Result<File> {
        let path = path.join("lock");
        let unusable = || format!("cannot lock {}", path.display());
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).with_context(unusable)?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                eprintln!("another `tidings fleet` changes the folder: waiting for it to end");
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(unusable),
        }
        file.lock().with_context(unusable)?;
        Ok(file)
    }

    /// Writes `fleet.json`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn describe(&self, description: &Description) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(description)?;
        self.write("fleet.json", &format!("{text}\n"))
    }

    /// A path in the folder, absolute.
    ///
    /// # Errors
    /// The current folder is not known.
    pub fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        Ok(std::path::absolute(self.0.join(name))?)
    }

    /// Replaces a file that only its owner may read.
    ///
    /// # Errors
    /// It cannot be written; the former file is left.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let file = self.0.join(name);
        let new = self.0.join(format!("{name}.new"));
        let write = || {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut opened = options.open(&new)?;
            opened.write_all(text.as_bytes())?;
            opened.sync_all()?;
            std::fs::rename(&new, &file)
        };
        write().with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads a file. `None` if it does not exist.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, name: &str) -> anyhow::Result<Option<String>> {
        let file = self.0.join(name);
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Deletes a file, if it exists.
    ///
    /// # Errors
    /// It cannot be deleted.
    pub fn remove(&self, name: &str) -> anyhow::Result<()> {
        let file = self.0.join(name);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot delete {}", file.display()))
            }
            _ => Ok(()),
        }
    }

    /// The key pair `keys/NAME.nk`, which is created if it does not exist.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn key(&self, name: &str, kind: KeyPairType) -> anyhow::Result<KeyPair> {
        let file = format!("keys/{name}.nk");
        if let Some(seed) = self.read(&file)? {
            return KeyPair::from_seed(seed.trim()).with_context(|| format!("{file} is no key"));
        }
        let key = KeyPair::new(kind);
        self.write(&file, &format!("{}\n", key.seed()?))?;
        Ok(key)
    }

    /// The key pair `keys/NAME.nk`, which must exist.
    ///
    /// # Errors
    /// It does not exist, or cannot be read.
    pub fn existing_key(&self, name: &str) -> anyhow::Result<KeyPair> {
        let file = format!("keys/{name}.nk");
        let seed = self.read(&file)?;
        let path = self.0.join(&file);
        let seed = seed.with_context(|| format!("{} does not exist", path.display()))?;
        KeyPair::from_seed(seed.trim()).with_context(|| format!("{} is no key", path.display()))
    }

    /// Whether a file exists, also one that cannot be read.
    ///
    /// # Errors
    /// It cannot be said.
    pub fn has(&self, name: &str) -> anyhow::Result<bool> {
        let file = self.0.join(name);
        let exists = file.try_exists();
        exists.with_context(|| format!("cannot look for {}", file.display()))
    }
}

/// The credentials file of a member.
pub fn member_credentials(name: &str) -> String {
    format!("creds/{}.creds", file_name(name))
}

/// The file with the account of a member.
pub fn member_account(name: &str) -> String {
    format!("members/{}.jwt", file_name(name))
}

/// The name of the key of a member's account.
pub fn member_key(name: &str) -> String {
    format!("member-{}", file_name(name))
}

/// Names contain no characters that are special in paths.
fn file_name(name: &str) -> String {
    match name.contains('/') || name.starts_with('.') || name.len() > 100 {
        true => Token::new(name).to_string(),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_of_an_older_version_are_read_and_written_in_the_new_form() {
        let text = r#"{"url": "", "hub": "", "system": "", "workers": {
            "old": "edge", "new": {"pool": "edge", "publicKey": "UAB"}}}"#;
        let description: Description = serde_json::from_str(text).unwrap();
        let keys = |name: &str| {
            let worker = &description.workers[name];
            (worker.pool.as_str(), worker.public_key.as_deref())
        };
        assert_eq!(keys("old"), ("edge", None));
        assert_eq!(keys("new"), ("edge", Some("UAB")));
        let written = serde_json::to_value(&description).unwrap();
        assert_eq!(written["workers"]["old"]["pool"], "edge");
        assert_eq!(written["workers"]["new"]["publicKey"], "UAB");
    }

    #[test]
    fn the_folder_is_locked_as_long_as_the_file_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::lock(folder.path()).unwrap();
        let file = File::open(folder.path().join("lock")).unwrap();
        assert!(file.try_lock().is_err());
        drop(first);
        file.try_lock().unwrap();
    }
}
