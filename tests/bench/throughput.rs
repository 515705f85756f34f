//! Measures throughput, latency, CPU time and memory.
//!
//! ```text
//!  poster ── 64 connections ─► the program under test ── its provider, type generic ─► receiver
//!    └──────────────────────────── Tally: number, posted at, received at ─────────────────┘
//! ```
//!
//! Poster and receiver are one thread, so that they use little CPU time of the shared cores, and
//! one clock measures both times. See docs/benchmark.md.

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

use std::rc::Rc;

use clap::Parser;
use tokio::task::LocalSet;

use crate::endpoint::Program;
use crate::load::Load;
use crate::options::Options;
use crate::report::Report;
use crate::scenario::{Addresses, Scenario};
use crate::tally::Tally;
use crate::tidings::Tidings;

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
    let receiver = receiver::start(options.receiver, tally.clone()).await?;
    println!("the receiver listens on {receiver}");
    let addresses = Addresses {
        receiver,
        hanging: receiver::start_hanging().await?,
    };
    for scenario in options.scenarios() {
        if let Some(folder) = &options.manifests {
            scenario.write(&folder.join(scenario.name()), addresses)?;
        }
        let tidings = Tidings::start(scenario, addresses).await?;
        measure(
            &tidings.program(),
            scenario,
            options.seconds,
            &tally,
            report,
        )
        .await?;
        tidings.stop().await?;
        if let Some(target) = options.target() {
            measure(&target, scenario, options.seconds, &tally, report).await?;
        }
    }
    Ok(())
}

async fn measure(
    program: &Program,
    scenario: Scenario,
    seconds: u64,
    tally: &Rc<Tally>,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.idle(program, scenario)?;
    let template = scenario.event(tally.run());
    load::warm_up(program, scenario, &template, tally).await?;
    for load in Load::all(scenario, seconds) {
        println!("{}, {}: {} …", program.name, scenario.name(), load.name);
        let measured = load::run(&load, program, &template, tally).await?;
        report.add(program, scenario, &load, measured);
    }
    Ok(())
}
