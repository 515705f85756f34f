//! Every fail point in a cluster in turn, from the list in the code: the process that reaches it
//! dies there, another one begins, and the account is settled.
//!
//! Each run is the same: `up` takes early Events and ends in order; then each role is a process of
//! its own, of which one is armed. A point that is not reached fails its run.

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
/// So many runs go on at once: they mostly wait for the Lease of a dead holder to end.
const SIDE_BY_SIDE: usize = 6;
/// What is counted up is written once a minute.
const DIES_WITHIN: Duration = Duration::from_secs(120);

/// Who dies where.
#[derive(Clone, Copy, Debug)]
struct Death {
    point: &'static str,
    /// The role that is armed.
    role: &'static str,
    /// What the point has to be about: the role's own Lease, or anything.
    about: &'static str,
}

impl Death {
    /// All that the list makes: the points of a Lease once for each role that has one.
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

    /// What arms a role; nothing where another one is meant.
    fn of(&self, role: &str) -> Option<String> {
        (role == self.role).then(|| format!("{}@1?{}", self.point, self.about))
    }

    /// Whether it is about a dead letter that is counted, not told.
    fn is_of_a_count(&self) -> bool {
        matches!(self.point, "router:counting" | "router:counted")
    }

    /// Whether it is reached only by a leader that ends in order.
    fn is_at_the_end(&self) -> bool {
        matches!(self.point, "lease:returning" | "lease:returned")
    }

    async fn comes_to(&self, process: &mut Process) {
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
async fn a_process_that_dies_before_or_after_any_of_its_side_effects_in_a_cluster_loses_nothing() {
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
        .buffer_unordered(SIDE_BY_SIDE);
    let failed: Vec<Death> = runs.filter_map(async |failed| failed).collect().await;
    assert!(
        failed.is_empty(),
        "{failed:?} of {} deaths; see above why",
        deaths.len()
    );
}

async fn dies_at(server: &KubeApiServer, death: Death) {
    let mut account = Account::open(server).await;
    let mut first = account.spawn("up", None);
    account.early(&first).await;
    assert!(
        first.terminate().await.success(),
        "{death:?}: the first holder of both Leases ends in order"
    );

    let [mut ingest, mut router, _worker] =
        ["ingest", "router", "worker"].map(|role| account.spawn(role, death.of(role)));
    account.late().await;
    if death.is_of_a_count() {
        account.again().await;
    }
    death
        .comes_to(if death.role == "ingest" {
            &mut ingest
        } else {
            &mut router
        })
        .await;

    account.while_nobody_leads().await;
    let successor = account.spawn(death.role, None);
    successor.logs("leadership-acquired").await;
    account.balances(&death).await;
}
