//! The answer of `/scaling`. Autoscalers read paths of this JSON, so its keys must not change.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::bus::workload::{Queue, Workload};

/// The most pairs of pool and type in an answer and in the metrics. The others are summed up.
pub const MOST_QUEUES: usize = 500;
/// The pool and type of that sum.
const OTHERS: &str = "*";

/// What waits, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingAnswer {
    /// The deliveries of each pool.
    pub workers: BTreeMap<String, PoolWork>,
    /// Parked deliveries of all pools. They need no worker before their time.
    pub parked: u64,
    /// How long the oldest ready delivery has waited for a worker.
    pub oldest_ready_seconds: u64,
    /// Events that no router has finished.
    pub events_unrouted: u64,
}

/// The deliveries of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolWork {
    /// The sum of all types.
    #[serde(flatten)]
    pub total: Work,
    /// The deliveries of each provider type.
    pub by_type: BTreeMap<String, Work>,
}

/// A number of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Those that wait for a worker.
    pub ready: u64,
    /// Those that a worker has and did not acknowledge yet.
    pub unacknowledged: u64,
    /// The sum of both, to scale by.
    pub backlog: u64,
}

impl Work {
    fn add(&mut self, queue: Queue) {
        self.ready += queue.ready;
        self.unacknowledged += queue.unacknowledged;
        self.backlog += queue.ready + queue.unacknowledged;
    }
}

impl ScalingAnswer {
    /// The answer. Of more than [`MOST_QUEUES`] pairs of pool and type, those with the most
    /// deliveries are listed.
    pub fn new(workload: &Workload) -> Self {
        let mut queues: Vec<_> = workload.queues.iter().collect();
        queues.sort_by_key(|(_, queue)| Reverse(queue.ready + queue.unacknowledged));
        let mut answer = Self {
            parked: workload.parked,
            oldest_ready_seconds: workload.oldest_ready.as_secs(),
            events_unrouted: workload.events_unrouted,
            ..Self::default()
        };
        for (number, ((pool, kind), queue)) in queues.into_iter().enumerate() {
            let (pool, kind) = match number < MOST_QUEUES {
                true => (pool.as_str(), kind.as_str()),
                false => (OTHERS, OTHERS),
            };
            let work = answer.workers.entry(pool.to_owned()).or_default();
            work.total.add(*queue);
            work.by_type.entry(kind.to_owned()).or_default().add(*queue);
        }
        answer
    }

    /// Includes a pool, and a type of it, with zeros if nothing waits there: an autoscaler fails if
    /// the path that it reads does not exist.
    pub fn including(mut self, pool: Option<&str>, kind: Option<&str>) -> Self {
        if let Some(pool) = pool {
            let work = self.workers.entry(pool.to_owned()).or_default();
            if let Some(kind) = kind {
                work.by_type.entry(kind.to_owned()).or_default();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn workload(queues: &[(&str, &str, u64, u64)]) -> Workload {
        let queues = queues.iter().map(|(pool, kind, ready, unacknowledged)| {
            let queue = Queue {
                ready: *ready,
                unacknowledged: *unacknowledged,
            };
            (((*pool).to_owned(), (*kind).to_owned()), queue)
        });
        Workload {
            queues: queues.collect(),
            parked: 7,
            oldest_ready: Duration::from_millis(2900),
            events_unrouted: 4,
        }
    }

    #[test]
    fn a_pool_is_the_sum_of_its_types() {
        let answer = ScalingAnswer::new(&workload(&[
            ("default", "slack", 2, 1),
            ("default", "incident.io", 0, 3),
            ("eu", "slack", 5, 0),
        ]));
        let work = |ready: u64, unacknowledged: u64| {
            let backlog = ready + unacknowledged;
            json!({"ready": ready, "unacknowledged": unacknowledged, "backlog": backlog})
        };
        let expected = json!({
            "workers": {
                "default": {
                    "ready": 2, "unacknowledged": 4, "backlog": 6,
                    "byType": {"incident.io": work(0, 3), "slack": work(2, 1)},
                },
                "eu": {
                    "ready": 5, "unacknowledged": 0, "backlog": 5,
                    "byType": {"slack": work(5, 0)},
                },
            },
            "parked": 7,
            "oldestReadySeconds": 2,
            "eventsUnrouted": 4,
        });
        assert_eq!(serde_json::to_value(&answer).unwrap(), expected);
    }

    #[test]
    fn an_answer_has_a_bounded_number_of_queues() {
        let mut waiting = workload(&[("busy", "slack", 9, 0)]);
        for number in 0..2000 {
            let queue = Queue {
                ready: 1,
                unacknowledged: 0,
            };
            let key = (format!("pool-{number}"), "slack".to_owned());
            waiting.queues.insert(key, queue);
        }
        let answer = ScalingAnswer::new(&waiting);
        assert_eq!(answer.workers.len(), MOST_QUEUES + 1);
        assert_eq!(answer.workers["busy"].total.ready, 9);
        let listed = (MOST_QUEUES - 1) as u64;
        assert_eq!(answer.workers[OTHERS].total.ready, 2000 - listed);
    }

    #[test]
    fn a_pool_that_is_asked_for_is_there() {
        let answer = ScalingAnswer::new(&workload(&[("default", "slack", 2, 1)]));
        let same = answer.clone().including(Some("default"), Some("slack"));
        assert_eq!(same, answer);
        let more = answer.including(Some("eu"), Some("discord"));
        assert_eq!(more.workers["eu"].by_type["discord"], Work::default());
    }
}
