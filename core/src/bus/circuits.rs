//! The circuits of all destinations, as all workers know them: in the bucket `limits`.

use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::bus::records::Records;
use crate::bus::{Bus, NotStored, unavailable};
use crate::destination::{Destination, PREFIX};
use crate::stream;
use crate::wire::Circuit;

/// Between tries to watch the bucket.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

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
        Ok(Self { records: Records::open(bus, stream::LIMITS).await? })
    }

    /// All circuits that have ever opened, failed or been paused, closed ones too.
    ///
    /// # Errors
    /// The bus can't be asked.
    pub async fn all(&self) -> Result<Vec<Known>, NotStored> {
        let keys: Vec<String> = self.records.store.keys().await.map_err(unavailable)?.try_collect().await.map_err(unavailable)?;
        let mut all = Vec::new();
        for key in keys.iter().filter(|key| key.starts_with(PREFIX)) {
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
        Ok(Known { circuit: circuit.unwrap_or_else(|| destination.closed()), revision })
    }

    /// Stores a circuit if it has not moved since `revision`; tells its new revision, and nothing where it has moved.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn store(
        &self,
        destination: &Destination,
        circuit: &Circuit,
        revision: Option<u64>,
    ) -> Result<Option<u64>, NotStored> {
        self.records.store(&destination.key(), circuit, revision).await
    }

    /// Tells every circuit that there is, then every change, until `stop`. After an interruption it tells all of them again.
    pub async fn watch(&self, stop: CancellationToken, mut tell: impl FnMut(Known)) {
        while !stop.is_cancelled() {
            let trouble = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.watch_until_trouble(&mut tell) => ended.err().unwrap_or_else(|| "it ended".to_owned()),
            };
            tracing::warn!(%trouble, "the circuits can't be watched, trying again");
            let _ = stop.run_until_cancelled(tokio::time::sleep(WATCH_PAUSE.mul_f64(1.0 + rand::random::<f64>()))).await;
        }
    }

    async fn watch_until_trouble(&self, tell: &mut impl FnMut(Known)) -> Result<(), String> {
        let mut watch = self.records.store.watch_with_history(format!("{PREFIX}>")).await.map_err(|error| error.to_string())?;
        while let Some(entry) = watch.next().await {
            if let Some(known) = known(&entry.map_err(|error| error.to_string())?) {
                tell(known);
            }
        }
        Ok(())
    }
}

fn known(entry: &Entry) -> Option<Known> {
    let circuit = (entry.operation == Operation::Put).then(|| Circuit::decode(entry.value.clone()).ok())??;
    Some(Known { circuit, revision: Some(entry.revision) })
}
