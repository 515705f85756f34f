//! Shadow mode: what a worker would do with a delivery, without a call to anybody.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tidings_core::model::excerpt::excerpt;
use tidings_core::model::time::to_proto;
use tidings_core::runtime::metrics::labels::ShadowOutcome;
use tidings_core::wire::{ShadowRecord, ShadowRequest};
use tidings_core::{AlertReference, Delivery, Event, Failure, FailureKind, Outcome, Reason};
use tidings_rules::{ResolvedProvider, Rules};
use tokio::time::timeout;

use crate::attempt::Ended;
use crate::http::{Http, HttpClients, Request};
use crate::message::render::Renderer;
use crate::text::cut_chars;
use crate::worker::with_rules::{RenderedAttempt, attempt_with_rules, prepare_for};

/// Rendering takes milliseconds, and an expression may wait for a child process.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest title and detail of a record, in characters.
const LONGEST_TITLE: usize = 200;
const LONGEST_DETAIL: usize = 1_000;
/// The most requests of a record: one for each of 16 former names of the cluster, and a few more.
const MOST_REQUESTS: usize = 20;

/// Finds out what workers would do.
pub struct Shadow {
    http_clients: HttpClients,
    renderer: Renderer,
}

/// What a worker would do, and how it is recorded.
pub struct Foreseen {
    /// What it would do.
    pub outcome: ShadowOutcome,
    /// The record.
    pub record: ShadowRecord,
}

impl Shadow {
    /// With the address rules of these clients, which are never used to call anybody.
    pub fn new(http_clients: HttpClients, renderer: Renderer) -> Self {
        Self {
            http_clients,
            renderer,
        }
    }

    /// Foresees what a worker would do with a delivery of this event. Circuits, rate limits and the
    /// states that services have already are not considered.
    ///
    /// # Guarantees
    /// No request leaves the process: the notifier gets a client that only records requests.
    pub async fn foresee(&self, delivery: &Delivery, event: &Event, rules: &Rules) -> Foreseen {
        let attempt = AssertUnwindSafe(self.attempt(delivery, event, rules)).catch_unwind();
        let (attempt, requests) = match timeout(TIMEOUT, attempt).await {
            Ok(Ok(attempted)) => attempted,
            Ok(Err(_)) => nothing(Failure::permanent(Reason::Crashed, "the attempt panicked")),
            Err(_) => nothing(Failure::transient(
                Reason::Timeout,
                "the message was not rendered in time",
            )),
        };
        let (outcome, reason, detail) = outcome(attempt.result);
        let record = ShadowRecord {
            outcome: outcome.as_str().to_owned(),
            reason: reason.map_or_else(String::new, |reason| reason.as_str().to_owned()),
            detail: cut_chars(&detail, LONGEST_DETAIL),
            title: cut_chars(&attempt.title, LONGEST_TITLE),
            template_error: attempt.template_error,
            requests,
            ..described(delivery, event)
        };
        Foreseen { outcome, record }
    }

    async fn attempt(
        &self,
        delivery: &Delivery,
        event: &Event,
        rules: &Rules,
    ) -> (RenderedAttempt, Vec<ShadowRequest>) {
        let recorder = Http::dry_run();
        let http = |provider: &ResolvedProvider| {
            // Finds out whether certificates and proxy can be used.
            Http::new(provider, &self.http_clients)?;
            Ok(recorder.clone())
        };
        let prepared = match prepare_for(rules, delivery, http) {
            Ok(prepared) => prepared,
            Err(failure) => return nothing(failure),
        };
        let mut attempt =
            attempt_with_rules(&prepared, delivery, event, rules, &self.renderer).await;
        let requests = recorder.recorded();
        let address_rules = self.http_clients.rules();
        let refused = requests
            .iter()
            .find_map(|request| address_rules.check_url(&request.url).err());
        if let Some(refused) = refused {
            attempt.result = Err(prepared.redacted(refused.into()));
        }
        let requests = requests.iter().take(MOST_REQUESTS).map(summary).collect();
        (attempt, requests)
    }
}

fn nothing(failure: Failure) -> (RenderedAttempt, Vec<ShadowRequest>) {
    let attempt = RenderedAttempt {
        result: Err(failure),
        title: String::new(),
        template_error: String::new(),
    };
    (attempt, Vec::new())
}

/// The path, the headers and the body may hold secrets.
fn summary(request: &Request) -> ShadowRequest {
    ShadowRequest {
        method: request.method.to_string(),
        origin: request.url.origin().ascii_serialization(),
        body_bytes: request.body.len() as u64,
    }
}

fn described(delivery: &Delivery, event: &Event) -> ShadowRecord {
    let alert = delivery.alert.as_ref();
    ShadowRecord {
        delivery_id: delivery.id.clone(),
        event_id: delivery.event_id.clone(),
        excerpt: Some(excerpt(event)),
        alert: alert.map(|alert| AlertReference {
            manifest: String::new(),
            ..alert.clone()
        }),
        provider: delivery.provider.clone(),
        recorded_at: Some(to_proto(Timestamp::now())),
        ..ShadowRecord::default()
    }
}

fn outcome(result: Result<Ended, Failure>) -> (ShadowOutcome, Option<Reason>, String) {
    match result {
        Ok(ended) if ended.outcome == Outcome::Delivered => {
            (ShadowOutcome::WouldSend, None, String::new())
        }
        Ok(ended) => (ShadowOutcome::WouldSkip, None, ended.detail),
        Err(failure) => {
            let outcome = match failure.kind {
                FailureKind::Permanent => ShadowOutcome::WouldFail,
                FailureKind::Transient { .. } => ShadowOutcome::WouldWait,
            };
            (outcome, Some(failure.reason), failure.detail)
        }
    }
}
