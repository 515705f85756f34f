//! The status of Alerts and Providers, and its writer.

use std::path::PathBuf;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tidings_core::wire::{Circuit, circuit::State};
use tidings_core::{Destination, Message, ProtoTimestamp};
use tidings_rig::{
    KubeApiServer, ONE_FOR_EACH_POST, Process, Receiver, Reply, Role, event, eventually,
};

use crate::bed::{Bed, alert, provider, secret};
use crate::object::{current_condition, objects};

/// The rights of router and worker in this file.
const ROLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tidings}
rules:
- apiGroups: [notification.toolkit.fluxcd.io]
  resources: [alerts, providers]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get, list, watch]
- apiGroups: [notification.toolkit.fluxcd.io]
  resources: [alerts/status, providers/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [tidings-status]
  verbs: [get, update]
"#;

/// Binds the role.
const BINDING: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tidings}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: tidings}
subjects: [{kind: ServiceAccount, name: tidings, namespace: NAMESPACE}]
"#;

/// A test bed whose roles have only the rights above.
struct Setup<'a> {
    bed: Bed<'a>,
    kubeconfig: PathBuf,
}

impl<'a> Setup<'a> {
    async fn start() -> Self {
        Self::start_on(KubeApiServer::shared().await).await
    }

    async fn start_on(server: &'a KubeApiServer) -> Self {
        let bed = Bed::on(server).await;
        server.apply(&bed.namespace, ROLE).await;
        server
            .apply(
                &bed.namespace,
                &BINDING.replace("NAMESPACE", &bed.namespace),
            )
            .await;
        let kubeconfig = server.kubeconfig_for(&bed.namespace, "tidings").await;
        Self { bed, kubeconfig }
    }

    /// Runs a role that watches this namespace and has its Lease there.
    async fn run(&self, role: Role) -> Process {
        let role = role
            .in_cluster(&self.kubeconfig)
            .args(["--watch-namespace", &self.bed.namespace]);
        self.bed
            .rig
            .run(role.env("TIDINGS_KUBERNETES__NAMESPACE", &self.bed.namespace))
            .await
    }

    async fn apply<const N: usize>(&self, objects: [Value; N]) {
        self.bed.apply(objects).await;
    }

    /// An Alert or a Provider in the API server.
    async fn object(&self, kind: &str, name: &str) -> Value {
        let client = self.bed.server.client().await;
        let api = objects(&client, &self.bed.namespace, "v1beta3", kind);
        json!(api.get(name).await.expect("the object exists"))
    }

    /// Waits until the status of an object meets a condition, and returns the object.
    async fn has_status(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let what = format!("the status of {kind} {name} has {what}");
        eventually(&what, async || {
            Some(self.object(kind, name).await).filter(|object| holds(&object["status"]))
        })
        .await
    }

    /// Waits for a reason of the condition Ready of the current generation; returns its message.
    async fn is(&self, kind: &str, name: &str, status: &str, reason: &str) -> String {
        let what = format!("{kind} {name} is {status} ({reason})");
        let found = eventually(&what, async || {
            let object = self.object(kind, name).await;
            let condition = current_condition(&object)?;
            (condition["status"] == status && condition["reason"] == reason)
                .then(|| condition.clone())
        });
        found.await["message"]
            .as_str()
            .expect("a condition has a message")
            .to_owned()
    }

    /// The Kubernetes Events of the namespace.
    async fn events(&self) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.bed.server.client().await, &self.bed.namespace);
        api.list(&ListParams::default())
            .await
            .expect("the API server responds")
            .items
    }

    /// The holder of the Lease, and when it was renewed.
    async fn lease(&self) -> Option<(String, jiff::Timestamp)> {
        let api: Api<Lease> = Api::namespaced(self.bed.server.client().await, &self.bed.namespace);
        let spec = api.get_opt("tidings-status").await.ok()??.spec?;
        Some((spec.holder_identity?, spec.renew_time?.0))
    }

    /// Waits until the Lease was renewed three times, so that the leader had time to write.
    async fn the_leader_renews_three_times(&self) {
        for _ in 0..3 {
            let before = self.lease().await;
            eventually("the Lease is renewed", async || {
                self.lease()
                    .await
                    .filter(|lease| Some(lease) != before.as_ref())
            })
            .await;
        }
    }
}

/// Whether the status has a field.
fn has(field: &'static str) -> impl Fn(&Value) -> bool {
    move |status| !status[field].is_null()
}

/// Sets a field of an object's spec.
fn with(mut object: Value, field: &str, value: Value) -> Value {
    object["spec"][field] = value;
    object
}

/// A Provider that is never called, with one more field.
fn idle(name: &str, field: &str, value: Value) -> Value {
    with(
        provider(name, json!({"address": "http://127.0.0.1:1/hook"})),
        field,
        value,
    )
}

#[tokio::test]
async fn conditions_report_problems_and_their_end() {
    let setup = Setup::start().await;
    let _router = setup.run(Role::router()).await;
    setup
        .apply([idle("hook", "channel", json!("c")), alert("good", "hook")])
        .await;
    assert_eq!(
        setup.is("Alert", "good", "True", "Initialized").await,
        "Initialized"
    );
    let printed = setup.bed.kubectl("get alerts").await;
    let rows: Vec<Vec<_>> = printed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        (&rows[0][..3], &rows[1][..3]),
        (
            &["NAME", "READY", "STATUS"][..],
            &["good", "True", "Initialized"][..]
        )
    );

    let reference = |name: &str| json!({"name": name});
    let telegram = provider(
        "keyless",
        json!({"type": "telegram", "channel": "c", "secretRef": {"name": "keys"}}),
    );
    let pattern = |list: Value| with(alert("pattern", "hook"), "exclusionList", list);
    setup
        .apply([
            idle("without-secret", "secretRef", reference("later")),
            telegram,
            secret("keys", json!({"other": "x"})),
        ])
        .await;
    setup
        .apply([
            idle("suspended", "suspend", json!(true)),
            alert("orphan", "absent"),
            alert("on-without-secret", "without-secret"),
        ])
        .await;
    setup.apply([pattern(json!(["waiting", "("]))]).await;
    for (kind, name, status, reason, part) in [
        (
            "Provider",
            "without-secret",
            "False",
            "SecretNotFound",
            "/later",
        ),
        ("Provider", "keyless", "False", "Misconfigured", "token"),
        ("Provider", "suspended", "True", "Suspended", "Suspended"),
        (
            "Alert",
            "orphan",
            "False",
            "ProviderNotFound",
            "spec.providerRef.name",
        ),
        (
            "Alert",
            "on-without-secret",
            "False",
            "ProviderNotReady",
            "SecretNotFound",
        ),
        (
            "Alert",
            "pattern",
            "False",
            "InvalidPattern",
            "spec.exclusionList[1]",
        ),
    ] {
        let message = setup.is(kind, name, status, reason).await;
        assert!(message.contains(part), "{kind} {name}: {message}");
    }

    let keys = json!({"token": "t"});
    setup
        .apply([
            secret("later", keys.clone()),
            secret("keys", keys),
            idle("absent", "channel", json!("c")),
        ])
        .await;
    setup.apply([pattern(json!(["waiting"]))]).await;
    for (kind, name) in [
        ("Provider", "without-secret"),
        ("Provider", "keyless"),
        ("Alert", "orphan"),
        ("Alert", "on-without-secret"),
        ("Alert", "pattern"),
    ] {
        setup.is(kind, name, "True", "Initialized").await;
    }
}

#[tokio::test]
async fn status_and_events_report_deliveries_without_secrets() {
    const SECRET: &str = "s3cr3t-of-the-hook";
    let setup = Setup::start().await;
    let process = setup.run(Role::up()).await;
    let [good, bad] = [Receiver::start().await, Receiver::start().await];
    bad.answer_with(Reply::Text(400, "no such hook: s3cr3t-of-the-hook"));
    let reference = json!({"address": bad.url(), "secretRef": {"name": "keys"}});
    setup
        .apply([
            secret("keys", json!({"token": SECRET})),
            provider("bad", reference),
            alert("bad", "bad"),
        ])
        .await;
    setup
        .apply([
            provider("good", json!({"address": good.url()})),
            alert("good", "good"),
        ])
        .await;
    setup.is("Alert", "good", "True", "Initialized").await;
    setup.is("Alert", "bad", "True", "Initialized").await;
    assert_eq!(process.post(&event("one")).await.unwrap().status, 202);

    let object = setup
        .has_status(
            "Alert",
            "good",
            "the times of match and delivery",
            has("lastDeliveryTime"),
        )
        .await;
    assert!(
        object["status"]["lastMatchTime"].is_string() && object["status"]["lastError"].is_null(),
        "{object}"
    );
    setup
        .has_status(
            "Provider",
            "good",
            "the time of the delivery",
            has("lastDeliveryTime"),
        )
        .await;
    for kind in ["Alert", "Provider"] {
        let object = setup
            .has_status(kind, "bad", "the error", has("lastError"))
            .await;
        let error = &object["status"]["lastError"];
        assert_eq!(
            (&error["reason"], &object["status"]["lastDeliveryTime"]),
            (&json!("rejected"), &Value::Null)
        );
        assert!(
            error["time"].is_string()
                && error["message"]
                    .as_str()
                    .unwrap()
                    .contains("no such hook: [redacted]")
        );
        assert!(!object.to_string().contains(SECRET));
    }

    let reported = eventually("a dead letter is reported", async || {
        setup.events().await.into_iter().next()
    })
    .await;
    let (regarding, note) = (
        reported.regarding.clone().unwrap(),
        reported.note.clone().unwrap(),
    );
    let uid = setup.object("Alert", "bad").await["metadata"]["uid"]
        .as_str()
        .map(str::to_owned);
    assert_eq!(
        (
            regarding.kind.as_deref(),
            regarding.name.as_deref(),
            regarding.uid
        ),
        (Some("Alert"), Some("bad"), uid)
    );
    assert_eq!(
        (reported.type_.as_deref(), reported.reason.as_deref()),
        (Some("Warning"), Some("NotificationDispatchFailed"))
    );
    assert!(
        note.contains("Kustomization apps/apps")
            && note.contains("400")
            && note.contains("[redacted]"),
        "{note}"
    );
    assert!(!json!(reported).to_string().contains(SECRET));
}

#[tokio::test]
async fn many_outcomes_cause_few_status_writes_and_no_outcome_causes_none() {
    const BURST: usize = 200;
    let setup = Setup::start().await;
    let process = setup.run(Role::up()).await;
    let receiver = Receiver::start().await;
    setup
        .apply([
            provider("hook", json!({"address": receiver.url()})),
            alert("all", "hook"),
        ])
        .await;
    setup.is("Alert", "all", "True", "Initialized").await;
    setup.is("Provider", "hook", "True", "Initialized").await;
    let writes = async || {
        process
            .metric("tidings_router_status_writes_total", "")
            .await
    };
    let versions = async || {
        let version = |object: Value| {
            object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        (
            version(setup.object("Alert", "all").await),
            version(setup.object("Provider", "hook").await),
        )
    };
    let (unchanged, before) = (versions().await, writes().await);
    setup.the_leader_renews_three_times().await;
    assert_eq!(
        (versions().await, writes().await),
        (unchanged, before),
        "nothing happened"
    );

    let answers = (0..BURST).map(|number| {
        let process = &process;
        async move {
            process
                .post(&event(&format!("event {number}")))
                .await
                .unwrap()
                .status
        }
    });
    assert!(
        futures::future::join_all(answers)
            .await
            .into_iter()
            .all(|status| status == 202)
    );
    receiver.receives(BURST).await;
    setup.bed.rig.drained().await;
    setup
        .has_status(
            "Alert",
            "all",
            "the time of the delivery",
            has("lastDeliveryTime"),
        )
        .await;
    setup
        .has_status(
            "Provider",
            "hook",
            "the time of the delivery",
            has("lastDeliveryTime"),
        )
        .await;
    let written = writes().await;
    // Each object is written at once, and then at most once a minute. This part takes less than two
    // minutes.
    assert!(
        written - before <= 6.0,
        "{} writes for {BURST} deliveries",
        written - before
    );
    let object = setup.object("Alert", "all").await;
    let managers = object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter();
    let own: Vec<_> = managers
        .filter(|entry| entry["manager"] == "tidings")
        .collect();
    assert_eq!(own.len(), 1, "{object}");
    assert_eq!(
        (&own[0]["operation"], &own[0]["subresource"]),
        (&json!("Apply"), &json!("status"))
    );
}

#[tokio::test]
async fn a_circuit_is_shown_on_its_provider() {
    let setup = Setup::start().await;
    let _router = setup.run(Role::router()).await;
    setup.apply([idle("hook", "channel", json!("c"))]).await;
    setup.is("Provider", "hook", "True", "Initialized").await;
    let bucket = setup
        .bed
        .rig
        .jetstream()
        .await
        .get_key_value("limits")
        .await
        .unwrap();
    let destination = Destination::channel(&setup.bed.namespace, "hook", "c");
    let time = |seconds| Some(ProtoTimestamp { seconds, nanos: 0 });
    let open = Circuit {
        state: State::Open.into(),
        since: time(1_800_000_000),
        until: time(1_800_000_060),
        reason: "127.0.0.1 answered 503".into(),
        ..destination.closed()
    };
    bucket
        .put(destination.key(), open.encode_to_vec().into())
        .await
        .unwrap();
    let object = setup
        .has_status("Provider", "hook", "an open circuit", |status| {
            status["circuit"]["state"] == "open"
        })
        .await;
    let expected = json!({
        "state": "open", "since": "2027-01-15T08:00:00Z", "until": "2027-01-15T08:01:00Z",
        "reason": "channel c: 127.0.0.1 answered 503",
    });
    assert_eq!(object["status"]["circuit"], expected);
    let paused = Circuit {
        state: State::Paused.into(),
        since: time(1_800_000_030),
        ..destination.closed()
    };
    bucket
        .put(destination.key(), paused.encode_to_vec().into())
        .await
        .unwrap();
    setup
        .has_status("Provider", "hook", "a paused circuit", |status| {
            status["circuit"]["state"] == "paused"
        })
        .await;
    let closed = Circuit {
        since: time(1_800_000_060),
        ..destination.closed()
    };
    bucket
        .put(destination.key(), closed.encode_to_vec().into())
        .await
        .unwrap();
    setup
        .has_status("Provider", "hook", "a closed circuit", |status| {
            status["circuit"]["state"] == "closed"
        })
        .await;
}

#[tokio::test]
async fn another_router_continues_when_the_leader_is_killed() {
    let setup = Setup::start().await;
    let mut leader = setup.run(Role::router()).await;
    leader.logs("leadership-acquired").await;
    let first = eventually("the Lease is held", async || setup.lease().await)
        .await
        .0;
    let (other, ingest) = (
        setup.run(Role::router()).await,
        setup.bed.rig.run(Role::ingest()).await,
    );
    let (_worker, receiver) = (setup.run(Role::worker()).await, Receiver::start().await);
    let quiet = with(alert("quiet", "hook"), "suspend", json!(true));
    setup
        .apply([
            provider("hook", json!({"address": receiver.url()})),
            alert("all", "hook"),
            quiet,
        ])
        .await;
    setup.is("Alert", "all", "True", "Initialized").await;
    setup.is("Alert", "quiet", "True", "Suspended").await;
    let quiet = setup.object("Alert", "quiet").await;
    assert!(other.log_events("leadership-acquired").is_empty());

    leader.kill().await;
    assert_eq!(
        ingest
            .post(&event("while there is no leader"))
            .await
            .unwrap()
            .status,
        202
    );
    receiver.receives(1).await;
    setup.apply([alert("later", "absent")]).await;
    other.logs("leadership-acquired").await;
    setup
        .is("Alert", "later", "False", "ProviderNotFound")
        .await;
    setup
        .has_status(
            "Alert",
            "all",
            "the delivery of that time",
            has("lastDeliveryTime"),
        )
        .await;
    assert_ne!(setup.lease().await.unwrap().0, first);
    assert_eq!(
        setup.object("Alert", "quiet").await,
        quiet,
        "a correct status is not written"
    );
}

#[tokio::test]
async fn a_status_change_during_an_outage_of_the_api_server_is_written_after_it() {
    let mut server = KubeApiServer::start().await;
    server.install_crds().await;
    let setup = Setup::start_on(&server).await;
    let process = setup.run(Role::up()).await;
    let bad = Receiver::start().await;
    bad.answer_with(Reply::Status(400));
    setup
        .apply([
            provider("bad", json!({"address": bad.url()})),
            alert("bad", "bad"),
        ])
        .await;
    setup.is("Alert", "bad", "True", "Initialized").await;
    let Setup {
        bed: Bed { rig, namespace, .. },
        kubeconfig,
    } = setup;

    server.kill();
    assert_eq!(
        process
            .post(&event("while it is down"))
            .await
            .unwrap()
            .status,
        202
    );
    bad.receives(1).await;
    rig.drained().await;
    process.logs("status-not-written").await;
    server.restart().await;

    let setup = Setup {
        bed: Bed {
            rig,
            server: &server,
            namespace,
        },
        kubeconfig,
    };
    setup
        .has_status("Alert", "bad", "the error", has("lastError"))
        .await;
    eventually("the dead letter is reported", async || {
        setup.events().await.into_iter().next()
    })
    .await;
}

#[tokio::test]
async fn a_lost_status_is_written_again_after_a_list() {
    let mut server = KubeApiServer::start().await;
    server.install_crds().await;
    let setup = Setup::start_on(&server).await;
    let _router = setup.run(Role::router()).await;
    setup.apply([idle("hook", "channel", json!("c"))]).await;
    setup.is("Provider", "hook", "True", "Initialized").await;
    setup
        .bed
        .kubectl(r#"patch provider hook --subresource=status --type=merge --patch {"status":null}"#)
        .await;
    assert!(setup.object("Provider", "hook").await["status"].is_null());
    let Setup {
        bed: Bed { rig, namespace, .. },
        kubeconfig,
    } = setup;

    // Cache and history are lost, so that a watch cannot continue.
    server.compact().await;
    server.restart().await;

    let setup = Setup {
        bed: Bed {
            rig,
            server: &server,
            namespace,
        },
        kubeconfig,
    };
    setup.is("Provider", "hook", "True", "Initialized").await;
}

#[tokio::test]
async fn without_a_status_subresource_events_are_still_reported() {
    let server = KubeApiServer::start().await;
    for name in ["alerts", "providers"] {
        let file = format!("{}/deploy/crds/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let crd = std::fs::read_to_string(file)
            .unwrap()
            .replace("    subresources:\n      status: {}\n", "");
        server
            .kubectl_with(&["apply", "--server-side", "-f", "-"], &crd)
            .await
            .expect_success();
    }
    let (setup, bad) = (Setup::start_on(&server).await, Receiver::start().await);
    setup
        .bed
        .rig
        .leaves_deliveries(ONE_FOR_EACH_POST, "the Provider `absent` does not exist");
    let provider = provider("bad", json!({"address": bad.url()})).to_string();
    eventually("the CRDs are served", async || {
        let arguments = ["apply", "--namespace", &setup.bed.namespace, "-f", "-"];
        server
            .kubectl_with(&arguments, &provider)
            .await
            .success
            .then_some(())
    })
    .await;
    bad.answer_with(Reply::Status(400));
    let process = setup.run(Role::up()).await;
    setup
        .apply([alert("bad", "bad"), alert("orphan", "absent")])
        .await;
    process.logs("status-unavailable").await;
    let reported = eventually("a dead letter is reported", async || {
        // The rules may not be loaded yet.
        process
            .post(&event(&format!("{:?}", std::time::Instant::now())))
            .await
            .ok()?;
        setup.events().await.into_iter().next()
    });
    assert_eq!(
        reported.await.reason.as_deref(),
        Some("NotificationDispatchFailed")
    );
    assert!(setup.object("Alert", "orphan").await["status"].is_null());
    assert_eq!(process.log_events("status-unavailable").len(), 1);
}
