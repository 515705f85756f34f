//! Options from the command line or the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::endpoint::{Endpoint, Program};
use crate::scenario::Scenario;

/// Measure tidings, and optionally another program with the same endpoint
#[derive(Parser, Debug)]
pub struct Options {
    /// Duration of each load in seconds
    #[arg(
        long,
        env = "BENCH_SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub seconds: u64,
    /// Address of the receiver
    #[arg(
        long,
        env = "BENCH_RECEIVER",
        value_name = "ADDR",
        default_value = "127.0.0.1:0"
    )]
    pub receiver: SocketAddr,
    /// Scenarios, separated by commas; default: all, or one-alert with a target
    #[arg(long, env = "BENCH_SCENARIOS", value_delimiter = ',', value_enum)]
    scenarios: Vec<Scenario>,
    /// Write the figures to this file as JSON
    #[arg(long, env = "BENCH_JSON", value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write each scenario's rules to this folder, for the target
    #[arg(long, env = "BENCH_MANIFESTS", value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// How often each load is measured; with several programs they alternate
    #[arg(
        long,
        env = "BENCH_ROUNDS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub rounds: u32,
    /// Another executable of tidings, to compare with
    #[arg(long, env = "BENCH_BASE", value_name = "FILE")]
    pub base: Option<PathBuf>,
    /// Event endpoint of another program, which must use the scenario's rules
    #[arg(long, env = "BENCH_TARGET", value_name = "URL")]
    target: Option<Endpoint>,
    /// Process id of the other program, for its CPU time and memory
    #[arg(long, env = "BENCH_TARGET_PID", value_name = "PID")]
    target_pid: Option<u32>,
    /// The flag that cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// The scenarios to measure: only one by default with a target, whose rules cannot be changed
    /// during a run.
    pub fn scenarios(&self) -> Vec<Scenario> {
        match (self.scenarios.as_slice(), &self.target) {
            ([], None) => Scenario::ALL.to_vec(),
            ([], Some(_)) => vec![Scenario::OneAlert],
            (chosen, _) => chosen.to_vec(),
        }
    }

    /// The other program.
    pub fn target(&self) -> Option<Program> {
        let endpoint = self.target.clone()?;
        let processes = self
            .target_pid
            .map(|pid| ("target", pid))
            .into_iter()
            .collect();
        Some(Program {
            name: "target",
            endpoint,
            processes,
        })
    }
}
