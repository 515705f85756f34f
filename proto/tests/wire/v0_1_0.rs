//! One message of each type as version 0.1.0 writes it, every field set.
//!
//! A later version that adds a field adds a module and a folder of its own. Here the field is left
//! at its default, with `..Default::default()`.

use std::collections::BTreeMap;

use tidings_proto::Timestamp;
use tidings_proto::v1::circuit::State as CircuitState;
use tidings_proto::v1::object_labels::State as LabelState;
use tidings_proto::v1::{
    AlertReference, Attempt, Circuit, DeadLetter, Delivery, Desired, Event, ObjectLabels,
    ObjectReference, Order, Outcome, ProviderReference, Record, Seat, Seats, Slots,
    TemplateReference,
};

use crate::Sample;

pub fn samples() -> Vec<Sample> {
    let (seats, slots) = (
        Seats {
            taken: vec![Seat {
                holder: "delivery-id/0123".into(),
                until_ms: 1_700_000_012_000,
                since_ms: 1_700_000_011_000,
                ..Seat::default()
            }],
            average_ms: 12.5,
            next_ms: 1_700_000_013_000,
            ..Seats::default()
        },
        Slots {
            taken_ms: vec![1_700_000_014_000, 1_700_000_015_000],
            not_before_ms: 1_700_000_016_000,
            limits: "100/1s,500/1h".into(),
        },
    );
    let outcome = Outcome {
        delivery_id: "delivery-id".into(),
        event_id: "event-id".into(),
        cluster: "prod".into(),
        alert: Some(alert()),
        provider: Some(provider()),
        attempt: Some(attempt()),
        planned_at: time(1_700_000_017),
    };
    let dead_letter = DeadLetter {
        delivery: Some(delivery()),
        reason: "rejected".into(),
        detail: "400 from hooks.example.com".into(),
        died_at: time(1_700_000_018),
    };
    vec![
        Sample::new("Event", event()),
        Sample::new("Delivery", delivery()),
        Sample::new("Outcome", outcome),
        Sample::new("DeadLetter", dead_letter),
        Sample::new("Record", record()),
        Sample::new("Circuit", circuit()),
        Sample::new("Slots", slots),
        Sample::new("Seats", seats),
    ]
}

fn time(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds,
        nanos: 123_456_789,
    })
}

fn map(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.into(), value.into())])
}

fn event() -> Event {
    Event {
        id: "event-id".into(),
        dedupe_key: "dedupe-key".into(),
        cluster: "prod".into(),
        involved_object: Some(ObjectReference {
            api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
            kind: "Kustomization".into(),
            namespace: "flux-system".into(),
            name: "apps".into(),
            uid: "object-uid".into(),
            resource_version: "42".into(),
            field_path: "spec.path".into(),
        }),
        severity: "error".into(),
        timestamp: time(1_700_000_001),
        message: "health check failed".into(),
        reason: "HealthCheckFailed".into(),
        metadata: map("event.toolkit.fluxcd.io/team", "blue"),
        reporting_controller: "kustomize-controller".into(),
        reporting_instance: "kustomize-controller-0".into(),
        received_at: time(1_700_000_002),
        labels: Some(ObjectLabels {
            state: LabelState::Known.into(),
            labels: map("app", "web"),
        }),
    }
}

fn attempt() -> Attempt {
    Attempt {
        number: 3,
        started_at: time(1_700_000_003),
        duration_ms: 250,
        outcome: "retrying".into(),
        reason: "server-error".into(),
        detail: "503 from hooks.example.com".into(),
        status: 503,
        template_error: "unknown variable".into(),
        ..Attempt::default()
    }
}

fn alert() -> AlertReference {
    AlertReference {
        namespace: "team-a".into(),
        name: "on-call".into(),
        uid: "alert-uid".into(),
        manifest: "{}".into(),
    }
}

fn provider() -> ProviderReference {
    ProviderReference {
        namespace: "team-a".into(),
        name: "slack".into(),
        r#type: "slack".into(),
        pool: "default".into(),
    }
}

fn delivery() -> Delivery {
    Delivery {
        id: "delivery-id".into(),
        event_id: "event-id".into(),
        event: Some(event()),
        event_sequence: 7,
        alert: Some(alert()),
        provider: Some(provider()),
        metadata: map("summary", "apps"),
        channel: "#alerts".into(),
        generation: 2,
        planned_at: time(1_700_000_004),
        attempt: 3,
        attempts: vec![attempt()],
        unauthorized_since: time(1_700_000_005),
        template: Some(TemplateReference {
            inline: "{{ message }}".into(),
            config_map: "templates".into(),
            key: "slack".into(),
        }),
        slot_ms: 1_700_000_006_000,
        ..Delivery::default()
    }
}

fn record() -> Record {
    let order = Order {
        time_ms: 1_700_000_007_000,
        sequence: 8,
        ..Order::default()
    };
    Record {
        desired: Some(Desired {
            order: Some(order),
            state: b"desired".to_vec(),
            delivery_id: "delivery-id".into(),
            planned_at: time(1_700_000_008),
            ..Desired::default()
        }),
        posted: Some(order),
        posted_state: b"posted".to_vec(),
        handle: "1234".into(),
        lease_holder: "worker-0".into(),
        lease_until: time(1_700_000_009),
        read: true,
        doubted: true,
        ..Record::default()
    }
}

fn circuit() -> Circuit {
    Circuit {
        namespace: "team-a".into(),
        provider: "slack".into(),
        channel: Some("#alerts".into()),
        state: CircuitState::HalfOpen.into(),
        since: time(1_700_000_010),
        until: time(1_700_000_011),
        reason: "503 from hooks.example.com".into(),
        failures: 5,
        openings: 2,
        probe: "delivery-id/0123".into(),
        ..Circuit::default()
    }
}
