//! Measures one hub with many members.
//!
//! ```text
//!  members ── one connection each, with credentials of its own ─► nats-server ═► router ═► worker
//!     └──────────────── one clock: published at, received at ──── receiver ◄──────── POST ──┘
//! ```
//!
//! A member publishes what its ingest would publish. See docs/scaling.md.

mod usage;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_nats::{ConnectOptions, HeaderMap, jetstream};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use prost::Message as _;
use tidings_core::model::access::Access;
use tidings_core::model::subject;
use tidings_proto::v1::{Event, ObjectReference};
use tidings_rig::{Process, Rig, Role, alert, percentile, provider};
use tokio::time::{interval_at, sleep};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_tidings");
/// Deliveries count as lost when none was received for this time.
const PATIENCE: Duration = Duration::from_secs(20);
/// The time before a load in which routers see new members and connections are made.
const SETTLE: Duration = Duration::from_secs(5);

/// Measure one hub with many members
#[derive(Parser, Debug)]
struct Options {
    /// Members and their events per second, as MEMBERS:RATE, in growing order
    #[arg(
        long,
        env = "BENCH_MEMBERS",
        value_delimiter = ',',
        default_value = "10:5,50:5,200:5,1000:1"
    )]
    members: Vec<String>,
    /// Seconds of each load
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 30)]
    seconds: u64,
    /// The flag that cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// When each event was published, and how long its delivery took.
#[derive(Default)]
struct Times {
    published: Mutex<HashMap<String, Instant>>,
    taken: Mutex<Vec<Duration>>,
    surplus: Mutex<usize>,
}

/// A hub with a router and a worker.
struct Hub {
    rig: Rig,
    dir: PathBuf,
    router: Process,
    worker: Process,
}

struct Member {
    name: String,
    jetstream: jetstream::Context,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let times = Arc::new(Times::default());
    let receiver = start_receiver(times.clone()).await?;
    let hub = Hub::start(&receiver).await?;
    let mut members = Vec::new();
    println!("| members | events/s each | sent | lost | surplus | events/s | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut used = Vec::new();
    let mut lost = 0;
    for load in &options.members {
        let (count, rate) = load.split_once(':').context("expected MEMBERS:RATE")?;
        let (count, rate): (usize, u32) = (count.parse()?, rate.parse()?);
        hub.grow(&mut members, count).await?;
        sleep(SETTLE).await;
        let before = hub.cpu_times()?;
        let (began, busy) = (Instant::now(), usage::cpu_time_of_all()?);
        lost += run(&members, rate, options.seconds, &times).await?;
        let events = f64::from(rate) * (count as u64 * options.seconds) as f64;
        let cpu = hub.cpu_times()?;
        let busy = (usage::cpu_time_of_all()? - busy).as_secs_f64() / began.elapsed().as_secs_f64();
        for ((name, id), (before, after)) in hub.processes().into_iter().zip(before.iter().zip(cpu))
        {
            let micros = (after - *before).as_secs_f64() * 1e6 / events;
            let resident = usage::memory(id)?.resident_mib;
            used.push(format!(
                "| {count} | {name} | {micros:.0} | {resident:.0} | {busy:.1} |"
            ));
        }
    }
    println!("\n| members | process | CPU µs for each event | MiB | busy cores of the machine |");
    println!("|---|---|---|---|---|");
    used.iter().for_each(|line| println!("{line}"));
    ensure!(lost == 0, "{lost} events were not delivered");
    Ok(())
}

impl Hub {
    async fn start(receiver: &str) -> anyhow::Result<Self> {
        let rig = Rig::start_configured(EXECUTABLE, async |folder, port| {
            let dir = folder.join("fleet");
            let listen = format!("127.0.0.1:{port}");
            let init = fleet(&dir, &["init"], &["--listen", &listen]).await;
            init.expect("the files of a fleet are written");
            dir.join("nats.conf")
        })
        .await;
        let dir = rig.folder().join("fleet");
        rig.rules()
            .put([provider("hook", receiver), alert("all", "hook")]);
        let role = |role: Role, name: &str| {
            let file = dir.join(format!("creds/{name}.creds"));
            role.env("TIDINGS_NATS__CREDENTIALS", &file.display().to_string())
        };
        let router = rig.run(role(Role::router(), "router")).await;
        let worker = rig.run(role(Role::worker(), "worker")).await;
        Ok(Self {
            dir,
            router,
            worker,
            rig,
        })
    }

    /// Adds members until there are this many, and connects them.
    async fn grow(&self, members: &mut Vec<Member>, count: usize) -> anyhow::Result<()> {
        for number in members.len()..count {
            let name = format!("member-{number}");
            fleet(&self.dir, &["add", &name], &[]).await?;
            let file = self.dir.join(format!("creds/{name}.creds"));
            let credentials = std::fs::read_to_string(file)?;
            let access = Access::of_credentials(&credentials);
            let inbox = access.inbox_prefix().context("credentials name an inbox")?;
            let client = ConnectOptions::with_credentials(&credentials)?
                .custom_inbox_prefix(inbox)
                .connect(self.rig.url())
                .await?;
            let jetstream = jetstream::new(client);
            members.push(Member { name, jetstream });
        }
        Ok(())
    }

    fn processes(&self) -> [(&'static str, u32); 3] {
        [
            ("nats-server", self.rig.nats_id()),
            ("router", self.router.id()),
            ("worker", self.worker.id()),
        ]
    }

    /// The CPU time of each process so far.
    fn cpu_times(&self) -> anyhow::Result<Vec<Duration>> {
        let ids = self.processes().into_iter().map(|(_, id)| id);
        ids.map(usage::cpu_time).collect()
    }
}

/// Runs `tidings fleet`.
async fn fleet(dir: &Path, action: &[&str], more: &[&str]) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(EXECUTABLE);
    command.arg("fleet").args(action);
    // `init` has the folder as its argument.
    match action {
        ["init"] => command.arg(dir),
        _ => command.arg("--dir").arg(dir),
    };
    let output = command.args(more).output().await?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Publishes, and prints what was received. Returns the number of lost events.
async fn run(
    members: &[Member],
    rate: u32,
    seconds: u64,
    times: &Arc<Times>,
) -> anyhow::Result<usize> {
    let began = Instant::now();
    let period = Duration::from_secs(1) / rate;
    let sending = members.iter().enumerate().map(|(number, member)| {
        // The members do not publish at the same moment.
        let offset = period.mul_f64(number as f64 / members.len() as f64);
        member.publish(began + offset, period, rate as u64 * seconds, times)
    });
    let sent = stream::iter(sending).buffer_unordered(members.len());
    let sent: u64 = sent.try_fold(0, async |sum, sent| Ok(sum + sent)).await?;
    let lost = times.wait().await;
    let mut taken = std::mem::take(&mut *times.taken.lock());
    let surplus = std::mem::take(&mut *times.surplus.lock());
    taken.sort_unstable();
    let milliseconds = |percent: f64| {
        let time = percentile(&taken, percent).unwrap_or_default();
        time.as_secs_f64() * 1e3
    };
    let per_second = taken.len() as f64 / began.elapsed().as_secs_f64();
    println!(
        "| {} | {rate} | {sent} | {lost} | {surplus} | {per_second:.0} | {:.1} | {:.1} |",
        members.len(),
        milliseconds(50.0),
        milliseconds(99.0),
    );
    Ok(lost)
}

impl Member {
    async fn publish(
        &self,
        begin: Instant,
        period: Duration,
        count: u64,
        times: &Times,
    ) -> anyhow::Result<u64> {
        let mut turn = interval_at(begin.into(), period);
        for _ in 0..count {
            turn.tick().await;
            let event = self.event();
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", event.id.as_str());
            let (subject, body) = (subject::event(&event), event.encode_to_vec());
            times.published.lock().insert(event.message, Instant::now());
            let stored = self
                .jetstream
                .publish_with_headers(subject, headers, body.into())
                .await?;
            stored.await?;
        }
        Ok(count)
    }

    /// An event of about 500 bytes. Its message is its id.
    fn event(&self) -> Event {
        let id = format!("{:032x}", rand::random::<u128>());
        Event {
            id: id.clone(),
            dedupe_key: id.clone(),
            cluster: self.name.clone(),
            involved_object: Some(ObjectReference {
                api_version: "kustomize.toolkit.fluxcd.io/v1".into(),
                kind: "Kustomization".into(),
                namespace: "apps".into(),
                name: "podinfo".into(),
                ..ObjectReference::default()
            }),
            severity: "info".into(),
            message: id,
            reason: "ReconciliationSucceeded".into(),
            metadata: [("summary".to_owned(), "x".repeat(200))].into(),
            reporting_controller: "kustomize-controller".into(),
            ..Event::default()
        }
    }
}

impl Times {
    fn received(&self, message: &str) {
        match self.published.lock().remove(message) {
            Some(published) => self.taken.lock().push(published.elapsed()),
            None => *self.surplus.lock() += 1,
        }
    }

    /// Waits until everything is received, or nothing is received any more. Returns what is lost.
    async fn wait(&self) -> usize {
        let (mut received, mut since) = (0, Instant::now());
        loop {
            let missing = self.published.lock().len();
            let count = self.taken.lock().len();
            if count != received {
                (received, since) = (count, Instant::now());
            }
            if missing == 0 || since.elapsed() > PATIENCE {
                self.published.lock().clear();
                return missing;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn start_receiver(times: Arc<Times>) -> anyhow::Result<String> {
    let receive = async |State(times): State<Arc<Times>>, body: Bytes| {
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        times.received(body["message"].as_str().unwrap_or_default());
    };
    let service = Router::new().route("/", post(receive)).with_state(times);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(format!("http://{address}/"))
}
