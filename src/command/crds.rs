//! `tidings crds`: the CustomResourceDefinitions of Alert and Provider.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::Value;
use tidings_rules::crd;
use tidings_workers::notifier::kinds;

use super::tool::print_line;

/// What `tidings crds` takes.
#[derive(Args, Debug)]
pub struct CrdsArguments {
    /// Write one file for each into this folder, instead of printing them
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// A file can't be written.
pub fn run(arguments: &CrdsArguments) -> anyhow::Result<()> {
    for definition in crd::crds(kinds()) {
        let text = text(&definition)?;
        let Some(folder) = &arguments.write else {
            print_line(text.trim_end())?;
            continue;
        };
        let plural = definition["spec"]["names"]["plural"]
            .as_str()
            .context("every definition has a plural")?;
        let file = folder.join(format!("{plural}.yaml"));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// As it stands in a file; several after each other are one stream of YAML.
fn text(definition: &Value) -> anyhow::Result<String> {
    let yaml =
        serde_saphyr::to_string(definition).context("the definition can't be written as YAML")?;
    Ok(format!(
        "---\n# Made by `tidings crds`; changes are lost.\n{yaml}"
    ))
}
