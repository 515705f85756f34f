//! What the API server tells: watches that mend themselves, reads of single objects, and whether it
//! answers at all.

use std::fmt;
use std::time::Duration;
use tidings_core::model::jitter::jitter;

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
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::cluster::discovery::{Capabilities, Served};
use crate::object::Identity;

/// A watch that fails waits no longer before it tries again.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The first wait of a watch that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A watch that has not failed for so long begins with the first wait again.
const CALM: Duration = Duration::from_secs(60);
/// How often the API server is asked whether it is there, and still the one it was.
const PROBE: Duration = Duration::from_secs(5);
/// An API server that takes longer is away.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One kind in one namespace, or in all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Source {
    pub kind: &'static str,
    pub namespace: Option<String>,
}

/// What a watch tells.
pub(super) enum Told {
    /// Of an Alert or a Provider.
    Rule(Source, Box<Event<DynamicObject>>),
    /// Of a Secret or a ConfigMap: that it is there in some state, never what it holds.
    Hint(Source, Event<(Identity, String)>),
    /// That it does not work.
    Failed(Source, String),
}

/// What the API server answered when it was asked whether it is there.
pub(super) struct Probe {
    /// How Alerts and Providers are served.
    pub capabilities: Capabilities,
    /// The newest version of everything that is stored.
    pub version: u64,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the watch of {}s", self.kind)?;
        self.namespace
            .iter()
            .try_for_each(|namespace| write!(formatter, " in {namespace}"))
    }
}

impl Source {
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
pub(super) fn rules(
    client: &Client,
    source: Source,
    served: &Served,
    selector: Option<&str>,
) -> BoxStream<'static, Told> {
    let config = Config {
        label_selector: selector.map(str::to_owned),
        ..Config::default()
    };
    let events = watcher(
        source.api::<DynamicObject>(client, &served.resource),
        config,
    )
    .backoff(Patience::default());
    told(source, events, |source, event| {
        Told::Rule(source, Box::new(event))
    })
}

/// Watches the metadata of Secrets or ConfigMaps.
pub(super) fn hints(client: &Client, source: Source) -> BoxStream<'static, Told> {
    let api = source.api::<PartialObjectMeta<DynamicObject>>(client, &core_resource(source.kind));
    let events = watcher(api, Config::default()).backoff(Patience::default());
    told(source, events, |source, event| {
        Told::Hint(source.clone(), hint(source.kind, event))
    })
}

/// That a watch begins anew because what it has missed is no longer known is no failure.
fn told<K: Send + 'static>(
    source: Source,
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    take: fn(Source, Event<K>) -> Told,
) -> BoxStream<'static, Told> {
    let told = move |event| match event {
        Ok(event) => Some(take(source.clone(), event)),
        Err(watcher::Error::WatchError(status)) if status.code == 410 => None,
        Err(error) => Some(Told::Failed(source.clone(), sentence(&error))),
    };
    events.filter_map(move |event| ready(told(event))).boxed()
}

fn hint(kind: &str, event: Event<PartialObjectMeta<DynamicObject>>) -> Event<(Identity, String)> {
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

/// Secret or ConfigMap.
pub(super) fn core_resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind))
}

/// Asks the API server at once and then again and again, by a list of one Alert's metadata.
pub(super) fn probes(client: &Client, source: Source) -> BoxStream<'static, Result<Probe, String>> {
    let client = client.clone();
    let mut ticks = interval(PROBE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let probes = stream::unfold(
        (client, source, ticks),
        |(client, source, mut ticks)| async move {
            ticks.tick().await;
            let late = |_| {
                Err(format!(
                    "it has not answered within {} s",
                    ANSWER_WITHIN.as_secs()
                ))
            };
            let answer = timeout(ANSWER_WITHIN, probe(&client, &source))
                .await
                .unwrap_or_else(late);
            Some((answer, (client, source, ticks)))
        },
    );
    probes.boxed()
}

async fn probe(client: &Client, source: &Source) -> Result<Probe, String> {
    let capabilities = Capabilities::discover(client)
        .await
        .map_err(|error| error.to_string())?;
    let api = source
        .api::<PartialObjectMeta<DynamicObject>>(client, &capabilities.of(source.kind).resource);
    let list = api
        .list(&ListParams::default().limit(1))
        .await
        .map_err(|error| sentence(&error))?;
    Ok(Probe {
        capabilities,
        version: number(list.metadata.resource_version.as_deref()),
    })
}

/// A version as a number: it grows with every write, unless the API server is thrown back to an
/// earlier state.
pub(super) fn number(version: Option<&str>) -> u64 {
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// An error with all its causes.
pub(super) fn sentence(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = error.source();
    }
    sentence
}

/// How long a watch that fails waits before it tries again.
#[derive(Default)]
struct Patience {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now > last + CALM) {
            self.failures = 0;
        }
        let pause = FIRST_PAUSE
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST_PAUSE);
        (self.failures, self.last) = (self.failures + 1, Some(now));
        // Replicas that have lost the same server don't come back at the same moment.
        Some(jitter(pause))
    }
}

/// A new list begins with a success even where it fails then, so time alone tells that all is well.
impl Backoff for Patience {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_up_to_the_longest_and_begin_anew_when_it_is_calm() {
        let mut patience = Patience::default();
        let pauses: Vec<_> = patience.by_ref().take(9).collect();
        patience.reset();
        assert!(
            pauses[0] <= FIRST_PAUSE
                && pauses[8] >= LONGEST_PAUSE / 2
                && pauses[8] <= LONGEST_PAUSE,
            "{pauses:?}"
        );
        tokio::time::advance(CALM * 2).await;
        assert!(patience.next().is_some_and(|pause| pause <= FIRST_PAUSE));
    }

    #[test]
    fn an_error_is_told_with_its_causes_once() {
        let error = kube::runtime::watcher::Error::WatchFailed(
            kube::Error::LinesCodecMaxLineLengthExceeded,
        );
        let cause = kube::Error::LinesCodecMaxLineLengthExceeded.to_string();
        assert_eq!(sentence(&error).matches(&cause).count(), 1);
    }
}
