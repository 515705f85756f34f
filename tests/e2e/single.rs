//! The mode `single`: one pod with a volume.

use std::time::Duration;

use crate::cluster::kill_container;
use crate::load::{balance, post, send_during};
use crate::release::Release;
use crate::usage::measure;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: run `make e2e`"]
async fn the_mode_single_loses_nothing_while_its_pod_changes() {
    let release = Release::install("single", &["statefulset/tidings"], &[]).await;
    let receiver = release.receiver().await;
    let address = release.address().await;
    let mut posted = post(&address, "first", 1, Duration::from_secs(1)).await;
    balance("single, the first event", &posted, &receiver).await;
    release.test().await;

    posted.extend(measure("single", &address).await);
    balance("single, undisturbed", &posted, &receiver).await;

    let changes = async {
        kill_container("single", "tidings-0").await;
        release.ready().await;
        println!("killed the container");
        release.delete_pod("single").await;
        println!("deleted the pod");
        release.upgrade(&["--set=image.tag=next"]).await;
        println!("upgraded");
        release.rollback("1").await;
        println!("rolled back");
    };
    posted.extend(send_during(&address, "changes", 10, changes).await);
    balance("single, with all changes", &posted, &receiver).await;
    release.uninstall().await;
}
