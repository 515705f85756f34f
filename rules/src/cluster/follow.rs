//! The task that keeps the rules as a cluster has them.

use std::collections::HashSet;
use std::sync::Arc;
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, SelectAll, StreamExt};
use kube::api::Api;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use kube::{Client, Error};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::state::State;
use super::watch::{self, ANSWER_WITHIN, LONGEST_PAUSE, Probe, Source, Told};
use super::{Cluster, Scope};
use crate::cluster::api_health::Link;
use crate::cluster::debounce::Pace;
use crate::cluster::discovery::Capabilities;
use crate::cluster::finalizer::Releases;
use crate::cluster::object::core_object;
use crate::cluster::references::Answer;
use crate::live::{Live, log_changes};
use crate::object::Identity;
use crate::problem::Problem;

/// So many Secrets and ConfigMaps are read at a time.
const MOST_READS: usize = 16;
/// What the API server as a whole is called when it does not answer.
const SERVER: &str = "the API server";

/// Keeps the rules as the API server has them, until it is told to stop. Logs each problem once
/// when it appears, and once when it is mended.
///
/// # Guarantees
/// A change is in force within a second of its telling, and is put in force together with others
/// that come with it. While the API server is away, what was in force stays in force. Before all
/// has been listed once, and all Secrets and ConfigMaps that are named have been read once, nothing
/// is in force; one that the API server refuses counts as read. Safe to cancel at each `.await`.
pub async fn follow(cluster: Cluster, live: Arc<Live>, stop: CancellationToken) {
    let mut follower = Follower::new(cluster, live);
    tokio::select! {
        () = stop.cancelled() => {}
        () = follower.run() => {}
    }
}

struct Follower {
    client: Client,
    scope: Scope,
    catalog: Arc<Catalog>,
    live: Arc<Live>,
    state: State,
    pace: Pace,
    link: Link,
    known: HashSet<Problem>,
    watches: SelectAll<BoxStream<'static, Told>>,
    /// Which Secrets and ConfigMaps are watched.
    watched: HashSet<Source>,
    reads: FuturesUnordered<BoxFuture<'static, (Identity, Read)>>,
    releases: Releases,
}

/// What came of reading an object.
type Read = Result<Option<DynamicObject>, Error>;

impl Follower {
    fn new(cluster: Cluster, live: Arc<Live>) -> Self {
        let Cluster {
            client,
            scope,
            kinds,
            options,
            releases,
            catalog,
        } = cluster;
        Self {
            client,
            scope,
            catalog,
            live,
            state: State::new(kinds, options),
            pace: Pace::default(),
            link: Link::default(),
            known: HashSet::new(),
            watches: SelectAll::new(),
            watched: HashSet::new(),
            reads: FuturesUnordered::new(),
            releases: Releases::new(releases),
        }
    }

    /// Begins anew whenever the API server turns out to be another than it was.
    async fn run(&mut self) {
        loop {
            let capabilities = self.discover().await;
            self.begin(&capabilities);
            self.keep(&capabilities).await;
        }
    }

    /// Asks until it is known how rules are served.
    async fn discover(&mut self) -> Capabilities {
        loop {
            let late = format!("it has not answered within {} s", ANSWER_WITHIN.as_secs());
            let why = match timeout(ANSWER_WITHIN, Capabilities::discover(&self.client)).await {
                Ok(Ok(capabilities)) => {
                    self.link.succeed(SERVER);
                    self.tell();
                    return capabilities;
                }
                Ok(Err(error)) => watch::sentence(&error),
                Err(_) => late,
            };
            self.link.fail(SERVER, why, Instant::now());
            self.tell();
            sleep(jitter(LONGEST_PAUSE / 2)).await;
        }
    }

    /// Starts all watches anew. What is known counts until they have told otherwise.
    fn begin(&mut self, capabilities: &Capabilities) {
        let is_news = self
            .catalog
            .capabilities()
            .is_none_or(|known| *known != *capabilities);
        if is_news && !(capabilities.alerts.has_status && capabilities.providers.has_status) {
            tracing::warn!(
                code = codes::FLUX_CRDS,
                "the installed CRDs of Alert and Provider are Flux's; rules work without extensions and status until the CRDs of Tidings are installed"
            );
        }
        self.catalog.set_capabilities(capabilities.clone());
        self.watches = SelectAll::new();
        let sources: Vec<_> = ["Alert", "Provider"]
            .into_iter()
            .flat_map(|kind| self.scope.sources(kind))
            .collect();
        self.state.expect(&sources);
        for source in sources {
            let served = capabilities.of(source.kind);
            self.watches.push(watch::rules(
                &self.client,
                source,
                served,
                self.scope.label_selector.as_deref(),
            ));
        }
        for source in &self.watched {
            self.watches
                .push(watch::hints(&self.client, source.clone()));
        }
    }

    /// Takes what comes, until the API server is another than it was.
    async fn keep(&mut self, capabilities: &Capabilities) {
        let mut probes = watch::probes(&self.client, self.scope.sources("Alert").swap_remove(0));
        loop {
            // A list comes at once: let others run in between.
            tokio::task::consume_budget().await;
            let due = self.pace.due();
            tokio::select! {
                Some(told) = self.watches.next() => self.take(told, capabilities),
                Some((identity, read)) = self.reads.next() => self.take_read(&identity, read),
                Some(ended) = self.releases.next() => self.releases.take(ended),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.settle(),
                Some(probe) = probes.next() => {
                    if self.take_probe(probe, capabilities) {
                        return;
                    }
                }
            }
            if self.releases.is_free()
                && let Some(waiting) = self.state.next_waiting()
            {
                self.releases.begin(waiting, &self.client, capabilities);
            }
        }
    }

    fn take(&mut self, told: Told, capabilities: &Capabilities) {
        let now = Instant::now();
        let changed = match told {
            Told::Rule(source, event) => {
                if let Event::Apply(object) | Event::Delete(object) = event.as_ref() {
                    self.link
                        .told(watch::number(object.metadata.resource_version.as_deref()));
                }
                let served = capabilities.of(source.kind);
                self.state.rule(source, *event, served, &self.catalog)
            }
            Told::Hint(source, event) => {
                self.state.hint(&source, event);
                self.read_stale();
                false
            }
            Told::Failed(source, why) => {
                self.link.fail(source.to_string(), why, now);
                self.tell();
                false
            }
        };
        if changed {
            self.pace.touch(now);
        }
    }

    fn take_read(&mut self, identity: &Identity, read: Read) {
        let answer = match read {
            Ok(Some(object)) => {
                let version = object.metadata.resource_version.clone().unwrap_or_default();
                Answer::There {
                    version,
                    checked: Box::new(self.state.check(&core_object(identity, object))),
                }
            }
            Ok(None) => Answer::Missing,
            // Also where it fails for this one alone: what can't be decrypted holds no other rule
            // up.
            Err(Error::Api(status)) if status.message.is_empty() => {
                Answer::Refused(format!("{} {}", status.code, status.reason))
            }
            Err(Error::Api(status)) => Answer::Refused(status.message.clone()),
            Err(error) => Answer::Failed(watch::sentence(&error)),
        };
        if self.state.named.put(identity, answer) {
            self.pace.touch(Instant::now());
        }
        self.read_stale();
    }

    /// Takes the answer of a probe. Whether the API server is another than it was.
    fn take_probe(&mut self, probe: Result<Probe, String>, capabilities: &Capabilities) -> bool {
        let now = Instant::now();
        let probe = match probe {
            Ok(probe) => probe,
            Err(why) => {
                self.link.fail(SERVER, why, now);
                self.tell();
                return false;
            }
        };
        self.link.succeed(SERVER);
        let went_back = self.link.answered(probe.version, now);
        self.tell();
        self.state.release_again();
        if self.state.named.try_again() {
            self.read_stale();
        }
        if went_back {
            tracing::warn!(
                code = codes::RESOURCE_VERSION_REGRESSED,
                "API server returned to an earlier state, reading all rules again"
            );
            self.state.named.doubt();
            self.read_stale();
        }
        went_back || probe.capabilities != *capabilities
    }

    /// Puts what has changed in force, once all that it needs has been read or has been waited for.
    fn settle(&mut self) {
        let now = Instant::now();
        self.state.refer();
        self.watch_named();
        self.read_stale();
        if !self.live.loaded() && !self.state.is_complete() {
            // Whatever is missing comes as a change.
            return self.pace.rest();
        }
        if !self.state.named.is_settled() && !self.pace.is_over(now) {
            return self.pace.touch(now);
        }
        self.pace.rest();
        self.live.replace(self.state.rules());
        self.tell();
    }

    /// Watches the kinds that are named by now.
    fn watch_named(&mut self) {
        for kind in self.state.named.kinds() {
            for source in self.scope.sources(kind) {
                if self.watched.insert(source.clone()) {
                    self.watches.push(watch::hints(&self.client, source));
                }
            }
        }
    }

    fn read_stale(&mut self) {
        for identity in self
            .state
            .named
            .take_stale(MOST_READS.saturating_sub(self.reads.len()))
        {
            let resource = watch::core_resource(&identity.kind);
            let api = Api::<DynamicObject>::namespaced_with(
                self.client.clone(),
                &identity.namespace,
                &resource,
            );
            let read = async move {
                let late = |_| Err(Error::Service("it has not been answered in time".into()));
                let read = timeout(ANSWER_WITHIN, api.get_opt(&identity.name))
                    .await
                    .unwrap_or_else(late);
                (identity, read)
            };
            self.reads.push(read.boxed());
        }
    }

    /// Says what is wrong now: to those who ask, and in the log.
    fn tell(&mut self) {
        self.live
            .set_source_problem(self.link.problem(self.live.loaded()));
        self.known = log_changes(std::mem::take(&mut self.known), self.live.problems());
    }
}
