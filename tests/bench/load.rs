//! Posts events and measures their deliveries.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval_at, timeout};

use crate::effort::{Effort, effort};
use crate::endpoint::{Endpoint, Program};
use crate::http::Connection;
use crate::scenario::{Scenario, Template};
use crate::tally::{Account, Tally};
use crate::usage::{Memory, cpu_time, cpu_time_of_all, memory};

/// The number of connections, and so of concurrent posts.
const CONNECTIONS: u32 = 64;
/// The rate of the steady load.
const STEADY_PER_SECOND: u32 = 100;
/// The number of events of a fan-out for each second of the load: about what
/// notification-controller handles.
const FAN_OUT_PER_SECOND: usize = 30;
/// The number of events for a slow receiver for each second of the load.
const SLOW_PER_SECOND: usize = 1000;
/// Deliveries before the measurement, so that connections and caches exist.
const WARM_UP: usize = 256;
/// A post without a response within this time ends the run.
const RESPONSE_WITHIN: Duration = Duration::from_secs(60);

/// How events are posted.
pub struct Load {
    /// Its name in the report.
    pub name: &'static str,
    /// Events per second; `None`: as many as possible.
    per_second: Option<u32>,
    lasts: Duration,
    most_events: usize,
    /// The number of deliveries that each event must cause.
    pub deliveries_per_event: usize,
}

/// The measurements of a load.
pub struct Measured {
    /// The events and deliveries.
    pub account: Account,
    /// The CPU time of the benchmark itself.
    pub driver_cpu: Duration,
    /// The cores that other processes used.
    pub other_cores: f64,
    /// The program's processes.
    pub processes: Vec<Process>,
}

/// The cost of a load in one process.
pub struct Process {
    /// Its name.
    pub name: &'static str,
    /// Its CPU time and context switches in this load.
    pub effort: Effort,
    /// Its memory at the end of this load.
    pub memory: Memory,
}

impl Load {
    /// The loads of a scenario. The steady load comes first, since the memory peak covers the whole
    /// life of the process.
    pub fn all(scenario: Scenario, seconds: u64) -> Vec<Self> {
        let deliveries_per_event = scenario.deliveries_per_event();
        let lasts = Duration::from_secs(seconds);
        let full = Self {
            name: "full rate",
            per_second: None,
            lasts,
            most_events: usize::MAX,
            deliveries_per_event,
        };
        if scenario == Scenario::FanOut {
            let most_events = FAN_OUT_PER_SECOND * usize::try_from(seconds).unwrap_or(usize::MAX);
            return vec![Self {
                lasts: RESPONSE_WITHIN,
                most_events,
                ..full
            }];
        }
        if scenario == Scenario::Slow {
            let most_events = SLOW_PER_SECOND * usize::try_from(seconds).unwrap_or(usize::MAX);
            return vec![Self {
                lasts: RESPONSE_WITHIN,
                most_events,
                ..full
            }];
        }
        let steady = Self {
            name: "100/s",
            per_second: Some(STEADY_PER_SECOND),
            ..full
        };
        // Compared with the same load without the neighbor.
        if scenario == Scenario::Neighbor {
            vec![steady]
        } else {
            vec![steady, full]
        }
    }
}

/// Posts some events before anything is measured.
///
/// # Errors
/// Nothing is delivered.
pub async fn warm_up(
    program: &Program,
    scenario: Scenario,
    template: &Template,
    tally: &Rc<Tally>,
) -> anyhow::Result<()> {
    let deliveries_per_event = scenario.deliveries_per_event();
    let most_events = WARM_UP.div_ceil(deliveries_per_event);
    let load = Load {
        name: "warm-up",
        per_second: None,
        lasts: RESPONSE_WITHIN,
        most_events,
        deliveries_per_event,
    };
    let account = run(&load, program, template, tally).await?.account;
    ensure!(
        account.deliveries.count() > 0,
        "{} accepted {} events, rejected {} and delivered none: check that it uses the scenario's \
         rules (BENCH_MANIFESTS writes them) and the receiver's address",
        program.name,
        account.accepted(),
        account.rejected(),
    );
    Ok(())
}

/// Runs one load and waits for its deliveries.
///
/// # Errors
/// The program cannot be reached, does not speak HTTP, or ended.
pub async fn run(
    load: &Load,
    program: &Program,
    template: &Template,
    tally: &Rc<Tally>,
) -> anyhow::Result<Measured> {
    let own = std::process::id();
    let (begin, all_before, own_before) = (Instant::now(), cpu_time_of_all()?, cpu_time(own)?);
    let before = program
        .processes
        .iter()
        .map(|(_, pid)| effort(*pid))
        .collect::<anyhow::Result<Vec<_>>>()?;
    tally.begin();
    post_all(load, &program.endpoint, template, tally)
        .await
        .with_context(|| format!("cannot post to {}", program.name))?;
    tally.wait_for_deliveries(load.deliveries_per_event).await;
    let account = tally.end();
    let driver_cpu = cpu_time(own)? - own_before;
    let mut processes = Vec::new();
    for ((name, pid), before) in program.processes.iter().zip(before) {
        processes.push(Process {
            name,
            effort: effort(*pid)?.since(before),
            memory: memory(*pid)?,
        });
    }
    let measured = driver_cpu
        + processes
            .iter()
            .map(|process| process.effort.cpu())
            .sum::<Duration>();
    let others = (cpu_time_of_all()? - all_before).saturating_sub(measured);
    let other_cores = others.as_secs_f64() / begin.elapsed().as_secs_f64();
    Ok(Measured {
        account,
        driver_cpu,
        other_cores,
        processes,
    })
}

async fn post_all(
    load: &Load,
    endpoint: &Endpoint,
    template: &Template,
    tally: &Rc<Tally>,
) -> anyhow::Result<()> {
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: ",
        endpoint.path, endpoint.authority
    );
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::new(
            TcpStream::connect(&endpoint.authority).await?,
        )?);
    }
    let end = Instant::now() + load.lasts;
    let mut posters = JoinSet::new();
    for (turn, connection) in (0..CONNECTIONS).zip(connections) {
        let poster = Poster {
            connection,
            tally: tally.clone(),
            head: head.clone(),
            before: template.before.clone(),
            after: template.after.clone(),
        };
        posters.spawn_local(poster.run(load.per_second, turn, end, load.most_events));
    }
    while let Some(result) = posters.join_next().await {
        result??;
    }
    Ok(())
}

/// A connection that posts events.
struct Poster {
    connection: Connection,
    tally: Rc<Tally>,
    head: String,
    before: String,
    after: String,
}

impl Poster {
    /// Posts until the end, or until all posters together reach the maximum. The connections take
    /// turns in a steady load, so that a slow response delays no other event.
    async fn run(
        mut self,
        per_second: Option<u32>,
        turn: u32,
        end: Instant,
        most_events: usize,
    ) -> anyhow::Result<()> {
        let mut turns = per_second.map(|per_second| {
            let each = Duration::from_secs(1) / per_second;
            interval_at(
                tokio::time::Instant::now() + each * turn,
                each * CONNECTIONS,
            )
        });
        loop {
            if let Some(turns) = &mut turns {
                turns.tick().await;
            }
            if Instant::now() >= end || self.tally.posted() >= most_events {
                return Ok(());
            }
            self.post().await?;
        }
    }

    async fn post(&mut self) -> anyhow::Result<()> {
        let number = self.tally.post();
        let digits = number.to_string();
        let size = (self.before.len() + digits.len() + self.after.len()).to_string();
        let request = [
            &self.head,
            &size,
            "\r\n\r\n",
            &self.before,
            &digits,
            &self.after,
        ]
        .concat();
        self.connection.send(request.as_bytes()).await?;
        let response = timeout(RESPONSE_WITHIN, self.connection.response())
            .await
            .with_context(|| format!("no response to an event within {RESPONSE_WITHIN:?}"))??;
        self.tally.responded(number, response.status);
        Ok(())
    }
}
