//! Finds the deliveries of the wanted events: in DELIVERIES, DEAD and OUTCOMES.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use anyhow::Context as _;
use tidings_core::bus::pending_deliveries::PendingDelivery;
use tidings_core::bus::search::{SearchEnd, Start, StoredMessage};
use tidings_core::bus::{Bus, streams};
use tidings_core::model::excerpt::carried_event;
use tidings_core::model::subject::{
    ALL_DEAD, ALL_DELIVERIES, ALL_OUTCOMES, ALL_PARKED, provider_filters,
};
use tidings_core::model::time;
use tidings_core::wire::Outcome as PublishedOutcome;
use tidings_core::{DeadLetter, Delivery, Event, Message, ProviderReference};

use super::gather::{Facts, FoundOutcome, Request};
use super::query::Query;

/// If more messages than this are stored since the event, only those of known Providers are read.
const READ_ALL_UP_TO: u64 = 200_000;
/// The most Providers that are read separately.
const MOST_PROVIDERS: usize = 64;
/// The most deliveries, outcomes and dead letters that are kept, each.
const MOST_KEPT: usize = 10_000;

/// Which deliveries belong to the wanted events.
struct Wanted<'a> {
    request: &'a Request,
    ids: HashSet<String>,
}

impl Wanted<'_> {
    /// `event` is what the delivery carries of it. An id that no stored event has may be that of a
    /// delivery.
    fn has(&self, delivery_id: &str, event_id: &str, event: Option<&Event>) -> bool {
        if self.ids.contains(event_id) {
            return true;
        }
        match &self.request.query {
            Query::Event(id) => {
                event_id.starts_with(id.as_str())
                    || self.ids.is_empty() && delivery_id.starts_with(id.as_str())
            }
            query => event.is_some_and(|event| self.is_recent(event) && query.selects(event)),
        }
    }

    /// A delivery without what no trace shows. Its event is kept if it was not found in EVENTS.
    fn without_large_parts(&self, mut delivery: Delivery) -> Delivery {
        delivery.metadata.clear();
        delivery.template = None;
        if let Some(alert) = &mut delivery.alert {
            alert.manifest.clear();
        }
        if self.ids.contains(&delivery.event_id) {
            delivery.event = None;
            delivery.excerpt = None;
        }
        delivery
    }

    fn is_recent(&self, event: &Event) -> bool {
        let cluster = self.request.cluster.as_ref();
        let received = time::from_proto(event.received_at);
        received.is_some_and(|received| received >= self.request.since)
            && cluster.is_none_or(|cluster| *cluster == event.cluster)
    }
}

/// The room for what is found in one stream.
struct Room {
    messages: usize,
    bytes: usize,
}

impl Room {
    fn of(request: &Request) -> Self {
        Self {
            messages: MOST_KEPT,
            bytes: request.bounds.kept_bytes,
        }
    }

    /// `false` if there is no room.
    fn takes(&mut self, message: &impl Message) -> bool {
        let left = self.bytes.checked_sub(message.encoded_len());
        let (Some(bytes), Some(messages)) = (left, self.messages.checked_sub(1)) else {
            return false;
        };
        (self.messages, self.bytes) = (messages, bytes);
        true
    }
}

/// A delivery moves from DELIVERIES to OUTCOMES and DEAD, so they are read in this order.
///
/// # Errors
/// The bus is unavailable.
pub async fn find_deliveries(
    bus: &Bus,
    request: &Request,
    facts: &mut Facts,
) -> anyhow::Result<()> {
    let ids = facts.events.iter();
    let wanted = Wanted {
        request,
        ids: ids.map(|found| found.event.id.clone()).collect(),
    };
    let first = facts
        .events
        .iter()
        .filter_map(|found| found.stored_at)
        .min();
    let from = Start::Time(first.unwrap_or(request.since));
    find_pending(bus, &wanted, from, facts).await?;
    find_dead_letters(bus, &wanted, from, facts).await?;
    find_outcomes(bus, &wanted, from, facts).await
}

async fn find_pending(
    bus: &Bus,
    wanted: &Wanted<'_>,
    from: Start,
    facts: &mut Facts,
) -> anyhow::Result<()> {
    let mut budget = wanted.request.bounds.budget_of_deliveries();
    let mut room = Room::of(wanted.request);
    for filter in [ALL_DELIVERIES, ALL_PARKED] {
        let (pending, cut) = (&mut facts.pending, &mut facts.cut);
        let handle = |mut found: PendingDelivery| {
            let delivery = &found.delivery;
            if !wanted.has(&delivery.id, &delivery.event_id, carried_event(delivery)) {
                return;
            }
            found.delivery = wanted.without_large_parts(found.delivery);
            if room.takes(&found.delivery) {
                pending.push(found);
            } else {
                cut.insert(streams::DELIVERIES);
            }
        };
        let end = bus
            .search_deliveries(filter, from, &mut budget, handle)
            .await
            .context("cannot read the stream DELIVERIES")?;
        if end != SearchEnd::Complete {
            facts.cut.insert(streams::DELIVERIES);
        }
    }
    Ok(())
}

async fn find_dead_letters(
    bus: &Bus,
    wanted: &Wanted<'_>,
    from: Start,
    facts: &mut Facts,
) -> anyhow::Result<()> {
    let mut budget = wanted.request.bounds.budget();
    let mut room = Room::of(wanted.request);
    let dead_letters = &mut facts.dead_letters;
    let handle = |message: StoredMessage| {
        let Ok(mut dead) = DeadLetter::decode(message.payload) else {
            return ControlFlow::Continue(());
        };
        let delivery = dead.delivery.take().unwrap_or_default();
        if !wanted.has(&delivery.id, &delivery.event_id, carried_event(&delivery)) {
            return ControlFlow::Continue(());
        }
        dead.delivery = Some(wanted.without_large_parts(delivery));
        if !room.takes(&dead) {
            return ControlFlow::Break(());
        }
        dead_letters.push(dead);
        ControlFlow::Continue(())
    };
    let end = bus
        .search(
            streams::DEAD,
            &[ALL_DEAD.to_owned()],
            from,
            &mut budget,
            handle,
        )
        .await
        .context("cannot read the stream DEAD")?;
    if end != SearchEnd::Complete {
        facts.cut.insert(streams::DEAD);
    }
    Ok(())
}

async fn find_outcomes(
    bus: &Bus,
    wanted: &Wanted<'_>,
    from: Start,
    facts: &mut Facts,
) -> anyhow::Result<()> {
    let all = [ALL_OUTCOMES.to_owned()];
    let stored = bus.count_from(streams::OUTCOMES, &all, from).await;
    let stored = stored.context("cannot read the stream OUTCOMES")?;
    let known = outcome_filters(facts);
    let filters = if stored <= READ_ALL_UP_TO || known.is_empty() {
        all.to_vec()
    } else {
        facts.has_skipped_outcomes = true;
        known
    };
    let known = delivery_ids(facts);
    let mut budget = wanted.request.bounds.budget();
    let mut room = Room::of(wanted.request);
    let outcomes = &mut facts.outcomes;
    let handle = |message: StoredMessage| {
        // One that was published on behalf of another delivery names no event.
        if let Ok(outcome) = PublishedOutcome::decode(message.payload)
            && (wanted.has(&outcome.delivery_id, &outcome.event_id, None)
                || known.contains(&outcome.delivery_id))
        {
            if !room.takes(&outcome) {
                return ControlFlow::Break(());
            }
            let stored_at = message.stored_at;
            outcomes.push(FoundOutcome { stored_at, outcome });
        }
        ControlFlow::Continue(())
    };
    let end = bus
        .search(streams::OUTCOMES, &filters, from, &mut budget, handle)
        .await
        .context("cannot read the stream OUTCOMES")?;
    if end != SearchEnd::Complete {
        facts.cut.insert(streams::OUTCOMES);
    }
    Ok(())
}

fn delivery_ids(facts: &Facts) -> BTreeSet<String> {
    let pending = facts.pending.iter().map(|found| &found.delivery);
    let dead = facts.dead_letters.iter();
    let deliveries = pending.chain(dead.filter_map(|dead| dead.delivery.as_ref()));
    deliveries.map(|delivery| delivery.id.clone()).collect()
}

/// The outcomes of the Providers whose deliveries are stored.
fn outcome_filters(facts: &Facts) -> Vec<String> {
    let pending = facts.pending.iter().map(|found| &found.delivery);
    let dead = facts.dead_letters.iter();
    let deliveries = pending.chain(dead.filter_map(|dead| dead.delivery.as_ref()));
    let providers: BTreeSet<_> = deliveries
        .filter_map(|delivery| delivery.provider.as_ref())
        .map(
            |ProviderReference {
                 namespace, name, ..
             }| (namespace, name),
        )
        .collect();
    let filters = providers.into_iter().take(MOST_PROVIDERS);
    filters
        .map(|(namespace, name)| {
            let [_, _, outcomes, _] = provider_filters(namespace, name);
            outcomes
        })
        .collect()
}
