//! One attempt with given rules, without a record of earlier states: for `tidings test` and shadow
//! mode.

use tidings_core::{Delivery, Event, Failure, Reason};
use tidings_rules::{ResolvedProvider, Rules, Unresolved};

use crate::attempt::{Ended, Prepared, attempt_once, prepare, revealed_channel};
use crate::http::Http;
use crate::http::invalid::Invalid;
use crate::message::Message;
use crate::message::render::Renderer;
use crate::worker::providers;

/// How the attempt ended, and what was rendered.
pub struct RenderedAttempt {
    /// The end, or the failure without secrets.
    pub result: Result<Ended, Failure>,
    /// The title of the message, without secrets.
    pub title: String,
    /// The error of the template; empty if it did not fail.
    pub template_error: String,
}

/// The Provider of a delivery in these rules, with its notifier.
///
/// # Errors
/// The Provider is missing, suspended or not shared, or a field or a key is wrong.
pub fn prepare_for(
    rules: &Rules,
    delivery: &Delivery,
    http: impl FnOnce(&ResolvedProvider) -> Result<Http, Invalid>,
) -> Result<Prepared, Failure> {
    let provider = providers::resolve(rules, delivery).map_err(unresolved)?;
    let name = format!("{}/{}", provider.namespace, provider.name);
    prepare(provider, http).map_err(|invalid| {
        Failure::permanent(Reason::Misconfigured, format!("Provider {name}: {invalid}"))
    })
}

/// Attempts a delivery once.
pub async fn attempt_with_rules(
    prepared: &Prepared,
    delivery: &Delivery,
    event: &Event,
    rules: &Rules,
    renderer: &Renderer,
) -> RenderedAttempt {
    let alert = delivery.alert.clone().unwrap_or_default();
    let texts = prepared.texts(delivery, event);
    let message = prepared.message(delivery, &texts, &alert);
    let of_alert = || providers::channel(rules, delivery);
    let revealed = match revealed_channel(&message, &prepared.provider, of_alert) {
        Ok(revealed) => revealed,
        Err(failure) => return failed(failure),
    };
    let former_clusters = renderer.former_clusters(&event.cluster);
    let message = Message {
        former_clusters: &former_clusters,
        channel: revealed.as_deref().unwrap_or(message.channel),
        ..message
    };
    let content = prepared.provider_type.content;
    let template = || providers::template(rules, delivery);
    let rendered = renderer.rendered(&message, &prepared.provider, content, template);
    let message = Message {
        rendered: &rendered,
        ..message
    };
    let result = attempt_once(prepared, &message).await;
    RenderedAttempt {
        result,
        title: prepared.redactor.redact(&message.title()),
        template_error: rendered.template_error,
    }
}

fn unresolved(unresolved: Unresolved) -> Failure {
    match unresolved {
        Unresolved::Missing(why) => Failure::transient(Reason::Missing, why),
        Unresolved::Suspended(why) => Failure::transient(Reason::Suspended, why),
        Unresolved::Invalid(why) => Failure::permanent(Reason::Misconfigured, why),
    }
}

fn failed(failure: Failure) -> RenderedAttempt {
    RenderedAttempt {
        result: Err(failure),
        title: String::new(),
        template_error: String::new(),
    }
}
