//! One destination: a Provider, the Alert that sends it its own objects' events, and a receiver,
//! well or sick.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tidings_rig::{Posted, Receiver, Reply, Rig, alert, provider};

/// What can't be delivered within this time to a destination that never takes anything is a dead
/// letter.
pub const RETRIED_FOR: Duration = Duration::from_secs(30);
/// What a worker may hold at once: what may come twice when it is killed.
const IN_FLIGHT: usize = 256;

/// A destination with a number of its own.
pub struct Destination {
    number: u32,
    receiver: Receiver,
}

/// The name of the object whose events go to a destination.
pub fn object(number: u32) -> String {
    format!("object-{number}")
}

impl Destination {
    /// Starts the receiver and writes Provider and Alert.
    pub async fn start(rig: &Rig, number: u32) -> Self {
        let receiver = Receiver::start().await;
        match number {
            0 => receiver.answer_with(Reply::Stall),
            1 => receiver.answer_with(Reply::RetryAfter(429, 1)),
            2 => receiver.answer_in_turn([
                Reply::Status(500),
                Reply::Status(200),
                Reply::Status(200),
            ]),
            3 => receiver.answer_in_turn([Reply::Close, Reply::Status(200)]),
            4 => receiver.answer_in_turn([
                Reply::Status(400),
                Reply::Status(200),
                Reply::Status(200),
                Reply::Status(200),
            ]),
            _ => {}
        }
        let name = format!("destination-{number}");
        let max_age = if number < 2 {
            RETRIED_FOR
        } else {
            Duration::from_secs(3600)
        };
        let retry =
            json!({"min": "200ms", "max": "2s", "maxAge": format!("{}s", max_age.as_secs())});
        let sources = json!([{"kind": "Kustomization", "name": object(number)}]);
        rig.rules().put([
            provider(&name, receiver.url())
                .with("timeout", json!("2s"))
                .with("retry", retry),
            alert(&name, &name).with("eventSources", sources),
        ]);
        Self { number, receiver }
    }

    /// Whether an event with this message is this destination's.
    pub fn is_meant_by(&self, message: &str) -> bool {
        message
            .split_once(" for ")
            .is_some_and(|(_, number)| number == self.number.to_string())
    }

    /// Compares what was accepted with what was received and what died, one by one.
    ///
    /// # Panics
    /// When something is missing, was never posted, died without need, or came too often.
    pub fn balances(&self, posted: &[&Posted], letters: &[String], faults: usize) {
        let received = self.receiver.tally();
        let accepted: BTreeSet<&str> = posted
            .iter()
            .map(|posted| posted.message.as_str())
            .collect();
        let dead: BTreeSet<&str> = letters
            .iter()
            .map(String::as_str)
            .filter(|message| self.is_meant_by(message))
            .collect();
        let twice = received.values().filter(|(count, _)| *count > 1).count();
        println!(
            "destination {}: {} accepted, {} received, {} dead, {twice} more than once",
            self.number,
            accepted.len(),
            received.len(),
            dead.len()
        );

        let missing: Vec<_> = accepted
            .iter()
            .filter(|id| !received.contains_key(**id) && !dead.contains(*id))
            .collect();
        assert!(
            missing.is_empty(),
            "destination {}: accepted, neither received nor dead: {missing:?}",
            self.number
        );
        let strays: Vec<_> = received
            .keys()
            .filter(|id| !accepted.contains(id.as_str()))
            .collect();
        assert!(
            strays.is_empty(),
            "destination {}: received, but never posted: {strays:?}",
            self.number
        );
        assert!(
            self.refuses() || dead.is_empty(),
            "destination {} takes everything in the end: {dead:?}",
            self.number
        );
        let most = received
            .values()
            .map(|(count, _)| *count)
            .max()
            .unwrap_or_default();
        assert!(
            most <= 1 + faults,
            "destination {}: one event came {most} times",
            self.number
        );
        assert!(
            twice <= faults * IN_FLIGHT,
            "destination {}: {twice} events came more than once",
            self.number
        );
        match self.number {
            0 | 1 => assert!(received.is_empty() && dead.len() == accepted.len()),
            4 => assert!(!dead.is_empty()),
            _ => assert!(!received.is_empty()),
        }
    }

    /// Whether it never takes anything, or refuses some for good.
    fn refuses(&self) -> bool {
        matches!(self.number, 0 | 1 | 4)
    }
}
