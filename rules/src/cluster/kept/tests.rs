use std::collections::BTreeSet;

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::json;

use super::*;
use crate::check::check_one;
use crate::object::GROUP;
use crate::options::Options;
use crate::testing::{Manifest, alert};

/// The time between two steps of a test, longer than every delay.
const STEP: Duration = Duration::from_secs(60);

fn restricted() -> Manifest {
    alert("a", "p").with("clusters", json!(["prod-*"]))
}

fn annotated() -> Manifest {
    let annotations = json!({"tidings.dev/clusters": "stage-*"});
    alert("a", "p").set("/metadata/annotations", annotations)
}

fn served_api(lacks: &[&'static str]) -> ServedApi {
    let kind = |kind: &str| ServedKind {
        resource: ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1beta3", kind)),
        has_status: true,
        lacks: Some(lacks.iter().copied().collect::<BTreeSet<_>>()),
    };
    ServedApi {
        alerts: kind("Alert"),
        providers: kind("Provider"),
        grants: None,
    }
}

/// One router with a bucket that always answers.
struct Router {
    kept: Kept,
    lacks: &'static [&'static str],
    revision: u64,
    object: Option<Checked>,
}

impl Router {
    fn new() -> Self {
        let mut kept = Kept::default();
        kept.load(Vec::new());
        Self {
            kept,
            lacks: &[],
            revision: 0,
            object: None,
        }
    }

    /// Another router with the same bucket.
    fn restart(self) -> Self {
        let stored = self.kept.records.unwrap_or_default().into_values();
        let mut next = Self {
            lacks: self.lacks,
            revision: self.revision,
            ..Self::new()
        };
        next.kept.load(stored.collect());
        next
    }

    /// Observes a version of the Alert, without a newer schema.
    fn observe(&mut self, manifest: Manifest, uid: &str, generation: i64) -> &mut Self {
        let object = manifest
            .set("/metadata/uid", uid)
            .set("/metadata/generation", generation)
            .object();
        let checked = check_one(&object, &[], &Options::default());
        self.kept.saw(checked.identity.clone());
        self.object = Some(checked);
        self.apply()
    }

    /// Reads the schema, a while later.
    async fn settle(&mut self) -> &mut Self {
        tokio::time::advance(STEP).await;
        self.kept
            .set_schema(&served_api(self.lacks), Instant::now());
        self.apply()
    }

    fn apply(&mut self) -> &mut Self {
        let objects: Vec<_> = self.object.iter().cloned().collect();
        for change in self.kept.changes(&objects, |_| true) {
            self.revision += 1;
            self.kept.written(change, self.revision);
        }
        assert_eq!(
            self.kept.changes(&objects, |_| true),
            [],
            "a change is written once"
        );
        self
    }

    /// The clusters that the Alert keeps.
    fn clusters(&self) -> Option<Vec<String>> {
        self.kept.lost(self.object.as_ref()?)?.clusters
    }

    fn is_undecided(&self) -> bool {
        let object = self.object.as_ref();
        object.is_some_and(|object| self.kept.is_undecided(object))
    }

    fn keeps(&self) -> bool {
        self.clusters()
            .is_some_and(|clusters| clusters == ["prod-*"])
    }
}

#[tokio::test(start_paused = true)]
async fn a_restriction_stays_until_the_generation_rises_while_the_schema_has_the_field() {
    let mut router = Router::new();
    router.observe(restricted(), "u", 1).settle().await;
    assert!(!router.keeps(), "nothing is lost yet");

    router.lacks = &["clusters"];
    router.observe(alert("a", "p"), "u", 1).settle().await;
    assert!(router.keeps(), "Flux's CRDs drop the field");
    router.observe(alert("a", "p"), "u", 2).settle().await;
    assert!(router.keeps(), "a change while the schema lacks the field");

    router.lacks = &[];
    router.settle().await;
    assert!(router.keeps(), "our CRDs have returned");
    let mut router = router.restart();
    router.observe(alert("a", "p"), "u", 2).settle().await;
    assert!(router.keeps(), "a restart");

    router.observe(alert("a", "p"), "u", 3);
    assert!(router.keeps(), "the schema may have changed meanwhile");
    router.settle().await;
    assert!(!router.keeps(), "a user has removed the field");
}

#[tokio::test(start_paused = true)]
async fn a_lost_selector_stays_too() {
    let selector = json!({
        "matchLabels": {"env": "prod"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["web", "api"]}],
    });
    let selecting = alert("a", "p").with("clusterSelector", selector);
    let mut router = Router::new();
    router.observe(selecting, "u", 1).settle().await;
    router.lacks = &["clusterSelector"];
    router.observe(alert("a", "p"), "u", 2).settle().await;
    let mut router = router.restart();
    router.observe(alert("a", "p"), "u", 2).settle().await;

    let lost = router.kept.lost(router.object.as_ref().unwrap()).unwrap();
    assert_eq!(lost.clusters, None);
    let kept = lost.cluster_selector.unwrap();
    assert_eq!(kept, "env=prod,tier in (api,web)");
}

#[tokio::test(start_paused = true)]
async fn a_removed_field_is_no_loss() {
    let mut router = Router::new();
    router.observe(restricted(), "u", 1).settle().await;
    router.observe(alert("a", "p"), "u", 2).settle().await;
    assert_eq!(router.clusters(), None);
    assert_eq!(router.kept.records.as_ref().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_edit_under_crds_of_flux_that_were_not_noticed_yet_does_not_end_a_restriction() {
    let mut router = Router::new();
    router.observe(restricted(), "u", 1).settle().await;
    router.observe(alert("a", "p"), "u", 2);
    assert!(router.keeps() && router.is_undecided());
    let now = Instant::now();
    router.kept.set_schema(&served_api(&[]), now);
    assert!(
        router.apply().keeps(),
        "the API server may report the old schema"
    );
    router.lacks = &["clusters"];
    router.settle().await;
    assert!(router.keeps() && !router.is_undecided());
    router.lacks = &[];
    assert!(router.settle().await.keeps());
}

#[tokio::test(start_paused = true)]
async fn without_a_schema_a_removed_field_counts_as_lost_and_waits_for_nothing() {
    let mut router = Router::new();
    router.observe(restricted(), "u", 1).settle().await;
    let mut unknown = served_api(&[]);
    unknown.alerts.lacks = None;
    router.kept.set_schema(&unknown, Instant::now());
    router.observe(alert("a", "p"), "u", 2);
    assert!(router.keeps() && !router.is_undecided() && !router.kept.will_decide());
    router.kept.set_schema(&served_api(&[]), Instant::now());
    assert!(router.is_undecided() && router.kept.will_decide());
    assert!(!router.kept.decides(), "the schema is too old");
    tokio::time::advance(STEP).await;
    router.kept.set_schema(&served_api(&[]), Instant::now());
    assert!(router.kept.decides());
    router.settle().await;
    assert!(!router.keeps() && !router.kept.will_decide());
}

#[tokio::test(start_paused = true)]
async fn when_an_object_was_seen_is_forgotten_with_it() {
    let mut router = Router::new();
    router.observe(restricted(), "u", 1);
    router.kept.retain_seen(|_| true);
    assert_eq!(router.kept.seen.len(), 1);
    router.kept.retain_seen(|_| false);
    assert_eq!(router.kept.seen.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_field_or_an_annotation_ends_a_kept_restriction() {
    for again in [restricted(), annotated()] {
        let mut router = Router::new();
        router.lacks = &["clusters"];
        router.observe(restricted(), "u", 1).settle().await;
        router.observe(alert("a", "p"), "u", 1).settle().await;
        assert!(router.keeps());
        router.observe(again, "u", 1).settle().await;
        assert!(!router.keeps());
    }
    let mut router = Router::new();
    router.observe(annotated(), "u", 1).settle().await;
    router.observe(alert("a", "p"), "u", 1).settle().await;
    assert_eq!(router.clusters(), None, "no CRD removes an annotation");
}

#[tokio::test(start_paused = true)]
async fn a_recreated_or_deleted_alert_has_no_former_restriction() {
    let mut router = Router::new();
    router.lacks = &["clusters"];
    router.observe(restricted(), "u", 1).settle().await;
    router.observe(alert("a", "p"), "other", 1).settle().await;
    assert_eq!(router.clusters(), None);
    assert_eq!(router.kept.records.as_ref().unwrap().len(), 0);
    router.observe(restricted(), "u", 1).settle().await;
    router.object = None;
    router.apply();
    assert_eq!(router.kept.records.as_ref().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn objects_that_are_not_watched_keep_their_records() {
    let mut router = Router::new();
    router.observe(restricted(), "u", 1).settle().await;
    assert_eq!(router.kept.changes(&[], |_| false), []);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_alert_changes_no_record() {
    let mut router = Router::new();
    router.lacks = &["clusters"];
    router.observe(restricted(), "u", 1).settle().await;
    let mistyped = json!({"tidings.dev/cluster": "*"});
    let rejected = alert("a", "p").set("/metadata/annotations", mistyped);
    router.observe(rejected, "u", 1).settle().await;
    assert!(router.keeps());
}

#[tokio::test(start_paused = true)]
async fn a_recreated_bucket_gets_all_records_again() {
    let mut router = Router::new();
    router.observe(restricted(), "u", 1).settle().await;
    router.kept.bucket_was_recreated(&[]);
    let objects: Vec<_> = router.object.iter().cloned().collect();
    let changes = router.kept.changes(&objects, |_| true);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].revision, None);
    assert!(changes[0].record.is_some());
}

#[test]
fn the_clusters_of_a_record_are_bounded() {
    let names = vec!["x".repeat(1000); 100];
    assert_eq!(bounded(&names).len(), MAX_CLUSTERS_BYTES / 1001);
    assert_eq!(bounded(&["y".repeat(MAX_CLUSTERS_BYTES)]).len(), 0);
}
