//! When the credentials of this process for NATS expire.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

/// The line above the JWT in a credentials file.
const BEGIN: &str = "-----BEGIN NATS USER JWT-----";
/// The most bytes of a credentials file that is read.
const MOST_BYTES: u64 = 256 << 10;

/// The part of a user's JWT that is read. The server verifies it, not we.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    exp: i64,
}

/// When the JWT in a credentials file expires. `None` if it does not, or the file has no JWT.
pub fn expiry(file: &Path) -> Option<Timestamp> {
    let size = std::fs::metadata(file).ok()?.len();
    let text = (size <= MOST_BYTES).then(|| std::fs::read_to_string(file).ok())?;
    expiry_of(&text?)
}

fn expiry_of(credentials: &str) -> Option<Timestamp> {
    let (_, rest) = credentials.split_once(BEGIN)?;
    let token = rest.trim_start().lines().next()?;
    let payload = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    (claims.exp > 0).then(|| Timestamp::from_second(claims.exp).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(claims: &str) -> String {
        let [header, claims] = ["{}", claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!(
            "{BEGIN}\n{header}.{claims}.c2lnbmF0dXJl\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\nSUA\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn the_expiry_is_read_from_the_users_token() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        for (text, expected) in [
            (credentials(r#"{"exp":1800000000,"sub":"U"}"#), Some(at)),
            (credentials(r#"{"sub":"U"}"#), None),
            (credentials(r#"{"exp":0}"#), None),
            (credentials("no json"), None),
            (format!("{BEGIN}\nno token"), None),
            (String::new(), None),
        ] {
            assert_eq!(expiry_of(&text), expected, "{text}");
        }
    }
}
