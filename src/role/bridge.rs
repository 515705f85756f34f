//! `tidings bridge`: forwards events as CloudEvents to a stream or a URL.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::Stream;
use clap::Args;
use tidings_core::bus::connect::connect_with_retries;
use tidings_core::bus::{Bus, streams};
use tidings_core::model::subject;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::config::Role;
use tidings_core::runtime::health::Check;
use tidings_core::runtime::log_pace::LogPace;

use crate::bridge::consumer::{self, Beginning, MOST_FILTERS};
use crate::bridge::position::Position;
use crate::bridge::target::{Target, UrlTarget};
use crate::bridge::{Bridge, Pulling, headers};
use crate::command::tool::bus_settings;
use crate::flags::CommonFlags;
use crate::process::{Process, start_log};
use crate::role::{Context, heartbeat};

/// The pause before the stream EVENTS is looked for again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The part of readiness for the connection and the stream.
const BUS: &str = "bus";

/// Arguments of `tidings bridge`.
#[derive(Args, Debug)]
pub struct BridgeArguments {
    #[command(flatten)]
    common: CommonFlags,
    /// Data folder of a running `tidings up`; its nats-server is used unless --nats is given
    /// [default: .tidings]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Name of the durable consumer, which keeps the position; processes with the same name share
    /// the events
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Post events to this URL [default: republish them on
    /// cloudevents.CLUSTER.NAMESPACE.KIND.SEVERITY]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with headers for the URL, one `Name: value` per line
    #[arg(long, value_name = "FILE", requires = "url")]
    headers_file: Option<PathBuf>,
    /// Create the stream CLOUDEVENTS if it does not exist
    #[arg(long, conflicts_with = "url")]
    create_stream: bool,
    /// Forward only events of this subject, such as events.prod.*.*.error; repeatable
    #[arg(long, value_name = "SUBJECT", default_value = subject::ALL_EVENTS)]
    filter: Vec<String>,
    /// Where to begin at the first start: new, all, or a time such as 2026-01-02T15:04:05Z, or 30m
    /// for 30 minutes ago
    #[arg(long, value_name = "TIME", default_value = "new")]
    from: String,
    /// Number of events that are sent at the same time; with 1 they stay in order unless the bridge
    /// crashes
    #[arg(long, value_name = "NUMBER", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
}

/// The arguments, checked.
struct Plan {
    name: String,
    filters: Vec<String>,
    from: Beginning,
    in_flight: usize,
    create_stream: bool,
    url: Option<UrlTarget>,
}

/// Runs a bridge until it is stopped.
///
/// # Errors
/// An argument, the settings or the admin port cannot be used, or the consumer is not of a bridge.
pub async fn run(arguments: BridgeArguments) -> anyhow::Result<()> {
    let plan = Plan::new(&arguments)?;
    let settings = bus_settings(&arguments.common, arguments.data.as_deref())?;
    start_log(&settings)?;
    Process::start(settings, Role::Bridge)
        .await?
        .run(async move |context: &Context| start(context, plan).await)
        .await
}

async fn start(context: &Context, plan: Plan) -> anyhow::Result<()> {
    let check = context.health.check(BUS, None);
    let bus = connect_with_retries(&context.settings.nats, "tidings bridge", &check).await?;
    bus.limit_unsent(context.memory.unsent);
    heartbeat::start(context, &bus);
    if plan.create_stream {
        bus.create_cloud_events_stream(&context.settings.sizing())
            .await
            .context("cannot create the stream CLOUDEVENTS")?;
    }
    let events = events(&bus, &check).await;
    let consumer = consumer::configuration(&events, &plan.name, &plan.filters, plan.from).await?;
    check.succeed();
    let position = Position {
        bus: bus.clone(),
        name: plan.name,
        reads_all: plan.filters == [subject::ALL_EVENTS],
        metrics: context.metrics.clone(),
        counted: 0,
        created: None,
    };
    let position = position.start(context.stop.pulling.clone()).await;
    context.tasks.spawn(position);
    let target = plan
        .url
        .map_or_else(|| Target::Stream(Box::new(bus.clone())), Target::Url);
    spawn(context, bus, target, consumer, plan.in_flight);
    Ok(())
}

fn spawn(context: &Context, bus: Bus, target: Target, consumer: pull::Config, in_flight: usize) {
    tracing::info!(
        code = codes::BRIDGE_STARTED,
        target = target.name(),
        consumer = consumer.durable_name,
        begin = ?consumer.deliver_policy,
        "bridge started"
    );
    let check = context.health.check("target", None);
    check.succeed();
    let bridge = Bridge {
        bus,
        target,
        metrics: context.metrics.clone(),
        check,
        pace: LogPace::default().into(),
        stop: context.stop.clone(),
    };
    let pulling = Pulling {
        consumer,
        in_flight,
        memory: context.memory.routing,
        check: context
            .health
            .check("pull bridge", Some(Duration::from_secs(30))),
    };
    context.tasks.spawn(Arc::new(bridge).run(pulling));
}

/// The stream EVENTS, as soon as it exists.
async fn events(bus: &Bus, check: &Check) -> Stream {
    let mut pace = LogPace::default();
    loop {
        let error = match bus.jetstream().get_stream(streams::EVENTS).await {
            Ok(stream) => return stream,
            Err(error) => error.to_string(),
        };
        check.fail(format!("stream EVENTS: {error}"));
        if pace.is_due(&error, Instant::now()) {
            tracing::warn!(
                code = codes::STREAMS_UNAVAILABLE,
                error,
                "stream EVENTS not available, retrying"
            );
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

impl Plan {
    fn new(arguments: &BridgeArguments) -> anyhow::Result<Self> {
        let kinds: Vec<&str> = tidings_workers::notifier::kinds()
            .iter()
            .map(|kind| kind.name)
            .collect();
        consumer::check_name(&arguments.name, &kinds)?;
        anyhow::ensure!(
            arguments.filter.len() <= MOST_FILTERS,
            "--filter: at most {MOST_FILTERS} filters"
        );
        for filter in &arguments.filter {
            consumer::check_filter(filter)?;
        }
        let file = arguments.headers_file.as_deref();
        let headers = file.map(headers::read).transpose()?.unwrap_or_default();
        let url = arguments.url.as_deref();
        let url = url.map(|url| UrlTarget::new(url, headers)).transpose()?;
        Ok(Self {
            name: arguments.name.clone(),
            filters: arguments.filter.clone(),
            from: Beginning::parse(&arguments.from).context("--from")?,
            in_flight: arguments.in_flight.into(),
            create_stream: arguments.create_stream,
            url,
        })
    }
}
