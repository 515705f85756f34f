//! One of several replicas leads: whoever holds a Lease of the group coordination.k8s.io.
//!
//! ```text
//!  wait ─► take ─► work, renewed every 5 s ─► give back (at the end, or when the work ends)
//!    ▲                      └─ lost: another took it, or the API server was away for 9 s
//!    └──────────────────────┘
//! ```

mod claim;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::health::Check;
use crate::token::hex;

use claim::{Observation, Step};

/// How often the holder says that it is there.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// One that could not say so for this long stops: the rest of the Lease's 15 s is for its work to end.
const RENEW_WITHIN: Duration = Duration::from_secs(9);
/// The work has this long to end after it was told to.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How long one request may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);
/// Before the next try when the API server refuses or is away, and between two holdings.
const PAUSE: Duration = Duration::from_secs(2);
/// So often a write is tried anew when somebody else has changed the Lease but not its holder.
const MOST_CONFLICTS: usize = 5;

/// A wish to lead.
pub struct Election {
    /// The way to the API server.
    pub client: Client,
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name: what is led.
    pub name: String,
    /// Who wants to lead: unique to this process; see [`identity`].
    pub identity: String,
    /// Told whether the Lease can be read and written.
    pub check: Check,
}

/// A Lease in our hands. It can be cloned; all clones are the same holding.
#[derive(Clone)]
pub struct Leadership(Arc<Holding>);

struct Holding {
    api: Api<Lease>,
    check: Check,
    /// As it was last written by us.
    lease: tokio::sync::Mutex<Lease>,
    /// When the latest write that succeeded began.
    renewed: Mutex<Instant>,
    lost: CancellationToken,
    over: CancellationToken,
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

/// A name for this process that no other one has: `<host>_<random digits>`.
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim_end(), hex(&rand::random::<[u8; 8]>()))
}

// === impl Election ===

impl Election {
    /// Waits for the Lease, does the work while it is held, and so on until `stop`.
    ///
    /// # Guarantees
    /// `work` runs in one process at a time, as long as it ends within 5 s of [`Leadership::over`]; then it is dropped. The
    /// Lease is given back when the work ends, so that another need not wait for its 15 s to pass.
    ///
    /// # Assumptions
    /// Clocks of two machines may differ, but run at the same speed.
    pub async fn lead<W: Future<Output = ()>>(&self, stop: &CancellationToken, mut work: impl FnMut(Leadership) -> W) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut observation = Observation::default();
        loop {
            let lease = tokio::select! {
                () = stop.cancelled() => return,
                lease = self.wait(&api, &mut observation) => lease,
            };
            tracing::info!(lease = %self.name, identity = %self.identity, "this replica leads");
            let leadership = Leadership::new(api.clone(), lease, self.check.clone(), stop.child_token());
            leadership.serve(work(leadership.clone())).await;
            tracing::info!(lease = %self.name, "this replica no longer leads");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Looks at the Lease until it can be taken.
    async fn wait(&self, api: &Api<Lease>, observation: &mut Observation) -> Lease {
        loop {
            let pause = match answered(self.try_to_take(api, observation)).await {
                Ok(Ok(lease)) => {
                    self.check.succeed();
                    return lease;
                }
                Ok(Err(wait)) => {
                    self.check.succeed();
                    wait
                }
                Err(error) => {
                    self.tell(&error);
                    PAUSE
                }
            };
            tokio::time::sleep(pause.mul_f64(1.0 + rand::random::<f64>() / 5.0)).await;
        }
    }

    /// The Lease, or how long to wait.
    async fn try_to_take(&self, api: &Api<Lease>, observation: &mut Observation) -> Result<Result<Lease, Duration>, kube::Error> {
        let found = api.get_opt(&self.name).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        if let Step::Wait(wait) = observation.step(spec, &self.identity, Instant::now()) {
            return Ok(Err(wait));
        }
        let spec = Some(claim::taken(spec, &self.identity, jiff::Timestamp::now()));
        let written = match found {
            Some(found) => api.replace(&self.name, &PostParams::default(), &Lease { spec, ..found }).await,
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                api.create(&PostParams::default(), &Lease { metadata, spec }).await
            }
        };
        match written {
            // Another was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Err(PAUSE)),
            written => written.map(Ok),
        }
    }

    fn tell(&self, error: &LeaseError) {
        let trouble = format!("the Lease {}/{} can't be used: {error}", self.namespace, self.name);
        tracing::warn!("{trouble}; trying again");
        self.check.fail(trouble);
    }
}

// === impl Leadership ===

impl Leadership {
    fn new(api: Api<Lease>, lease: Lease, check: Check, over: CancellationToken) -> Self {
        Self(Arc::new(Holding {
            api,
            check,
            lease: tokio::sync::Mutex::new(lease),
            renewed: Mutex::new(Instant::now()),
            lost: CancellationToken::new(),
            over,
        }))
    }

    /// Cancelled when the work is to end: the Lease is lost, or the process stops.
    pub fn over(&self) -> &CancellationToken {
        &self.0.over
    }

    /// The Lease's annotations, as this holder knows them.
    pub async fn annotations(&self) -> BTreeMap<String, String> {
        self.0.lease.lock().await.metadata.annotations.clone().unwrap_or_default()
    }

    /// Sets annotations of the Lease, beside those that are there.
    ///
    /// # Guarantees
    /// They are written by compare-and-set: never after another replica has taken the Lease.
    ///
    /// # Errors
    /// They are not known to be written.
    pub async fn annotate(&self, annotations: BTreeMap<String, String>) -> Result<(), LeaseError> {
        self.write(|lease| {
            lease.metadata.annotations.get_or_insert_default().extend(annotations.clone());
            renew(lease);
        })
        .await
    }

    /// Does the work and renews the Lease meanwhile; gives it back unless it is lost.
    async fn serve(&self, work: impl Future<Output = ()>) {
        tokio::pin!(work);
        let has_ended = tokio::select! {
            () = &mut work => true,
            () = self.renew_until_over() => false,
        };
        if !has_ended && timeout(END_WITHIN, work).await.is_err() {
            tracing::warn!("the work of a leader did not end in time and is broken off");
        }
        self.0.over.cancel();
        let given_back = self.write(|lease| lease.spec = lease.spec.as_ref().map(claim::released)).await;
        if let Err(error) = given_back {
            tracing::debug!(%error, "a Lease was not given back");
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
                tracing::warn!("a Lease could not be renewed for {} s and counts as lost", silent_for.as_secs());
                self.lose();
                return;
            }
            if silent_for >= RENEW_EVERY {
                match timeout(RENEW_WITHIN - silent_for, self.write(renew)).await.unwrap_or(Err(LeaseError::Silent)) {
                    Ok(()) => self.0.check.succeed(),
                    Err(LeaseError::Lost) => return,
                    Err(error) => {
                        tracing::warn!(%error, "a Lease could not be renewed");
                        self.0.check.fail(format!("a Lease could not be renewed: {error}"));
                    }
                }
            }
        }
    }

    /// Writes the Lease by compare-and-set. When somebody has changed it who does not hold it (`kubectl annotate`), it is
    /// read and changed again.
    async fn write(&self, change: impl Fn(&mut Lease)) -> Result<(), LeaseError> {
        let mut lease = self.0.lease.lock().await;
        for _ in 0..MOST_CONFLICTS {
            if self.0.lost.is_cancelled() {
                return Err(LeaseError::Lost);
            }
            let mut changed = lease.clone();
            change(&mut changed);
            let began = Instant::now();
            let name = changed.metadata.name.clone().unwrap_or_default();
            match answered(self.0.api.replace(&name, &PostParams::default(), &changed)).await {
                Ok(written) => {
                    *lease = written;
                    *self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner) = began;
                    return Ok(());
                }
                Err(LeaseError::Refused(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                    *lease = self.read_again(&name, lease.spec.as_ref()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(LeaseError::Silent)
    }

    async fn read_again(&self, name: &str, ours: Option<&LeaseSpec>) -> Result<Lease, LeaseError> {
        let found = answered(self.0.api.get_opt(name)).await?;
        let is_ours = |lease: &Lease| matches!((&lease.spec, ours), (Some(is), Some(was)) if claim::is_same_holding(is, was));
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
        self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

fn renew(lease: &mut Lease) {
    lease.spec.get_or_insert_default().renew_time = Some(MicroTime(jiff::Timestamp::now()));
}

async fn answered<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
    match timeout(ANSWERED_WITHIN, request).await {
        Ok(answer) => answer.map_err(LeaseError::Refused),
        Err(_) => Err(LeaseError::Silent),
    }
}
