//! Reading dead letters from the stream DEAD.

use anyhow::Context;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;
use tidings_core::bus::Bus;
use tidings_core::bus::streams;
use tidings_core::{DeadLetter, Delivery, Message as _, Reason};

use crate::command::tool::ago;

/// Which letters are meant.
#[derive(Args, Debug, Clone, Default)]
pub struct Filter {
    /// Ids of deliveries, or their beginnings
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// Letters to this Provider only: namespace/name
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub provider: Option<String>,
    /// Letters that were given up for this reason only
    #[arg(long)]
    pub reason: Option<String>,
    /// Letters that died longer ago than this only: 90s, 30m, 12h
    #[arg(long, value_name = "DURATION")]
    pub older_than: Option<String>,
    /// Letters that died later than so long ago only
    #[arg(long, value_name = "DURATION")]
    pub newer_than: Option<String>,
}

/// A letter, and where it is kept.
pub struct Letter {
    /// Its sequence in DEAD.
    pub sequence: u64,
    /// The letter.
    pub letter: DeadLetter,
}

impl Letter {
    /// The delivery that was given up.
    pub fn delivery(&self) -> Delivery {
        self.letter.delivery.clone().unwrap_or_default()
    }
}

/// A filter that is understood.
struct Wanted {
    ids: Vec<String>,
    provider: Option<(String, String)>,
    reason: Option<String>,
    died_before: Option<Timestamp>,
    died_after: Option<Timestamp>,
}

/// All letters that a filter means, oldest first.
///
/// # Errors
/// The filter can't be understood, the stream can't be read, or an id is nobody's.
pub async fn find(bus: &Bus, filter: &Filter) -> anyhow::Result<Vec<Letter>> {
    let wanted = filter.understood()?;
    let mut dead = bus
        .jetstream()
        .get_stream(streams::DEAD)
        .await
        .context("there is no stream DEAD: is Tidings running?")?;
    let last = dead
        .info()
        .await
        .context("cannot look at the stream DEAD")?
        .state
        .last_sequence;
    let mut letters = Vec::new();
    if dead.cached_info().state.messages == 0 {
        ensure_found(&letters, filter)?;
        return Ok(letters);
    }
    let consumer = dead
        .create_consumer(OrderedConfig::default())
        .await
        .context("cannot read the stream DEAD")?;
    let mut messages = consumer
        .messages()
        .await
        .context("cannot read the stream DEAD")?;
    while let Some(message) = messages.next().await {
        let message = message.context("reading the stream DEAD failed")?;
        let (sequence, pending) = message
            .info()
            .map(|info| (info.stream_sequence, info.pending))
            .map_err(anyhow::Error::msg)?;
        if let Ok(letter) = DeadLetter::decode(message.payload.clone())
            && wanted.is_met_by(&letter)
        {
            letters.push(Letter { sequence, letter });
        }
        if pending == 0 || sequence >= last {
            break;
        }
    }
    ensure_found(&letters, filter)?;
    Ok(letters)
}

/// Other filters may mean nothing; whoever names a letter wants that one.
fn ensure_found(letters: &[Letter], filter: &Filter) -> anyhow::Result<()> {
    let is_found = |id: &&String| {
        letters
            .iter()
            .any(|letter| letter.delivery().id.starts_with(id.as_str()))
    };
    match filter.ids.iter().find(|id| !is_found(id)) {
        Some(id) => anyhow::bail!("there is no such dead letter: {id}"),
        None => Ok(()),
    }
}

impl Filter {
    /// Whether nothing is said: then every letter is meant.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
            && self.provider.is_none()
            && self.reason.is_none()
            && self.older_than.is_none()
            && self.newer_than.is_none()
    }

    fn understood(&self) -> anyhow::Result<Wanted> {
        let provider = self.provider.as_ref().map(|text| {
            let (namespace, name) = text.split_once('/').with_context(|| {
                format!("--provider {text:?} is not of the form namespace/name")
            })?;
            anyhow::Ok((namespace.to_owned(), name.to_owned()))
        });
        // The beginning of every id.
        anyhow::ensure!(!self.ids.contains(&String::new()), "an id is empty");
        if let Some(reason) = &self.reason
            && !Reason::ALL.iter().any(|known| known.as_str() == reason)
        {
            let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            anyhow::bail!("--reason {reason:?} is none of {}", known.join(", "));
        }
        Ok(Wanted {
            ids: self.ids.clone(),
            provider: provider.transpose()?,
            reason: self.reason.clone(),
            died_before: self
                .older_than
                .as_deref()
                .map(ago)
                .transpose()
                .context("--older-than")?,
            died_after: self
                .newer_than
                .as_deref()
                .map(ago)
                .transpose()
                .context("--newer-than")?,
        })
    }
}

impl Wanted {
    fn is_met_by(&self, letter: &DeadLetter) -> bool {
        let delivery = letter.delivery.clone().unwrap_or_default();
        let provider = delivery.provider.unwrap_or_default();
        let died = letter
            .died_at
            .and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
            .unwrap_or(Timestamp::UNIX_EPOCH);
        (self.ids.is_empty()
            || self
                .ids
                .iter()
                .any(|id| delivery.id.starts_with(id.as_str())))
            && self.provider.as_ref().is_none_or(|(namespace, name)| {
                (namespace, name) == (&provider.namespace, &provider.name)
            })
            && self
                .reason
                .as_ref()
                .is_none_or(|reason| *reason == letter.reason)
            && self.died_before.is_none_or(|time| died <= time)
            && self.died_after.is_none_or(|time| died >= time)
    }
}

#[cfg(test)]
mod tests {
    use tidings_core::{ProviderReference, Timestamp as ProtoTimestamp};

    use super::*;

    #[test]
    fn a_letter_must_meet_every_part_of_a_filter() {
        let provider = ProviderReference {
            namespace: "apps".into(),
            name: "slack".into(),
            ..Default::default()
        };
        let letter = DeadLetter {
            delivery: Some(Delivery {
                id: "abcdef".into(),
                provider: Some(provider),
                ..Default::default()
            }),
            reason: "rejected".into(),
            died_at: Some(ProtoTimestamp {
                seconds: Timestamp::now().as_second() - 3600,
                nanos: 0,
            }),
            ..Default::default()
        };
        let some = |text: &str| Some(text.to_owned());
        for (filter, met) in [
            (Filter::default(), true),
            (
                Filter {
                    ids: vec!["x".into(), "abc".into()],
                    ..Default::default()
                },
                true,
            ),
            (
                Filter {
                    ids: vec!["bcd".into()],
                    ..Default::default()
                },
                false,
            ),
            (
                Filter {
                    provider: some("apps/slack"),
                    reason: some("rejected"),
                    ..Default::default()
                },
                true,
            ),
            (
                Filter {
                    provider: some("apps/slack"),
                    reason: some("exhausted"),
                    ..Default::default()
                },
                false,
            ),
            (
                Filter {
                    older_than: some("30m"),
                    ..Default::default()
                },
                true,
            ),
            (
                Filter {
                    older_than: some("2h"),
                    ..Default::default()
                },
                false,
            ),
            (
                Filter {
                    newer_than: some("2h"),
                    ..Default::default()
                },
                true,
            ),
        ] {
            assert_eq!(
                filter.understood().unwrap().is_met_by(&letter),
                met,
                "{filter:?}"
            );
        }
        for wrong in [
            Filter {
                provider: some("slack"),
                ..Default::default()
            },
            Filter {
                reason: some("bad"),
                ..Default::default()
            },
        ] {
            assert!(wrong.understood().is_err(), "{wrong:?}");
        }
    }
}
