//! Watches with retries, and probes of the API server.

use std::fmt;
use std::time::Duration;

use futures::future::ready;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use kube::api::{Api, ListParams};
use kube::core::{
    ApiResource, DynamicObject, DynamicResourceScope, GroupVersionKind, PartialObjectMeta,
};
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Client, Resource};
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::kubernetes::failed_command;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::cluster::discovery::{ServedApi, ServedKind};
use crate::object::Identity;

/// The maximum backoff of a watch.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The first backoff of a watch.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
/// After this time without a failure, the backoff starts again.
const RESET_AFTER: Duration = Duration::from_secs(60);
/// The interval of probes, which check that the API server is reachable and unchanged.
const PROBE: Duration = Duration::from_secs(5);
/// The timeout of a request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A watched kind in one namespace, or in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct WatchedKind {
    pub kind: &'static str,
    pub namespace: Option<String>,
}

/// An event of a watch.
pub(super) enum WatchEvent {
    /// An event of an Alert or a Provider.
    Rule(WatchedKind, Box<Event<DynamicObject>>),
    /// Name and resource version of a Secret or a ConfigMap, without its contents.
    Metadata(WatchedKind, Event<(Identity, String)>),
    /// The watch failed and is retried.
    Failed(WatchedKind, String),
}

/// The result of a probe.
pub(super) struct Probe {
    /// When the probe started.
    pub requested: Instant,
    /// How Alerts and Providers are served.
    pub served_api: ServedApi,
    /// The current resource version of the cluster.
    pub version: u64,
}

impl fmt::Display for WatchedKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the watch of {}s", self.kind)?;
        self.namespace
            .iter()
            .try_for_each(|namespace| write!(formatter, " in {namespace}"))
    }
}

impl WatchedKind {
    fn api<K>(&self, client: &Client, resource: &ApiResource) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
            None => Api::all_with(client.clone(), resource),
        }
    }
}

/// Watches Alerts or Providers.
pub(super) fn watch_rules(
    client: &Client,
    watched: WatchedKind,
    served: &ServedKind,
    selector: Option<&str>,
) -> BoxStream<'static, WatchEvent> {
    let config = Config {
        label_selector: selector.map(str::to_owned),
        ..Config::default()
    };
    let events = watcher(
        watched.api::<DynamicObject>(client, &served.resource),
        config,
    )
    .backoff(WatchBackoff::default());
    watch_events(watched, events, |watched, event| {
        WatchEvent::Rule(watched, Box::new(event))
    })
}

/// Watches the metadata of Secrets or ConfigMaps.
pub(super) fn watch_metadata(
    client: &Client,
    watched: WatchedKind,
) -> BoxStream<'static, WatchEvent> {
    let api = watched.api::<PartialObjectMeta<DynamicObject>>(client, &core_resource(watched.kind));
    let events = watcher(api, Config::default()).backoff(WatchBackoff::default());
    watch_events(watched, events, |watched, event| {
        WatchEvent::Metadata(watched.clone(), metadata_event(watched.kind, event))
    })
}

/// Converts the events of a watch. An expired resource version (410) is no failure, because the
/// watch restarts with a list.
fn watch_events<K: Send + 'static>(
    watched: WatchedKind,
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    take: fn(WatchedKind, Event<K>) -> WatchEvent,
) -> BoxStream<'static, WatchEvent> {
    let convert = move |event| match event {
        Ok(event) => Some(take(watched.clone(), event)),
        Err(watcher::Error::WatchError(status)) if status.code == 410 => None,
        Err(error) => Some(WatchEvent::Failed(watched.clone(), with_causes(&error))),
    };
    events
        .filter_map(move |event| ready(convert(event)))
        .boxed()
}

fn metadata_event(
    kind: &str,
    event: Event<PartialObjectMeta<DynamicObject>>,
) -> Event<(Identity, String)> {
    let of = |object: PartialObjectMeta<DynamicObject>| {
        let metadata = object.metadata;
        let (namespace, name) = (
            metadata.namespace.unwrap_or_default(),
            metadata.name.unwrap_or_default(),
        );
        (
            Identity {
                kind: kind.to_owned(),
                namespace,
                name,
            },
            metadata.resource_version.unwrap_or_default(),
        )
    };
    match event {
        Event::Apply(object) => Event::Apply(of(object)),
        Event::Delete(object) => Event::Delete(of(object)),
        Event::InitApply(object) => Event::InitApply(of(object)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

/// The API resource of Secrets or ConfigMaps.
pub(super) fn core_resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind))
}

/// Probes the API server now and periodically, with a list of the metadata of one Alert.
pub(super) fn probes(
    client: &Client,
    watched: WatchedKind,
    reads_schemas: bool,
) -> BoxStream<'static, Result<Probe, String>> {
    let client = client.clone();
    let mut ticks = interval(PROBE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let probes = stream::unfold(
        (client, watched, ticks),
        move |(client, watched, mut ticks)| async move {
            ticks.tick().await;
            let late = |_| {
                Err(format!(
                    "no response within {} s",
                    REQUEST_TIMEOUT.as_secs()
                ))
            };
            let result = timeout(REQUEST_TIMEOUT, probe(&client, &watched, reads_schemas))
                .await
                .unwrap_or_else(late);
            Some((result, (client, watched, ticks)))
        },
    );
    probes.boxed()
}

async fn probe(
    client: &Client,
    watched: &WatchedKind,
    reads_schemas: bool,
) -> Result<Probe, String> {
    let requested = Instant::now();
    let served_api = ServedApi::discover(client, reads_schemas)
        .await
        .map_err(|error| error.to_string())?;
    let api = watched
        .api::<PartialObjectMeta<DynamicObject>>(client, &served_api.of(watched.kind).resource);
    let list = api
        .list(&ListParams::default().limit(1))
        .await
        .map_err(|error| with_causes(&error))?;
    Ok(Probe {
        requested,
        served_api,
        version: version_number(list.metadata.resource_version.as_deref()),
    })
}

/// The resource version as a number. It increases with each write, unless the API server is
/// restored to an earlier state.
pub(super) fn version_number(version: Option<&str>) -> u64 {
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// The message of an error with all its causes.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(text) = failed_command(error) {
        return text;
    }
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// The backoff of a watch.
#[derive(Default)]
struct WatchBackoff {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now > last + RESET_AFTER) {
            self.failures = 0;
        }
        let pause = MIN_BACKOFF
            .saturating_mul(1 << self.failures.min(10))
            .min(MAX_BACKOFF);
        (self.failures, self.last) = (self.failures + 1, Some(now));
        // Jitter, so that replicas do not all reconnect at the same time.
        Some(jitter(pause))
    }
}

/// Ignores resets, because the start of a list succeeds even if the list fails later.
impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_backoff_grows_to_the_maximum_and_starts_again_after_a_while() {
        let mut backoff = WatchBackoff::default();
        let pauses: Vec<_> = backoff.by_ref().take(9).collect();
        backoff.reset();
        assert!(
            pauses[0] <= MIN_BACKOFF && pauses[8] >= MAX_BACKOFF / 2 && pauses[8] <= MAX_BACKOFF,
            "{pauses:?}"
        );
        tokio::time::advance(RESET_AFTER * 2).await;
        assert!(backoff.next().is_some_and(|pause| pause <= MIN_BACKOFF));
    }

    #[test]
    fn the_message_of_an_error_contains_each_cause_once() {
        let error = kube::runtime::watcher::Error::WatchFailed(
            kube::Error::LinesCodecMaxLineLengthExceeded,
        );
        let cause = kube::Error::LinesCodecMaxLineLengthExceeded.to_string();
        assert_eq!(with_causes(&error).matches(&cause).count(), 1);
    }
}
