//! What the user of a NATS credentials file may do, as the JWT in it says.
//!
//! The client follows it: it uses the inbox and the JetStream API that the user may use. So a
//! credentials file is all that a member of a fleet needs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

use crate::model::tap_access::TapAccess;

/// The prefix of JetStream's API in the account of a member of a fleet. Its own `$JS.API` answers
/// that the account has no JetStream; requests with this prefix go to the hub's account.
pub const MEMBER_API: &str = "tidings.api";
/// The prefix of JetStream's API in any other account.
pub const API: &str = "$JS.API";

/// The permissions of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The name of the user.
    name: String,
    /// The subjects that the user may publish to. Empty: not known, so none is excluded.
    publish: Vec<String>,
    /// The subjects that the user may subscribe to.
    subscribe: Vec<String>,
    /// When the JWT expires, in seconds since 1970; 0 if it does not.
    expires: i64,
    /// The consumers that the user may create, if it is a tap of a fleet.
    tap: Option<TapAccess>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "exp")]
    expires: i64,
    nats: User,
}

#[derive(Deserialize)]
struct User {
    #[serde(default, rename = "pub")]
    publish: Permission,
    #[serde(default, rename = "sub")]
    subscribe: Permission,
}

#[derive(Default, Deserialize)]
struct Permission {
    #[serde(default)]
    allow: Vec<String>,
}

impl Access {
    /// Reads the JWT of a credentials file. Without one, or if it cannot be read, nothing is known:
    /// the server has the last word.
    pub fn of_credentials(text: &str) -> Self {
        Self::of_jwt(text).unwrap_or_default()
    }

    fn of_jwt(text: &str) -> Option<Self> {
        let payload = section(text, "NATS USER JWT")?.split('.').nth(1)?;
        let claims = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        Some(Self {
            name: claims.name,
            tap: TapAccess::of_permissions(&claims.nats.publish.allow),
            publish: claims.nats.publish.allow,
            subscribe: claims.nats.subscribe.allow,
            expires: claims.expires,
        })
    }

    /// Whether the user may publish to a subject.
    pub fn may_publish(&self, subject: &str) -> bool {
        self.publish.is_empty() || self.publish.iter().any(|filter| matches(filter, subject))
    }

    /// Whether the credentials say that the user may publish to a subject.
    pub fn is_permitted(&self, subject: &str) -> bool {
        self.publish.iter().any(|filter| matches(filter, subject))
    }

    /// The only prefix of inboxes that the user may subscribe to. `None` for NATS's default.
    pub fn inbox_prefix(&self) -> Option<&str> {
        let mut inboxes = self.subscribe.iter();
        inboxes.find_map(|filter| {
            let prefix = filter.strip_suffix(".>")?;
            prefix.starts_with("_INBOX_").then_some(prefix)
        })
    }

    /// When the JWT expires. `None` if it does not.
    pub fn expires_at(&self) -> Option<Timestamp> {
        (self.expires > 0).then(|| Timestamp::from_second(self.expires).ok())?
    }

    /// The consumers that the user may create, if it is a tap of a fleet.
    pub fn tap(&self) -> Option<&TapAccess> {
        self.tap.as_ref()
    }

    /// The name of the cluster, if the user is a member of a fleet.
    pub fn member(&self) -> Option<&str> {
        if self.tap.is_some() {
            return None;
        }
        let mut publish = self.publish.iter();
        let is_member = publish.any(|filter| matches(&format!("{MEMBER_API}.>"), filter));
        is_member.then_some(self.name.as_str())
    }

    /// The prefix of JetStream's API for this user.
    pub fn api_prefix(&self) -> &'static str {
        match self.tap.is_some() || self.member().is_some() {
            true => MEMBER_API,
            false => API,
        }
    }
}

/// The text between the marks of a section of a credentials file.
pub fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("BEGIN {name}-----"))?;
    let (section, _) = rest.split_once("-----")?;
    Some(section.trim())
}

/// Whether a subject matches a filter with wildcards.
pub fn matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for part in filter.split('.') {
        match (part, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(claims: &serde_json::Value) -> String {
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        format!(
            "-----BEGIN NATS USER JWT-----\nhead.{payload}.sig\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\nSECRET\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn a_member_is_known_from_its_credentials() {
        let access = Access::of_credentials(&credentials(&serde_json::json!({
            "name": "prod.eu",
            "nats": {
                "pub": {"allow": ["events.prod=2Eeu.>", "tidings.api.DIRECT.GET.X"]},
                "sub": {"allow": ["_INBOX_prod=2Eeu.>"]},
            },
        })));
        assert_eq!(access.member(), Some("prod.eu"));
        assert_eq!(access.inbox_prefix(), Some("_INBOX_prod=2Eeu"));
        assert_eq!(access.api_prefix(), "tidings.api");
        assert!(access.may_publish("events.prod=2Eeu.a.b.c"));
        assert!(!access.may_publish("events.other.a.b.c"));
    }

    #[test]
    fn without_permissions_nothing_is_excluded() {
        let any = credentials(&serde_json::json!({"nats": {"pub": {}, "sub": {}}}));
        for text in [
            any.as_str(),
            "",
            "-----BEGIN NATS USER JWT-----\nx.y.z\n---",
        ] {
            let access = Access::of_credentials(text);
            assert_eq!((access.member(), access.inbox_prefix()), (None, None));
            assert!(access.may_publish("$JS.API.INFO"), "{text}");
            assert_eq!(access.api_prefix(), "$JS.API");
        }
    }

    #[test]
    fn the_expiry_is_that_of_the_jwt() {
        let at = Timestamp::from_second(1_800_000_000).ok();
        let nats = serde_json::json!({"pub": {}, "sub": {}});
        for (claims, expected) in [
            (serde_json::json!({"exp": 1_800_000_000, "nats": nats}), at),
            (serde_json::json!({"exp": 0, "nats": nats}), None),
            (serde_json::json!({"nats": nats}), None),
        ] {
            let access = Access::of_credentials(&credentials(&claims));
            assert_eq!(access.expires_at(), expected, "{claims}");
        }
    }

    #[test]
    fn the_sections_of_a_credentials_file_are_found() {
        let text = credentials(&serde_json::json!({}));
        assert_eq!(section(&text, "USER NKEY SEED"), Some("SECRET"));
        assert_eq!(section(&text, "OTHER"), None);
    }

    #[test]
    fn wildcards_match_as_in_nats() {
        for (filter, subject, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*.c", "a.b.c", true),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
        ] {
            assert_eq!(matches(filter, subject), expected, "{filter} {subject}");
        }
    }
}
