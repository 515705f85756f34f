//! One of several replicas leads: whoever holds a Lease of the group coordination.k8s.io.
//!
//! ```text
//!  wait ─► take ─► work, renewed every 5 s ─► give back (at the end, or when the work ends)
//!    ▲                      └─ lost: another took it, or the API server was away for 9 s
//!    └──────────────────────┘
//! ```

mod claim;
mod holding;

use crate::runtime::codes::log as codes;
use std::future::Future;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::model::jitter::jitter;
use crate::model::token::hex;
use crate::runtime::failpoint;
use crate::runtime::health::Check;

use claim::{Observation, Step};
pub use holding::{Leadership, LeaseError};
use holding::{Taken, answered};

/// Before the next try when the API server refuses or is away, and between two holdings.
const PAUSE: Duration = Duration::from_secs(2);

/// The longest pause while the API server refuses or is away.
const MOST_PAUSE: Duration = Duration::from_secs(30);

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
    /// `work` runs in one process at a time, as long as it ends within 5 s of [`Leadership::over`];
    /// then it is dropped. The Lease is given back when the work ends, so that another need not
    /// wait for its 15 s to pass.
    ///
    /// # Assumptions
    /// Clocks of two machines may differ, but run at the same speed.
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
            tracing::info!(code = codes::LEADERSHIP_ACQUIRED, lease = %self.name, identity = %self.identity, "became leader");
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

    /// Looks at the Lease until it can be taken.
    async fn wait(&self, api: &Api<Lease>, observation: &mut Observation) -> Taken {
        let mut trouble = Trouble::default();
        loop {
            let pause = match answered(self.try_to_take(api, observation)).await {
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
                    let (pause, is_news) = trouble.meet(&error.to_string());
                    self.tell(&error, is_news);
                    pause
                }
            };
            tokio::time::sleep(pause + jitter(pause / 5)).await;
        }
    }

    /// The Lease, or how long to wait.
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
            // Another was quicker.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Err(PAUSE)),
            written => {
                let lease = written?;
                failpoint::reach_for("lease:taken", &self.name);
                Ok(Ok(Taken { lease, former }))
            }
        }
    }

    fn tell(&self, error: &LeaseError, is_news: bool) {
        let trouble = format!(
            "the Lease {}/{} can't be used: {error}",
            self.namespace, self.name
        );
        if is_news {
            tracing::warn!(code = codes::LEASE_UNAVAILABLE, %trouble, "cannot use the Lease, retrying");
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
    /// How long to wait after another one, and whether it is to be told: the first is, and each
    /// that is not like the one before.
    fn meet(&mut self, why: &str) -> (Duration, bool) {
        let pause = PAUSE.saturating_mul(1 << self.count.min(8)).min(MOST_PAUSE);
        self.count = self.count.saturating_add(1);
        let before = self.latest.replace(why.to_owned());
        (pause, before.as_deref() != Some(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_when_they_are_news_and_tried_again_after_longer_pauses() {
        let mut trouble = Trouble::default();
        let met =
            ["away", "away", "forbidden", "forbidden", "away", "away"].map(|why| trouble.meet(why));
        assert_eq!(met.map(|(pause, _)| pause.as_secs()), [2, 4, 8, 16, 30, 30]);
        assert_eq!(
            met.map(|(_, is_news)| is_news),
            [true, false, true, false, true, false]
        );
    }
}
