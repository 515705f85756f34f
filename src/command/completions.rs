//! `tidings completions`: prints the completions of a shell. `tidings man`: writes man pages.

use std::path::PathBuf;
use std::{fs, io};

use anyhow::Context as _;
use clap::Args;
use clap_complete::Shell;

use super::cli;
use super::tool::write_all;

/// Arguments of `tidings completions`.
#[derive(Args, Debug)]
pub struct CompletionsArguments {
    /// Shell to complete in
    #[arg(value_name = "SHELL", value_parser = clap::value_parser!(Shell))]
    shell: Shell,
}

/// Arguments of `tidings man`.
#[derive(Args, Debug)]
pub struct ManArguments {
    /// Folder to write a page for each subcommand to [default: print the page of tidings]
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// Prints the completions.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(arguments: &CompletionsArguments) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut cli(), "tidings", &mut script);
    write_all(&script)
}

/// Prints or writes the man pages.
///
/// # Errors
/// Standard output or a file cannot be written.
pub fn man(arguments: &ManArguments) -> anyhow::Result<()> {
    let command = cli();
    if let Some(folder) = &arguments.write {
        return fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(command, folder))
            .with_context(|| format!("cannot write man pages to {}", folder.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    write_all(&page)?;
    Ok(())
}
