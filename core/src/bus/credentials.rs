//! Logs in with a credentials file, which is read again for each connection. So new credentials in
//! the same file take effect without a restart.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError, ConnectOptions};
use jiff::Timestamp;
use nkeys::KeyPair;

use crate::model::access::{Access, section};
use crate::model::id;

/// The most bytes of a credentials file.
const LARGEST: u64 = 1 << 20;

/// Options that log in with the file.
pub(super) fn options(file: &Path) -> ConnectOptions {
    let file = PathBuf::from(file);
    ConnectOptions::with_auth_callback(move |nonce| {
        let auth = auth(&file, &nonce).map_err(AuthError::new);
        std::future::ready(auth)
    })
}

/// Reads the file, and checks that it holds a JWT and a seed.
///
/// # Errors
/// It does not. The error names the file, and nothing that it contains.
pub(super) fn read(file: &Path) -> Result<String, String> {
    let invalid = |why: String| format!("nats.credentials: {} {why}", file.display());
    let unreadable = |error: std::io::Error| invalid(format!("cannot be read: {error}"));
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let read = opened.take(LARGEST + 1).read_to_string(&mut text);
    read.map_err(unreadable)?;
    if text.len() as u64 > LARGEST {
        return Err(invalid(format!("has more than {LARGEST} bytes")));
    }
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

/// Logs in with the file as it is now.
pub(super) fn auth(file: &Path, nonce: &[u8]) -> Result<Auth, String> {
    let text = read(file)?;
    let jwt = section(&text, "NATS USER JWT").unwrap_or_default();
    let seed = section(&text, "USER NKEY SEED").unwrap_or_default();
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
