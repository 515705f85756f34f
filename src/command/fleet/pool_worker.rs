//! `tidings fleet add-worker`: credentials for a worker that serves one pool, outside of the hub.

use anyhow::ensure;
use clap::Args;
use nkeys::{KeyPair, KeyPairType};
use tidings_core::model::access::section;

use super::folder::{Description, member_credentials};
use super::holders::Kind;
use super::members::check_member_name;
use super::permissions::User;
use super::{Fleet, FleetLocation, claims, labels};
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

/// Issues credentials for the worker of a pool. A run that failed can be repeated.
///
/// # Errors
/// A name is invalid or taken, or the server or folder cannot be used.
pub async fn add(arguments: &AddArguments) -> anyhow::Result<()> {
    let (name, pool) = (&arguments.name, &arguments.pool);
    check_member_name(name)?;
    labels::check_name(pool).map_err(|_| anyhow::anyhow!("--pool {pool:?}: invalid name"))?;
    let fleet = Fleet::open(&arguments.location)?;
    let mut description = fleet.description.clone();
    ensure!(
        !description.workers.contains_key(name),
        "worker {name} exists: remove it with `tidings fleet remove-worker {name}`"
    );
    ensure!(
        description.workers.len() < MOST_WORKERS,
        "a fleet has at most {MOST_WORKERS} workers of pools"
    );
    let records = fleet.records(&fleet.bus().await?).await?;
    let taken = fleet.check_not_taken(&records, Kind::Worker, name);
    taken.await?;
    let hub = fleet.folder.key("hub", KeyPairType::Account)?;
    let user = User::PoolWorker {
        name: name.clone(),
        pool: pool.clone(),
    };
    let key = KeyPair::new_user();
    let at = jiff::Timestamp::now().as_second();
    let jwt = claims::user(&hub, &key.public_key(), name, &user, at)?;
    let text = claims::credentials(&jwt, &key.seed()?);
    fleet.folder.write(&member_credentials(name), &text)?;
    description.workers.insert(name.clone(), pool.clone());
    fleet.folder.describe(&description)?;
    print_line(&format!(
        "{}: pass it to `tidings worker --pool {pool}` as nats.credentials",
        fleet.folder.path(&member_credentials(name))?.display()
    ))?;
    Ok(())
}

/// Revokes the credentials of a worker. A run that failed can be repeated.
///
/// # Errors
/// The worker does not exist, its credentials file is gone, or the server or folder cannot be used.
pub async fn remove(arguments: &RemoveArguments) -> anyhow::Result<()> {
    let name = &arguments.name;
    let mut fleet = Fleet::open(&arguments.location)?;
    ensure!(
        fleet.description.workers.contains_key(name),
        "worker {name} not found: `fleet.json` lists workers"
    );
    let file = member_credentials(name);
    let text = fleet.folder.read(&file)?;
    let seed = text
        .as_deref()
        .and_then(|text| section(text, "USER NKEY SEED"));
    let key = seed.and_then(|seed| KeyPair::from_seed(seed).ok());
    let Some(key) = key else {
        anyhow::bail!("{file} is needed to revoke worker {name}: put it back, and try again")
    };
    let now = jiff::Timestamp::now().as_second();
    let mut description: Description = fleet.description.clone();
    description.revoked.insert(key.public_key(), now);
    fleet.folder.describe(&description)?;
    fleet.description = description.clone();
    fleet.update_hub().await?;
    description.workers.remove(name);
    fleet.folder.describe(&description)?;
    fleet.folder.remove(&file)?;
    print_line(&format!("credentials of worker {name} revoked"))?;
    Ok(())
}
