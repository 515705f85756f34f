//! Logs in with a credentials file, which is read again for each connection. So new credentials in
//! the same file take effect without a restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::Auth;
use jiff::Timestamp;
use nkeys::KeyPair;
use parking_lot::Mutex;

use crate::model::access::{Access, section};
use crate::model::id;
use crate::runtime::reload::read_file;

/// The most bytes of a credentials file.
const LARGEST: usize = 1 << 20;
/// How long after a reading that shows a change the file is read again, and how often at most: all
/// that within the two seconds in which the server expects the login.
const READ_AGAIN: Duration = Duration::from_millis(200);
const MOST_READINGS: u32 = 6;

/// A credentials file that may be replaced while the process runs.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    /// A hash of the content that was used last.
    used: Mutex<String>,
}

impl CredentialsFile {
    /// The file, of which `text` was read.
    pub(super) fn new(path: &Path, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            used: Mutex::new(id::digest(&[text])),
        }
    }

    /// Logs in with the file as it is now.
    ///
    /// # Errors
    /// It holds no credentials, or is being written.
    pub(super) async fn auth(&self, nonce: &[u8]) -> Result<Auth, String> {
        auth(&self.path, &self.text().await?, nonce)
    }

    /// The content. A new one is used after two equal readings, because the first can be half
    /// written.
    async fn text(&self) -> Result<String, String> {
        let mut found = read(&self.path);
        for _ in 1..MOST_READINGS {
            if found.as_ref().is_ok_and(|text| self.is_used(text)) {
                return found;
            }
            tokio::time::sleep(READ_AGAIN).await;
            let again = read(&self.path);
            if again == found {
                if let Ok(text) = &found {
                    *self.used.lock() = id::digest(&[text]);
                }
                return found;
            }
            found = again;
        }
        Err(format!(
            "nats.credentials: {} changes again and again",
            self.path.display()
        ))
    }

    fn is_used(&self, text: &str) -> bool {
        *self.used.lock() == id::digest(&[text])
    }
}

/// Reads the file, and checks that it holds a JWT and a seed.
///
/// # Errors
/// It does not. The error names the file, and nothing that it contains.
pub(super) fn read(file: &Path) -> Result<String, String> {
    let invalid = |why: String| format!("nats.credentials: {} {why}", file.display());
    let content = read_file(file, LARGEST).map_err(|why| format!("nats.credentials: {why}"))?;
    let text = String::from_utf8(content).map_err(|_| invalid("is not text".to_owned()))?;
    let parts = [
        section(&text, "NATS USER JWT"),
        section(&text, "USER NKEY SEED"),
    ];
    if parts.iter().any(Option::is_none) {
        return Err(invalid("is not a credentials file".to_owned()));
    }
    Ok(text)
}

/// A hash of the seed, which only the replicas with this file know.
pub(super) fn secret(text: &str) -> String {
    id::digest(&[
        "message ids",
        section(text, "USER NKEY SEED").unwrap_or_default(),
    ])
}

/// When the JWT in a credentials file expires. `None` if it does not, or the file cannot be read.
pub fn expiry(file: &Path) -> Option<Timestamp> {
    Access::of_credentials(&read(file).ok()?).expires_at()
}

fn auth(file: &Path, text: &str, nonce: &[u8]) -> Result<Auth, String> {
    let jwt = section(text, "NATS USER JWT").unwrap_or_default();
    let seed = section(text, "USER NKEY SEED").unwrap_or_default();
    let invalid = |error: nkeys::error::Error| {
        format!(
            "nats.credentials: {} has no valid seed: {error}",
            file.display()
        )
    };
    let key = KeyPair::from_seed(seed).map_err(invalid)?;
    let mut auth = Auth::new();
    auth.jwt = Some(jwt.to_owned());
    auth.signature = Some(key.sign(nonce).map_err(invalid)?);
    Ok(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(jwt: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\
             -----BEGIN USER NKEY SEED-----\nSU\n------END USER NKEY SEED------\n"
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user.creds");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write(&text("first"));
        let file = CredentialsFile::new(&path, &text("first"));
        let started = tokio::time::Instant::now();
        assert_eq!(file.text().await, Ok(text("first")));
        assert_eq!(started.elapsed(), Duration::ZERO, "nothing has changed");
        // A JWT that ends early could log in as nobody.
        write(&text("sec"));
        let (found, ()) = tokio::join!(file.text(), async {
            tokio::time::sleep(READ_AGAIN / 2).await;
            write(&text("second"));
        });
        assert_eq!(found, Ok(text("second")));
        write("empty");
        assert!(file.text().await.is_err());
        write(&"x".repeat(LARGEST + 1));
        assert!(file.text().await.unwrap_err().contains("is larger than"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_rests_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user.creds");
        let file = CredentialsFile::new(&path, "");
        let writing = async {
            for number in 0_u32.. {
                std::fs::write(&path, text(&number.to_string())).unwrap();
                tokio::time::sleep(READ_AGAIN / 3).await;
            }
        };
        tokio::select! {
            found = file.text() => assert!(found.is_err()),
            () = writing => {}
        }
    }
}
