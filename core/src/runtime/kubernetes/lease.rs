//! Leader election: the replica that holds a Lease (`coordination.k8s.io`) leads.
//!
//! ```text
//!  wait ─► take ─► work, renewed every 5 s ─► release (at shutdown, or when the work ends)
//!    ▲                      │ lost: another replica took it, or no renewal succeeded for 9 s
//!    └──────────────────────┘
//! ```

mod claim;
mod holding;

use std::future::Future;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::model::jitter::jitter;
use crate::model::token::hex;
use crate::runtime::codes::log as codes;
use crate::runtime::failpoint;
use crate::runtime::health::Check;

use claim::{Observation, Step};
pub use holding::{Leadership, LeaseError};
use holding::{Taken, with_timeout};

/// The pause after a first error of the API server, after a conflict, and between two terms.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause while the API server fails.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// A replica that takes part in an election.
pub struct Election {
    /// The client of the API server.
    pub client: Client,
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The name of this replica, unique to the process. See [`identity`].
    pub identity: String,
    /// Succeeds while the Lease can be read and written.
    pub check: Check,
}

/// Creates a unique name for this process: `<host>_<random digits>`.
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim_end(), hex(&rand::random::<[u8; 8]>()))
}

// === impl Election ===

impl Election {
    /// Waits for the Lease and runs `work` while it is held, again and again until `stop`.
    ///
    /// # Guarantees
    /// `work` runs in one process at a time. It must end within 5 s of [`Leadership::over`], else
    /// it is dropped. The Lease is released when the work ends, so that the next leader does not
    /// wait until it expires.
    ///
    /// # Assumptions
    /// The clocks of two machines may differ, but run at the same speed.
    pub async fn lead<W: Future<Output = ()>>(
        &self,
        stop: &CancellationToken,
        mut work: impl FnMut(Leadership) -> W,
    ) {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut observation = Observation::default();
        loop {
            let taken = tokio::select! {
                () = stop.cancelled() => return,
                taken = self.wait(&api, &mut observation) => taken,
            };
            tracing::info!(
                code = codes::LEADERSHIP_ACQUIRED,
                lease = %self.name,
                identity = %self.identity,
                "became leader"
            );
            let leadership =
                Leadership::new(api.clone(), taken, self.check.clone(), stop.child_token());
            leadership.serve(work(leadership.clone())).await;
            tracing::info!(code = codes::LEADERSHIP_LOST, lease = %self.name, "no longer leader");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Waits until the Lease can be taken.
    async fn wait(&self, api: &Api<Lease>, observation: &mut Observation) -> Taken {
        let mut trouble = Trouble::default();
        loop {
            let pause = match with_timeout(self.try_to_take(api, observation)).await {
                Ok(Ok(taken)) => {
                    self.check.succeed();
                    return taken;
                }
                Ok(Err(wait)) => {
                    self.check.succeed();
                    trouble = Trouble::default();
                    wait
                }
                Err(error) => {
                    let (pause, is_new) = trouble.add(&error.to_string());
                    self.report(&error, is_new);
                    pause
                }
            };
            tokio::time::sleep(pause + jitter(pause / 5)).await;
        }
    }

    /// Takes the Lease, or returns how long to wait.
    async fn try_to_take(
        &self,
        api: &Api<Lease>,
        observation: &mut Observation,
    ) -> Result<Result<Taken, Duration>, kube::Error> {
        let found = api.get_opt(&self.name).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        if let Step::Wait(wait) = observation.step(spec, &self.identity, Instant::now()) {
            return Ok(Err(wait));
        }
        let former = spec.and_then(claim::last_seen);
        let spec = Some(claim::taken(spec, &self.identity, jiff::Timestamp::now()));
        failpoint::reach_for("lease:taking", &self.name);
        let written = match found {
            Some(found) => {
                api.replace(&self.name, &PostParams::default(), &Lease { spec, ..found })
                    .await
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                };
                api.create(&PostParams::default(), &Lease { metadata, spec })
                    .await
            }
        };
        match written {
            // Another replica took the Lease first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Err(PAUSE)),
            written => {
                let lease = written?;
                failpoint::reach_for("lease:taken", &self.name);
                Ok(Ok(Taken { lease, former }))
            }
        }
    }

    fn report(&self, error: &LeaseError, is_new: bool) {
        let trouble = format!(
            "cannot use the Lease {}/{}: {error}",
            self.namespace, self.name
        );
        if is_new {
            tracing::warn!(
                code = codes::LEASE_UNAVAILABLE,
                error = %trouble,
                "cannot use the Lease, retrying"
            );
        }
        self.check.fail(trouble);
    }
}

/// Failures in a row.
#[derive(Default)]
struct Trouble {
    latest: Option<String>,
    count: u32,
}

impl Trouble {
    /// Adds a failure. Returns the pause after it, and whether it differs from the one before and
    /// must be logged.
    fn add(&mut self, why: &str) -> (Duration, bool) {
        let pause = PAUSE.saturating_mul(1 << self.count.min(8)).min(MAX_PAUSE);
        self.count = self.count.saturating_add(1);
        let before = self.latest.replace(why.to_owned());
        (pause, before.as_deref() != Some(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_failure_is_logged_and_pauses_grow() {
        let mut trouble = Trouble::default();
        let added =
            ["away", "away", "forbidden", "forbidden", "away", "away"].map(|why| trouble.add(why));
        assert_eq!(
            added.map(|(pause, _)| pause.as_secs()),
            [2, 4, 8, 16, 30, 30]
        );
        assert_eq!(
            added.map(|(_, is_new)| is_new),
            [true, false, true, false, true, false]
        );
    }
}
