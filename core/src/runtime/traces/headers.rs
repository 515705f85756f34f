//! The W3C trace context of a request or a message: its headers `traceparent` and `tracestate`.

use std::future::Future;

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use futures::future::Either;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry::{Context, trace};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
/// The length of `traceparent` in version 00. Later versions may be longer.
const SHORTEST_PARENT: usize = 55;
const LONGEST_PARENT: usize = 128;
/// A longer `tracestate` is left out, as the W3C allows from this length on.
const LONGEST_STATE: usize = 512;

/// A valid trace context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    /// Empty if there is none.
    state: String,
}

tokio::task_local! {
    /// The context of the messages that a task sends.
    static CARRIED: TraceContext;
}

impl TraceContext {
    /// The context of a request. `None` if it has no valid one.
    pub fn of_request(headers: &http::HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(PARENT).iter();
        let (parent, None) = (parents.next()?, parents.next()) else {
            return None;
        };
        let states = headers.get_all(STATE).iter().map(|state| state.to_str());
        let states: Vec<&str> = states.collect::<Result<_, _>>().unwrap_or_default();
        Self::new(parent.to_str().ok()?, &states.join(","))
    }

    /// The context of a message. `None` if it has no valid one.
    pub fn of_message(headers: Option<&HeaderMap>) -> Option<Self> {
        let headers = headers?;
        let text = |name| headers.get(name).map(|value| value.as_str());
        Self::new(text(PARENT)?, text(STATE).unwrap_or_default())
    }

    fn new(parent: &str, state: &str) -> Option<Self> {
        let is_line = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !(SHORTEST_PARENT..=LONGEST_PARENT).contains(&parent.len()) || !is_line(parent) {
            return None;
        }
        let state = match state.len() <= LONGEST_STATE && is_line(state) {
            true => state,
            false => "",
        };
        let context = Self {
            parent: parent.to_owned(),
            state: state.to_owned(),
        };
        context.span().is_valid().then_some(context)
    }

    /// The context of what happens within a span.
    pub(super) fn within(span: &SpanContext) -> Self {
        let flags = span.trace_flags() & trace::TraceFlags::SAMPLED;
        let (trace, id) = (span.trace_id(), span.span_id());
        let state = span.trace_state().header();
        Self {
            parent: format!("00-{trace}-{id}-{flags:02x}"),
            state: if state.len() <= LONGEST_STATE {
                state
            } else {
                String::new()
            },
        }
    }

    pub(super) fn span(&self) -> SpanContext {
        self.as_parent().span().span_context().clone()
    }

    /// The context as the parent of a span.
    pub(super) fn as_parent(&self) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), self)
    }

    fn add_to(&self, mut message: PublishMessage) -> PublishMessage {
        message = message.header(PARENT, self.parent.as_str());
        match self.state.is_empty() {
            true => message,
            false => message.header(STATE, self.state.as_str()),
        }
    }

    /// The context as the headers of a message.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(PARENT, self.parent.as_str());
        if !self.state.is_empty() {
            headers.insert(STATE, self.state.as_str());
        }
        headers
    }
}

impl Extractor for TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            PARENT => Some(&self.parent),
            STATE => Some(&self.state)
                .filter(|state| !state.is_empty())
                .map(String::as_str),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT, STATE]
    }
}

/// Runs `sending`, whose messages carry this context.
pub fn carrying<T>(
    context: Option<TraceContext>,
    sending: impl Future<Output = T>,
) -> impl Future<Output = T> {
    match context {
        Some(context) => Either::Left(CARRIED.scope(context, sending)),
        None => Either::Right(sending),
    }
}

/// Adds the context that this task's messages carry.
pub(crate) fn carry(message: PublishMessage) -> PublishMessage {
    let mut message = Some(message);
    let carried = CARRIED.try_with(|context| message.take().map(|message| context.add_to(message)));
    match carried {
        Ok(Some(message)) => message,
        _ => message.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn request(headers: &[(&'static str, &str)]) -> http::HeaderMap {
        let parsed = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        let mut map = http::HeaderMap::new();
        for (name, value) in parsed {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn only_a_valid_context_of_bounded_length_is_taken() {
        let with_more = |length: usize| format!("01{}-{}", &VALID[2..], "x".repeat(length));
        let long = with_more(LONGEST_PARENT);
        for (parent, is_valid) in [
            (VALID, true),
            (with_more(10).as_str(), true),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                true,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                false,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                false,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                false,
            ),
            (long.as_str(), false),
            ("", false),
        ] {
            let taken = TraceContext::of_request(&request(&[(PARENT, parent)]));
            assert_eq!(taken.is_some(), is_valid, "{parent}");
        }
        let twice = request(&[(PARENT, VALID), (PARENT, VALID)]);
        assert_eq!(TraceContext::of_request(&twice), None);
    }

    #[test]
    fn a_state_that_is_too_long_is_left_out_and_several_are_joined() {
        let of = |states: &[&str]| {
            let parent = [(PARENT, VALID)];
            let states = states.iter().map(|state| (STATE, *state));
            let headers: Vec<_> = parent.into_iter().chain(states).collect();
            TraceContext::of_request(&request(&headers)).unwrap().state
        };
        assert_eq!(of(&["a=1", "b=2"]), "a=1,b=2");
        assert_eq!(of(&[&format!("a={}", "x".repeat(LONGEST_STATE))]), "");
    }

    #[tokio::test]
    async fn messages_carry_the_context_of_their_task_only() {
        let headers = |message: PublishMessage| message.outbound_message("a").headers;
        let sent = |context| {
            carrying(context, async move {
                TraceContext::of_message(headers(carry(PublishMessage::build())).as_ref())
            })
        };
        let context = TraceContext::new(VALID, "a=1").unwrap();
        assert_eq!(sent(Some(context.clone())).await, Some(context.clone()));
        assert_eq!(sent(None).await, None);
        assert_eq!(headers(carry(PublishMessage::build())), None);
        assert_eq!(TraceContext::within(&context.span()), context);
    }
}
