//! Events as Flux's controllers post them.

use serde_json::{Value, json};

use crate::rules::NAMESPACE;

/// An event about the Kustomization `apps`. A [`crate::Ledger`] identifies it by its message.
pub fn event(message: &str) -> Value {
    json!({
        "involvedObject": {
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
            "kind": "Kustomization",
            "namespace": NAMESPACE,
            "name": "apps",
            "uid": "1c0c2f0e-8f4b-4d3b-9a51-0a6f4bb3c0de",
        },
        "severity": "info",
        "timestamp": "2026-01-02T03:04:05Z",
        "message": message,
        "reason": "ReconciliationSucceeded",
        "reportingController": "kustomize-controller",
    })
}
