//! CPU and memory of containers, as the kubelet reports them to metrics-server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidings_rig::percentile;
use tokio::time::sleep;

use crate::cluster::kubectl;
use crate::load::post;

/// How often the kubelet measures; see tools/e2e/boot.sh.
const INTERVAL: Duration = Duration::from_secs(5);

/// A number that `make e2e` can set.
fn setting(name: &str, default: u32) -> u32 {
    let Some(value) = std::env::var_os(name) else {
        return default;
    };
    let number = value.to_str().and_then(|value| value.parse().ok());
    number.unwrap_or_else(|| panic!("{name}={value:?}: must be a whole number"))
}

/// Sends events while the pods of a namespace are measured, and prints a table. Returns the events.
pub async fn measure(namespace: &str, address: &str) -> BTreeSet<String> {
    let rate = setting("E2E_RATE", 50);
    let length = Duration::from_secs(setting("E2E_SECONDS", 120).into());
    let prefix = format!("{namespace}-measured");
    let (posted, usage) = tokio::join!(
        post(address, &prefix, rate, length),
        Usage::measure(namespace, length),
    );
    println!(
        "{namespace}, {rate} events per second for {length:?}:\n{}",
        usage.table()
    );
    posted
}

/// The measurements of each component.
#[derive(Default)]
struct Usage {
    /// For each pod: the last CPU time in seconds, and when it was measured, in seconds.
    last: BTreeMap<String, (f64, f64)>,
    /// For each component: CPUs in use, and bytes.
    samples: BTreeMap<String, (Vec<f64>, Vec<f64>)>,
}

/// One line of the kubelet's metrics about a pod of a namespace.
struct Sample<'a> {
    pod: &'a str,
    value: f64,
    seconds: f64,
}

impl Usage {
    /// Measures the pods of a namespace for this time.
    async fn measure(namespace: &str, length: Duration) -> Self {
        let mut usage = Self::default();
        for _ in 0..length.as_secs() / INTERVAL.as_secs() {
            let path = "/api/v1/nodes/node/proxy/metrics/resource";
            usage.add(namespace, &kubectl(&["get", "--raw", path]).await);
            sleep(INTERVAL).await;
        }
        usage
    }

    fn add(&mut self, namespace: &str, text: &str) {
        for sample in samples(text, "container_cpu_usage_seconds_total", namespace) {
            let now = (sample.value, sample.seconds);
            let Some(before) = self.last.insert(sample.pod.to_owned(), now) else {
                continue;
            };
            if sample.seconds > before.1 && sample.value >= before.0 {
                let cpus = (sample.value - before.0) / (sample.seconds - before.1);
                self.of(namespace, sample.pod).0.push(cpus);
            }
        }
        for sample in samples(text, "container_memory_working_set_bytes", namespace) {
            self.of(namespace, sample.pod).1.push(sample.value);
        }
    }

    fn of(&mut self, namespace: &str, pod: &str) -> &mut (Vec<f64>, Vec<f64>) {
        let component = component(pod).unwrap_or(namespace);
        self.samples.entry(component.to_owned()).or_default()
    }

    /// A table of the 95th percentiles.
    fn table(&self) -> String {
        let mut table =
            String::from("| pod | CPU, p95 | memory, p95 | samples |\n|---|---|---|---|\n");
        for (component, (cpus, bytes)) in &self.samples {
            table += &format!(
                "| {component} | {:.0}m | {:.0}Mi | {} |\n",
                p95(cpus) * 1000.0,
                p95(bytes) / f64::from(1 << 20),
                cpus.len(),
            );
        }
        table
    }
}

fn samples<'a>(
    text: &'a str,
    metric: &'a str,
    namespace: &'a str,
) -> impl Iterator<Item = Sample<'a>> {
    let namespace = format!("namespace=\"{namespace}\"");
    text.lines().filter_map(move |line| {
        let (labels, values) = line.strip_prefix(metric)?.split_once("} ")?;
        if !labels.contains(&namespace) {
            return None;
        }
        let (_, pod) = labels.split_once("pod=\"")?;
        let (value, milliseconds) = values.split_once(' ')?;
        Some(Sample {
            pod: pod.split('"').next()?,
            value: value.parse().ok()?,
            seconds: milliseconds.trim().parse::<f64>().ok()? / 1000.0,
        })
    })
}

/// `worker` of `tidings-worker-…`, `nats` of `tidings-nats-0`. `None` for `tidings-0`, the only pod
/// of a mode.
fn component(pod: &str) -> Option<&str> {
    let (_, rest) = pod.split_once("tidings-")?;
    let part = rest.split('-').next()?;
    let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
    (!is_number).then_some(part)
}

fn p95(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    percentile(&sorted, 95.0).unwrap_or_default()
}
