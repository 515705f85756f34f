//! JWTs as nats-server reads them: claims of operators, accounts and users, signed with NKeys.
//!
//! The format: <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt>.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tidings_core::model::access::{API, MEMBER_API};
use tidings_core::model::id::digest;

use super::permissions::{Service, User};

/// No limit.
const UNLIMITED: i64 = -1;
/// The connections that a member or tap may have at the same time.
const MEMBER_CONNECTIONS: i64 = 64;
/// The subscriptions of each.
const MEMBER_SUBSCRIPTIONS: i64 = 1_000;

/// Seconds since 1970.
pub type Seconds = i64;

/// Keys of users that are revoked, each with the time: what was issued until then is invalid. `*`
/// stands for all.
pub type Revocations = BTreeMap<String, Seconds>;

/// Revokes all users of an account.
pub const ALL_USERS: &str = "*";

/// The claim of an operator, signed by itself.
pub fn operator(
    operator: &KeyPair,
    system: &str,
    at: Seconds,
) -> Result<String, nkeys::error::Error> {
    let claim = json!({"type": "operator", "version": 2, "system_account": system});
    sign(operator, &operator.public_key(), "tidings", at, claim)
}

/// The claim of the system account.
pub fn system(
    operator: &KeyPair,
    account: &str,
    at: Seconds,
) -> Result<String, nkeys::error::Error> {
    sign(
        operator,
        account,
        "SYS",
        at,
        account_claim(limits(), json!({})),
    )
}

/// The claim of the hub's account, with JetStream, and what it exports to members. `storage` is a
/// limit in bytes.
pub fn hub(
    operator: &KeyPair,
    account: &str,
    exports: &[(String, bool)],
    storage: Option<u64>,
    revocations: &Revocations,
    at: Seconds,
) -> Result<String, nkeys::error::Error> {
    let storage = storage.map_or(UNLIMITED, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let mut limits = limits();
    for (name, limit) in [
        ("mem_storage", UNLIMITED),
        ("disk_storage", storage),
        ("streams", UNLIMITED),
        ("consumer", UNLIMITED),
    ] {
        limits[name] = limit.into();
    }
    let export = |(subject, has_several_answers): &(String, bool)| {
        json!({
            "name": subject,
            "subject": subject,
            "type": "service",
            "response_type": if *has_several_answers { "Stream" } else { "Singleton" },
        })
    };
    let exports: Vec<_> = exports.iter().map(export).collect();
    let claim = account_claim(
        limits,
        json!({"exports": exports, "revocations": revocations}),
    );
    sign(operator, account, "tidings", at, claim)
}

/// The claim of the account of a member or tap: it can use these services of the hub, and nothing
/// else.
pub fn member(
    operator: &KeyPair,
    account: &str,
    name: &str,
    hub: &str,
    services: &[Service],
    revocations: &Revocations,
    at: Seconds,
) -> Result<String, nkeys::error::Error> {
    let more = json!({"imports": imports(hub, services), "revocations": revocations});
    sign(
        operator,
        account,
        name,
        at,
        account_claim(guest_limits(), more),
    )
}

/// The claim of a tap's account, as [`member`]. Clients of others use JetStream's API without a
/// prefix of ours, so the account maps it.
pub fn tap(
    operator: &KeyPair,
    account: &str,
    name: &str,
    hub: &str,
    services: &[Service],
    revocations: &Revocations,
    at: Seconds,
) -> Result<String, nkeys::error::Error> {
    let to = json!([{"subject": format!("{MEMBER_API}.>"), "weight": 100}]);
    let more = json!({
        "imports": imports(hub, services),
        "revocations": revocations,
        "mappings": {format!("{API}.>"): to},
    });
    sign(
        operator,
        account,
        name,
        at,
        account_claim(guest_limits(), more),
    )
}

fn imports(hub: &str, services: &[Service]) -> Vec<Value> {
    let import = |service: &Service| {
        json!({
            "name": service.local,
            "subject": service.hub,
            "account": hub,
            "local_subject": service.local,
            "type": "service",
        })
    };
    services.iter().map(import).collect()
}

fn guest_limits() -> Value {
    let mut limits = limits();
    limits["conn"] = MEMBER_CONNECTIONS.into();
    limits
}

/// The claim of a user of an account.
pub fn user(
    account: &KeyPair,
    user: &str,
    name: &str,
    permissions: &User,
    at: Seconds,
) -> Result<String, nkeys::error::Error> {
    let subscriptions = match permissions {
        User::Member(_) | User::Tap(..) => MEMBER_SUBSCRIPTIONS,
        _ => UNLIMITED,
    };
    let claim = json!({
        "pub": {"allow": permissions.allowed()},
        "sub": {"allow": permissions.subscribe()},
        "subs": subscriptions,
        "data": UNLIMITED,
        "payload": UNLIMITED,
        "type": "user",
        "version": 2,
    });
    sign(account, user, name, at, claim)
}

/// The claim of the user of the system account with which accounts are pushed to the server.
pub fn system_user(
    account: &KeyPair,
    user: &str,
    at: Seconds,
) -> Result<String, nkeys::error::Error> {
    let claim = json!({
        "pub": {"allow": ["$SYS.REQ.CLAIMS.UPDATE"]},
        "sub": {"allow": ["_INBOX_system.>"]},
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
        "type": "user",
        "version": 2,
    });
    sign(account, user, "system", at, claim)
}

/// The revocations in the claim of an account, which may be none. `None` if the claim cannot be
/// read: then it is not known what is revoked.
pub fn revocations(jwt: &str) -> Option<Revocations> {
    let payload = jwt.trim().split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    serde_json::from_value(claims["nats"]["revocations"].clone()).ok()
}

/// A credentials file.
pub fn credentials(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         ************************* IMPORTANT *************************\n\
         This file holds a secret key. Whoever has it can log in.\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

fn limits() -> Value {
    json!({
        "subs": UNLIMITED,
        "data": UNLIMITED,
        "payload": UNLIMITED,
        "imports": UNLIMITED,
        "exports": UNLIMITED,
        "wildcards": true,
        "conn": UNLIMITED,
        "leaf": UNLIMITED,
    })
}

fn account_claim(limits: Value, more: Value) -> Value {
    let mut claim = json!({"limits": limits, "type": "account", "version": 2});
    if let (Value::Object(claim), Value::Object(more)) = (&mut claim, more) {
        claim.extend(more);
    }
    claim
}

/// Signs a claim about `subject`. Its id is a hash of the rest.
fn sign(
    issuer: &KeyPair,
    subject: &str,
    name: &str,
    at: Seconds,
    claim: Value,
) -> Result<String, nkeys::error::Error> {
    let mut claims = json!({
        "iat": at,
        "iss": issuer.public_key(),
        "name": name,
        "sub": subject,
        "nats": claim,
    });
    claims["jti"] = digest(&[&claims.to_string()]).into();
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let signed = format!("{}.{}", encoded(&header), encoded(&claims));
    let signature = issuer.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocations_survive_in_the_claim_of_an_account() {
        let [operator, account] = [KeyPair::new_operator(), KeyPair::new_account()];
        let revoked: Revocations = [("UABC".to_owned(), 7), (ALL_USERS.to_owned(), 9)].into();
        let account = account.public_key();
        let claim = member(&operator, &account, "dev", "AHUB", &[], &revoked, 1).unwrap();
        assert_eq!(revocations(&claim), Some(revoked));
        let none = member(
            &operator,
            &account,
            "dev",
            "AHUB",
            &[],
            &Revocations::new(),
            1,
        )
        .unwrap();
        assert_eq!(revocations(&none), Some(Revocations::new()));
        let cut = claim.rsplit_once('.').unwrap().0;
        let cut = &cut[..cut.len() - 9];
        let of_user = user_claim(&KeyPair::new_account());
        for unreadable in ["", "no.jwt", cut, &of_user] {
            assert_eq!(revocations(unreadable), None, "{unreadable}");
        }
    }

    fn user_claim(account: &KeyPair) -> String {
        let user = KeyPair::new_user();
        super::user(account, &user.public_key(), "router", &User::Router, 1).unwrap()
    }

    #[test]
    fn a_claim_is_signed_by_its_issuer() {
        let account = KeyPair::new_account();
        let jwt = user_claim(&account);
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(account.verify(signed.as_bytes(), &signature).is_ok());
        assert!(account.verify(b"other", &signature).is_err());
    }
}
