//! The rules of a run and its event.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};
use tidings_rig::{alert, event, provider};

/// The object of every event; see [`tidings_rig::event`].
const OBJECT: &str = "apps";
const OTHERS: usize = 1000;
const MATCHING: usize = 100;

/// How long the slow receiver takes.
pub const SLOW: Duration = Duration::from_millis(200);

/// The rules of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One alert that matches
    OneAlert,
    /// One alert that matches, and a thousand for other objects
    ManyAlerts,
    /// A hundred alerts that all match
    FanOut,
    /// One alert that matches, and another to a destination of the same type that hangs
    Neighbor,
    /// One alert that matches, to a receiver that takes 200 ms
    Slow,
}

/// The destinations.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The address of the receiver.
    pub receiver: SocketAddr,
    /// The address of a destination that hangs.
    pub hanging: SocketAddr,
    /// The address of a receiver that takes [`SLOW`].
    pub slow: SocketAddr,
}

/// The JSON of an event, before and after its number.
pub struct Template {
    /// The part before the number.
    pub before: String,
    /// The part after the number.
    pub after: String,
}

impl Scenario {
    /// All scenarios.
    pub const ALL: [Self; 5] = [
        Self::OneAlert,
        Self::ManyAlerts,
        Self::FanOut,
        Self::Neighbor,
        Self::Slow,
    ];

    /// The name in reports and of folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::OneAlert => "one-alert",
            Self::ManyAlerts => "many-alerts",
            Self::FanOut => "fan-out",
            Self::Neighbor => "neighbor",
            Self::Slow => "slow",
        }
    }

    /// The number of deliveries to the receiver for each event.
    pub fn deliveries_per_event(self) -> usize {
        if self == Self::FanOut { MATCHING } else { 1 }
    }

    /// The event; its message begins with `message`.
    pub fn event(self, message: &str) -> Template {
        let mut event = event(message);
        let revision = "main@sha1:5a8f1c7d3e2b4a6f9c0d1e2f3a4b5c6d7e8f9a0b";
        event["metadata"] = json!({"kustomize.toolkit.fluxcd.io/revision": revision});
        let text = event.to_string();
        let split = text
            .find(message)
            .map_or(text.len(), |start| start + message.len());
        Template {
            before: text[..split].to_owned(),
            after: text[split..].to_owned(),
        }
    }

    /// Writes the rules into a folder.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(self, folder: &Path, addresses: Addresses) -> anyhow::Result<()> {
        let matching = (0..self.deliveries_per_event())
            .map(|number| alert_about(&format!("matching-{number}"), OBJECT, "receiver"));
        let others = if self == Self::ManyAlerts { OTHERS } else { 0 };
        let others = (0..others).map(|number| {
            alert_about(
                &format!("other-{number}"),
                &format!("other-{number}"),
                "receiver",
            )
        });
        let neighbor =
            (self == Self::Neighbor).then(|| alert_about("to-hanging", OBJECT, "hanging"));
        let receiver = match self {
            Self::Slow => addresses.slow,
            _ => addresses.receiver,
        };
        let providers = [
            provider_at("receiver", receiver),
            provider_at("hanging", addresses.hanging),
        ];
        let items: Vec<Value> = providers
            .into_iter()
            .chain(neighbor)
            .chain(matching)
            .chain(others)
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let file = folder.join("rules.json");
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&file, list.to_string()))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

fn alert_about(name: &str, object: &str, provider: &str) -> Value {
    let sources = json!([{"kind": "Kustomization", "name": object}]);
    alert(name, provider).with("eventSources", sources).value()
}

fn provider_at(name: &str, address: SocketAddr) -> Value {
    let host = if address.ip().is_unspecified() {
        "127.0.0.1".into()
    } else {
        address.ip().to_string()
    };
    provider(name, &format!("http://{host}:{}/", address.port())).value()
}
