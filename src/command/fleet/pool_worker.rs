//! `tidings fleet add-worker`: credentials for a worker that serves one pool, outside of the hub.

use anyhow::{Context as _, ensure};
use clap::Args;
use nkeys::KeyPair;
use serde_json::json;
use tidings_core::model::access::section;
use tidings_core::runtime::failpoint::reach;

use super::folder::{Description, PoolWorker, member_credentials};
use super::holders::Kind;
use super::members::check_member_name;
use super::permissions::User;
use super::update::Failures;
use super::{Fleet, FleetLocation, claims, labels};
use crate::command::list::Row;
use crate::command::tool::print_line;

/// The most workers of pools in a fleet.
const MOST_WORKERS: usize = 1_000;

/// Arguments of `tidings fleet add-worker`.
#[derive(Args, Debug)]
pub struct AddArguments {
    #[command(flatten)]
    location: FleetLocation,
    /// Name of the worker
    name: String,
    /// Pool that it may serve
    #[arg(long, value_name = "POOL")]
    pool: String,
}

/// Arguments of `tidings fleet remove-worker`.
#[derive(Args, Debug)]
pub struct RemoveArguments {
    #[command(flatten)]
    location: FleetLocation,
    /// Name of the worker
    name: String,
}

/// Issues credentials for the worker of a pool. A run that failed can be repeated; one that was
/// killed may have recorded the worker, which is removed first then.
///
/// # Errors
/// A name is invalid or taken, or the server or folder cannot be used.
pub async fn add(arguments: &AddArguments) -> anyhow::Result<()> {
    let (name, pool) = (&arguments.name, &arguments.pool);
    check_member_name(name)?;
    labels::check_name(pool).map_err(|_| anyhow::anyhow!("--pool {pool:?}: invalid name"))?;
    let fleet = Fleet::open_to_change(&arguments.location)?;
    let mut description = fleet.description.clone();
    ensure!(
        !description.workers.contains_key(name),
        "worker {name} exists: remove it with `tidings fleet remove-worker {name}`"
    );
    ensure!(
        description.workers.len() < MOST_WORKERS,
        "a fleet has at most {MOST_WORKERS} workers of pools"
    );
    let records = fleet.records_for("fleet-add-worker", name).await?;
    let taken = fleet.check_not_taken(&records, Kind::Worker, name);
    taken.await?;
    // Credentials of another account would not be those of a user of the hub.
    let hub = fleet.folder.existing_key("hub")?;
    let user = User::PoolWorker {
        name: name.clone(),
        pool: pool.clone(),
    };
    let key = KeyPair::new_user();
    let at = jiff::Timestamp::now().as_second();
    let jwt = claims::user(&hub, &key.public_key(), name, &user, at)?;
    let text = claims::credentials(&jwt, &key.seed()?);
    // Credentials whose key is not recorded could not be revoked.
    let worker = PoolWorker {
        pool: pool.clone(),
        public_key: Some(key.public_key()),
    };
    description.workers.insert(name.clone(), worker);
    fleet.folder.describe(&description)?;
    reach("fleet:issued");
    fleet.folder.write(&member_credentials(name), &text)?;
    print_line(&format!(
        "{}: pass it to `tidings worker --pool {pool}` as nats.credentials",
        fleet.folder.path(&member_credentials(name))?.display()
    ))?;
    Ok(())
}

/// Revokes the credentials of a worker. A run that failed can be repeated.
///
/// # Errors
/// The worker does not exist, or the server or folder cannot be used. An older version of Tidings
/// did not record its key, and its credentials file is gone.
pub async fn remove(arguments: &RemoveArguments) -> anyhow::Result<()> {
    let name = &arguments.name;
    let mut fleet = Fleet::open_to_change(&arguments.location)?;
    let worker = fleet.description.workers.get(name);
    let worker =
        worker.with_context(|| format!("worker {name} not found: see `tidings fleet list`"))?;
    let file = member_credentials(name);
    let key = match &worker.public_key {
        Some(key) => key.clone(),
        None => fleet.key_of_file(name)?,
    };
    fleet.note("fleet-remove-worker", name).await;
    let now = jiff::Timestamp::now().as_second();
    let mut description: Description = fleet.description.clone();
    description.revoked.insert(key, now);
    fleet.folder.describe(&description)?;
    fleet.description = description.clone();
    // The account that is pushed has the revocation. Credentials of others may not be issued again:
    // that does not matter here, and is printed.
    fleet.update_hub(&mut Failures::default()).await?;
    description.workers.remove(name);
    fleet.folder.describe(&description)?;
    fleet.folder.remove(&file)?;
    print_line(&format!("credentials of worker {name} revoked"))?;
    Ok(())
}

/// A row for each worker.
pub fn rows(fleet: &Fleet) -> Vec<Row> {
    let workers = fleet.description.workers.iter();
    let row = |(name, worker): (&String, &PoolWorker)| Row {
        line: format!("worker {name} valid, pool {}", worker.pool),
        cells: vec![
            "worker".to_owned(),
            name.clone(),
            "valid".to_owned(),
            worker.pool.clone(),
            String::new(),
        ],
        json: json!({
            "kind": "worker",
            "name": name,
            "pool": worker.pool,
            "publicKey": worker.public_key,
        }),
    };
    workers.map(row).collect()
}

impl Fleet {
    /// The public key of a worker that an older version of Tidings added.
    fn key_of_file(&self, name: &str) -> anyhow::Result<String> {
        let file = member_credentials(name);
        let text = self.folder.read(&file)?;
        let seed = text
            .as_deref()
            .and_then(|text| section(text, "USER NKEY SEED"));
        let key = seed.and_then(|seed| KeyPair::from_seed(seed).ok());
        let key = key.with_context(|| {
            format!("{file} is needed to revoke worker {name}: put it back, and try again")
        })?;
        Ok(key.public_key())
    }
}
