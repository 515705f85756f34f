//! Connects a role to the bus.

use std::time::{Duration, Instant};

use tidings_core::bus::Bus;
use tidings_core::bus::connect::connect_with_retries;
use tidings_core::bus::losses::LossWatch;
use tidings_core::bus::member::MemberWatch;
use tidings_core::bus::setup::{SetupError, StreamPolicy};
use tidings_core::bus::streams;
use tidings_core::bus::watch::Watch;
use tidings_core::bus::write_check::WriteCheck;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::Settings;
use tidings_core::runtime::edge_backlogs;
use tidings_core::runtime::health::Check;
use tidings_core::runtime::log_pace::LogPace;

use crate::role::{Context, heartbeat};

/// The bus is sampled every second. The role is not ready if the last sample is older than this.
pub const SAMPLE_FRESH_FOR: Duration = Duration::from_secs(10);
/// A check of writing can wait for several answers in turn.
pub const WRITE_CHECK_FRESH_FOR: Duration = Duration::from_secs(90);
/// The pause before the streams are checked again.
const SETUP_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Checks that a server is set. Roles call this before they start anything.
///
/// # Errors
/// `nats.url` is not set.
pub fn check_url(settings: &Settings) -> anyhow::Result<()> {
    anyhow::ensure!(
        settings.nats.url.is_some(),
        "nats.url is not set: pass --nats URL"
    );
    Ok(())
}

/// Connects, waits until the streams can be used, and starts to watch the connection and streams.
///
/// # Errors
/// The settings are invalid, the server is too old, or a stream differs and `policy` does not allow
/// a change.
pub async fn connect(context: &Context, policy: StreamPolicy) -> anyhow::Result<Bus> {
    let settings = &context.settings;
    let check = context.health.check("bus", Some(SAMPLE_FRESH_FOR));
    let name = format!("tidings {:?}", context.role).to_lowercase();
    let bus = connect_with_retries(&settings.nats, &name, &check).await?;
    bus.limit_unsent(context.memory.unsent);
    heartbeat::start(context, &bus);
    if bus.member().is_some() {
        return watch_as_member(context, bus, policy, check).await;
    }
    let sizing = settings.sizing();
    let sizing = retry_setup(&check, async || bus.set_up(&sizing, policy).await).await?;
    if context.role.routes() {
        let scaling = context.scaling.clone();
        let stop = context.stop.holding.clone();
        tokio::spawn(scaling.run(bus.clone(), context.metrics.clone(), stop.clone()));
        tokio::spawn(edge_backlogs::run(
            bus.clone(),
            context.metrics.clone(),
            stop,
        ));
    }
    Watch::new(bus.clone(), &sizing, policy, context.metrics.clone())
        .start(check, context.stop.holding.clone())
        .await;
    let check = context.health.check("storage", Some(WRITE_CHECK_FRESH_FOR));
    WriteCheck::new(bus.clone(), &sizing, policy)
        .start(check, context.stop.holding.clone())
        .await;
    // The worker of one pool does not see the whole.
    let counts = format!("$KV.{}.deliveries", streams::COUNTS);
    if policy != StreamPolicy::Wait && bus.may_publish(&counts) {
        LossWatch::new(bus.clone(), context.metrics.clone())
            .start(context.stop.holding.clone())
            .await;
    }
    Ok(bus)
}

/// Waits until the hub has reported the state of EVENTS, and follows it.
async fn watch_as_member(
    context: &Context,
    bus: Bus,
    policy: StreamPolicy,
    check: Check,
) -> anyhow::Result<Bus> {
    let (settings, member) = (&context.settings, bus.member().unwrap_or_default());
    anyhow::ensure!(
        policy == StreamPolicy::Wait,
        "nats.credentials: issued for the ingest of cluster {member:?}; use the credentials of \
         this role"
    );
    anyhow::ensure!(
        settings.cluster == member,
        "nats.credentials: issued for cluster {member:?}, but cluster is {:?}; pass --cluster \
         {member}",
        settings.cluster
    );
    let sizing = settings.sizing();
    retry_setup(&check, async || bus.set_up_member(&sizing).await).await?;
    let storage = context.health.check("storage", Some(SAMPLE_FRESH_FOR));
    MemberWatch::new(bus.clone(), context.metrics.clone())
        .start(check, storage, context.stop.holding.clone())
        .await;
    Ok(bus)
}

/// Repeats a step until it succeeds. Only a stream that differs ends the role.
pub async fn retry_setup<T>(
    check: &Check,
    step: impl AsyncFn() -> Result<T, SetupError>,
) -> anyhow::Result<T> {
    let mut pace = LogPace::default();
    loop {
        match step().await {
            Ok(done) => return Ok(done),
            Err(error @ SetupError::Differs { .. }) => return Err(error.into()),
            Err(error) => {
                if pace.is_due(&error.to_string(), Instant::now()) {
                    tracing::warn!(
                        code = codes::STREAMS_UNAVAILABLE,
                        %error,
                        "streams not available, retrying"
                    );
                }
                check.fail(error.to_string());
            }
        }
        tokio::time::sleep(SETUP_RETRY_INTERVAL).await;
    }
}
