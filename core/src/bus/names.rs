//! Whether an Alert or Provider exists: tools ask, and every process that reads rules answers.
//!
//! Questions and answers are plain NATS messages. Nothing is stored, so an answer is never older
//! than the rules of a running process.

use std::time::Duration;

use async_nats::Subscriber;
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, BusError, streams, unavailable};
use crate::model::nearest::nearest;
use crate::model::subject;

/// The subject of the questions.
pub const SUBJECT: &str = "tidings.names";
/// How long a tool waits for a process that knows the name.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The kind of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RuleKind {
    /// An Alert.
    Alert,
    /// A Provider.
    Provider,
}

impl RuleKind {
    /// The kind as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "Alert",
            Self::Provider => "Provider",
        }
    }
}

/// An Alert or Provider by name. It may not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleName {
    /// The kind.
    pub kind: RuleKind,
    /// The namespace.
    pub namespace: String,
    /// The name in the namespace.
    pub name: String,
}

/// What processes know about a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameAnswer {
    /// Whether the rules of any process have it.
    pub is_known: bool,
    /// A similar name that exists, as `namespace/name`.
    pub similar: Option<String>,
}

impl RuleName {
    /// Answers from the names that exist, each as namespace and name.
    pub fn answer<'a>(&self, known: impl Iterator<Item = (&'a str, &'a str)>) -> NameAnswer {
        let wrong = format!("{}/{}", self.namespace, self.name);
        let mut names = Vec::new();
        let mut elsewhere = None;
        for (namespace, name) in known {
            if (namespace, name) == (&self.namespace, &self.name) {
                return NameAnswer {
                    is_known: true,
                    similar: None,
                };
            }
            let full = format!("{namespace}/{name}");
            if name == self.name {
                elsewhere.get_or_insert(full.clone());
            }
            names.push(full);
        }
        let similar = nearest(&wrong, names.iter().map(String::as_str)).map(str::to_owned);
        NameAnswer {
            is_known: false,
            similar: elsewhere.or(similar),
        }
    }
}

impl Bus {
    /// Listens to questions about names. The caller passes them to [`Bus::answer_names`].
    ///
    /// # Errors
    /// There is no connection.
    pub async fn name_questions(&self) -> Result<Subscriber, BusError> {
        self.client.subscribe(SUBJECT).await.map_err(unavailable)
    }

    /// Answers questions about names until the connection is closed.
    pub async fn answer_names(
        &self,
        mut questions: Subscriber,
        answer: impl Fn(&RuleName) -> NameAnswer + Send,
    ) {
        while let Some(question) = questions.next().await {
            let asked = serde_json::from_slice::<RuleName>(&question.payload);
            if let (Ok(name), Some(reply)) = (asked, question.reply)
                && let Ok(payload) = serde_json::to_vec(&answer(&name))
            {
                // A tool that gets no answer waits for those of other processes.
                #[expect(clippy::disallowed_methods, reason = "only the bus publishes messages")]
                let _ = self.client.publish(reply, payload.into()).await;
            }
        }
    }

    /// Asks all processes that read rules. Returns as soon as one knows the name, otherwise after a
    /// second; `None` if no process answered.
    ///
    /// # Errors
    /// There is no connection.
    pub async fn ask_name(&self, name: &RuleName) -> Result<Option<NameAnswer>, BusError> {
        let question = Bytes::from(serde_json::to_vec(name).map_err(unavailable)?);
        let inbox = self.client.new_inbox();
        let mut answers = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(unavailable)?;
        self.client
            .publish_with_reply(SUBJECT, inbox, question)
            .await
            .map_err(unavailable)?;
        let mut merged = None;
        let collect = async {
            while let Some(message) = answers.next().await {
                // The server itself answers with an empty message if nobody listens.
                let Ok(answer) = serde_json::from_slice::<NameAnswer>(&message.payload) else {
                    return;
                };
                let known: &mut NameAnswer = merged.get_or_insert_default();
                known.is_known |= answer.is_known;
                known.similar = known.similar.take().or(answer.similar);
                if known.is_known {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(ANSWER_WITHIN, collect).await;
        Ok(merged)
    }

    /// Whether a delivery to a Provider is ready or parked.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn has_waiting(&self, namespace: &str, provider: &str) -> Result<bool, BusError> {
        let [ready, parked, ..] = subject::provider_filters(namespace, provider);
        Ok(self.has_message(streams::DELIVERIES, &ready).await?
            || self.has_message(streams::DELIVERIES, &parked).await?)
    }

    /// Whether the streams hold a delivery to a Provider, an outcome or a dead letter of one.
    ///
    /// # Errors
    /// The bus is unavailable.
    pub async fn has_history(&self, namespace: &str, provider: &str) -> Result<bool, BusError> {
        let streams = [
            streams::DELIVERIES,
            streams::DELIVERIES,
            streams::OUTCOMES,
            streams::DEAD,
        ];
        let filters = subject::provider_filters(namespace, provider);
        for (stream, filter) in streams.into_iter().zip(filters) {
            if self.has_message(stream, &filter).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similar_name_is_suggested() {
        let known = [("apps", "slack"), ("apps", "hook"), ("team", "pager")];
        for (namespace, name, expected) in [
            ("apps", "slak", Some("apps/slack")),
            ("app", "slack", Some("apps/slack")),
            ("default", "pager", Some("team/pager")),
            ("default", "unrelated", None),
        ] {
            let asked = RuleName {
                kind: RuleKind::Provider,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let answer = asked.answer(known.into_iter());
            assert_eq!(answer.similar.as_deref(), expected, "{namespace}/{name}");
            assert!(!answer.is_known);
        }
        let exact = RuleName {
            kind: RuleKind::Provider,
            namespace: "apps".to_owned(),
            name: "hook".to_owned(),
        };
        assert!(exact.answer(known.into_iter()).is_known);
    }
}
