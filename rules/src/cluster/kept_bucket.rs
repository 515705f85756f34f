//! Reads and writes the bucket of [`Kept`](super::kept::Kept) in the background.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, FuturesUnordered, StreamExt};
use tidings_core::bus::extensions::{ExtensionRecords, StoredExtensions};
use tidings_core::bus::records::BucketVersion;
use tidings_core::bus::{Bus, BusError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::kept::Change;

/// The time limit for reading the bucket or writing all changes.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The maximum number of concurrent writes.
const MAX_WRITES: usize = 16;

/// The bucket, with at most one request at a time.
pub(super) struct KeptBucket {
    /// The bus, once it is connected; `None` if nothing is kept.
    bus: Option<watch::Receiver<Option<Bus>>>,
    /// The member of the fleet that the objects are in.
    member: Option<Arc<str>>,
    records: Option<ExtensionRecords>,
    /// The version that was last read.
    version: Option<BucketVersion>,
    running: FuturesUnordered<BoxFuture<'static, BucketResult>>,
    problem: Option<String>,
}

/// The result of a request.
pub(super) enum BucketResult {
    /// All records were read, because the bucket has changed.
    Loaded(Box<ExtensionRecords>, BucketVersion, Vec<StoredExtensions>),
    /// The bucket has not changed.
    Unchanged,
    /// These changes were written, each with its revision; `None` if another process changed the
    /// record. Others may have failed.
    Saved(Vec<(Change, Option<u64>)>, Option<String>),
    /// The bucket cannot be read.
    Failed(String),
}

impl KeptBucket {
    pub(super) fn new(bus: Option<watch::Receiver<Option<Bus>>>, member: Option<Arc<str>>) -> Self {
        Self {
            bus,
            member,
            records: None,
            version: None,
            running: FuturesUnordered::new(),
            problem: None,
        }
    }

    /// Whether anything is kept.
    pub(super) fn is_enabled(&self) -> bool {
        self.bus.is_some()
    }

    /// Why the bucket cannot be used.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Reads the bucket if it has changed since the last read, or in any case. Does nothing while a
    /// request is running.
    pub(super) fn load(&mut self, in_any_case: bool) {
        let Some(bus) = self.bus.clone().filter(|_| self.running.is_empty()) else {
            return;
        };
        let version = self.version.filter(|_| !in_any_case);
        let records = self.records.clone();
        let member = self.member.clone();
        self.running
            .push(load(bus, member, records, version).boxed());
    }

    /// Writes changes, unless a request is running.
    pub(super) fn save(&mut self, changes: Vec<Change>) {
        if let Some(records) = self.records.clone().filter(|_| self.running.is_empty()) {
            self.running.push(save(records, changes).boxed());
        }
    }

    /// The next result; `None` if no request is running. Safe to cancel.
    pub(super) async fn next(&mut self) -> Option<BucketResult> {
        self.running.next().await
    }

    /// Notes the version that was read. Returns whether the bucket was recreated since the last
    /// read.
    pub(super) fn loaded(&mut self, records: ExtensionRecords, version: BucketVersion) -> bool {
        self.records = Some(records);
        let former = self.version.replace(version);
        former.is_some_and(|former| !former.is_same_bucket(&version))
    }

    /// Notes why the last request failed, or that it did not.
    pub(super) fn set_problem(&mut self, problem: Option<String>) {
        self.problem = problem.map(|why| {
            format!(
                "the bucket extensions cannot be used: {why}; changed rules take effect when it \
                 can"
            )
        });
    }
}

async fn load(
    mut bus: watch::Receiver<Option<Bus>>,
    member: Option<Arc<str>>,
    records: Option<ExtensionRecords>,
    version: Option<BucketVersion>,
) -> BucketResult {
    let connected = bus.wait_for(Option::is_some).await.ok();
    let Some(bus) = connected.and_then(|bus| bus.clone()) else {
        return std::future::pending().await;
    };
    let read = async {
        let records = match records {
            Some(records) => records,
            None => ExtensionRecords::open(&bus, member.as_deref()).await?,
        };
        // Before the records, so that a later change is read next time.
        let now = records.version().await?;
        if version == Some(now) {
            return Ok(BucketResult::Unchanged);
        }
        let stored = records.all().await?;
        Ok::<_, BusError>(BucketResult::Loaded(Box::new(records), now, stored))
    };
    let why = match timeout(TIMEOUT, read).await {
        Ok(Ok(result)) => return result,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    sleep(PAUSE).await;
    BucketResult::Failed(why)
}

async fn save(records: ExtensionRecords, changes: Vec<Change>) -> BucketResult {
    let write = |change: Change| {
        let records = &records;
        async move {
            let written = match &change.record {
                Some(record) => records.store(record, change.revision).await,
                None => records.remove(&change.uid).await.map(|()| Some(0)),
            };
            (change, written)
        }
    };
    let writes = stream::iter(changes)
        .map(write)
        .buffer_unordered(MAX_WRITES)
        .collect::<Vec<_>>();
    let mut error = None;
    let mut written = Vec::new();
    match timeout(TIMEOUT, writes).await {
        Ok(writes) => {
            for (change, result) in writes {
                match result {
                    Ok(revision) => written.push((change, revision)),
                    Err(failed) => error = Some(failed.to_string()),
                }
            }
        }
        Err(_) => error = Some("no answer in time".to_owned()),
    }
    if error.is_some() {
        sleep(PAUSE).await;
    }
    BucketResult::Saved(written, error)
}
