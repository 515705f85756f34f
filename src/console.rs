//! The console: a web page that shows what happens, and the API that it uses.
//!
//! ```text
//!  request ─► http_server ─► guard: Host, site, token ─► api ─► bus, rules
//!                              └─► assets (no token: they hold no data)
//! ```
//!
//! # Invariants
//! - Without a token nothing is visible, if the settings have tokens. What changes something is
//!   below `/api/actions`, and needs a token with the role operate.
//! - A user of the Kubernetes API sees only what `visible` shows, and acts only with a permit for
//!   the namespaces.
//! - Whatever a request costs has a bound: connections, requests and streams at a time, the time of
//!   a request, the rows and bytes of an answer.
//! - A browser sends the token in a header, never in a cookie or URL, so a page of another site
//!   cannot use it.

mod access;
mod api;
mod assets;
mod cached;
mod guard;
mod permissions;
mod problem;
mod query;
mod recent;
mod samples;
mod shares;
mod visible;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::middleware::from_fn_with_state;
use parking_lot::Mutex;
use tidings_core::bus::Bus;
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::runtime::config::Settings;
use tidings_core::runtime::log_pace::LogPace;
use tidings_core::runtime::metrics::Metrics;
use tidings_core::runtime::scaling::Scaling;
use tidings_rules::LiveRules;
use tidings_workers::http::HttpClients;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use access::{Access, Kubernetes};
pub use permissions::{KubernetesAuthorizer, Permissions};

use crate::command::status::Known;
use crate::command::status::reading::Reading;
use crate::command::status::report::Report;
use crate::command::test::deliver::Tester;
use access::Refusal;
use cached::{Cached, CachedAnswers};
use recent::Recent;
use samples::Samples;
use shares::{Rates, Shares};

/// The most connections at a time.
pub const MAX_CONNECTIONS: usize = 64;
/// The most requests that are being answered at a time.
const MAX_REQUESTS: usize = 16;
/// The most requests, and streams, of one account of the Kubernetes API.
const MAX_REQUESTS_OF_ACCOUNT: usize = 6;
const MAX_STREAMS_OF_ACCOUNT: usize = 4;
/// The most actions of one caller in a minute: records of many would push out older ones.
const MAX_ACTIONS_A_MINUTE: u32 = 60;
/// The most traces, and tried events, that are being worked on at a time.
const MAX_TRACES: usize = 2;
/// The most live streams at a time.
const MAX_STREAMS: usize = 16;
/// How long a live stream lasts at most.
const MAX_STREAM_TIME: Duration = Duration::from_secs(3600);
/// How long what is polled is shown before it is read again. All viewers share it.
const SHARED_AGE: Duration = Duration::from_secs(2);

/// What the console needs of the process.
pub struct Parts {
    pub bus: Bus,
    pub rules: Arc<LiveRules>,
    pub scaling: Scaling,
    pub metrics: Metrics,
    pub settings: Settings,
    pub clusters: Arc<LiveClusters>,
    /// Ends live streams and what the console follows.
    pub stop: CancellationToken,
}

/// The console of a process.
pub struct Console {
    parts: Parts,
    access: Access,
    tester: Tester,
    status: Cached<Report>,
    /// The answers of the paths that pages poll.
    polled: CachedAnswers<api::Polled, Bytes>,
    samples: Samples,
    recent: Recent,
    requests: Semaphore,
    traces: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// The requests and streams of each account of the Kubernetes API.
    request_shares: Shares,
    stream_shares: Shares,
    actions: Rates,
    refusals: Mutex<[LogPace; Refusal::COUNT]>,
}

impl Console {
    /// Starts to follow outcomes and to count what waits, for as long as the process runs.
    ///
    /// # Errors
    /// A link template cannot be used.
    pub fn start(
        parts: Parts,
        http_clients: HttpClients,
        access: Access,
    ) -> anyhow::Result<Arc<Self>> {
        let tester = Tester::new(http_clients, &parts.settings, parts.clusters.clone())?;
        let (bus, scaling, stop) = (parts.bus.clone(), parts.scaling.clone(), parts.stop.clone());
        let recent = Recent::default();
        let samples = Samples::default();
        tokio::spawn(recent.clone().follow(bus.clone(), stop.clone()));
        tokio::spawn(samples.clone().follow(bus, scaling, recent.clone(), stop));
        Ok(Arc::new(Self {
            parts,
            access,
            tester,
            status: Cached::new(SHARED_AGE),
            polled: CachedAnswers::new(SHARED_AGE),
            samples,
            recent,
            requests: Semaphore::new(MAX_REQUESTS),
            traces: Arc::new(Semaphore::new(MAX_TRACES)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            request_shares: Shares::new(MAX_REQUESTS_OF_ACCOUNT),
            stream_shares: Shares::new(MAX_STREAMS_OF_ACCOUNT),
            actions: Rates::new(MAX_ACTIONS_A_MINUTE),
            refusals: Mutex::default(),
        }))
    }

    /// Answers all requests.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .nest("/api", api::router(self.clone()))
            .fallback(assets::answer)
            .layer(from_fn_with_state(self.clone(), guard::every_request))
            .with_state(self)
    }

    /// What `tidings status` shows.
    async fn status(&self) -> anyhow::Result<Arc<Report>> {
        let bus = &self.parts.bus;
        let read = async || {
            let reading = Reading::of(bus).await?;
            Ok(Report::new(&reading, Known::default()))
        };
        self.status.get(read).await
    }
}
