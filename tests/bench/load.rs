//! Posts events and measures what becomes of them.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval_at, timeout};

use crate::endpoint::{Endpoint, Program};
use crate::http::Connection;
use crate::scenario::{Scenario, Template};
use crate::tally::{Account, Tally};
use crate::usage::{Memory, cpu_time, cpu_time_of_all, memory};

/// How many events are on their way to the program at most: as many connections, and one post at a
/// time on each.
const CONNECTIONS: u32 = 64;
/// The events of the steady load.
const STEADY_PER_SECOND: u32 = 100;
/// The events of a fan-out, for each second that a load is to last: about what
/// notification-controller takes.
const FAN_OUT_PER_SECOND: usize = 30;
/// The deliveries that come before anything is measured, for connections and caches to be there.
const WARM_UP: usize = 256;
/// What a post may take before the program counts as stuck.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// How events are posted.
pub struct Load {
    /// What the report calls it.
    pub name: &'static str,
    /// Events in each second; as many as can be, if none.
    per_second: Option<u32>,
    lasts: Duration,
    most_events: usize,
    /// How many are due.
    pub deliveries_per_event: usize,
}

/// What a load has shown.
pub struct Measured {
    /// The events and deliveries.
    pub account: Account,
    /// The CPU time that we took ourselves.
    pub driver_cpu: Duration,
    /// The cores that were taken by what is neither us nor the program.
    pub other_cores: f64,
    /// The program's processes.
    pub processes: Vec<Process>,
}

/// What a load has cost a process.
pub struct Process {
    /// Its name.
    pub name: &'static str,
    /// Its CPU time in this load.
    pub cpu: Duration,
    /// Its memory at the end of this load.
    pub memory: Memory,
}

impl Load {
    /// The loads of a scenario. The gentle one comes first, since the memory's peak is that of the
    /// process's whole life.
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
                lasts: ANSWER_WITHIN,
                most_events,
                ..full
            }];
        }
        let steady = Self {
            name: "100/s",
            per_second: Some(STEADY_PER_SECOND),
            ..full
        };
        // To be held against the same load without the neighbour.
        if scenario == Scenario::Neighbour {
            vec![steady]
        } else {
            vec![steady, full]
        }
    }
}

/// Posts some events before anything is measured.
///
/// # Errors
/// Nothing is delivered: then there is nothing to measure.
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
        lasts: ANSWER_WITHIN,
        most_events,
        deliveries_per_event,
    };
    let account = run(&load, program, template, tally).await?.account;
    ensure!(
        account.deliveries.count() > 0,
        "{} took {} events and refused {}, but delivered none: are the scenario's rules in force (BENCH_MANIFESTS writes them), \
         and is its provider's address the receiver's?",
        program.name,
        account.accepted(),
        account.refused(),
    );
    Ok(())
}

/// Runs one load and waits until its deliveries have come.
///
/// # Errors
/// The program can't be reached, answers with no HTTP, or is gone.
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
        .map(|(_, pid)| cpu_time(*pid))
        .collect::<anyhow::Result<Vec<_>>>()?;
    tally.begin();
    post_all(load, &program.endpoint, template, tally)
        .await
        .with_context(|| format!("cannot post to {}", program.name))?;
    tally.settled(load.deliveries_per_event).await;
    let account = tally.end();
    let driver_cpu = cpu_time(own)? - own_before;
    let mut processes = Vec::new();
    for ((name, pid), before) in program.processes.iter().zip(before) {
        processes.push(Process {
            name,
            cpu: cpu_time(*pid)? - before,
            memory: memory(*pid)?,
        });
    }
    let known = driver_cpu
        + processes
            .iter()
            .map(|process| process.cpu)
            .sum::<Duration>();
    let others = (cpu_time_of_all()? - all_before).saturating_sub(known);
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

/// One connection that posts.
struct Poster {
    connection: Connection,
    tally: Rc<Tally>,
    head: String,
    before: String,
    after: String,
}

impl Poster {
    /// Posts until the end, or until all posters together have posted the most. A steady load is
    /// shared by the connections in turns, so that a slow answer delays no other event.
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
        let answer = timeout(ANSWER_WITHIN, self.connection.answer())
            .await
            .with_context(|| format!("an event got no answer within {ANSWER_WITHIN:?}"))??;
        self.tally.answered(number, answer.status);
        Ok(())
    }
}
