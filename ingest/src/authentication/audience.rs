//! The audiences that a token names, read without checking the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

#[derive(Deserialize)]
struct Claims {
    aud: Names,
}

/// One name or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    One(String),
    Several(Vec<String>),
}

/// Whether a text has the form of a service account's token (a JSON Web Token, as base64url with
/// three parts) and names one of the audiences. The signature is not checked.
pub(super) fn is_named(token: &str, audiences: &[String]) -> bool {
    let parts: Vec<_> = token.splitn(4, '.').collect();
    let [header, claims, signature] = parts[..] else {
        return false;
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let is_decodable = |part: &str| decode(part).is_some_and(|bytes| !bytes.is_empty());
    if !is_decodable(header) || !is_decodable(signature) {
        return false;
    }
    let claims = decode(claims).and_then(|bytes| serde_json::from_slice::<Claims>(&bytes).ok());
    claims.is_some_and(|claims| match claims.aud {
        Names::One(name) => audiences.contains(&name),
        Names::Several(names) => names.iter().any(|name| audiences.contains(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_web_token_that_names_one_of_the_audiences_is_worth_a_review() {
        let audiences = ["tidings".to_owned(), "ci".to_owned()];
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        for claims in [
            r#"{"aud":"ci"}"#,
            r#"{"iss":"x","aud":["other","tidings"],"exp":1}"#,
        ] {
            assert!(is_named(&token(claims), &audiences), "{claims}");
        }
        let deep = "[".repeat(5000);
        for claims in [
            "",
            "{}",
            "[]",
            r#"{"aud":[]}"#,
            r#"{"aud":7}"#,
            r#"{"aud":"other"}"#,
            r#"{"aud":["tidings"]"#,
            &deep,
        ] {
            assert!(!is_named(&token(claims), &audiences), "{claims}");
        }
        let valid = token(r#"{"aud":"tidings"}"#);
        let shortened = valid.replace(".c2ln", "");
        for other in [
            "",
            "opaque",
            "..",
            "e30.e30.e30.e30",
            &shortened,
            &format!("{valid}="),
        ] {
            assert!(!is_named(other, &audiences), "{other}");
        }
    }
}
