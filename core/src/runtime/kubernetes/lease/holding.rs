//! A Lease that this process holds: renewed, written by compare-and-set, released.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::runtime::codes::log as codes;
use crate::runtime::failpoint;
use crate::runtime::health::Check;

use super::claim;

/// How often the holder renews the Lease.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// A holder that could not renew for this time stops. The rest of the Lease's 15 s is for its work
/// to end.
const RENEW_WITHIN: Duration = Duration::from_secs(9);
/// How long the work may take to end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// How often a write is repeated because another client changed the Lease but not its holder.
const MAX_CONFLICTS: usize = 5;

/// A Lease that this process holds. All clones are the same term.
#[derive(Clone)]
pub struct Leadership(Arc<Holding>);

/// A Lease that was just taken.
pub(super) struct Taken {
    pub(super) lease: Lease,
    /// When the former holder last renewed the Lease.
    pub(super) former: Option<jiff::Timestamp>,
}

struct Holding {
    api: Api<Lease>,
    check: Check,
    /// The Lease as this process last wrote it.
    lease: tokio::sync::Mutex<Lease>,
    former: Option<jiff::Timestamp>,
    /// When the last successful write began.
    renewed: Mutex<Instant>,
    lost: CancellationToken,
    over: CancellationToken,
}

/// A change that a holder writes.
enum Change {
    Renewal,
    /// Renews the Lease and sets annotations.
    Annotations(BTreeMap<String, String>),
    /// Ends the term.
    Release,
}

/// The Lease was not written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another replica holds it, or may hold it.
    #[error("the Lease is lost: another replica may hold it")]
    Lost,
    /// The API server did not answer in time.
    #[error("the API server does not answer")]
    TimedOut,
    /// The API server refused or is unreachable.
    #[error(transparent)]
    Refused(kube::Error),
}

impl Leadership {
    pub(super) fn new(
        api: Api<Lease>,
        taken: Taken,
        check: Check,
        over: CancellationToken,
    ) -> Self {
        Self(Arc::new(Holding {
            api,
            check,
            lease: tokio::sync::Mutex::new(taken.lease),
            former: taken.former,
            renewed: Mutex::new(Instant::now()),
            lost: CancellationToken::new(),
            over,
        }))
    }

    /// Canceled when the work must end, because the Lease is lost or the process stops.
    pub fn over(&self) -> &CancellationToken {
        &self.0.over
    }

    /// When the former holder last renewed the Lease, by its own clock. `None` if it released the
    /// Lease, because its work ended normally.
    pub fn former_holder_seen(&self) -> Option<jiff::Timestamp> {
        self.0.former
    }

    /// The Lease's annotations, as this holder knows them.
    pub async fn annotations(&self) -> BTreeMap<String, String> {
        self.0
            .lease
            .lock()
            .await
            .metadata
            .annotations
            .clone()
            .unwrap_or_default()
    }

    /// Adds annotations to the Lease.
    ///
    /// # Guarantees
    /// Writes by compare-and-set, so never after another replica has taken the Lease.
    ///
    /// # Errors
    /// The annotations might not be written.
    pub async fn annotate(&self, annotations: BTreeMap<String, String>) -> Result<(), LeaseError> {
        self.write(&Change::Annotations(annotations)).await
    }

    /// Runs the work and renews the Lease meanwhile. Then releases it, unless it is lost.
    pub(super) async fn serve(&self, work: impl Future<Output = ()>) {
        tokio::pin!(work);
        let has_ended = tokio::select! {
            () = &mut work => true,
            () = self.renew_until_over() => false,
        };
        if !has_ended && timeout(END_WITHIN, work).await.is_err() {
            tracing::warn!(
                code = codes::LEADER_TASK_ABORTED,
                "leader task did not stop in time and was aborted"
            );
        }
        self.0.over.cancel();
        if let Err(error) = self.write(&Change::Release).await {
            tracing::debug!(
                code = codes::LEASE_NOT_RELEASED,
                %error,
                "Lease not released; it expires"
            );
        }
        self.0.lost.cancel();
    }

    async fn renew_until_over(&self) {
        loop {
            tokio::select! {
                () = self.0.over.cancelled() => return,
                () = tokio::time::sleep(RENEW_EVERY / 10) => {}
            }
            let silent_for = self.silent_for();
            if silent_for >= RENEW_WITHIN {
                tracing::warn!(
                    code = codes::LEASE_LOST,
                    silent_seconds = silent_for.as_secs(),
                    "Lease not renewed in time and considered lost"
                );
                self.lose();
                return;
            }
            if silent_for >= RENEW_EVERY {
                match timeout(RENEW_WITHIN - silent_for, self.write(&Change::Renewal))
                    .await
                    .unwrap_or(Err(LeaseError::TimedOut))
                {
                    Ok(()) => self.0.check.succeed(),
                    Err(LeaseError::Lost) => return,
                    Err(error) => {
                        tracing::warn!(
                            code = codes::LEASE_NOT_RENEWED,
                            %error,
                            "Lease not renewed, retrying"
                        );
                        self.0
                            .check
                            .fail(format!("cannot renew the Lease: {error}"));
                    }
                }
            }
        }
    }

    /// Writes the Lease by compare-and-set. If another client changed it, for example with
    /// `kubectl annotate`, it is read and written again.
    async fn write(&self, change: &Change) -> Result<(), LeaseError> {
        let [before, after] = change.fail_points();
        let mut lease = self.0.lease.lock().await;
        for _ in 0..MAX_CONFLICTS {
            if self.0.lost.is_cancelled() {
                return Err(LeaseError::Lost);
            }
            let changed = change.of(&lease);
            let began = Instant::now();
            let name = changed.metadata.name.clone().unwrap_or_default();
            failpoint::reach_for(before, &name);
            match with_timeout(self.0.api.replace(&name, &PostParams::default(), &changed)).await {
                Ok(written) => {
                    failpoint::reach_for(after, &name);
                    *lease = written;
                    *self.0.renewed.lock() = began;
                    return Ok(());
                }
                Err(LeaseError::Refused(kube::Error::Api(status)))
                    if matches!(status.code, 404 | 409) =>
                {
                    *lease = self.read_again(&name, &lease).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(LeaseError::TimedOut)
    }

    /// Reads the Lease, if this process still holds it. A Lease that went back to an earlier state
    /// is lost, because its annotations must be read again, as at the start of a term.
    async fn read_again(&self, name: &str, ours: &Lease) -> Result<Lease, LeaseError> {
        let found = with_timeout(self.0.api.get_opt(name)).await?;
        let is_ours = |lease: &Lease| {
            let versions = [lease, ours].map(|lease| lease.metadata.resource_version.as_deref());
            let terms = lease.spec.as_ref().zip(ours.spec.as_ref());
            let is_same = terms.is_some_and(|(is, was)| claim::is_same_term(is, was));
            is_same && !claim::is_older(versions[0], versions[1])
        };
        found.filter(is_ours).ok_or_else(|| {
            self.lose();
            LeaseError::Lost
        })
    }

    fn lose(&self) {
        self.0.lost.cancel();
        self.0.over.cancel();
    }

    fn silent_for(&self) -> Duration {
        self.0.renewed.lock().elapsed()
    }
}

// === impl Change ===

impl Change {
    /// Returns the changed Lease.
    fn of(&self, lease: &Lease) -> Lease {
        let mut changed = lease.clone();
        if let Self::Release = self {
            changed.spec = changed.spec.as_ref().map(claim::released);
            return changed;
        }
        if let Self::Annotations(annotations) = self {
            changed
                .metadata
                .annotations
                .get_or_insert_default()
                .extend(annotations.clone());
        }
        changed.spec.get_or_insert_default().renew_time = Some(MicroTime(jiff::Timestamp::now()));
        changed
    }

    /// The fail points before and after the write.
    fn fail_points(&self) -> [&'static str; 2] {
        match self {
            Self::Renewal => ["lease:renewing", "lease:renewed"],
            Self::Annotations(_) => ["lease:annotating", "lease:annotated"],
            Self::Release => ["lease:returning", "lease:returned"],
        }
    }
}

/// Adds the timeout to a request.
pub(super) async fn with_timeout<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, LeaseError> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(LeaseError::Refused),
        Err(_) => Err(LeaseError::TimedOut),
    }
}
