//! What a recorded state is at its service, for tools that show it.

use serde_json::Value;

/// A state of the bucket `latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescribedState {
    /// An incident of PagerDuty or an alert of incident.io.
    Incident {
        /// The key by which the service knows it.
        key: String,
        /// Whether it was opened, and not resolved since.
        is_open: bool,
    },
    /// A commit status.
    CommitStatus {
        /// Its id.
        id: String,
    },
    /// A comment on a change request.
    Comment {
        /// The text by which it is found.
        mark: String,
    },
}

/// Reads a state. `None` if a type wrote it that is not known here.
pub fn described(state: &[u8]) -> Option<DescribedState> {
    let state: Value = serde_json::from_slice(state).ok()?;
    if let Some(steps) = state.as_array() {
        return steps.iter().rev().find_map(step_of_pagerduty);
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(key) = text(&state["body"]["deduplication_key"]) {
        let is_open = state["body"]["status"] == "firing";
        return Some(DescribedState::Incident { key, is_open });
    }
    if let Some(id) = text(&state["context"]) {
        return Some(DescribedState::CommitStatus { id });
    }
    text(&state["mark"]).map(|mark| DescribedState::Comment { mark })
}

/// The last alert of the requests counts: earlier ones are for former keys, later ones are change
/// events.
fn step_of_pagerduty(step: &Value) -> Option<DescribedState> {
    let body = &step["body"];
    let key = body["dedup_key"].as_str()?.to_owned();
    let is_open = body["event_action"] == "trigger";
    Some(DescribedState::Incident { key, is_open })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn described_json(state: &Value) -> Option<DescribedState> {
        described(&serde_json::to_vec(state).unwrap())
    }

    #[test]
    fn the_states_of_each_family_are_described() {
        let incident = |key: &str, is_open| DescribedState::Incident {
            key: key.into(),
            is_open,
        };
        let trigger =
            json!([{"path": "v2", "body": {"event_action": "trigger", "dedup_key": "a"}}]);
        let resolve = json!([
            {"path": "v2", "body": {"event_action": "resolve", "dedup_key": "old"}},
            {"path": "v2", "body": {"event_action": "resolve", "dedup_key": "a"}},
            {"path": "change", "body": {"payload": {}}},
        ]);
        let firing = json!({"at": "", "body": {"status": "firing", "deduplication_key": "b"}});
        let status = json!({"commit": "c", "context": "id", "verdict": "success"});
        let comment = json!({"number": 1, "mark": "<!-- m -->", "body": "text"});
        for (state, expected) in [
            (trigger, Some(incident("a", true))),
            (resolve, Some(incident("a", false))),
            (firing, Some(incident("b", true))),
            (
                status,
                Some(DescribedState::CommitStatus { id: "id".into() }),
            ),
            (
                comment,
                Some(DescribedState::Comment {
                    mark: "<!-- m -->".into(),
                }),
            ),
            (json!({"other": 1}), None),
        ] {
            assert_eq!(described_json(&state), expected, "{state}");
        }
        assert_eq!(described(b"no JSON"), None);
    }
}
