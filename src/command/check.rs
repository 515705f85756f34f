//! `tidings check`: checks rules, as the roles do when they load them. It needs no event and no
//! NATS server.

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tidings_core::runtime::config::{RulesFrom, Settings};
use tidings_router::notice;
use tidings_rules::{Problem, Rules, Severity, verify};
use tidings_workers::http::HttpClients;
use tidings_workers::rule_checks::RuleChecks;

use super::Output;
use super::rules::{self, LoadedRules, ProblemReport};
use super::tool::{count, print_line};
use crate::flags::{AsFlags, FileFlag, KubernetesFlags, RulesFlags, settings};

/// Exit status: no problem was found.
const SUCCESS: u8 = 0;
/// Exit status: a problem was found, or with `--strict` a warning.
const FAILURE: u8 = 1;

/// Arguments of `tidings check`.
#[derive(Args, Debug)]
pub struct CheckArguments {
    #[command(flatten)]
    rules: RulesFlags,
    /// Exit with 1 for warnings too, for example for rules that can never match
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
    #[command(flatten)]
    common: FileFlag,
    /// Output format
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The output of `tidings check`. Scripts read the JSON, so its keys and values must not change.
#[derive(Serialize)]
struct Report {
    /// The number of Alerts in effect.
    alerts: usize,
    /// The number of Providers in effect.
    providers: usize,
    errors: usize,
    warnings: usize,
    problems: Vec<ProblemReport>,
}

/// Runs `tidings check` and returns its exit status.
///
/// # Errors
/// The settings or the rules cannot be read. The exit status is then 2.
pub async fn run(arguments: CheckArguments) -> anyhow::Result<u8> {
    let flags = [arguments.rules.flags(), arguments.kubernetes.flags()].concat();
    let settings = settings(&arguments.common, flags)?;
    let loaded = rules::load(&settings).await?;
    let mut problems = problems(&loaded, &settings)?;
    problems.extend(nothing_to_check(&loaded.rules, &settings, arguments.strict));
    let report = Report::new(&loaded.rules, &problems);
    match arguments.output {
        Output::Json => report.print_json()?,
        Output::Text => report.print()?,
    }
    let fails = report.errors > 0 || arguments.strict && report.warnings > 0;
    Ok(if fails { FAILURE } else { SUCCESS })
}

/// All problems, in the order of files and lines.
fn problems(loaded: &LoadedRules, settings: &Settings) -> anyhow::Result<Vec<Problem>> {
    let http_clients = HttpClients::new(settings.worker.addresses.clone())
        .context("cannot read the system's CA certificates")?;
    let checks = RuleChecks::unhurried(http_clients);
    let findings = verify::findings(&loaded.rules, &checks).into_iter();
    let mut problems = loaded.problems();
    problems.extend(findings.map(|finding| finding.problem));
    problems.extend(notice::problems(
        &loaded.rules,
        &settings.watchdog,
        &settings.fallback,
    ));
    problems.sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
    Ok(problems)
}

/// The problem of a folder without Alerts and Providers. Its path is probably wrong, so with
/// `--strict` it is an error.
fn nothing_to_check(rules: &Rules, settings: &Settings, strict: bool) -> Option<Problem> {
    let [RulesFrom::Dir(folder)] = &settings.rules.sources[..] else {
        return None;
    };
    let is_empty = rules.entries().is_empty() && rules.problems().is_empty();
    is_empty.then(|| Problem {
        file: Some(folder.display().to_string()),
        line: None,
        object: None,
        field: None,
        message: "the rules folder has no Alert and no Provider; check the path, or pass another \
                  with --rules; only files that end with .yaml, .yml or .json are read"
            .to_owned(),
        severity: match strict {
            true => Severity::Error,
            false => Severity::Warning,
        },
    })
}

impl Report {
    fn new(rules: &Rules, problems: &[Problem]) -> Self {
        let is_warning = |problem: &&Problem| problem.severity == Severity::Warning;
        let warnings = problems.iter().filter(is_warning).count();
        Self {
            alerts: rules.alerts().len(),
            providers: rules.providers().count(),
            errors: problems.len() - warnings,
            warnings,
            problems: problems.iter().map(ProblemReport::new).collect(),
        }
    }

    fn print_json(&self) -> anyhow::Result<()> {
        print_line(&serde_json::to_string(self)?)?;
        Ok(())
    }

    /// Prints the report for people: a line for each problem, and a summary.
    fn print(&self) -> anyhow::Result<()> {
        for problem in &self.problems {
            if !print_line(&problem.line())? {
                return Ok(());
            }
        }
        print_line(&format!(
            "{}, {}: {}, {}",
            count(self.alerts, "Alert"),
            count(self.providers, "Provider"),
            count(self.errors, "error"),
            count(self.warnings, "warning")
        ))?;
        Ok(())
    }
}
