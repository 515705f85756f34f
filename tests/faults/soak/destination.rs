//! One destination: a Provider, an Alert for its own object, and a receiver that may fail.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tidings_rig::{Posted, Receiver, Reply, Rig, alert, provider};

/// `maxAge` of destinations that never accept anything.
pub const RETRIED_FOR: Duration = Duration::from_secs(30);
/// The maximum number of deliveries that a worker holds. Each may be sent twice if it is killed.
const IN_FLIGHT: usize = 256;

/// A numbered destination.
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
                .with("timeout", "2s")
                .with("retry", retry),
            alert(&name, &name).with("eventSources", sources),
        ]);
        Self { number, receiver }
    }

    /// Whether an event with this message goes to this destination.
    pub fn owns(&self, message: &str) -> bool {
        message
            .split_once(" for ")
            .is_some_and(|(_, number)| number == self.number.to_string())
    }

    /// Compares the accepted events with the received ones and the dead letters.
    ///
    /// # Panics
    /// An event is missing, was never posted, was received too often, or is a dead letter although
    /// the destination rejects nothing.
    pub fn balances(&self, posted: &[&Posted], dead: &[String], faults: usize) {
        let received = self.receiver.tally();
        let accepted: BTreeSet<&str> = posted
            .iter()
            .map(|posted| posted.message.as_str())
            .collect();
        let dead: BTreeSet<&str> = dead
            .iter()
            .map(String::as_str)
            .filter(|message| self.owns(message))
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
        let unexpected: Vec<_> = received
            .keys()
            .filter(|id| !accepted.contains(id.as_str()))
            .collect();
        assert!(
            unexpected.is_empty(),
            "destination {}: received, but never posted: {unexpected:?}",
            self.number
        );
        assert!(
            self.rejects_some() || dead.is_empty(),
            "destination {} accepts everything eventually: {dead:?}",
            self.number
        );
        let most = received
            .values()
            .map(|(count, _)| *count)
            .max()
            .unwrap_or_default();
        assert!(
            most <= 1 + faults,
            "destination {}: one event was received {most} times",
            self.number
        );
        assert!(
            twice <= faults * IN_FLIGHT,
            "destination {}: {twice} events were received more than once",
            self.number
        );
        match self.number {
            0 | 1 => assert!(received.is_empty() && dead.len() == accepted.len()),
            4 => assert!(!dead.is_empty()),
            _ => assert!(!received.is_empty()),
        }
    }

    /// Whether it rejects some or all events.
    fn rejects_some(&self) -> bool {
        matches!(self.number, 0 | 1 | 4)
    }
}
