//! A process dies at each fail point in a cluster, and another one takes over. Every Event is
//! accounted for.
//!
//! In each run, `up` handles the first Events and terminates. Then each role has its own process,
//! and one of them dies at the fail point. A run fails if the point is not reached.

mod account;
mod balance;

use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tidings_core::runtime::failpoint::CLUSTER_POINTS;
use tidings_rig::{KubeApiServer, Process};

use account::Account;

const KILLED: i32 = 9;
/// The number of concurrent runs. They mostly wait until the Lease of a dead holder expires.
const PARALLEL_RUNS: usize = 6;
/// The count of an Event is written once a minute.
const DIES_WITHIN: Duration = Duration::from_secs(120);

/// The death of a process at a fail point.
#[derive(Clone, Copy, Debug)]
struct Death {
    point: &'static str,
    /// The role that dies.
    role: &'static str,
    /// The argument of the fail point: the name of the role's Lease, or anything.
    about: &'static str,
}

impl Death {
    /// All deaths. The points of a Lease occur once for each role with a Lease.
    fn all() -> Vec<Self> {
        let of = |point: &&'static str| match point.split_once(':') {
            Some(("lease", _)) => vec![
                Self {
                    point,
                    role: "ingest",
                    about: "tidings-events",
                },
                Self {
                    point,
                    role: "router",
                    about: "tidings-status",
                },
            ],
            Some((role, _)) => vec![Self {
                point,
                role,
                about: "",
            }],
            None => panic!("{point} has no role"),
        };
        CLUSTER_POINTS.iter().flat_map(of).collect()
    }

    /// The FAIL_POINT of a role; `None` if another role dies.
    fn of(&self, role: &str) -> Option<String> {
        (role == self.role).then(|| format!("{}@1?{}", self.point, self.about))
    }

    /// Whether the point is about the count of an Event that exists already.
    fn is_of_a_count(&self) -> bool {
        matches!(self.point, "router:counting" | "router:counted")
    }

    /// Whether only a leader that terminates reaches the point.
    fn is_at_the_end(&self) -> bool {
        matches!(self.point, "lease:returning" | "lease:returned")
    }

    async fn happens_to(&self, process: &mut Process) {
        let status = if self.is_at_the_end() {
            process.logs("leadership-acquired").await;
            process.terminate().await
        } else {
            process.ended_within(DIES_WITHIN).await
        };
        assert_eq!(
            status.signal(),
            Some(KILLED),
            "{self:?} was not reached: {status}"
        );
        process.reaches_fail_point(self.point).await;
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_fail_point_in_a_cluster_loses_nothing() {
    let server = KubeApiServer::shared().await;
    let deaths = Death::all();
    let run = |death: Death| async move {
        AssertUnwindSafe(dies_at(server, death))
            .catch_unwind()
            .await
            .err()
            .map(|_| death)
    };
    let runs = futures::stream::iter(deaths.clone())
        .map(run)
        .buffer_unordered(PARALLEL_RUNS);
    let failed: Vec<Death> = runs.filter_map(async |failed| failed).collect().await;
    assert!(
        failed.is_empty(),
        "{failed:?} of {} deaths failed; see the output above",
        deaths.len()
    );
}

async fn dies_at(server: &KubeApiServer, death: Death) {
    let mut account = Account::open(server).await;
    let mut first = account.spawn("up", None);
    account.create_early(&first).await;
    assert!(
        first.terminate().await.success(),
        "{death:?}: the first leader ends cleanly"
    );

    let [mut ingest, mut router, _worker] =
        ["ingest", "router", "worker"].map(|role| account.spawn(role, death.of(role)));
    account.create_late().await;
    if death.is_of_a_count() {
        account.create_again().await;
    }
    death
        .happens_to(if death.role == "ingest" {
            &mut ingest
        } else {
            &mut router
        })
        .await;

    account.create_without_leader().await;
    let successor = account.spawn(death.role, None);
    successor.logs("leadership-acquired").await;
    account.balances(&death).await;
}
