//! The task that follows the rules of a cluster.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, SelectAll, StreamExt};
use kube::api::Api;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use kube::{Client, Error};
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::kept_bucket::{BucketResult, KeptBucket};
use super::state::ClusterState;
use super::watch::{self, MAX_BACKOFF, Probe, REQUEST_TIMEOUT, WatchEvent, WatchedKind};
use super::{Cluster, WatchScope};
use crate::cluster::api_health::ApiHealth;
use crate::cluster::debounce::Debounce;
use crate::cluster::discovery::ServedApi;
use crate::cluster::finalizer::FinalizerRemovals;
use crate::cluster::object::core_object;
use crate::cluster::references::ReadResult;
use crate::live::{LiveRules, log_changes};
use crate::object::{GRANT_KIND, Identity};
use crate::problem::{Problem, Severity};

/// The maximum number of concurrent reads of Secrets and ConfigMaps.
const MAX_READS: usize = 16;
/// The pause between two requests for a newer schema.
const SCHEMA_PAUSE: Duration = Duration::from_secs(1);
/// The part of [`ApiHealth`] for probes and discovery.
const SERVER: &str = "the API server";

/// Follows the rules of a cluster until `stop` is canceled. Logs each problem when it appears and
/// when it is resolved.
///
/// # Guarantees
/// A change takes effect within a second, together with other changes in that time. While the API
/// server is unreachable, the last good rules stay in effect. No rules take effect before all lists
/// and all reads of referenced Secrets and ConfigMaps have completed once; a denied read counts as
/// completed. The extension fields of an object are stored before its rules take effect, and read
/// before the first rules do. Ends soon after it is dropped.
pub async fn follow(cluster: Cluster, live: Arc<LiveRules>, stop: CancellationToken) {
    let stop = stop.child_token();
    let _ends_with_this = stop.clone().drop_guard();
    let runtime = Handle::current();
    // Checking and compiling rules takes time, so it has a thread of its own. Requests still run on
    // the runtime.
    let span = tracing::Span::current();
    let thread = tokio::task::spawn_blocking(move || {
        let _of_this_source = span.enter();
        let mut follower = Follower::new(cluster, live);
        runtime.block_on(stop.run_until_cancelled(follower.run()));
    });
    if let Err(error) = thread.await
        && error.is_panic()
    {
        tracing::error!(
            code = codes::RULES_READER_PANICKED,
            %error,
            "reading rules panicked; rules stay unchanged until a restart"
        );
    }
}

struct Follower {
    client: Client,
    scope: WatchScope,
    catalog: Arc<Catalog>,
    live: Arc<LiveRules>,
    state: ClusterState,
    debounce: Debounce,
    api_health: ApiHealth,
    logged: HashSet<Problem>,
    watches: SelectAll<BoxStream<'static, WatchEvent>>,
    /// The watched Secrets and ConfigMaps.
    watched: HashSet<WatchedKind>,
    reads: FuturesUnordered<BoxFuture<'static, (Identity, Read)>>,
    removals: FinalizerRemovals,
    bucket: KeptBucket,
    /// Whether changed rules wait until the bucket is written.
    awaits_bucket: bool,
    /// Whether it was logged that the schemas cannot be read.
    lacks_schema: bool,
    /// A running request for a newer schema.
    schemas: FuturesUnordered<BoxFuture<'static, Result<(ServedApi, Instant), String>>>,
}

/// Whether the account may not read grants, as with the RBAC of an earlier release.
fn is_denied_grant(watched: &WatchedKind, why: &str) -> bool {
    watched.kind == GRANT_KIND && why.contains("forbidden")
}

/// The response to a read.
type Read = Result<Option<DynamicObject>, Error>;

impl Follower {
    fn new(cluster: Cluster, live: Arc<LiveRules>) -> Self {
        let Cluster {
            client,
            scope,
            kinds,
            options,
            remove_finalizers,
            extensions,
            catalog,
            member,
        } = cluster;
        Self {
            client,
            scope,
            catalog,
            live,
            state: ClusterState::new(kinds, options),
            debounce: Debounce::default(),
            api_health: ApiHealth::default(),
            logged: HashSet::new(),
            watches: SelectAll::new(),
            watched: HashSet::new(),
            reads: FuturesUnordered::new(),
            removals: FinalizerRemovals::new(remove_finalizers),
            bucket: KeptBucket::new(extensions, member),
            awaits_bucket: false,
            lacks_schema: false,
            schemas: FuturesUnordered::new(),
        }
    }

    /// Restarts whenever the API server was restored or serves other versions.
    async fn run(&mut self) {
        self.bucket.load(false);
        loop {
            let served_api = self.discover().await;
            self.start_watches(&served_api);
            self.handle_events(&served_api).await;
        }
    }

    /// Retries discovery until it succeeds.
    async fn discover(&mut self) -> ServedApi {
        loop {
            let timed_out = format!("no response within {} s", REQUEST_TIMEOUT.as_secs());
            let requested = Instant::now();
            let discovery = ServedApi::discover(&self.client, self.bucket.is_enabled());
            let why = match timeout(REQUEST_TIMEOUT, discovery).await {
                Ok(Ok(served_api)) => {
                    self.note_schema(&served_api, requested);
                    self.api_health.recovered(SERVER);
                    self.report_problems();
                    return served_api;
                }
                Ok(Err(error)) => watch::with_causes(&error),
                Err(_) => timed_out,
            };
            self.api_health.failed(SERVER, why, Instant::now());
            self.report_problems();
            sleep(jitter(MAX_BACKOFF / 2)).await;
        }
    }

    /// Starts all watches. The former objects are used until the new lists are complete.
    fn start_watches(&mut self, served_api: &ServedApi) {
        let is_changed = self
            .catalog
            .served_api()
            .is_none_or(|former| *former != *served_api);
        if is_changed && !(served_api.alerts.has_status && served_api.providers.has_status) {
            tracing::warn!(
                code = codes::FLUX_CRDS,
                "CRDs of Flux found, extensions need annotations, rules have no status"
            );
        }
        self.catalog.set_served_api(served_api.clone());
        self.watches = SelectAll::new();
        let grants = served_api.grants.as_ref().map(|_| GRANT_KIND);
        let watches: Vec<_> = ["Alert", "Provider"]
            .into_iter()
            .chain(grants)
            .flat_map(|kind| self.scope.watches(kind))
            .collect();
        if self.state.retain_watches(&watches) {
            self.debounce.record_change(Instant::now());
        }
        self.state.add_watches(&watches);
        for watched in watches {
            let served = served_api.of(watched.kind);
            let selector = self.scope.label_selector.as_deref();
            let selector = selector.filter(|_| watched.kind != GRANT_KIND);
            let client = &self.client;
            let watch = watch::watch_rules(client, watched, served, selector);
            self.watches.push(watch);
        }
        for watched in &self.watched {
            self.watches
                .push(watch::watch_metadata(&self.client, watched.clone()));
        }
    }

    /// Handles events until the API server was restored or serves other versions.
    async fn handle_events(&mut self, served_api: &ServedApi) {
        let watched = self.scope.watches("Alert").swap_remove(0);
        let mut probes = watch::probes(&self.client, watched, self.bucket.is_enabled());
        loop {
            // A list arrives as many events at once. Lets other tasks run in between.
            tokio::task::consume_budget().await;
            let due = self.debounce.due();
            tokio::select! {
                Some(event) = self.watches.next() => self.handle_event(event, served_api),
                Some((identity, read)) = self.reads.next() => self.handle_read(&identity, read),
                Some(result) = self.removals.next() => self.removals.finish(result),
                Some(result) = self.bucket.next() => self.handle_bucket(result),
                Some(schema) = self.schemas.next() => {
                    if let Ok((schema, requested)) = schema
                        && self.handle_schema(&schema, requested, served_api)
                    {
                        return;
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.apply();
                }
                Some(probe) = probes.next() => {
                    if self.handle_probe(probe, served_api) {
                        return;
                    }
                }
            }
            if self.removals.is_idle()
                && let Some(blocked) = self.state.next_blocked_deletion()
            {
                self.removals.start(blocked, &self.client, served_api);
            }
        }
    }

    fn handle_event(&mut self, event: WatchEvent, served_api: &ServedApi) {
        let now = Instant::now();
        let changed = match event {
            WatchEvent::Rule(watched, event) => {
                if let Event::Apply(object) | Event::Delete(object) = event.as_ref() {
                    self.api_health.observed(watch::version_number(
                        object.metadata.resource_version.as_deref(),
                    ));
                }
                let served = served_api.of(watched.kind);
                self.state
                    .handle_rule_event(watched, *event, served, &self.catalog)
            }
            WatchEvent::Metadata(watched, event) => {
                self.state.handle_metadata_event(&watched, event);
                self.read_stale();
                false
            }
            WatchEvent::Failed(watched, why) if is_denied_grant(&watched, &why) => {
                self.state.handle_denied(&watched)
            }
            WatchEvent::Failed(watched, why) => {
                self.api_health.failed(watched.to_string(), why, now);
                self.report_problems();
                false
            }
        };
        if changed {
            self.debounce.record_change(now);
        }
    }

    fn handle_read(&mut self, identity: &Identity, read: Read) {
        let result = match read {
            Ok(Some(object)) => {
                let version = object.metadata.resource_version.clone().unwrap_or_default();
                ReadResult::Found {
                    version,
                    checked: Box::new(self.state.check(&core_object(identity, object))),
                }
            }
            Ok(None) => ReadResult::NotFound,
            // The API server may fail for this object only, such as a Secret that it cannot
            // decrypt.
            Err(Error::Api(status)) if status.message.is_empty() => {
                ReadResult::Denied(format!("{} {}", status.code, status.reason))
            }
            Err(Error::Api(status)) => ReadResult::Denied(status.message.clone()),
            Err(error) => ReadResult::Failed(watch::with_causes(&error)),
        };
        if self.state.references.record(identity, result) {
            self.debounce.record_change(Instant::now());
        }
        self.read_stale();
    }

    /// Handles a probe. Returns whether the API server was restored or serves other versions.
    fn handle_probe(&mut self, probe: Result<Probe, String>, served_api: &ServedApi) -> bool {
        let now = Instant::now();
        let probe = match probe {
            Ok(probe) => probe,
            Err(why) => {
                self.api_health.failed(SERVER, why, now);
                self.report_problems();
                return false;
            }
        };
        self.api_health.recovered(SERVER);
        let was_restored = self.api_health.probed(probe.version, now);
        self.report_problems();
        self.state.retry_finalizers();
        if self.state.references.retry() {
            self.read_stale();
        }
        if was_restored {
            tracing::warn!(
                code = codes::RESOURCE_VERSION_REGRESSED,
                "API server returned to an earlier state, reading all rules again"
            );
            self.state.references.mark_all_stale();
            self.read_stale();
        }
        self.bucket.load(false);
        self.handle_schema(&probe.served_api, probe.requested, served_api) || was_restored
    }

    /// Handles a schema. Returns whether the API server serves other versions or fields.
    fn handle_schema(&mut self, now: &ServedApi, requested: Instant, before: &ServedApi) -> bool {
        self.note_schema(now, requested);
        if self.state.kept.decides() {
            self.debounce.record_change(Instant::now());
        } else {
            self.request_schema();
        }
        now != before
    }

    /// Notes the schemas, and logs when they become unreadable.
    fn note_schema(&mut self, served_api: &ServedApi, requested: Instant) {
        self.state.kept.set_schema(served_api, requested);
        let lacks_schema = self.bucket.is_enabled() && !served_api.has_schemas();
        if lacks_schema && !self.lacks_schema {
            tracing::warn!(
                code = codes::SCHEMA_UNREADABLE,
                "schema not readable, a removed extension field counts as lost"
            );
        }
        self.lacks_schema = lacks_schema;
    }

    fn handle_bucket(&mut self, result: BucketResult) {
        let mut problem = None;
        let mut is_changed = true;
        match result {
            BucketResult::Unchanged => is_changed = self.awaits_bucket,
            BucketResult::Loaded(records, version, stored) => {
                if self.bucket.loaded(*records, version) {
                    tracing::error!(
                        code = codes::EXTENSIONS_RECREATED,
                        "bucket extensions was deleted, writing the known records again"
                    );
                    self.state.kept.bucket_was_recreated(&stored);
                } else {
                    self.state.kept.load(stored);
                }
            }
            BucketResult::Saved(written, error) => {
                problem = error;
                let mut is_stale = false;
                for (change, revision) in written {
                    match revision {
                        Some(revision) => self.state.kept.written(change, revision),
                        None => is_stale = true,
                    }
                }
                if is_stale {
                    self.bucket.load(true);
                }
            }
            BucketResult::Failed(why) => {
                problem = Some(why);
                is_changed = false;
                self.bucket.load(false);
            }
        }
        self.bucket.set_problem(problem);
        self.report_problems();
        if is_changed {
            self.debounce.record_change(Instant::now());
        }
    }

    /// Whether the records of extensions are stored as the rules need it. If not, starts to store
    /// them; the rules take effect afterwards.
    fn are_extensions_stored(&mut self) -> bool {
        if !self.bucket.is_enabled() {
            return true;
        }
        let scope = &self.scope;
        let changes = self
            .state
            .extension_changes(|namespace| scope.covers(namespace));
        self.request_schema();
        let is_stored = changes.is_empty();
        self.awaits_bucket = !is_stored;
        if !is_stored {
            self.bucket.save(changes);
        }
        is_stored
    }

    /// Requests a newer schema if one will decide about an object.
    fn request_schema(&mut self) {
        if !self.state.kept.will_decide() || !self.schemas.is_empty() {
            return;
        }
        let client = self.client.clone();
        let request = async move {
            sleep(SCHEMA_PAUSE).await;
            let requested = Instant::now();
            let discovery = timeout(REQUEST_TIMEOUT, ServedApi::discover(&client, true)).await;
            match discovery {
                Ok(Ok(served_api)) => Ok((served_api, requested)),
                Ok(Err(error)) => Err(watch::with_causes(&error)),
                Err(_) => Err("no response in time".to_owned()),
            }
        };
        self.schemas.push(request.boxed());
    }

    /// Replaces the rules once all referenced objects are read or the maximum delay has passed.
    fn apply(&mut self) {
        let now = Instant::now();
        self.state.update_references();
        self.watch_references();
        self.read_stale();
        let is_kept = !self.bucket.is_enabled() || self.state.kept.is_loaded();
        if !is_kept || !self.live.loaded() && !self.state.is_complete() {
            // A missing list or read, or the bucket, triggers another change.
            return self.debounce.clear();
        }
        if !self.state.references.is_idle() && !self.debounce.is_overdue(now) {
            return self.debounce.record_change(now);
        }
        self.debounce.clear();
        if !self.are_extensions_stored() {
            // The end of the request triggers another change.
            return;
        }
        let live = self.live.clone();
        let _reload = live.start_reload();
        live.replace(self.state.rules());
        self.report_problems();
    }

    /// Watches the referenced kinds.
    fn watch_references(&mut self) {
        for kind in self.state.references.kinds() {
            for watched in self.scope.watches(kind) {
                if self.watched.insert(watched.clone()) {
                    self.watches
                        .push(watch::watch_metadata(&self.client, watched));
                }
            }
        }
    }

    fn read_stale(&mut self) {
        for identity in self
            .state
            .references
            .take_stale(MAX_READS.saturating_sub(self.reads.len()))
        {
            let resource = watch::core_resource(&identity.kind);
            let api = Api::<DynamicObject>::namespaced_with(
                self.client.clone(),
                &identity.namespace,
                &resource,
            );
            let read = async move {
                let late = |_| Err(Error::Service("the request timed out".into()));
                let read = timeout(REQUEST_TIMEOUT, api.get_opt(&identity.name))
                    .await
                    .unwrap_or_else(late);
                (identity, read)
            };
            self.reads.push(read.boxed());
        }
    }

    /// Publishes and logs the current problems.
    fn report_problems(&mut self) {
        let problem = self.api_health.problem(self.live.loaded());
        let bucket = self.bucket.problem().map(|why| Problem {
            file: None,
            line: None,
            object: None,
            field: None,
            message: why.to_owned(),
            severity: Severity::Error,
        });
        self.live.set_source_problem(problem.or(bucket));
        self.logged = log_changes(std::mem::take(&mut self.logged), self.live.problems());
    }
}
