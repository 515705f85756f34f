//! `tidings fleet update`: issues again what was issued by an older version of Tidings.

use anyhow::{Context as _, ensure};
use clap::Args;
use futures::TryStreamExt as _;
use nkeys::KeyPair;
use tidings_core::bus::streams::EVENTS;
use tidings_core::model::access::section;

use super::claims::{self, Seconds};
use super::folder::{member_credentials, member_key};
use super::permissions::User;
use super::taps::Tap;
use super::{Fleet, FleetLocation, members};
use crate::command::tool::{count, print_line};

/// Arguments of `tidings fleet update`.
#[derive(Args, Debug)]
pub struct UpdateArguments {
    #[command(flatten)]
    location: FleetLocation,
}

/// Pushes all accounts, and issues all valid credentials again with the same keys. The former files
/// stay valid, with the permissions that they have. One that fails does not stop the others.
///
/// # Errors
/// The server or folder cannot be used, or credentials of a user could not be issued; each such
/// error is printed.
pub async fn run(arguments: &UpdateArguments) -> anyhow::Result<()> {
    let fleet = Fleet::open_to_change(&arguments.location)?;
    let mut failures = Failures::default();
    fleet.update_hub(&mut failures).await?;
    let records = fleet.records_for("fleet-update", "all").await?;
    let clusters = records.all().await?;
    for cluster in clusters.values() {
        let user = User::Member(cluster.name.clone());
        let is_valid = cluster.revoked_at.is_none();
        let updated = fleet.update_guest(&cluster.name, &user, is_valid).await;
        failures.note("cluster", &cluster.name, updated);
        // Since version 0.1.
        let bound = members::change(&records, &cluster.name, |cluster| {
            cluster.binds_ids = true;
            Ok(())
        });
        failures.note("cluster", &cluster.name, bound.await.map(drop));
    }
    let taps: Vec<_> = fleet.taps()?.into_iter().filter(Tap::is_issued).collect();
    for tap in &taps {
        let is_valid = tap.revoked_at.is_none();
        let updated = fleet.update_guest(&tap.name, &tap.user(), is_valid).await;
        failures.note("tap", &tap.name, updated);
    }
    for name in fleet.delete_pushing_consumers().await? {
        print_line(&format!("deleted consumer {name} of EVENTS: it pushed"))?;
    }
    failures.check()?;
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

/// The users whose update failed.
#[derive(Default)]
pub struct Failures(usize);

impl Failures {
    /// Prints an error, and counts it.
    pub fn note(&mut self, kind: &str, name: &str, updated: anyhow::Result<()>) {
        if let Err(error) = updated {
            eprintln!("error: {kind} {name}: {error:#}");
            self.0 += 1;
        }
    }

    /// Fails if there was an error.
    ///
    /// # Errors
    /// There was one.
    pub fn check(&self) -> anyhow::Result<()> {
        let users = count(self.0, "user");
        ensure!(
            self.0 == 0,
            "{users} not updated, all others are: repair what the errors above name, and run \
             `tidings fleet update` again"
        );
        Ok(())
    }
}

impl Fleet {
    /// Issues the credentials of the hub's account again.
    ///
    /// # Errors
    /// The account cannot be pushed.
    pub(super) async fn update_hub(&self, failures: &mut Failures) -> anyhow::Result<()> {
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
            let issued = self.issue_again(&hub, &file, (&name, &user), at);
            failures.note("worker", &name, issued);
        }
        for (name, user) in User::HUB {
            let file = format!("creds/{name}.creds");
            let issued = self.issue_again(&hub, &file, (name, &user), at);
            failures.note("user", name, issued);
        }
        Ok(())
    }

    /// Pushes the account of a cluster or tap, and issues its credentials again if they are valid.
    async fn update_guest(&self, name: &str, user: &User, is_valid: bool) -> anyhow::Result<()> {
        let at = self.push_again(name).await?;
        if is_valid {
            let account = self.folder.existing_key(&member_key(name))?;
            self.issue_again(&account, &member_credentials(name), (name, user), at)?;
        }
        Ok(())
    }

    /// Deletes consumers of members and taps that push. Older versions let them create some.
    async fn delete_pushing_consumers(&self) -> anyhow::Result<Vec<String>> {
        let events = self.bus().await?;
        let events = events.jetstream().get_stream(EVENTS).await?;
        let (mut pushing, mut consumers) = (Vec::new(), events.consumers());
        while let Some(info) = consumers.try_next().await? {
            let is_of_guest = ["tap-", "ingest-"]
                .iter()
                .any(|prefix| info.name.starts_with(prefix));
            if is_of_guest && info.config.deliver_subject.is_some() {
                pushing.push(info.name);
            }
        }
        for name in &pushing {
            events.delete_consumer(name).await?;
        }
        Ok(pushing)
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
