//! A Lease in our hands: renewed, written by compare-and-set, given back.

use crate::runtime::codes::log as codes;
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

use crate::runtime::failpoint;
use crate::runtime::health::Check;

use super::claim;

/// How often the holder says that it is there.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// One that could not say so for this long stops: the rest of the Lease's 15 s is for its work to
/// end.
const RENEW_WITHIN: Duration = Duration::from_secs(9);
/// The work has this long to end after it was told to.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How long one request may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);
/// So often a write is tried anew when somebody else has changed the Lease but not its holder.
const MOST_CONFLICTS: usize = 5;

/// A Lease in our hands. It can be cloned; all clones are the same holding.
#[derive(Clone)]
pub struct Leadership(Arc<Holding>);

/// A Lease that was just taken.
pub(super) struct Taken {
    pub(super) lease: Lease,
    /// When the holder before us was last there.
    pub(super) former: Option<jiff::Timestamp>,
}

struct Holding {
    api: Api<Lease>,
    check: Check,
    /// As it was last written by us.
    lease: tokio::sync::Mutex<Lease>,
    former: Option<jiff::Timestamp>,
    /// When the latest write that succeeded began.
    renewed: Mutex<Instant>,
    lost: CancellationToken,
    over: CancellationToken,
}

/// What a holder writes.
enum Change {
    /// That it is there.
    Renewal,
    /// What it knows, and that it is there.
    Annotations(BTreeMap<String, String>),
    /// That nobody holds the Lease.
    Return,
}

/// The Lease could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another holds it, or may hold it by now.
    #[error("the Lease is no longer ours")]
    Lost,
    /// The API server did not answer in time.
    #[error("the API server does not answer")]
    Silent,
    /// The API server refused, or can't be reached.
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

    /// Cancelled when the work is to end: the Lease is lost, or the process stops.
    pub fn over(&self) -> &CancellationToken {
        &self.0.over
    }

    /// When the holder before us was last there, by its own clock; nothing where it gave the Lease
    /// back, and so has ended its work in order.
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

    /// Sets annotations of the Lease, beside those that are there.
    ///
    /// # Guarantees
    /// They are written by compare-and-set: never after another replica has taken the Lease.
    ///
    /// # Errors
    /// They are not known to be written.
    pub async fn annotate(&self, annotations: BTreeMap<String, String>) -> Result<(), LeaseError> {
        self.write(&Change::Annotations(annotations)).await
    }

    /// Does the work and renews the Lease meanwhile; gives it back unless it is lost.
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
        if let Err(error) = self.write(&Change::Return).await {
            tracing::debug!(code = codes::LEASE_NOT_RELEASED, %error, "Lease not released; it expires");
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
                    .unwrap_or(Err(LeaseError::Silent))
                {
                    Ok(()) => self.0.check.succeed(),
                    Err(LeaseError::Lost) => return,
                    Err(error) => {
                        tracing::warn!(code = codes::LEASE_NOT_RENEWED, %error, "Lease not renewed, retrying");
                        self.0
                            .check
                            .fail(format!("a Lease could not be renewed: {error}"));
                    }
                }
            }
        }
    }

    /// Writes the Lease by compare-and-set. When somebody has changed it who does not hold it
    /// (`kubectl annotate`), it is read and changed again.
    async fn write(&self, change: &Change) -> Result<(), LeaseError> {
        let [before, after] = change.fail_points();
        let mut lease = self.0.lease.lock().await;
        for _ in 0..MOST_CONFLICTS {
            if self.0.lost.is_cancelled() {
                return Err(LeaseError::Lost);
            }
            let changed = change.of(&lease);
            let began = Instant::now();
            let name = changed.metadata.name.clone().unwrap_or_default();
            failpoint::reach_for(before, &name);
            match answered(self.0.api.replace(&name, &PostParams::default(), &changed)).await {
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
        Err(LeaseError::Silent)
    }

    /// The Lease as it is now, if it is still ours. One that went back to an earlier state is not:
    /// its annotations are to be taken over, as they are when it is taken.
    async fn read_again(&self, name: &str, ours: &Lease) -> Result<Lease, LeaseError> {
        let found = answered(self.0.api.get_opt(name)).await?;
        let is_ours = |lease: &Lease| {
            let versions = [lease, ours].map(|lease| lease.metadata.resource_version.as_deref());
            let is_same = matches!((&lease.spec, &ours.spec), (Some(is), Some(was)) if claim::is_same_holding(is, was));
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
    /// The Lease with this change.
    fn of(&self, lease: &Lease) -> Lease {
        let mut changed = lease.clone();
        if let Self::Return = self {
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

    /// Before and after it is written.
    fn fail_points(&self) -> [&'static str; 2] {
        match self {
            Self::Renewal => ["lease:renewing", "lease:renewed"],
            Self::Annotations(_) => ["lease:annotating", "lease:annotated"],
            Self::Return => ["lease:returning", "lease:returned"],
        }
    }
}

/// With an end to waiting.
pub(super) async fn answered<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, LeaseError> {
    match timeout(ANSWERED_WITHIN, request).await {
        Ok(answer) => answer.map_err(LeaseError::Refused),
        Err(_) => Err(LeaseError::Silent),
    }
}
