//! The documentation of the provider types: examples, requirements and the generated page.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tidings_core::Reason;
use tidings_workers::attempt::prepare;
use tidings_workers::http::Http;
use tidings_workers::notifier::PROVIDERS;
use tidings_workers::notifier::contract::need::{Demand, Need, Place};

use crate::subject::{attempt, event, filled_example, resolve};

const TIDINGS: &str = env!("CARGO_BIN_EXE_tidings");
const BEGIN: &str = "made from the table in workers/src/notifier.rs: make docs -->\n";
const END: &str = "<!-- types end -->";

fn printed(arguments: &[&str]) -> String {
    let output = Command::new(TIDINGS).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn pages_state_the_number_of_types() {
    for page in [
        "README.md",
        "docs/README.md",
        "docs/providers.md",
        "docs/rules.md",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = std::fs::read_to_string(path).unwrap();
        let mut numbers = text.split(|character: char| !character.is_ascii_digit());
        let types = PROVIDERS.len().to_string();
        assert!(
            numbers.any(|number| number == types),
            "{page}: {types} types"
        );
    }
}

#[tokio::test]
async fn the_example_of_every_type_works() {
    for row in PROVIDERS {
        let provider =
            resolve(&filled_example(row)).unwrap_or_else(|error| panic!("{}: {error}", row.kind));
        assert_eq!(provider.kind.name, row.kind);
        let prepared = prepare(Arc::new(provider), |_| Ok(Http::dry_run()));
        let prepared = prepared.unwrap_or_else(|error| panic!("{}: {error}", row.kind));
        let ended = attempt(&prepared, &event("Health check failed")).await;
        assert!(ended.is_ok(), "{}: {ended:?}", row.kind);
    }
}

#[tokio::test]
async fn every_type_rejects_a_provider_without_a_required_field() {
    for row in PROVIDERS {
        for need in row
            .needs
            .iter()
            .filter(|need| need.demand == Demand::Required)
        {
            let manifest = without(&filled_example(row), need);
            let error = match resolve(&manifest)
                .map(|provider| prepare(Arc::new(provider), |_| Ok(Http::dry_run())))
            {
                Err(problem) => problem,
                Ok(Err(invalid)) => invalid.0,
                Ok(Ok(prepared)) => {
                    let ended = attempt(&prepared, &event("Health check failed")).await;
                    let Err(failure) = ended else {
                        panic!("{} without {}: {ended:?}", row.kind, need.name)
                    };
                    assert_eq!(
                        failure.reason,
                        Reason::Misconfigured,
                        "{} without {}",
                        row.kind,
                        need.name
                    );
                    failure.detail
                }
            };
            assert!(!error.is_empty(), "{} without {}", row.kind, need.name);
        }
    }
}

/// Removes one field or key, and everything below it, from a manifest.
fn without(manifest: &str, need: &Need) -> String {
    let (mut kept, mut section, mut is_removed) = (String::new(), "", false);
    for line in manifest.lines() {
        if !line.starts_with(' ') {
            section = line;
        }
        if line.starts_with("  ") && !line.starts_with("   ") || !line.starts_with(' ') {
            let is_here = section
                == if need.place == Place::Field {
                    "spec:"
                } else {
                    "stringData:"
                };
            is_removed = is_here && line.trim_start().starts_with(&format!("{}:", need.name));
        }
        if !is_removed {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    assert_ne!(kept, manifest, "the example has {}", need.name);
    kept
}

#[test]
fn docs_list_every_provider_type() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/providers.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (current, after) = rest.split_once(END).unwrap();
    let generated = format!("\n{}", printed(&["providers", "markdown"]));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{generated}{END}{after}")).unwrap();
        return;
    }
    assert!(
        current == generated,
        "docs/providers.md is outdated; run `make docs`"
    );
}

#[test]
fn the_command_lists_every_type_as_text_and_as_json() {
    let text = printed(&["providers"]);
    let json: serde_json::Value =
        serde_json::from_str(&printed(&["providers", "--output", "json"])).unwrap();
    for (row, listed) in PROVIDERS.iter().zip(json.as_array().unwrap()) {
        assert!(
            text.contains(&format!("{}: {}\n", row.kind, row.summary)),
            "{}",
            row.kind
        );
        assert_eq!(
            (
                listed["type"].as_str(),
                listed["needs"].as_array().map(Vec::len)
            ),
            (Some(row.kind), Some(row.needs.len()))
        );
        assert_eq!(printed(&["providers", "example", row.kind]), row.example());
    }
    let unknown = Command::new(TIDINGS)
        .args(["providers", "example", "smoke"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&unknown.stderr);
    assert!(
        !unknown.status.success() && error.contains("smoke") && error.contains("slack"),
        "{error}"
    );
}
