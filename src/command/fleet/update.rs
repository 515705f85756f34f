//! `tidings fleet update`: issues again what was issued by an older version of Tidings.

use anyhow::Context as _;
use clap::Args;
use nkeys::KeyPair;
use tidings_core::model::access::section;

use super::claims::{self, Seconds};
use super::folder::{member_credentials, member_key};
use super::permissions::User;
use super::{Fleet, FleetLocation};
use crate::command::tool::{count, print_line};

/// Arguments of `tidings fleet update`.
#[derive(Args, Debug)]
pub struct UpdateArguments {
    #[command(flatten)]
    location: FleetLocation,
}

/// Pushes all accounts, and issues all valid credentials again with the same keys. The former files
/// stay valid, with the permissions that they have.
///
/// # Errors
/// The server or folder cannot be used.
pub async fn run(arguments: &UpdateArguments) -> anyhow::Result<()> {
    let fleet = Fleet::open_to_change(&arguments.location)?;
    fleet.update_hub().await?;
    let records = fleet.records(&fleet.bus().await?).await?;
    let clusters = records.all().await?;
    for cluster in clusters.values() {
        let at = fleet.push_again(&cluster.name).await?;
        if cluster.revoked_at.is_none() {
            let account = fleet.folder.existing_key(&member_key(&cluster.name))?;
            let file = member_credentials(&cluster.name);
            let user = User::Member(cluster.name.clone());
            fleet.issue_again(&account, &file, (&cluster.name, &user), at)?;
        }
    }
    let taps = fleet.taps()?;
    for tap in &taps {
        let at = fleet.push_again(&tap.name).await?;
        if tap.revoked_at.is_none() {
            let account = fleet.folder.existing_key(&member_key(&tap.name))?;
            let file = member_credentials(&tap.name);
            fleet.issue_again(&account, &file, (&tap.name, &tap.user()), at)?;
        }
    }
    let clusters = count(clusters.len(), "cluster");
    let taps = match taps.len() {
        0 => String::new(),
        number => format!(" and {}", count(number, "tap")),
    };
    print_line(&format!(
        "credentials of the hub and of {clusters}{taps} are up to date"
    ))?;
    Ok(())
}

impl Fleet {
    pub(super) async fn update_hub(&self) -> anyhow::Result<()> {
        self.push_hub().await?;
        let hub = self.folder.existing_key("hub")?;
        let at = jiff::Timestamp::now().as_second();
        for (name, worker) in &self.description.workers {
            let (name, pool) = (name.clone(), worker.pool.clone());
            let file = member_credentials(&name);
            let user = User::PoolWorker {
                name: name.clone(),
                pool,
            };
            self.issue_again(&hub, &file, (&name, &user), at)?;
        }
        for (name, user) in User::HUB {
            self.issue_again(&hub, &format!("creds/{name}.creds"), (name, &user), at)?;
        }
        Ok(())
    }

    /// Writes a credentials file again, with the key that is in it. A file that was moved away is
    /// left out.
    fn issue_again(
        &self,
        account: &KeyPair,
        file: &str,
        (name, user): (&str, &User),
        at: Seconds,
    ) -> anyhow::Result<()> {
        let Some(text) = self.folder.read(file)? else {
            eprintln!("{file} does not exist and is ignored");
            return Ok(());
        };
        let seed = section(&text, "USER NKEY SEED").unwrap_or_default();
        let key = KeyPair::from_seed(seed).with_context(|| format!("{file} has no key"))?;
        let jwt = claims::user(account, &key.public_key(), name, user, at)?;
        self.folder.write(file, &claims::credentials(&jwt, seed))
    }
}
