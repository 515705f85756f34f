//! The fallback: reports dead letters, and circuits that stay open, at most once in each interval.

use jiff::Timestamp;
use tidings_core::bus::BusError;
use tidings_core::bus::circuits::Circuits;
use tidings_core::model::notice::{NoticeExclusion, NoticeKind};
use tidings_core::model::time::{between, from_proto, to_proto};
use tidings_core::runtime::config::ProviderName;
use tidings_core::wire::{Circuit, NoticeState};

use super::circuits::{OpenCircuits, find_open};
use super::deliver::{Notice, delivery};
use super::summary::Summary;
use super::{Due, Notices};

impl Notices {
    /// The notice of what failed since the last one, if anything did. `None` if nothing changed, or
    /// the last notice is too recent: what failed waits for the next one.
    pub(super) async fn plan_fallback(
        &self,
        state: Option<NoticeState>,
        provider: &ProviderName,
        is_usable: bool,
    ) -> Result<Option<Due>, BusError> {
        let end = self.reported.dead_end().await?;
        let now = self.bus.clock().now();
        let Some(state) = state else {
            // What failed before the fallback was first set up is no news.
            let first = NoticeState {
                dead_created: Some(to_proto(end.created)),
                dead_read: end.last,
                ..NoticeState::default()
            };
            return Ok(Some(Due {
                state: first,
                excluded: Vec::new(),
            }));
        };
        if !is_usable || !self.is_due(&state, now) {
            return Ok(None);
        }
        let mut summary = Summary::default();
        let mut dead_read = end.read_until(&state);
        if dead_read < end.last {
            let read = self.reported.dead_letters(dead_read, end, |dead_letter| {
                summary.add(&dead_letter);
            });
            let read = read.await?;
            // The others are only counted, so that a flood delays no news.
            summary.unread = end.last - read;
            dead_read = end.last;
        }
        let open = self.open_circuits(&state, provider, now).await?;
        let next = NoticeState {
            dead_created: Some(to_proto(end.created)),
            dead_read,
            circuits: open.known,
            pending: None,
            ..state
        };
        let since = from_proto(state.last);
        let message = summary.message(&open.reported, since, self.fallback.circuit_open_for);
        let excluded = vec![
            (NoticeExclusion::DeadLetter, summary.of_notices),
            (NoticeExclusion::Circuit, open.excluded),
        ];
        let Some(message) = message else {
            let is_changed = (state.dead_read, &state.circuits) != (next.dead_read, &next.circuits);
            return Ok(is_changed.then_some(Due {
                state: next,
                excluded,
            }));
        };
        let notice = Notice {
            kind: NoticeKind::Fallback,
            severity: "error",
            reason: "DeliveriesFailed",
            message,
            seed: now.as_nanosecond().to_string(),
            not_after: None,
        };
        let pending = delivery(&notice, &self.rules.current(), provider, &self.cluster, now);
        let state = NoticeState {
            last: Some(to_proto(now)),
            pending: Some(pending),
            ..next
        };
        Ok(Some(Due { state, excluded }))
    }

    fn is_due(&self, state: &NoticeState, now: Timestamp) -> bool {
        let last = from_proto(state.last);
        last.is_none_or(|last| between(last, now) >= self.fallback.interval)
    }

    async fn open_circuits(
        &self,
        state: &NoticeState,
        provider: &ProviderName,
        now: Timestamp,
    ) -> Result<OpenCircuits, BusError> {
        let stored = Circuits::open(&self.bus).await?.all().await?;
        let rules = self.rules.current();
        // A circuit outlives its Provider.
        let exists = |circuit: &Circuit| {
            let provider = rules.provider(&circuit.namespace, &circuit.provider);
            provider.is_some()
        };
        let circuits = stored.into_iter().map(|stored| stored.circuit);
        let circuits: Vec<_> = circuits.filter(exists).collect();
        let open_for = self.fallback.circuit_open_for;
        Ok(find_open(
            &circuits,
            &state.circuits,
            provider,
            open_for,
            now,
        ))
    }
}
