//! The circuits of all destinations, as all workers know them: in the bucket `limits`.

use crate::runtime::codes::log as codes;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::bus::records::{Records, record};
use crate::bus::streams;
use crate::bus::{Bus, NotStored, unavailable};
use crate::model::destination::{Destination, PREFIX};
use crate::wire::Circuit;

/// Between tries to watch the bucket.
const WATCH_PAUSE: Duration = Duration::from_millis(500);
/// Whether the bucket is still the same is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads, changes and watches circuits.
#[derive(Clone)]
pub struct Circuits {
    records: Records,
}

/// A circuit as it is stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// The circuit; closed where nothing is known.
    pub circuit: Circuit,
    /// Its revision, for [`Circuits::store`]; none where there is no record.
    pub revision: Option<u64>,
}

impl Circuits {
    /// Opens the bucket.
    ///
    /// # Errors
    /// It is not there, or the bus can't be asked.
    pub async fn open(bus: &Bus) -> Result<Self, NotStored> {
        Ok(Self {
            records: Records::open(bus, streams::LIMITS).await?,
        })
    }

    /// All circuits that have ever opened, failed or been paused, closed ones too.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn all(&self) -> Result<Vec<Known>, NotStored> {
        let mut all = Vec::new();
        for key in self
            .records
            .keys()
            .await?
            .iter()
            .filter(|key| key.starts_with(PREFIX))
        {
            if let (Some(circuit), revision) = self.records.load(key).await? {
                all.push(Known { circuit, revision });
            }
        }
        Ok(all)
    }

    /// The circuit of a destination.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn load(&self, destination: &Destination) -> Result<Known, NotStored> {
        let (circuit, revision) = self.records.load(&destination.key()).await?;
        Ok(Known {
            circuit: circuit.unwrap_or_else(|| destination.closed()),
            revision,
        })
    }

    /// Stores a circuit if it has not moved since `revision`; tells its new revision, and nothing
    /// where it has moved.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn store(
        &self,
        destination: &Destination,
        circuit: &Circuit,
        revision: Option<u64>,
    ) -> Result<Option<u64>, NotStored> {
        self.records
            .store(&destination.key(), circuit, revision)
            .await
    }

    /// Tells every circuit that there is, then every change, until `stop`. After an interruption it
    /// tells all of them again. One whose record is gone, alone or with the whole bucket, is
    /// told as closed, without a revision.
    pub async fn watch(&self, stop: CancellationToken, mut tell: impl FnMut(Known)) {
        let mut told = Told::default();
        while !stop.is_cancelled() {
            let trouble = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.watch_until_trouble(&mut told, &mut tell) => {
                    ended.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string())
                }
            };
            tracing::warn!(code = codes::CIRCUIT_WATCH_FAILED, %trouble, "circuit watch failed, retrying");
            let _ = stop
                .run_until_cancelled(tokio::time::sleep(
                    WATCH_PAUSE.mul_f64(1.0 + rand::random::<f64>()),
                ))
                .await;
        }
    }

    async fn watch_until_trouble(
        &self,
        told: &mut Told,
        tell: &mut impl FnMut(Known),
    ) -> Result<(), NotStored> {
        let since = self.records.since().await?;
        let there: HashSet<String> = self.records.keys().await?.into_iter().collect();
        told.missing(since, &there).into_iter().for_each(|gone| {
            tell(Known {
                circuit: gone.closed(),
                revision: None,
            })
        });
        let mut watch = self.records.watch(&format!("{PREFIX}>")).await?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let entry = tokio::select! {
                entry = watch.next() => entry,
                // A bucket that is made anew ends no watch on the one before.
                _ = look.tick() => match self.records.since().await? == since {
                    true => continue,
                    false => return Ok(()),
                },
            };
            let Some(entry) = entry else { return Ok(()) };
            let entry = entry.map_err(unavailable)?;
            match record(&entry) {
                Some(circuit) => tell(told.note(Known {
                    circuit,
                    revision: Some(entry.revision),
                })),
                None => told.all.remove(&entry.key).into_iter().for_each(|gone| {
                    tell(Known {
                        circuit: gone.closed(),
                        revision: None,
                    })
                }),
            }
        }
    }
}

/// What a watch has told: by key, of a bucket that stands since then.
#[derive(Default)]
struct Told {
    all: HashMap<String, Destination>,
    since: Option<Timestamp>,
}

impl Told {
    /// What was told and is there no more. Revisions of another bucket say nothing: then all of it
    /// is.
    fn missing(&mut self, since: Timestamp, there: &HashSet<String>) -> Vec<Destination> {
        let is_another = self
            .since
            .replace(since)
            .is_some_and(|before| before != since);
        let is_missing = |key: &String| is_another || !there.contains(key);
        self.all
            .extract_if(|key, _| is_missing(key))
            .map(|(_, destination)| destination)
            .collect()
    }

    fn note(&mut self, known: Known) -> Known {
        let destination = Destination::of(&known.circuit);
        self.all.insert(destination.key(), destination);
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Known {
        Known {
            circuit: Destination::whole("apps", name).closed(),
            revision: Some(1),
        }
    }

    fn keys<const N: usize>(names: [&str; N]) -> HashSet<String> {
        names
            .map(|name| Destination::whole("apps", name).key())
            .into()
    }

    #[test]
    fn what_was_told_and_is_gone_is_told_as_closed() {
        let (mut told, then) = (Told::default(), Timestamp::UNIX_EPOCH);
        assert!(told.missing(then, &keys(["a", "b"])).is_empty());
        [known("a"), known("b")]
            .into_iter()
            .for_each(|known| drop(told.note(known)));
        assert!(told.missing(then, &keys(["a", "b"])).is_empty());
        assert_eq!(
            told.missing(then, &keys(["a"])),
            [Destination::whole("apps", "b")]
        );
        let later = then + Duration::from_secs(1);
        assert_eq!(
            told.missing(later, &keys(["a"])),
            [Destination::whole("apps", "a")],
            "another bucket counts anew"
        );
    }
}
