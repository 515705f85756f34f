//! Finds the event of a delivery by the delivery's id, which logs and requests show.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use anyhow::{Context as _, bail};
use tidings_core::bus::pending_deliveries::PendingDelivery;
use tidings_core::bus::search::{Start, StoredMessage};
use tidings_core::bus::{Bus, streams};
use tidings_core::model::subject::{ALL_DEAD, ALL_DELIVERIES, ALL_OUTCOMES, ALL_PARKED};
use tidings_core::wire::Outcome;
use tidings_core::{DeadLetter, Message as _};

use super::bounds::Bounds;
use super::query::Query;

const OLDEST: Start = Start::Sequence(1);

/// The events of the deliveries whose id begins with the wanted text.
struct Events<'a> {
    id: &'a str,
    found: BTreeSet<String>,
}

impl Events<'_> {
    fn see(&mut self, delivery_id: &str, event_id: String) {
        if delivery_id.starts_with(self.id) && !event_id.is_empty() {
            self.found.insert(event_id);
        }
    }
}

/// The event of the delivery with this id, or whose id begins with it; `None` if no such delivery
/// is stored.
///
/// # Errors
/// Deliveries of several events begin with it, or the bus is unavailable.
pub async fn event_of(bus: &Bus, id: &str, bounds: Bounds) -> anyhow::Result<Option<Query>> {
    let mut events = Events {
        id,
        found: BTreeSet::new(),
    };
    // A delivery moves from DELIVERIES to DEAD and OUTCOMES, so they are read in this order.
    find_pending(bus, bounds, &mut events).await?;
    for (stream, filter) in [(streams::DEAD, ALL_DEAD), (streams::OUTCOMES, ALL_OUTCOMES)] {
        let handle = |message: StoredMessage| {
            if let Some((delivery, event)) = ids(stream, &message) {
                events.see(&delivery, event);
            }
            ControlFlow::Continue(())
        };
        let (filters, mut budget) = ([filter.to_owned()], bounds.budget());
        bus.search(stream, &filters, OLDEST, &mut budget, handle)
            .await
            .with_context(|| format!("cannot read the stream {stream}"))?;
    }
    let mut found = events.found.into_iter();
    match (found.next(), found.next()) {
        (Some(event), None) => Query::event(&event).map(Some),
        (None, _) => Ok(None),
        (Some(first), Some(second)) => {
            bail!("deliveries of the events {first} and {second} begin with {id}: give more of it")
        }
    }
}

async fn find_pending(bus: &Bus, bounds: Bounds, events: &mut Events<'_>) -> anyhow::Result<()> {
    let mut budget = bounds.budget_of_deliveries();
    for filter in [ALL_DELIVERIES, ALL_PARKED] {
        let handle =
            |found: PendingDelivery| events.see(&found.delivery.id, found.delivery.event_id);
        bus.search_deliveries(filter, OLDEST, &mut budget, handle)
            .await
            .context("cannot read the stream DELIVERIES")?;
    }
    Ok(())
}

/// The ids of a dead letter's or outcome's delivery and event.
fn ids(stream: &str, message: &StoredMessage) -> Option<(String, String)> {
    if stream == streams::DEAD {
        let dead = DeadLetter::decode(message.payload.clone()).ok()?;
        return dead
            .delivery
            .map(|delivery| (delivery.id, delivery.event_id));
    }
    let outcome = Outcome::decode(message.payload.clone()).ok()?;
    Some((outcome.delivery_id, outcome.event_id))
}
