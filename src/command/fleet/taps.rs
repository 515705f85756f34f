//! Taps: readers of the events of a filter. Each has a NATS account of its own, as members have.
//!
//! A tap is no cluster: it has no record on the hub. The folder of the fleet describes it in
//! `taps/NAME.json`, beside the key of its account.

pub mod permissions;

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidings_core::bus::streams::EVENTS;
use tidings_core::model::tap_access::{TapAccess, check_filter};
use tidings_core::model::token::Token;

use super::folder::member_credentials;
use super::holders::Kind;
use super::members::check_member_name;
use super::permissions::{User, exports};
use super::remove::RemoveArguments;
use super::{Fleet, FleetLocation, claims, server};
use crate::audit::{ManualAction, record_of_tool};
use crate::command::Output;
use crate::command::list::Row;
use crate::command::tool::print_line;

/// Arguments of `tidings fleet add-tap`.
#[derive(Args, Debug)]
pub struct AddTapArguments {
    #[command(flatten)]
    location: FleetLocation,
    /// Name of the tap
    name: String,
    /// Subjects of the events that it may read, such as 'events.prod-eu.>' or
    /// 'events.*.*.*.error'; or pass --cluster
    #[arg(long, value_name = "SUBJECT", required_unless_present = "cluster")]
    filter: Option<String>,
    /// Cluster whose events it may read, in place of --filter
    #[arg(long, value_name = "NAME", conflicts_with = "filter")]
    cluster: Option<String>,
}

/// The file of a tap.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tap {
    /// The name.
    pub name: String,
    /// The subjects of the events that it may read.
    pub filter: String,
    /// When it was added.
    pub added_at: Timestamp,
    /// The public key of its credentials.
    #[serde(default)]
    pub public_key: String,
    /// When its credentials were revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// A tap of an open fleet.
pub struct FleetTap {
    fleet: Fleet,
    tap: Tap,
}

/// Adds a tap. A run that failed can be repeated.
///
/// # Errors
/// The name is in use, the filter is invalid, or the server or folder cannot be used.
pub async fn add(arguments: &AddTapArguments) -> anyhow::Result<()> {
    let name = &arguments.name;
    check_member_name(name)?;
    let filter = filter(arguments)?;
    let fleet = Fleet::open_to_change(&arguments.location)?;
    // A run that failed left a tap without a key.
    let former = fleet.tap(name)?;
    ensure!(
        former.is_none_or(|tap| !tap.is_issued()),
        "tap {name} exists: `tidings fleet rotate {name}` issues new credentials"
    );
    let records = fleet.records_for("fleet-add-tap", name).await?;
    let taken = fleet.check_not_taken(&records, Kind::Tap, name);
    taken.await?;
    fleet.push_hub().await?;
    let tap = Tap {
        name: name.clone(),
        filter,
        added_at: Timestamp::now(),
        public_key: String::new(),
        revoked_at: None,
    };
    fleet.write_tap(&tap)?;
    FleetTap { fleet, tap }.rotate().await
}

fn filter(arguments: &AddTapArguments) -> anyhow::Result<String> {
    let filter = match (&arguments.filter, &arguments.cluster) {
        (Some(filter), _) => filter.clone(),
        (None, Some(cluster)) => format!("events.{}.>", Token::new(cluster)),
        (None, None) => String::new(),
    };
    check_filter(&filter).map_err(|expected| anyhow!("--filter {filter:?}: {expected}"))?;
    Ok(filter)
}

/// Finds a tap by its name. `None` if there is none: it may be a cluster.
///
/// # Errors
/// The folder cannot be used.
pub fn find(location: &FleetLocation, name: &str) -> anyhow::Result<Option<FleetTap>> {
    let fleet = Fleet::open_to_change(location)?;
    let tap = fleet.tap(name)?;
    Ok(tap.map(|tap| FleetTap { fleet, tap }))
}

/// A row for each tap.
///
/// # Errors
/// The folder cannot be read.
pub fn rows(fleet: &Fleet) -> anyhow::Result<Vec<Row>> {
    Ok(fleet.taps()?.iter().map(Tap::row).collect())
}

impl Tap {
    /// Whether credentials were issued. A run of `add-tap` that failed leaves a tap without.
    pub fn is_issued(&self) -> bool {
        !self.public_key.is_empty()
    }

    /// What its credentials permit.
    pub fn user(&self) -> User {
        User::Tap(self.name.clone(), self.filter.clone())
    }

    fn text_line(&self) -> String {
        let credentials = match self.revoked_at {
            Some(at) => format!("revoked {at:.3}"),
            None => "valid".to_owned(),
        };
        format!("tap {} {credentials}, filter {}", self.name, self.filter)
    }

    fn row(&self) -> Row {
        let credentials = match self.revoked_at {
            Some(_) => "revoked",
            None => "valid",
        };
        Row {
            line: self.text_line(),
            cells: vec![
                "tap".to_owned(),
                self.name.clone(),
                credentials.to_owned(),
                self.filter.clone(),
                String::new(),
            ],
            json: self.json(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "kind": "tap",
            "name": self.name,
            "filter": self.filter,
            "addedAt": format!("{:.3}", self.added_at),
            "publicKey": self.public_key,
            "revokedAt": self.revoked_at.map(|at| format!("{at:.3}")),
        })
    }
}

impl FleetTap {
    /// Issues new credentials, and revokes the former ones.
    ///
    /// # Errors
    /// The server or folder cannot be used.
    pub async fn rotate(mut self) -> anyhow::Result<()> {
        let name = &self.tap.name;
        if self.tap.is_issued() {
            self.fleet.check_revocable(name)?;
            self.fleet.note("fleet-rotate", name).await;
        }
        let issued = self.fleet.issue(name).await?;
        self.tap.public_key = issued.public_key;
        self.tap.revoked_at = None;
        self.fleet.write_tap(&self.tap)?;
        let file = self.fleet.folder.path(&member_credentials(name))?;
        let consumers = TapAccess::new(name, &self.tap.filter).consumers;
        print_line(&format!(
            "{}: credentials for `tidings tap`, or for consumers {} with the filter {}",
            file.display(),
            consumers.join(", "),
            self.tap.filter
        ))?;
        Ok(())
    }

    /// Revokes all credentials.
    ///
    /// # Errors
    /// The server or folder cannot be used.
    pub async fn revoke(mut self) -> anyhow::Result<()> {
        let name = &self.tap.name;
        self.fleet.note("fleet-revoke", name).await;
        self.fleet.revoke(name).await?;
        self.tap.revoked_at = Some(Timestamp::now());
        self.fleet.write_tap(&self.tap)?;
        print_line(&format!("credentials of tap {} revoked", self.tap.name))?;
        Ok(())
    }

    /// Removes the tap, if that is confirmed.
    ///
    /// # Errors
    /// --yes is missing, or the server or folder cannot be used.
    pub async fn remove(self, arguments: &RemoveArguments) -> anyhow::Result<()> {
        let (tap, is_json) = (self.tap.clone(), arguments.output == Output::Json);
        if arguments.yes {
            self.retire().await?;
        }
        let line = match (is_json, arguments.yes) {
            (true, done) => {
                let mut report = tap.json();
                report["done"] = json!(done);
                report.to_string()
            }
            (false, true) => format!("tap {} removed", tap.name),
            (false, false) => tap.text_line(),
        };
        print_line(&line)?;
        ensure!(
            arguments.yes || arguments.dry_run,
            "nothing was changed: pass --yes to remove tap {}, or --dry-run",
            tap.name
        );
        Ok(())
    }

    /// Revokes all credentials, deletes the consumers, and forgets the tap.
    async fn retire(self) -> anyhow::Result<()> {
        let name = &self.tap.name;
        // A run of `add-tap` that failed left a tap without an account.
        if self.tap.is_issued() || self.fleet.has_account(name)? {
            self.fleet.check_revocable(name)?;
            self.fleet.revoke(name).await?;
        }
        let bus = self.fleet.bus().await?;
        record_of_tool(&bus, ManualAction::on("fleet-remove", name)).await;
        let stream = bus.jetstream().get_stream_no_info(EVENTS).await?;
        for consumer in TapAccess::new(name, &self.tap.filter).consumers {
            // Most of them do not exist.
            let _ = stream.delete_consumer(&consumer).await;
        }
        self.fleet.folder.remove(&member_credentials(name))?;
        self.fleet.folder.remove(&file(name))?;
        Ok(())
    }
}

impl Fleet {
    /// The tap with a name, if there is one.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn tap(&self, name: &str) -> anyhow::Result<Option<Tap>> {
        let Some(text) = self.folder.read(&file(name))? else {
            return Ok(None);
        };
        let tap = serde_json::from_str(&text);
        let tap = tap.with_context(|| format!("{} is invalid", file(name)))?;
        Ok(Some(tap))
    }

    /// All taps, by name.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn taps(&self) -> anyhow::Result<Vec<Tap>> {
        let folder = self.folder.path(FOLDER)?;
        let Ok(files) = folder.read_dir() else {
            return Ok(Vec::new());
        };
        let mut taps = Vec::new();
        for file in files {
            let path = file?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let text = std::fs::read(&path)?;
                let tap: Tap = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is invalid", path.display()))?;
                taps.push(tap);
            }
        }
        taps.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(taps)
    }

    /// Taps whose filter names a cluster, with the filter.
    ///
    /// # Errors
    /// A file cannot be read.
    pub(super) fn taps_of(&self, cluster: &str) -> anyhow::Result<Vec<(String, String)>> {
        let token = Token::new(cluster).to_string();
        let is_named = |tap: &Tap| tap.filter.split('.').nth(1) == Some(token.as_str());
        let taps = self.taps()?.into_iter().filter(is_named);
        Ok(taps.map(|tap| (tap.name, tap.filter)).collect())
    }

    /// The user of an account that is not the hub's: a tap, or a member.
    pub(super) fn guest(&self, name: &str) -> anyhow::Result<User> {
        let tap = self.tap(name)?;
        Ok(tap.map_or_else(|| User::Member(name.to_owned()), |tap| tap.user()))
    }

    fn write_tap(&self, tap: &Tap) -> anyhow::Result<()> {
        let folder = self.folder.path(FOLDER)?;
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let text = serde_json::to_string_pretty(tap)?;
        self.folder.write(&file(&tap.name), &format!("{text}\n"))
    }

    /// Pushes the hub's account: one of an older version exports too little for taps.
    pub(super) async fn push_hub(&self) -> anyhow::Result<()> {
        let operator = self.folder.existing_key("operator")?;
        let (account, storage) = (&self.description.hub, self.description.storage);
        let (revoked, at) = (&self.description.revoked, Timestamp::now().as_second());
        let claim = claims::hub(&operator, account, &exports(), storage, revoked, at)?;
        server::push(&self.system().await?, claim).await
    }
}

/// The folder of the files.
const FOLDER: &str = "taps";

/// Tokens contain no characters that are special in paths.
fn file(name: &str) -> String {
    format!("{FOLDER}/{}.json", Token::new(name))
}
