//! Issues and revokes the credentials of members and taps: each has an account of its own.

use anyhow::Context as _;
use nkeys::{KeyPair, KeyPairType};

use super::claims::{self, ALL_USERS, Revocations, Seconds};
use super::folder::{member_account, member_credentials, member_key};
use super::permissions::User;
use super::{Fleet, server};
use crate::command::tool::print_line;

/// New credentials.
pub struct Issued {
    pub public_key: String,
}

impl Fleet {
    /// Issues credentials for a member, revokes all earlier ones, also those of a run that failed,
    /// and pushes the account to the server. The new credentials replace the former file last.
    pub(super) async fn issue(&self, name: &str) -> anyhow::Result<Issued> {
        // An older version of Tidings exported less.
        self.push_hub().await?;
        let former = self.revocations(name)?;
        // Another key would be another account, which revokes nothing of the former one.
        if former.is_some() {
            self.check_revocable(name)?;
        }
        let account = self.folder.key(&member_key(name), KeyPairType::Account)?;
        let now = jiff::Timestamp::now().as_second();
        let mut revocations = former.unwrap_or_default();
        revoke_all(&mut revocations, now);
        let at = issue_time(&revocations, now);
        let user = self.guest(name)?;
        let key = KeyPair::new_user();
        let jwt = claims::user(&account, &key.public_key(), name, &user, at)?;
        self.push_member(&account, name, &revocations, now).await?;
        let text = claims::credentials(&jwt, &key.seed()?);
        self.folder.write(&member_credentials(name), &text)?;
        Ok(Issued {
            public_key: key.public_key(),
        })
    }

    /// Revokes all users of a member's account.
    pub(super) async fn revoke(&self, name: &str) -> anyhow::Result<()> {
        let account = self.folder.existing_key(&member_key(name))?;
        let now = jiff::Timestamp::now().as_second();
        let mut revocations = self.revocations(name)?.unwrap_or_default();
        revoke_all(&mut revocations, now);
        self.push_member(&account, name, &revocations, now).await
    }

    /// Pushes the account of a member with what is revoked already. Returns when valid credentials
    /// can be issued.
    pub(super) async fn push_again(&self, name: &str) -> anyhow::Result<Seconds> {
        let account = self.folder.existing_key(&member_key(name))?;
        let now = jiff::Timestamp::now().as_second();
        let revocations = self.revocations(name)?.with_context(|| {
            format!(
                "{} does not exist, and so it is not known what is revoked: `tidings fleet rotate \
                 {name}` revokes all earlier credentials and issues new ones",
                member_account(name)
            )
        })?;
        self.push_member(&account, name, &revocations, now).await?;
        Ok(issue_time(&revocations, now))
    }

    /// What is revoked. `None` if the account was never pushed, or its file is lost.
    fn revocations(&self, name: &str) -> anyhow::Result<Option<Revocations>> {
        let file = member_account(name);
        let Some(jwt) = self.folder.read(&file)? else {
            return Ok(None);
        };
        let revocations = claims::revocations(&jwt);
        let revocations = revocations.with_context(|| {
            format!("{file} is not the JWT of an account: put the file back from a backup")
        })?;
        Ok(Some(revocations))
    }

    async fn push_member(
        &self,
        account: &KeyPair,
        name: &str,
        revocations: &Revocations,
        at: Seconds,
    ) -> anyhow::Result<()> {
        let operator = self.folder.existing_key("operator")?;
        let user = self.guest(name)?;
        let claim_of = match user {
            User::Tap(..) => claims::tap,
            _ => claims::member,
        };
        let claim = claim_of(
            &operator,
            &account.public_key(),
            name,
            &self.description.hub,
            &user.services(),
            revocations,
            at,
        )?;
        // A revocation that was pushed must never be forgotten.
        self.folder.write(&member_account(name), &claim)?;
        server::push(&self.system().await?, claim).await
    }

    pub(super) fn print_issued(&self, name: &str) -> anyhow::Result<()> {
        let file = self.folder.path(&member_credentials(name))?;
        print_line(&format!(
            "{}: pass it to `tidings ingest --cluster {name}` as nats.credentials",
            file.display()
        ))?;
        Ok(())
    }
}

/// Revokes all credentials. Those of this second may have been issued in advance.
fn revoke_all(revocations: &mut Revocations, now: Seconds) {
    revocations.insert(ALL_USERS.to_owned(), issue_time(revocations, now));
}

/// When new credentials are issued: after everything that is revoked for all users.
fn issue_time(revocations: &Revocations, now: Seconds) -> Seconds {
    let revoked = revocations.get(ALL_USERS).copied();
    revoked.map_or(now, |revoked| now.max(revoked + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_credentials_are_issued_after_a_revocation_of_the_same_second() {
        let mut revocations = Revocations::new();
        assert_eq!(issue_time(&revocations, 5), 5);
        revocations.insert(ALL_USERS.to_owned(), 5);
        assert_eq!(issue_time(&revocations, 5), 6);
        assert_eq!(issue_time(&revocations, 9), 9);
    }
}
