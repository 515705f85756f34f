//! The executable `tidings`: a durable, distributed dispatcher of GitOps notifications.
//!
//! `role` has one file for each role, and `command` has one file for each tool.

// `println!` panics when the reader closes the pipe. `command::tool` does not.
#![deny(clippy::print_stdout)]

use std::process::ExitCode;

use tidings_core::model::text::visible;

mod allocator;
mod audit;
mod bridge;
mod command;
mod console;
mod demo;
mod flags;
mod nats_server;
mod process;
mod role;
mod trace;

fn main() -> ExitCode {
    let cli = match command::parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match command::run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let error = format!("tidings: {error:#}");
            error
                .lines()
                .for_each(|line| eprintln!("{}", visible(line)));
            ExitCode::from(2)
        }
    }
}
