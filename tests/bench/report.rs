//! The figures, as a table and as JSON.

mod summary;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::endpoint::Program;
use crate::load::{Load, Measured, Process};
use crate::scenario::Scenario;
use crate::usage::{Memory, memory};

/// All figures of a run.
#[derive(Serialize)]
pub struct Report {
    /// The cores of the machine, which program, poster and receiver share.
    cpus: usize,
    seconds: u64,
    idle: Vec<Idle>,
    loads: Vec<Row>,
}

/// The memory of a process before the first event.
#[derive(Serialize)]
struct Idle {
    program: &'static str,
    scenario: &'static str,
    process: &'static str,
    memory: Memory,
}

/// The figures of one load. Times are in milliseconds, CPU time in microseconds per delivery.
#[derive(Serialize)]
struct Row {
    program: &'static str,
    scenario: &'static str,
    load: &'static str,
    accepted: usize,
    rejected: usize,
    deliveries: usize,
    lost: usize,
    surplus: usize,
    accepted_per_second: f64,
    deliveries_per_second: f64,
    response_p99_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
    driver_cpu_us: f64,
    other_cores: f64,
    /// The CPU time of all processes.
    cpu_us: f64,
    processes: Vec<Cost>,
}

#[derive(Serialize)]
struct Cost {
    process: &'static str,
    cpu_us: f64,
    user_us: f64,
    /// How often its threads waited, for each delivery.
    waits: f64,
    memory: Memory,
}

impl Report {
    /// A report without figures.
    pub fn new(seconds: u64) -> Self {
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        Self {
            cpus,
            seconds,
            idle: Vec::new(),
            loads: Vec::new(),
        }
    }

    /// Adds the memory of a program before its first event.
    ///
    /// # Errors
    /// A process ended.
    pub fn idle(&mut self, program: &Program, scenario: Scenario) -> anyhow::Result<()> {
        for (process, pid) in &program.processes {
            self.idle.push(Idle {
                program: program.name,
                scenario: scenario.name(),
                process,
                memory: memory(*pid)?,
            });
        }
        Ok(())
    }

    /// Adds a load.
    pub fn add(&mut self, program: &Program, scenario: Scenario, load: &Load, measured: Measured) {
        let Measured {
            mut account,
            driver_cpu,
            other_cores,
            processes,
        } = measured;
        let deliveries = account.deliveries.count();
        let cost = |process: Process| Cost {
            process: process.name,
            cpu_us: microseconds_each(process.effort.cpu(), deliveries),
            user_us: microseconds_each(process.effort.user, deliveries),
            waits: process.effort.waits as f64 / float(deliveries.max(1)),
            memory: process.memory,
        };
        let processes: Vec<Cost> = processes.into_iter().map(cost).collect();
        self.loads.push(Row {
            program: program.name,
            scenario: scenario.name(),
            load: load.name,
            accepted: account.accepted(),
            rejected: account.rejected(),
            deliveries,
            lost: account.lost(load.deliveries_per_event),
            surplus: account.surplus(load.deliveries_per_event),
            accepted_per_second: per_second(account.accepted(), account.span(&account.responses)),
            deliveries_per_second: per_second(deliveries, account.span(&account.deliveries)),
            response_p99_ms: milliseconds(account.responses.percentile(99.0)),
            p50_ms: milliseconds(account.deliveries.percentile(50.0)),
            p99_ms: milliseconds(account.deliveries.percentile(99.0)),
            driver_cpu_us: microseconds_each(driver_cpu, deliveries),
            other_cores,
            cpu_us: processes.iter().map(|process| process.cpu_us).sum(),
            processes,
        });
    }

    /// Prints the figures.
    pub fn print(&self) {
        println!(
            "\n{} cores for all processes, {} s per load\n",
            self.cpus, self.seconds
        );
        println!("memory before the first event");
        for Idle {
            program,
            scenario,
            process,
            memory,
        } in &self.idle
        {
            println!(
                "  {program:8} {scenario:12} {process:12} {:6.1} MiB",
                memory.resident_mib
            );
        }
        println!(
            "\n{:8} {:12} {:10} {:>10} {:>12} {:>10} {:>9} {:>9} {:>8} {:>6} {:>7} {:>6}  \
             CPU µs (user µs, waits) per delivery; MiB at the end (peak)",
            "program",
            "rules",
            "load",
            "accepted/s",
            "deliveries/s",
            "response p99",
            "p50 ms",
            "p99 ms",
            "rejected",
            "lost",
            "surplus",
            "others"
        );
        self.loads.iter().for_each(Row::print);
        summary::print(&self.loads);
    }

    /// Writes the figures as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Row {
    fn print(&self) {
        print!(
            "{:8} {:12} {:10} {:>10.0} {:>12.0} {:>10.2} {:>9.2} {:>9.2} {:>8} \
             {:>6} {:>7} {:>6.2}  driver {:.0} µs",
            self.program,
            self.scenario,
            self.load,
            self.accepted_per_second,
            self.deliveries_per_second,
            self.response_p99_ms,
            self.p50_ms,
            self.p99_ms,
            self.rejected,
            self.lost,
            self.surplus,
            self.other_cores,
            self.driver_cpu_us,
        );
        for Cost {
            process,
            cpu_us,
            user_us,
            waits,
            memory,
        } in &self.processes
        {
            print!(
                "; {process} {cpu_us:.0} ({user_us:.0}, {waits:.1}) µs, {:.1} ({:.1}) MiB",
                memory.resident_mib, memory.peak_mib
            );
        }
        println!();
    }
}

fn per_second(count: usize, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        float(count) / time.as_secs_f64()
    }
}

fn microseconds_each(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / float(count.max(1))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a run has far fewer events than 2^52"
)]
fn float(count: usize) -> f64 {
    count as f64
}
