//! Creates a consumer where it must begin, and records the position of the routers' consumer.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::Stream;

use super::{PullError, Puller};
use crate::bus::consumers::position::{self, EventsRange, Recorded, Start};
use crate::bus::consumers::recreate::{is_unreadable, replace};
use crate::bus::consumers::{ConsumerRecords, ConsumerState};
use crate::bus::streams::{EVENTS, ROUTER};
use crate::bus::watch::StreamInfo;
use crate::bus::{Bus, BusError};
use crate::runtime::codes::log as codes;
use crate::runtime::log_pace::LogPace;
use crate::wire::ConsumerPosition;

/// How often the position is recorded, and the state of the consumer is checked.
const RECORD_EVERY: Duration = Duration::from_secs(1);

/// What is known of the routers' position.
struct Known {
    records: ConsumerRecords,
    recorded: Recorded,
    revision: Option<u64>,
    events: EventsRange,
}

impl Puller {
    /// Whether the consumer cannot simply be recreated. A consumer of a work queue receives
    /// everything that is stored; that of the routers would receive what was routed, too. The
    /// consumer of a bridge begins where its configuration says.
    pub(super) fn keeps_position(&self) -> bool {
        self.stream == EVENTS && self.name() == ROUTER
    }

    /// Creates the missing consumer. On EVENTS it begins after the recorded position: from the
    /// beginning it would route all stored events again.
    pub(super) async fn create(&self, stream: &Stream<()>) -> Result<(), PullError> {
        let (config, is_first) = self.beginning().await?;
        match stream.create_consumer(config.clone()).await {
            Ok(_) => Ok(()),
            Err(error) if is_unreadable(&error) && is_first => Err(self.unknown(
                "the server cannot read the consumer's state, and no position is recorded",
            )),
            Err(error) if is_unreadable(&error) => {
                self.recreate(stream, config, &error.to_string()).await
            }
            Err(error) => Err(error.to_string().into()),
        }
    }

    /// The configuration with the place where the consumer must begin, and whether no router ever
    /// read EVENTS.
    async fn beginning(&self) -> Result<(pull::Config, bool), PullError> {
        if !self.keeps_position() {
            return Ok((self.consumer.clone(), false));
        }
        let known = self.known().await?;
        let is_first = known.recorded == Recorded::Never;
        let config = self.config_after(&known).await?;
        // So that an untouched bucket proves that nothing was routed.
        if matches!(config.deliver_policy, DeliverPolicy::All) {
            let position = known.events.beginning();
            let recorded = known.records.record(position, known.revision).await;
            recorded.map_err(|error| error.to_string())?;
        }
        Ok((config, is_first))
    }

    async fn config_after(&self, known: &Known) -> Result<pull::Config, PullError> {
        let stored_id = match &known.recorded {
            Recorded::Position(position) => self.bus.event_id_at(position.acknowledged).await,
            _ => Ok(None),
        };
        let stored_id = stored_id.map_err(|error| error.to_string())?;
        match position::start(&known.recorded, &known.events, stored_id.as_deref()) {
            Ok(Start::Beginning) => Ok(self.consumer.clone()),
            Ok(Start::After(sequence)) => Ok(pull::Config {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: sequence + 1,
                },
                ..self.consumer.clone()
            }),
            Err(why) => Err(self.unknown(&why)),
        }
    }

    fn unknown(&self, why: &str) -> PullError {
        PullError::PositionUnknown(format!(
            "the position of consumer {} in EVENTS is unknown ({why}): set it with `tidings \
             streams recreate-consumer --from-time TIME` or `--from-sequence NUMBER`",
            self.name()
        ))
    }

    async fn known(&self) -> Result<Known, String> {
        let events = self.bus.stream_info(EVENTS).await?;
        let unavailable = |error: BusError| error.to_string();
        let records = ConsumerRecords::open(&self.bus).await;
        let records = records.map_err(unavailable)?;
        let (recorded, revision) = records.position(&events).await.map_err(unavailable)?;
        Ok(Known {
            records,
            recorded,
            revision,
            events: range(&events),
        })
    }

    /// Recreates a consumer, unless another process does or did.
    async fn recreate(
        &self,
        stream: &Stream<()>,
        config: pull::Config,
        why: &str,
    ) -> Result<(), PullError> {
        let unavailable = |error: BusError| error.to_string();
        let records = ConsumerRecords::open(&self.bus).await;
        let records = records.map_err(unavailable)?;
        let lease = records.lease(self.stream, self.name()).await;
        let Some(lease) = lease.map_err(unavailable)? else {
            return Err("another process recreates the consumer".to_owned().into());
        };
        let recreated = self.recreate_if_lost(stream, config, why).await;
        records.release(lease).await;
        Ok(recreated.map(|_| ())?)
    }

    async fn recreate_if_lost(
        &self,
        stream: &Stream<()>,
        config: pull::Config,
        why: &str,
    ) -> Result<PullConsumer, String> {
        match self.bus.consumer_state(self.stream, self.name()).await? {
            Some(state) if !self.is_lost(&state).await? => self.existing(stream).await,
            _ => replace(stream, self.name(), config, why).await,
        }
    }

    async fn is_lost(&self, state: &ConsumerState) -> Result<bool, String> {
        if !self.keeps_position() {
            return Ok(false);
        }
        let known = self.known().await?;
        Ok(known.why_lost(state).is_some())
    }

    /// Records the position every second. Never returns.
    pub(super) async fn keep_position_forever(&self) {
        let mut ticks = tokio::time::interval(RECORD_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pace = LogPace::default();
        loop {
            ticks.tick().await;
            if !self.bus.is_connected() {
                continue;
            }
            match self.keep_position().await {
                Ok(()) => {
                    pace.reset();
                }
                Err(error) if pace.is_due(&error.to_string(), Instant::now()) => {
                    tracing::warn!(
                        code = codes::CONSUMER_POSITION_NOT_RECORDED,
                        consumer = self.name(),
                        %error,
                        "position of the consumer not recorded"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// Records the position of the consumer if it exists. Recreates the consumer if its state
    /// contradicts the record.
    pub(super) async fn keep_position(&self) -> Result<(), PullError> {
        let Some(state) = self.bus.consumer_state(self.stream, self.name()).await? else {
            return Ok(());
        };
        let known = self.known().await?;
        if let Some(why) = known.why_lost(&state) {
            let stream = self.bus.jetstream().get_stream_no_info(self.stream).await;
            let stream = stream.map_err(|error| error.to_string())?;
            let config = self.config_after(&known).await?;
            return self.recreate(&stream, config, &why).await;
        }
        let is_blank = state.delivered.consumer_seq == 0;
        if known.recorded == Recorded::Missing && is_blank && known.events.last > 0 {
            return Err(self.unknown(
                "the server reports that nothing was delivered, and no position is recorded",
            ));
        }
        if let Some(next) = position::next(&known.recorded, &state, &known.events) {
            self.record(&known, next).await?;
        }
        Ok(())
    }

    async fn record(&self, known: &Known, mut next: ConsumerPosition) -> Result<(), String> {
        let is_new = !matches!(&known.recorded, Recorded::Position(position)
            if position.acknowledged == next.acknowledged);
        if is_new {
            let id = self.bus.event_id_at(next.acknowledged).await;
            next.event_id = id.map_err(|error| error.to_string())?.unwrap_or_default();
        }
        let recorded = known.records.record(next, known.revision).await;
        recorded.map_err(|error| error.to_string())
    }
}

impl Known {
    fn why_lost(&self, state: &ConsumerState) -> Option<String> {
        match &self.recorded {
            Recorded::Position(position) => position::lost(position, state, &self.events),
            _ => None,
        }
    }
}

fn range(events: &StreamInfo) -> EventsRange {
    EventsRange {
        deleted: events.deleted(),
        created: events.created,
        first: events.first_sequence(),
        last: events.last_sequence(),
    }
}

impl Bus {
    /// The id of the event with this sequence. `None` if it is not stored.
    async fn event_id_at(&self, sequence: u64) -> Result<Option<String>, BusError> {
        if sequence == 0 {
            return Ok(None);
        }
        let event = self.event_with_sequence(sequence).await?;
        Ok(event.map(|event| event.id))
    }
}
