//! Finds deliveries that are gone from DELIVERIES although no worker acknowledged them.
//!
//! The server reports no such loss: a purge by another client, or a damaged block that it cuts off
//! when it starts. So every router and worker reads what the server counts, and compares it with
//! the last reading, which is kept in the bucket `counts` ([decision
//! 21](../../../docs/decisions/0021-lost-deliveries.md)). Each second one of
//! them reads; while nothing changes, several may.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::bus::records::Records;
use crate::bus::{Bus, BusError, streams};
use crate::model::time::{between, from_proto};
use crate::runtime::codes::log as codes;
use crate::runtime::log_pace::LogPace;
use crate::runtime::metrics::Metrics;
use crate::runtime::metrics::labels::LostFrom;
use crate::wire::DeliveryCounts;

mod compare;
pub(in crate::bus) mod reading;

use compare::{Lost, is_exact, is_unchanged, lost, next_record, skipped};
use reading::Reading;

/// The key of the record.
const KEY: &str = "deliveries";
/// How often one of the processes reads.
const READ_EVERY: Duration = Duration::from_secs(1);
/// A role starts after this time even if the server does not answer.
const FIRST_LOOK_WITHIN: Duration = Duration::from_secs(5);
/// A record that another process stored within this time is not compared again.
const FRESH_FOR: Duration = Duration::from_millis(900);
/// An unchanged record is stored again after this time.
const STORE_EVERY: Duration = Duration::from_secs(5);
/// A loss counts if this many further readings show it, too: within 0.7 s. New deliveries hide a
/// loss, so more readings would show less.
const CONFIRMATIONS: u32 = 3;
/// As many as that, for 6 s, if only the outcomes show it.
const CONFIRMATIONS_BY_OUTCOMES: u32 = 6;
/// The pause before the first of them; each further one is twice as long.
const CONFIRM_AFTER: Duration = Duration::from_millis(100);
/// Skipped messages count if this many readings in a row show them.
const SKIPPED_READINGS: u32 = 3;

/// Looks for lost deliveries.
pub struct LossWatch {
    bus: Bus,
    /// Opened at the first look that reaches the server.
    records: Option<Records>,
    metrics: Metrics,
    /// The losses that `metrics` has counted.
    counted: HashMap<LostFrom, u64>,
    /// Whether a reading has failed since the last one.
    is_interrupted: bool,
    /// The skipped messages of each consumer, and how many readings in a row showed them.
    skipped: HashMap<String, (u64, u32)>,
    pace: LogPace,
}

impl LossWatch {
    /// Looks with this bus, and counts losses in these metrics.
    pub fn new(bus: Bus, metrics: Metrics) -> Self {
        for from in LostFrom::ALL {
            // So that the metric shows 0 and not nothing.
            let _ = metrics.deliveries_lost_total.get_or_create(from);
        }
        Self {
            bus,
            records: None,
            metrics,
            counted: HashMap::new(),
            is_interrupted: false,
            skipped: HashMap::new(),
            pace: LogPace::default(),
        }
    }

    /// Looks once, so that a loss while no process ran is found before deliveries change the
    /// counts. Then looks in the background until `stop`.
    pub async fn start(mut self, stop: CancellationToken) {
        if timeout(FIRST_LOOK_WITHIN, self.look()).await.is_err() {
            self.is_interrupted = true;
        }
        let mut ticks =
            tokio::time::interval_at(tokio::time::Instant::now() + READ_EVERY, READ_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::spawn(async move {
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                stop.run_until_cancelled(self.look()).await;
            }
        });
    }

    async fn look(&mut self) {
        match self.try_look().await {
            Ok(is_read) => self.is_interrupted &= !is_read,
            Err(error) => {
                self.is_interrupted = true;
                if self.bus.is_connected() && self.pace.is_due("counts", std::time::Instant::now())
                {
                    tracing::warn!(
                        code = codes::COUNTS_UNAVAILABLE,
                        %error,
                        "counts of DELIVERIES cannot be read or stored, retrying"
                    );
                }
            }
        }
    }

    /// Returns whether the counts were compared, by this process or another.
    async fn try_look(&mut self) -> Result<bool, BusError> {
        let records = match &self.records {
            Some(records) => records.clone(),
            None => Records::open(&self.bus, streams::COUNTS).await?,
        };
        self.records = Some(records.clone());
        let (record, revision) = records.load::<DeliveryCounts>(KEY).await?;
        if let Some(record) = &record {
            self.show(record);
            if is_fresh(record, self.bus.clock().now()) {
                return Ok(true);
            }
        }
        let Some(mut reading) = self.bus.read_counts().await? else {
            return Ok(false);
        };
        let lost = match &record {
            Some(record) => self.confirmed(record, &mut reading).await?,
            None => Lost::default(),
        };
        if reading.is_replicated && reading.before != reading.after {
            // Replicas apply acknowledgements later, so only a reading without a change is exact.
            return Ok(false);
        }
        let mut next = next_record(record.as_ref(), &reading, lost);
        let skipped = self.note_skipped(&reading, &mut next);
        if record.is_some_and(|record| is_unchanged(&record, &next) && !is_due(&record, &next)) {
            return Ok(true);
        }
        if records.store(KEY, &next, revision).await?.is_some() {
            report(lost, &skipped);
            self.show(&next);
        }
        Ok(true)
    }

    /// What is lost according to this reading and each further one.
    async fn confirmed(
        &self,
        record: &DeliveryCounts,
        reading: &mut Reading,
    ) -> Result<Lost, BusError> {
        let mut confirmed = lost(record, reading, self.is_interrupted);
        for number in 0..CONFIRMATIONS_BY_OUTCOMES {
            let is_enough =
                number >= CONFIRMATIONS && is_exact(record, reading, self.is_interrupted);
            if confirmed.total() == 0 || is_enough {
                break;
            }
            tokio::time::sleep(CONFIRM_AFTER * 2_u32.pow(number)).await;
            let Some(next) = self.bus.read_counts().await? else {
                return Ok(Lost::default());
            };
            *reading = next;
            confirmed = confirmed.min(lost(record, reading, self.is_interrupted));
        }
        Ok(confirmed)
    }

    /// Counts messages that consumers have skipped. Returns the consumers with new ones. Only
    /// readings during which nothing was stored or removed are exact.
    fn note_skipped(
        &mut self,
        reading: &Reading,
        next: &mut DeliveryCounts,
    ) -> BTreeMap<String, u64> {
        let mut new = BTreeMap::new();
        if reading.before != reading.after {
            return new;
        }
        for (name, consumer) in &reading.consumers {
            let now = skipped(reading, consumer);
            let (before, readings) = self.skipped.entry(name.clone()).or_default();
            *readings = if *before == now { *readings + 1 } else { 1 };
            *before = now;
            let Some(record) = next.consumers.get_mut(name) else {
                continue;
            };
            if *readings >= SKIPPED_READINGS {
                if now > record.skipped {
                    new.insert(name.clone(), now - record.skipped);
                }
                record.skipped = now;
            }
        }
        next.lost_skipped += new.values().sum::<u64>();
        new
    }

    /// Shows the losses of a record in the metrics.
    fn show(&mut self, record: &DeliveryCounts) {
        for (from, lost) in [
            (LostFrom::Ready, record.lost_ready),
            (LostFrom::Parked, record.lost_parked),
            (LostFrom::Skipped, record.lost_skipped),
        ] {
            let counted = self.counted.entry(from).or_default();
            let new = lost.saturating_sub(*counted);
            self.metrics
                .deliveries_lost_total
                .get_or_create(&from)
                .inc_by(new);
            *counted += new;
        }
    }
}

impl Bus {
    /// The number of deliveries that were found to be lost since the bucket `counts` was created.
    ///
    /// # Errors
    /// The bus is unavailable, or the bucket does not exist.
    pub async fn lost_deliveries(&self) -> Result<u64, BusError> {
        let records = Records::open(self, streams::COUNTS).await?;
        let (record, _) = records.load::<DeliveryCounts>(KEY).await?;
        let lost =
            |record: DeliveryCounts| record.lost_ready + record.lost_parked + record.lost_skipped;
        Ok(record.map_or(0, lost))
    }
}

fn is_fresh(record: &DeliveryCounts, now: Timestamp) -> bool {
    let read_at = from_proto(record.read_at);
    read_at.is_some_and(|read_at| read_at <= now && between(read_at, now) < FRESH_FOR)
}

fn is_due(record: &DeliveryCounts, next: &DeliveryCounts) -> bool {
    let times = from_proto(record.read_at).zip(from_proto(next.read_at));
    times.is_none_or(|(before, now)| now < before || between(before, now) >= STORE_EVERY)
}

fn report(lost: Lost, skipped: &BTreeMap<String, u64>) {
    for (consumer, skipped) in skipped {
        tracing::error!(
            code = codes::DELIVERIES_SKIPPED,
            consumer,
            skipped,
            "consumer has skipped stored deliveries; delete it, workers recreate it"
        );
    }
    if lost.total() > 0 {
        tracing::error!(
            code = codes::DELIVERIES_LOST,
            lost = lost.total(),
            parked = lost.parked,
            "deliveries are gone from stream DELIVERIES; run `tidings replay --missing`"
        );
    }
}
