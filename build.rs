//! Sets the version with its commit, for `tidings --version`.
//!
//! The same source gives the same version: the commit is that of `SOURCE_COMMIT`, of the archive
//! that git made (`.gitattributes`), or, in a release build only, of the work tree. Other builds
//! have none, so that a commit does not compile everything again. The names do not begin with
//! `TIDINGS_`: cargo sets them for tests, too, and the executable would read them as settings.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo passes its facts in the environment"
)]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The file that `git archive` completes.
const ARCHIVED: &str = "src/commit.txt";

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_COMMIT");
    println!("cargo::rerun-if-changed={ARCHIVED}");
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let commit = [given(), archived(), of_work_tree()]
        .into_iter()
        .flatten()
        .find(|commit| is_commit(commit));
    let commit = commit.map_or_else(|| "unknown".to_owned(), |commit| commit[..12].to_owned());
    println!("cargo::rustc-env=SOURCE_COMMIT={commit}");
    println!("cargo::rustc-env=SOURCE_VERSION={version} ({commit})");
}

fn given() -> Option<String> {
    env::var("SOURCE_COMMIT").ok()
}

fn archived() -> Option<String> {
    Some(fs::read_to_string(ARCHIVED).ok()?.trim().to_owned())
}

fn of_work_tree() -> Option<String> {
    if env::var("PROFILE").as_deref() != Ok("release") || !Path::new(".git").exists() {
        return None;
    }
    for name in ["HEAD", "logs/HEAD"] {
        println!(
            "cargo::rerun-if-changed={}",
            git(&["rev-parse", "--git-path", name])?
        );
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn is_commit(text: &str) -> bool {
    text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
