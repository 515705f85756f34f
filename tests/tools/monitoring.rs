//! The alerting rules and the dashboard on a real Prometheus that scrapes a real `up`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tidings_rig::{Receiver, Reply, Rig, alert, event, eventually, free_port, provider, tool};
use tokio::process::{Child, Command};

use crate::TIDINGS;
use crate::command::text;

const QUERY_PARAMETERS: &[(&str, &str)] = &[("$__rate_interval", "1m")];

/// Panels without data here: nothing watches Kubernetes, no label is looked up, no status written,
/// and no circuit, pause or limit makes a delivery wait.
const WITHOUT_DATA: [&str; 5] = [
    "Parked without an attempt",
    "Kubernetes Events",
    "Lookups of labels",
    "Writes of statuses",
    "Circuits",
];

fn monitoring(file: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring");
    folder.join(file)
}

/// A Prometheus that scrapes one address every second.
struct Prometheus {
    _child: Child,
    url: String,
}

impl Prometheus {
    fn start(program: &Path, folder: &Path, target: &str) -> Self {
        let (port, config) = (free_port(), folder.join("prometheus.yaml"));
        let rules = monitoring("alerts.yaml");
        // `honor_labels`, as in the PodMonitor.
        let written = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n- job_name: tidings\n  honor_labels: true\n  \
             static_configs: [{{targets: [{target:?}]}}]\n"
        );
        std::fs::write(&config, written).unwrap();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(program)
            .arg(format!("--config.file={}", text(&config)))
            .arg(format!(
                "--storage.tsdb.path={}",
                text(&folder.join("prometheus"))
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            _child: child,
            url: format!("http://{address}/api/v1"),
        }
    }

    /// The field `data` of an answer; `None` while there is none.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let request = reqwest::Client::builder().no_proxy().build().ok()?;
        let request = request.get(format!("{}/{path}", self.url)).query(query);
        let answer: Value = request.send().await.ok()?.json().await.ok()?;
        assert_eq!(answer["status"], "success", "{path} {query:?}: {answer}");
        Some(answer["data"].clone())
    }

    /// The number of samples that a query returns.
    async fn count(&self, query: &str) -> usize {
        let data = self.get("query", &[("query", query)]).await.unwrap();
        let samples = data["result"].as_array().map(Vec::len);
        samples.unwrap_or_else(|| panic!("{query}: no vector: {data}"))
    }

    /// Waits until every rule was evaluated, and returns the alerts that wait or fire.
    async fn alerts(&self) -> Vec<String> {
        let rules = eventually("Prometheus has evaluated all rules", async || {
            let data = self.get("rules", &[]).await?;
            let groups = data["groups"].as_array()?.iter();
            let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
            let rules: Vec<Value> = rules.cloned().collect();
            let is_evaluated = |rule: &Value| rule["health"] != "unknown";
            (!rules.is_empty() && rules.iter().all(is_evaluated)).then_some(rules)
        })
        .await;
        for rule in &rules {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
        let active = rules.iter().filter(|rule| rule["state"] != "inactive");
        active.map(|rule| rule["name"].to_string()).collect()
    }
}

/// The title of the panel and the expression of each query of the dashboard.
fn queries() -> Vec<(String, String)> {
    let file = std::fs::read_to_string(monitoring("dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&file).unwrap();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut query = target["expr"].as_str().unwrap().to_owned();
            for (name, value) in QUERY_PARAMETERS {
                query = query.replace(name, value);
            }
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_the_alerts_runs_on_what_up_exposes() {
    let Some(program) = tool("deploy-tool.sh prometheus") else {
        println!("skipped: the dashboard is tried on Prometheus");
        return;
    };
    let receiver = Receiver::start().await;
    receiver.answer_in_turn([Reply::Status(200), Reply::Status(503)]);
    let rules = [
        provider("hook", receiver.url()).that_retries_soon(),
        alert("all", "hook"),
    ];
    let (rig, up) = Rig::up(TIDINGS, rules).await;
    let target = up.admin().replace("http://", "");
    let prometheus = Prometheus::start(&program, rig.folder(), &target);
    eventually("Prometheus scrapes `up`", async || {
        let up = prometheus.get("query", &[("query", "up == 1")]).await?;
        (!up["result"].as_array()?.is_empty()).then_some(())
    })
    .await;

    for number in 0..6 {
        up.post(&event(&number.to_string())).await.unwrap();
    }
    receiver.receives(9).await;
    rig.drained().await;

    // A rate needs two samples of each counter, and so attempts between two scrapes.
    let more = AtomicU32::new(0);
    eventually("Prometheus has two samples of an attempt", async || {
        let number = more.fetch_add(1, Ordering::Relaxed);
        up.post(&event(&format!("more {number}"))).await.unwrap();
        let mut grown = 0;
        for outcome in ["delivered", "retrying"] {
            let attempts = format!("tidings_worker_attempts_total{{outcome=\"{outcome}\"}}");
            let query = format!("increase({attempts}[1m]) > 0");
            grown += usize::from(prometheus.count(&query).await > 0);
        }
        (grown == 2).then_some(())
    })
    .await;
    rig.drained().await;
    let mut empty = Vec::new();
    for (title, query) in queries() {
        if prometheus.count(&query).await == 0 {
            empty.push(title);
        }
    }
    let unexpected = empty
        .iter()
        .find(|title| !WITHOUT_DATA.contains(&title.as_str()));
    assert_eq!(unexpected, None, "a panel has no data: {empty:?}");
    let alerts = prometheus.alerts().await;
    assert!(alerts.is_empty(), "nothing is wrong: {alerts:?}");
}
