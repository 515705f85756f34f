//! Members that store events on a server of their own, and a hub that cannot be reached.

mod cut;
mod full;
mod held;
mod hub_full;
mod killed;
mod life;
mod quota;
mod refused;
mod renamed;
mod repeated;
mod silent;

use std::path::PathBuf;

use prost::Message as _;
use tidings_core::Event;
use tidings_rig::{Cable, Process, Role, event, eventually};

use super::Fleet;
use crate::command::{text, tidings_with};

/// The name of the member.
const NAME: &str = "dev-1";

/// A hub and a member that reaches it over a cable.
struct Site {
    fleet: Fleet,
    cable: Cable,
    data: PathBuf,
}

impl Site {
    /// A fleet with one member, which does not run.
    async fn new() -> Self {
        let fleet = Fleet::start().await;
        fleet.add(NAME).await;
        let cable = Cable::to(fleet.rig.url()).await;
        let data = fleet.rig.folder().join("edge");
        Self { fleet, cable, data }
    }

    /// The edge of the member.
    fn edge(&self) -> Role {
        let role = Role::edge(&self.cable.url(), &self.data);
        let role = role.args(["--cluster", NAME]);
        self.fleet.with_credentials(role, NAME)
    }

    /// A router whose stream of events has this dedupe interval.
    async fn router(&self, dedupe_interval: &str) -> Process {
        let file = self.fleet.credentials("tools");
        let variables = [
            ("TIDINGS_NATS__CREDENTIALS", text(&file)),
            ("TIDINGS_INGEST__DEDUPE_INTERVAL", dedupe_interval),
        ];
        let apply = ["streams", "apply", "--nats", self.fleet.rig.url()];
        let applied = tidings_with(&variables, &apply).await;
        assert_eq!(applied.status, Some(0), "{applied:?}");
        let router = Role::router().env("TIDINGS_INGEST__DEDUPE_INTERVAL", dedupe_interval);
        let router = self.fleet.with_credentials(router, "router");
        self.fleet.rig.run(router).await
    }

    /// Answers requests for consumers as a router does, and does nothing else that routers do.
    async fn answer_guests(&self) {
        let router = self.fleet.credentials("router");
        let bus = super::uses::bus(self.fleet.rig.url(), &router).await;
        let requests = bus.guest_requests().await.unwrap();
        tokio::spawn(async move { bus.answer_guests(requests).await });
    }

    /// The messages of the events on the hub, in order.
    async fn stored(&self) -> Vec<String> {
        let streams = self.fleet.streams().await;
        let Ok(mut stream) = streams.get_stream("EVENTS").await else {
            return Vec::new();
        };
        let last = stream.info().await.unwrap().state.last_sequence;
        let mut messages = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await.unwrap();
            messages.push(Event::decode(message.payload).unwrap().message);
        }
        messages
    }

    /// Waits until the hub has stored this many events.
    async fn has_stored(&self, count: usize) {
        let streams = self.fleet.streams().await;
        eventually("the hub has as many events", async || {
            let mut stream = streams.get_stream("EVENTS").await.ok()?;
            let stored = stream.info().await.ok()?.state.messages;
            (stored >= count as u64).then_some(())
        })
        .await;
    }

    /// Waits until the hub has stored as many events as these, and asserts that it has these.
    async fn stores(&self, expected: &[String]) {
        self.has_stored(expected.len()).await;
        let stored = self.stored().await;
        let first = stored.iter().zip(expected).position(|(a, b)| a != b);
        let around = |messages: &[String]| {
            let at = first.unwrap_or(expected.len().min(messages.len()));
            messages[at.saturating_sub(2)..(at + 5).min(messages.len())].to_vec()
        };
        assert!(
            stored == expected,
            "{} stored, {} expected, first difference at {first:?}: {:?} instead of {:?}",
            stored.len(),
            expected.len(),
            around(&stored),
            around(expected),
        );
    }
}

/// Posts events one after the other. All are accepted.
async fn post(edge: &Process, messages: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut posted = Vec::new();
    for message in messages {
        let answer = edge.post(&event(&message)).await.unwrap();
        assert_eq!(answer.status, 202, "{message}: {}", answer.body);
        posted.push(message);
    }
    posted
}

fn numbered(what: &str, count: usize) -> impl Iterator<Item = String> + use<> {
    let what = what.to_owned();
    (0..count).map(move |number| format!("{what} {number}"))
}
