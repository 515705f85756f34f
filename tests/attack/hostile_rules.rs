//! What a hostile tenant writes into the rules.

use std::fs::create_dir;
use std::os::unix::fs::symlink;

use serde_json::json;
use tidings_rig::{Manifest, Rig, alert, provider};
use tidings_rules::testing;

/// The namespace of the tenant.
pub const TENANT: &str = "mallory";
/// The number of destinations that never answer.
pub const HANGING: usize = 100;

/// Writes all of the tenant's rules. `hanging` is the address of a service that never answers, and
/// `forge` that of one that accepts commit statuses.
pub fn put(rig: &Rig, hanging: &str, forge: &str) {
    links_to_itself(rig);
    put_text(rig, "expression.yaml", &growing_expression(forge));
    put_text(
        rig,
        "slow-patterns.yaml",
        &[slow_patterns("sink"), sink(hanging)],
    );
    put_text(rig, "large-patterns.yaml", &[large_patterns("sink")]);
    let destinations: Vec<Manifest> = (0..HANGING)
        .flat_map(|number| {
            let name = format!("hanging-{number}");
            [
                provider(&name, &format!("{hanging}/{number}")),
                matching(alert(&name, &name), "markup"),
            ]
        })
        .collect();
    put_text(rig, "hanging.yaml", &destinations);
}

fn put_text(rig: &Rig, file: &str, manifests: &[Manifest]) {
    let documents = manifests
        .iter()
        .map(|manifest| manifest.clone().in_namespace(TENANT).to_string());
    let text: Vec<String> = documents.collect();
    rig.rules().put_text(file, &text.join("\n---\n"));
}

/// An Alert for events of the tenant's objects with this name.
fn matching(alert: Manifest, object: &str) -> Manifest {
    alert.with(
        "eventSources",
        json!([{"kind": "Kustomization", "name": object}]),
    )
}

/// Sixteen levels of four links to the folder itself.
fn links_to_itself(rig: &Rig) {
    let folder = rig.rules().folder().join("links");
    create_dir(&folder).expect("the rules folder is writable");
    for name in ["a", "b", "c", "d"] {
        symlink(".", folder.join(name)).expect("the rules folder is writable");
    }
}

/// An expression whose value doubles forty times.
fn growing_expression(forge: &str) -> [Manifest; 3] {
    let doubled = ".map(x, x + x)".repeat(40);
    [
        testing::provider("forge", "gitea")
            .with("address", "https://forge.example/mallory/deploy")
            .with("apiAddress", forge)
            .with("secretRef", json!({"name": "forge"}))
            .with(
                "commitStatusExpr",
                format!("['aaaaaaaaaaaaaaaa']{doubled}[0]"),
            ),
        testing::secret("forge", json!({"token": "s3cret-token"})),
        matching(alert("forge", "forge"), "commit"),
    ]
}

fn sink(address: &str) -> Manifest {
    provider("sink", address)
}

/// Patterns whose automata have many states.
fn slow_patterns(provider: &str) -> Manifest {
    let patterns: Vec<String> = (0..40)
        .map(|number| format!("[ab]*a[ab]{{900}}c{number}"))
        .collect();
    matching(alert("slow-patterns", provider), "letters").with("inclusionList", patterns)
}

/// Patterns of a few bytes that compile to megabytes.
fn large_patterns(provider: &str) -> Manifest {
    let patterns: Vec<String> = (0..2_500)
        .map(|number| format!("\\pL{{700}}x{number}"))
        .collect();
    matching(alert("large-patterns", provider), "letters").with("inclusionList", patterns)
}
