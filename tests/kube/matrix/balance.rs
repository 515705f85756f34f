//! Compares the Events of a run with all their effects.

use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tidings_rig::eventually;

use super::Death;
use super::account::{AGAIN, ALL, Account, pod};
use crate::events::stored;
use crate::object::{current_condition, objects};

impl Account<'_> {
    /// Waits for all effects and compares them with the Events: deliveries, stored events, dead
    /// letters, Kubernetes Events, statuses and finalizers.
    pub async fn balances(&self, death: &Death) {
        self.is_delivered(death).await;
        self.is_stored(death).await;
        self.is_reported(death).await;
        self.statuses_are_correct().await;
        self.finalizers_are_removed(death).await;
    }

    /// Every Event is delivered once, since no worker dies.
    async fn is_delivered(&self, death: &Death) {
        let once: BTreeMap<String, usize> = self
            .created
            .iter()
            .map(|(note, _)| (note.clone(), 1))
            .collect();
        let what = format!("{death:?}: every Event is delivered");
        eventually(&what, async || {
            let received = self.good.tally();
            once.keys()
                .all(|note| received.contains_key(note))
                .then_some(())
        })
        .await;
        self.bed.rig.drained().await;
        let received: BTreeMap<String, usize> = self
            .good
            .tally()
            .into_iter()
            .map(|(note, (times, _))| (note, times))
            .collect();
        assert_eq!(received, once, "{death:?}");
    }

    /// Every Event is stored once and has one dead letter.
    async fn is_stored(&self, death: &Death) {
        let mut created = self.created.clone();
        created.sort();
        let what = format!("{death:?}: the dead letters are those of {created:?}");
        eventually(&what, async || (self.dead().await == created).then_some(())).await;
        let mut stored: Vec<String> = stored(&self.bed.rig)
            .await
            .into_iter()
            .map(|event| event.message)
            .collect();
        stored.sort();
        assert!(
            stored.iter().eq(created.iter().map(|(note, _)| note)),
            "{death:?}: {stored:?}"
        );
    }

    /// Every dead letter is reported by one Kubernetes Event on its Alert. A router that dies
    /// between a count and saving its position counts one dead letter twice.
    async fn is_reported(&self, death: &Death) {
        let mut expected: BTreeMap<String, (usize, i32)> = BTreeMap::new();
        for (_, pod) in &self.created {
            let (events, dead) = expected.entry(pod.clone()).or_default();
            (*events, *dead) = (*events + 1, *dead + 1);
        }
        if death.point == "router:counted"
            && let Some((_, dead)) = expected.get_mut(&pod(AGAIN))
        {
            *dead += 1;
        }
        let mut reported = BTreeMap::new();
        let wait = eventually("every dead letter is reported", async || {
            reported = self.reported().await;
            (reported == expected).then_some(())
        });
        let in_time = tokio::time::timeout(tidings_rig::PATIENCE / 2, wait).await;
        assert!(
            in_time.is_ok(),
            "{death:?}: reported {reported:?}, expected {expected:?}"
        );
    }

    async fn statuses_are_correct(&self) {
        for name in ["good", "bad"] {
            self.is("Provider", name, "True", "Initialized").await;
        }
        self.is("Alert", "all", "True", "Initialized").await;
        self.is("Alert", "orphan", "False", "ProviderNotFound")
            .await;
        let delivered =
            async || Some(self.object("Alert", "all").await?["status"]["lastDeliveryTime"].clone());
        eventually("the status has the time of the delivery", async || {
            delivered().await.filter(Value::is_string)
        })
        .await;
        for number in ALL {
            let what = format!("the status of Alert {} has the error", pod(number));
            self.is("Alert", &pod(number), "True", "Initialized").await;
            let error = async || {
                Some(
                    self.object("Alert", &pod(number)).await?["status"]["lastError"]["reason"]
                        .clone(),
                )
            };
            eventually(&what, async || {
                error().await.filter(|reason| reason == "rejected")
            })
            .await;
        }
    }

    async fn finalizers_are_removed(&self, death: &Death) {
        for kind in ["Alert", "Provider"] {
            let what = format!("{death:?}: the {kind} with a finalizer is deleted");
            eventually(&what, async || {
                self.object(kind, "leaving").await.is_none().then_some(())
            })
            .await;
        }
    }

    /// The dead letters, as (message, Alert).
    async fn dead(&self) -> Vec<(String, String)> {
        let dead = self
            .bed
            .rig
            .dead_letters()
            .await
            .into_iter()
            .filter_map(|dead| dead.delivery);
        let mut dead: Vec<_> = dead
            .map(|delivery| {
                (
                    delivery.event.unwrap_or_default().message,
                    delivery.alert.unwrap_or_default().name,
                )
            })
            .collect();
        dead.sort();
        dead
    }

    /// By Alert: the number of Kubernetes Events, and of the dead letters that they count.
    pub(super) async fn reported(&self) -> BTreeMap<String, (usize, i32)> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.bed.namespace);
        let mut reported: BTreeMap<String, (usize, i32)> = BTreeMap::new();
        for event in api
            .list(&ListParams::default())
            .await
            .expect("the API server responds")
            .items
        {
            let object = event.regarding.unwrap_or_default();
            if object.kind.as_deref() == Some("Alert") {
                let (events, dead) = reported.entry(object.name.unwrap_or_default()).or_default();
                (*events, *dead) = (
                    *events + 1,
                    *dead + event.series.map_or(1, |series| series.count),
                );
            }
        }
        reported
    }

    /// Waits for a reason of the condition Ready of the current generation.
    pub(super) async fn is(&self, kind: &str, name: &str, status: &str, reason: &str) {
        eventually(
            &format!("{kind} {name} is {status} ({reason})"),
            async || {
                let object = self.object(kind, name).await?;
                let condition = current_condition(&object)?;
                (condition["status"] == status && condition["reason"] == reason).then_some(())
            },
        )
        .await;
    }

    async fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let found = objects(&self.client, &self.bed.namespace, "v1beta3", kind)
            .get_opt(name)
            .await;
        found
            .expect("the API server responds")
            .map(|object| json!(object))
    }
}
