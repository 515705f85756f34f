//! The subcommands, one file each.

use clap::ValueEnum;

pub mod test;

/// The form of what a tool prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}
