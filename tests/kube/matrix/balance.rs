//! What has become of all that happened in a cluster, compared one by one.

use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tidings_rig::eventually;

use super::Death;
use super::account::{AGAIN, ALL, Account, pod};
use crate::events::stored;
use crate::object::{objects, present_condition};

impl Account<'_> {
    /// Waits until all has come to its end, and compares: what happened with what is delivered,
    /// stored, dead and told, and what is wanted with what statuses say.
    pub async fn balances(&self, death: &Death) {
        self.is_delivered(death).await;
        self.is_kept(death).await;
        self.is_told(death).await;
        self.statuses_are_right().await;
        self.nothing_is_held_back(death).await;
    }

    /// Everything that happened is delivered once: no worker has died.
    async fn is_delivered(&self, death: &Death) {
        let once: BTreeMap<String, usize> = self
            .happened
            .iter()
            .map(|(note, _)| (note.clone(), 1))
            .collect();
        let what = format!("{death:?}: everything that happened is delivered");
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

    /// Everything is stored once, and a dead letter of each is kept.
    async fn is_kept(&self, death: &Death) {
        let mut happened = self.happened.clone();
        happened.sort();
        let what = format!("{death:?}: the dead letters are those of {happened:?}");
        eventually(&what, async || {
            (self.dead().await == happened).then_some(())
        })
        .await;
        let mut stored: Vec<String> = stored(&self.bed.rig)
            .await
            .into_iter()
            .map(|event| event.message)
            .collect();
        stored.sort();
        assert!(
            stored.iter().eq(happened.iter().map(|(note, _)| note)),
            "{death:?}: {stored:?}"
        );
    }

    /// Every dead letter is told by one Kubernetes Event on its Alert. A router that died between a
    /// count and the note of how far it had come tells the one that it counted once more.
    async fn is_told(&self, death: &Death) {
        let mut expected: BTreeMap<String, (usize, i32)> = BTreeMap::new();
        for (_, pod) in &self.happened {
            let (events, letters) = expected.entry(pod.clone()).or_default();
            (*events, *letters) = (*events + 1, *letters + 1);
        }
        if death.point == "router:counted"
            && let Some((_, letters)) = expected.get_mut(&pod(AGAIN))
        {
            *letters += 1;
        }
        let mut told = BTreeMap::new();
        let wait = eventually("every dead letter is told", async || {
            told = self.told().await;
            (told == expected).then_some(())
        });
        let in_time = tokio::time::timeout(tidings_rig::PATIENCE / 2, wait).await;
        assert!(
            in_time.is_ok(),
            "{death:?}: told {told:?}, expected {expected:?}"
        );
    }

    async fn statuses_are_right(&self) {
        for name in ["good", "bad"] {
            self.is("Provider", name, "True", "Initialized").await;
        }
        self.is("Alert", "all", "True", "Initialized").await;
        self.is("Alert", "orphan", "False", "ProviderNotFound")
            .await;
        let delivered =
            async || Some(self.object("Alert", "all").await?["status"]["lastDeliveryTime"].clone());
        eventually("the status says when it was delivered", async || {
            delivered().await.filter(Value::is_string)
        })
        .await;
        for number in ALL {
            let what = format!("the status of Alert {} says what went wrong", pod(number));
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

    async fn nothing_is_held_back(&self, death: &Death) {
        for kind in ["Alert", "Provider"] {
            let what = format!("{death:?}: the {kind} that waits for its finalizer is gone");
            eventually(&what, async || {
                self.object(kind, "leaving").await.is_none().then_some(())
            })
            .await;
        }
    }

    /// The dead letters: of which Event, because of which Alert.
    async fn dead(&self) -> Vec<(String, String)> {
        let letters = self
            .bed
            .rig
            .dead_letters()
            .await
            .into_iter()
            .filter_map(|letter| letter.delivery);
        let mut dead: Vec<_> = letters
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

    /// By Alert: how many Kubernetes Events there are on it, and how many dead letters they count.
    pub(super) async fn told(&self) -> BTreeMap<String, (usize, i32)> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.bed.namespace);
        let mut told: BTreeMap<String, (usize, i32)> = BTreeMap::new();
        for event in api
            .list(&ListParams::default())
            .await
            .expect("the API server answers")
            .items
        {
            let object = event.regarding.unwrap_or_default();
            if object.kind.as_deref() == Some("Alert") {
                let (events, letters) = told.entry(object.name.unwrap_or_default()).or_default();
                (*events, *letters) = (
                    *events + 1,
                    *letters + event.series.map_or(1, |series| series.count),
                );
            }
        }
        told
    }

    /// Waits for a reason of the condition Ready, of the present generation.
    pub(super) async fn is(&self, kind: &str, name: &str, status: &str, reason: &str) {
        eventually(
            &format!("{kind} {name} is {status} ({reason})"),
            async || {
                let object = self.object(kind, name).await?;
                let condition = present_condition(&object)?;
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
            .expect("the API server answers")
            .map(|object| json!(object))
    }
}
