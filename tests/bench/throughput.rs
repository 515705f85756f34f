//! Measures throughput, latency, CPU time and memory.
//!
//! ```text
//!  poster ── 64 connections ─► the program under test ── its provider, type generic ─► receiver
//!    └──────────────────────────── Tally: number, posted at, received at ─────────────────┘
//! ```
//!
//! Poster and receiver are one thread, so that they use little CPU time of the shared cores, and
//! one clock measures both times. See docs/benchmark.md.

mod effort;
mod endpoint;
mod http;
mod load;
mod options;
mod receiver;
mod report;
mod scenario;
mod tally;
mod tidings;
mod usage;

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use tokio::task::LocalSet;

use crate::endpoint::Program;
use crate::load::Load;
use crate::options::Options;
use crate::report::Report;
use crate::scenario::{Addresses, SLOW, Scenario};
use crate::tally::Tally;
use crate::tidings::{EXECUTABLE, Tidings};

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, run(&options))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new(options.seconds);
    let result = measure_all(options, &mut report).await;
    // Figures from before a failure are printed, too.
    report.print();
    if let Some(file) = &options.json {
        report.write(file)?;
    }
    result
}

async fn measure_all(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let tally = Rc::new(Tally::new());
    let receiver = receiver::start(options.receiver, Duration::ZERO, tally.clone()).await?;
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    println!("the receiver listens on {receiver}");
    let addresses = Addresses {
        receiver,
        hanging: receiver::start_hanging().await?,
        slow: receiver::start(any_port, SLOW, tally.clone()).await?,
    };
    for scenario in options.scenarios() {
        if let Some(folder) = &options.manifests {
            scenario.write(&folder.join(scenario.name()), addresses)?;
        }
        for _ in 0..options.rounds {
            let run = Run {
                scenario,
                seconds: options.seconds,
                tally: &tally,
            };
            let executables = [
                ("tidings", Some(Path::new(EXECUTABLE))),
                ("base", options.base.as_deref()),
            ];
            for (name, executable) in executables {
                let Some(executable) = executable else {
                    continue;
                };
                let tidings = Tidings::start(name, executable, scenario, addresses).await?;
                run.measure(&tidings.program(), report).await?;
                tidings.stop().await?;
            }
            if let Some(target) = options.target() {
                run.measure(&target, report).await?;
            }
        }
    }
    Ok(())
}

/// One round of a scenario.
struct Run<'a> {
    scenario: Scenario,
    seconds: u64,
    tally: &'a Rc<Tally>,
}

impl Run<'_> {
    async fn measure(&self, program: &Program, report: &mut Report) -> anyhow::Result<()> {
        let (scenario, tally) = (self.scenario, self.tally);
        report.idle(program, scenario)?;
        let template = scenario.event(tally.run());
        load::warm_up(program, scenario, &template, tally).await?;
        for load in Load::all(scenario, self.seconds) {
            println!("{}, {}: {} …", program.name, scenario.name(), load.name);
            let measured = load::run(&load, program, &template, tally).await?;
            report.add(program, scenario, &load, measured);
        }
        Ok(())
    }
}
