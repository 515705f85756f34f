//! Finds dead letters in the stream DEAD.

mod newest;

use std::collections::HashSet;

use anyhow::Context as _;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;
use tidings_core::bus::Bus;
use tidings_core::bus::names::{RuleKind, RuleName};
use tidings_core::bus::streams;
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::time::from_proto;
use tidings_core::{DeadLetter, Delivery, Message as _, Reason};

use crate::command::names;
use crate::command::tool::ago;

pub use newest::find_newest;

/// Selects dead letters.
#[derive(Args, Debug, Clone, Default)]
pub struct Filter {
    /// Delivery ids, or their first characters
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Select dead letters of this Alert
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub alert: Option<String>,
    /// Select dead letters of this Provider
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub provider: Option<String>,
    /// Select dead letters of events of this cluster
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Select dead letters with this reason, such as unauthorized
    #[arg(long)]
    pub reason: Option<String>,
    /// Select dead letters older than DURATION, such as 90s, 30m or 12h
    #[arg(long, value_name = "DURATION")]
    pub older_than: Option<String>,
    /// Select dead letters newer than DURATION, such as 90s, 30m or 12h
    #[arg(long, value_name = "DURATION")]
    pub newer_than: Option<String>,
}

/// A dead letter and where it is stored.
pub struct StoredDeadLetter {
    /// The sequence in the stream DEAD.
    pub sequence: u64,
    /// The content of the message.
    pub dead_letter: DeadLetter,
}

impl StoredDeadLetter {
    /// The delivery that was given up.
    pub fn delivery(&self) -> Delivery {
        self.dead_letter.delivery.clone().unwrap_or_default()
    }
}

/// The server sends the next message of a stream within this time.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// A filter whose values are parsed and valid.
struct Criteria {
    ids: Vec<String>,
    alert: Option<RuleName>,
    provider: Option<RuleName>,
    cluster: Option<String>,
    reason: Option<String>,
    died_before: Option<Timestamp>,
    died_after: Option<Timestamp>,
}

/// What a filter selects.
pub struct Found {
    /// The dead letters, oldest first.
    pub dead_letters: Vec<StoredDeadLetter>,
    /// An error if the Alert or Provider of the filter does not exist.
    pub existence: anyhow::Result<()>,
}

/// Returns all dead letters that a filter selects, oldest first.
///
/// # Errors
/// The filter is invalid, the stream cannot be read, or no dead letter has one of the ids.
pub async fn find(bus: &Bus, filter: &Filter) -> anyhow::Result<Found> {
    let criteria = filter.criteria()?;
    let mut seen = HashSet::new();
    let found = read(bus, &criteria, Part::ALL, &mut seen).await?.found;
    let is_found = |id: &&String| {
        found
            .iter()
            .any(|stored| stored.delivery().id.starts_with(id.as_str()))
    };
    let existence = criteria.require_names(bus, &seen).await;
    match filter.ids.iter().find(|id| !is_found(id)) {
        Some(id) => {
            existence?;
            anyhow::bail!("dead letter {id} not found: pass an id as `tidings dead list` prints it")
        }
        None => Ok(Found {
            dead_letters: found,
            existence,
        }),
    }
}

/// A part of the stream.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The sequence that the part begins after; before, if the newest are wanted first.
    pub after: u64,
    /// The most dead letters that are selected.
    pub most_found: usize,
    /// The most messages that are read.
    pub most_read: usize,
    /// The most bytes of the messages that are selected; many times as many are read.
    pub most_bytes: usize,
}

/// How many bytes may be read for each byte that may be selected.
const READ_FOR_EACH_BYTE: usize = 16;

impl Part {
    const ALL: Self = Self {
        after: 0,
        most_found: usize::MAX,
        most_read: usize::MAX,
        most_bytes: usize::MAX,
    };
}

/// What a filter selects of a part.
#[derive(Default)]
pub struct Page {
    /// The dead letters, oldest first.
    pub found: Vec<StoredDeadLetter>,
    /// The sequence to continue after; `None` if the rest of the stream was read.
    pub next: Option<u64>,
    /// The dead letters in the stream, whether selected or not.
    pub stored: u64,
}

/// Returns what a filter selects of a part of the stream.
///
/// # Errors
/// The filter is invalid, or the stream cannot be read.
pub async fn find_page(bus: &Bus, filter: &Filter, part: Part) -> anyhow::Result<Page> {
    read(bus, &filter.criteria()?, part, &mut HashSet::new()).await
}

/// Reads the stream and keeps only what the criteria select: the stream can be larger than memory.
/// The Alerts and Providers of all dead letters are added to `seen`.
async fn read(
    bus: &Bus,
    criteria: &Criteria,
    part: Part,
    seen: &mut HashSet<(RuleKind, String, String)>,
) -> anyhow::Result<Page> {
    let mut dead = bus
        .jetstream()
        .get_stream(streams::DEAD)
        .await
        .context("stream DEAD not found: is Tidings running?")?;
    let state = dead
        .info()
        .await
        .context("cannot read the stream DEAD")?
        .state
        .clone();
    let mut page = Page {
        stored: state.messages,
        ..Page::default()
    };
    if state.messages == 0 || part.after >= state.last_sequence {
        return Ok(page);
    }
    let start_sequence = part.after + 1;
    let consumer = dead
        .create_consumer(OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            // The client keeps what it asked for in memory.
            max_batch: 64,
            ..OrderedConfig::default()
        })
        .await
        .context("cannot read the stream DEAD")?;
    let mut messages = consumer
        .messages()
        .await
        .context("cannot read the stream DEAD")?;
    let (mut bytes_read, mut bytes_found) = (0, 0);
    for number in 1.. {
        // Another command may remove what is left; the consumer would then wait forever.
        let next = tokio::time::timeout(READ_TIMEOUT, messages.next()).await;
        let Ok(Some(message)) = next else {
            anyhow::bail!("the stream DEAD changed while it was read; run the command again")
        };
        let message = message.context("cannot read the stream DEAD")?;
        let (sequence, pending) = message
            .info()
            .map(|info| (info.stream_sequence, info.pending))
            .map_err(anyhow::Error::msg)?;
        bytes_read += message.payload.len();
        if let Ok(dead_letter) = DeadLetter::decode(message.payload.clone()) {
            seen.extend(names_of(&dead_letter));
            if criteria.are_met_by(&dead_letter) {
                bytes_found += message.payload.len();
                page.found.push(StoredDeadLetter {
                    sequence,
                    dead_letter,
                });
            }
        }
        if pending == 0 || sequence >= state.last_sequence {
            break;
        }
        let is_enough = page.found.len() >= part.most_found || bytes_found >= part.most_bytes;
        let is_much =
            number >= part.most_read || bytes_read / READ_FOR_EACH_BYTE >= part.most_bytes;
        if is_enough || is_much {
            page.next = Some(sequence);
            break;
        }
    }
    Ok(page)
}

fn names_of(dead_letter: &DeadLetter) -> [(RuleKind, String, String); 2] {
    let delivery = dead_letter.delivery.clone().unwrap_or_default();
    let (alert, provider) = (
        delivery.alert.unwrap_or_default(),
        delivery.provider.unwrap_or_default(),
    );
    [
        (RuleKind::Alert, alert.namespace, alert.name),
        (RuleKind::Provider, provider.namespace, provider.name),
    ]
}

impl Filter {
    /// Whether the filter selects every dead letter.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
            && self.alert.is_none()
            && self.provider.is_none()
            && self.cluster.is_none()
            && self.reason.is_none()
            && self.older_than.is_none()
            && self.newer_than.is_none()
    }

    /// The filter on one line, for people.
    pub fn text(&self) -> String {
        let mut parts = self.ids.clone();
        for (name, value) in [
            ("alert", &self.alert),
            ("provider", &self.provider),
            ("cluster", &self.cluster),
            ("reason", &self.reason),
            ("older-than", &self.older_than),
            ("newer-than", &self.newer_than),
        ] {
            parts.extend(value.iter().map(|value| format!("{name}={value}")));
        }
        if parts.is_empty() {
            parts.push("all".to_owned());
        }
        parts.join(" ")
    }

    /// Checks the values.
    ///
    /// # Errors
    /// One is invalid.
    pub fn check(&self) -> anyhow::Result<()> {
        self.criteria().map(drop)
    }

    fn criteria(&self) -> anyhow::Result<Criteria> {
        let alert = self.alert.as_deref();
        let alert = alert.map(|text| names::parse(RuleKind::Alert, "--alert", text));
        let provider = self.provider.as_deref();
        let provider = provider.map(|text| names::parse(RuleKind::Provider, "--provider", text));
        // An empty id would match every dead letter.
        anyhow::ensure!(
            !self.ids.contains(&String::new()),
            "ID is empty: pass an id as `tidings dead list` prints it"
        );
        if let Some(reason) = &self.reason
            && !Reason::ALL.iter().any(|valid| valid.as_str() == reason)
        {
            let valid: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            anyhow::bail!("--reason {reason:?}: expected one of {}", valid.join(", "));
        }
        let time = |flag: &'static str, duration: &Option<String>| {
            duration.as_deref().map(ago).transpose().context(flag)
        };
        Ok(Criteria {
            ids: self.ids.clone(),
            alert: alert.transpose()?,
            provider: provider.transpose()?,
            cluster: self.cluster.clone(),
            reason: self.reason.clone(),
            died_before: time("--older-than", &self.older_than)?,
            died_after: time("--newer-than", &self.newer_than)?,
        })
    }
}

impl Criteria {
    /// Checks that Alert and Provider exist. `seen` are those of all dead letters.
    async fn require_names(
        &self,
        bus: &Bus,
        seen: &HashSet<(RuleKind, String, String)>,
    ) -> anyhow::Result<()> {
        for name in self.alert.iter().chain(&self.provider) {
            let same_kind = seen.iter().filter(|(kind, ..)| *kind == name.kind);
            let stored = same_kind.map(|(_, namespace, name)| (namespace.as_str(), name.as_str()));
            names::require(bus, name, stored).await?;
        }
        Ok(())
    }

    fn are_met_by(&self, dead_letter: &DeadLetter) -> bool {
        let delivery = dead_letter.delivery.clone().unwrap_or_default();
        let alert = delivery.alert.unwrap_or_default();
        let provider = delivery.provider.unwrap_or_default();
        let has_cluster = self.cluster.as_ref().is_none_or(|cluster| {
            let delivery = dead_letter.delivery.as_ref();
            let event = delivery.and_then(carried_event);
            event.is_some_and(|event| event.cluster == *cluster)
        });
        let died = from_proto(dead_letter.died_at).unwrap_or(Timestamp::UNIX_EPOCH);
        let has_id = self.ids.is_empty()
            || self
                .ids
                .iter()
                .any(|id| delivery.id.starts_with(id.as_str()));
        let is_named = |wanted: &Option<RuleName>, namespace: &str, name: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| (wanted.namespace == namespace) && (wanted.name == name))
        };
        let has_alert = is_named(&self.alert, &alert.namespace, &alert.name);
        let has_provider = is_named(&self.provider, &provider.namespace, &provider.name);
        let has_reason = self
            .reason
            .as_ref()
            .is_none_or(|reason| *reason == dead_letter.reason);
        has_id
            && has_alert
            && has_provider
            && has_cluster
            && has_reason
            && self.died_before.is_none_or(|time| died <= time)
            && self.died_after.is_none_or(|time| died >= time)
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::{ProtoTimestamp, ProviderReference};

    use super::*;

    fn text(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    fn ids(ids: &[&str]) -> Filter {
        Filter {
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
            ..Filter::default()
        }
    }

    fn provider_and_reason(provider: &str, reason: &str) -> Filter {
        Filter {
            provider: text(provider),
            reason: text(reason),
            ..Filter::default()
        }
    }

    fn ages(older_than: Option<&str>, newer_than: Option<&str>) -> Filter {
        Filter {
            older_than: older_than.map(str::to_owned),
            newer_than: newer_than.map(str::to_owned),
            ..Filter::default()
        }
    }

    #[test]
    fn a_dead_letter_matches_if_it_meets_every_part_of_the_filter() {
        let provider = ProviderReference {
            namespace: "apps".into(),
            name: "slack".into(),
            ..Default::default()
        };
        let an_hour_ago = ProtoTimestamp {
            seconds: Timestamp::now().as_second() - 3600,
            nanos: 0,
        };
        let dead_letter = DeadLetter {
            delivery: Some(Delivery {
                id: "abcdef".into(),
                provider: Some(provider),
                ..Default::default()
            }),
            reason: "rejected".into(),
            died_at: Some(an_hour_ago),
            ..Default::default()
        };
        for (filter, matches) in [
            (Filter::default(), true),
            (ids(&["x", "abc"]), true),
            (ids(&["bcd"]), false),
            (provider_and_reason("apps/slack", "rejected"), true),
            (provider_and_reason("apps/slack", "exhausted"), false),
            (ages(Some("30m"), None), true),
            (ages(Some("2h"), None), false),
            (ages(None, Some("2h")), true),
        ] {
            let criteria = filter.criteria().unwrap();
            assert_eq!(criteria.are_met_by(&dead_letter), matches, "{filter:?}");
        }
    }

    #[test]
    fn an_invalid_filter_is_rejected() {
        for filter in [
            provider_and_reason("slack", "rejected"),
            provider_and_reason("apps/slack", "bad"),
            ids(&[""]),
            ages(Some("long"), None),
        ] {
            assert!(filter.criteria().is_err(), "{filter:?}");
        }
    }
}
