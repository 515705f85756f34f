//! Shadow mode: the router records deliveries instead of storing them for workers.

use futures::future::BoxFuture;
use tidings_core::bus::publish::until_stored;
use tidings_core::bus::{Bus, BusError};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::metrics::labels::{ShadowLabels, ShadowOutcome};
use tidings_core::wire::ShadowRecord;
use tidings_core::{Delivery, Event};
use tidings_rules::Rules;

use crate::route::Router;

/// Finds out what a worker would do with a delivery, without a call to anybody.
pub trait Foresee: Send + Sync + 'static {
    /// What a worker would do, and the record of it.
    fn foresee<'a>(
        &'a self,
        delivery: &'a Delivery,
        event: &'a Event,
        rules: &'a Rules,
    ) -> BoxFuture<'a, (ShadowOutcome, ShadowRecord)>;

    /// Creates the stream of records again, after a record could not be stored.
    fn recreate_stream<'a>(&'a self, bus: &'a Bus) -> BoxFuture<'a, Result<(), BusError>>;
}

impl Router {
    /// Records what workers would do, one delivery after the other: each holds a copy of the event
    /// while it is rendered.
    pub(crate) async fn record_all(
        &self,
        shadow: &dyn Foresee,
        deliveries: &[Delivery],
        event: &Event,
        rules: &Rules,
    ) {
        for delivery in deliveries {
            let (outcome, record) = shadow.foresee(delivery, event, rules).await;
            self.store_record(shadow, &record).await;
            let provider = record.provider.unwrap_or_default();
            let labels = ShadowLabels {
                r#type: provider.r#type,
                outcome,
            };
            let counter = &self.metrics().router_shadow_records_total;
            counter.get_or_create(&labels).inc();
        }
    }

    /// Stores a record, retrying until it succeeds. Until then the event is not acknowledged.
    async fn store_record(&self, shadow: &dyn Foresee, record: &ShadowRecord) {
        let store = || async {
            let bus = self.bus();
            match bus.store_shadow_record(record).await {
                Ok(stored) => Ok(stored),
                Err(error) => {
                    // An operator may have deleted the stream.
                    shadow.recreate_stream(bus).await?;
                    Err(error)
                }
            }
        };
        until_stored(store, |error| {
            tracing::warn!(
                code = codes::SHADOW_NOT_RECORDED,
                %error,
                "record of shadow mode not stored, retrying"
            )
        })
        .await;
    }
}
