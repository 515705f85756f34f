//! `tidings replay`: routes stored events again. With `--missing`: plans again the deliveries that
//! are gone, and stores them.

mod again;
mod span;
mod stored;

use std::collections::HashMap;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use tidings_core::bus::Bus;
use tidings_core::bus::clusters::{ClusterRecords, Clusters};
use tidings_core::bus::names::{RuleKind, RuleName};
use tidings_core::model::text::visible;
use tidings_core::model::time::to_proto;
use tidings_core::{Delivery, Event};
use tidings_router::{PlanContext, plan};
use tidings_rules::Rules;

use super::names;
use super::rules::{self, LoadedRules, ProblemReport};
use super::tool::{self, BusArguments, bus, print_line};
use crate::audit::{ManualAction, record_of_tool};
use crate::flags::{AsFlags, KubernetesFlags, RulesFlags, settings};
use again::Resume;
use span::Span;
use stored::DeliveryKey;

/// At most this many deliveries of a time span are held in memory, 50 bytes each.
const MAX_DELIVERIES: usize = 1_000_000;

/// Arguments of `tidings replay`.
#[derive(Args, Debug)]
pub struct ReplayArguments {
    #[command(flatten)]
    bus: BusArguments,
    /// Replay only deliveries that have no stored message, no dead letter, and no outcome that
    /// ended them
    #[arg(long)]
    missing: bool,
    /// Replay deliveries of events that were stored since this long ago, such as 90m, 12h or 2d
    #[arg(long, value_name = "DURATION")]
    since: String,
    /// Leave out events that were stored less than this long ago
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    until: String,
    /// Replay only deliveries of this Alert; required without --missing
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        required_unless_present = "missing"
    )]
    alert: Option<String>,
    /// Replay only deliveries to this Provider
    #[arg(long, value_name = "NAMESPACE/NAME")]
    provider: Option<String>,
    /// Replay only events of this cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// With --missing: list the missing deliveries and change nothing
    #[arg(long, requires = "missing")]
    dry_run: bool,
    /// Without --missing: replay; without this flag nothing is changed
    #[arg(long, conflicts_with = "missing")]
    yes: bool,
    /// Without --missing: most deliveries to store per second
    #[arg(long, value_name = "NUMBER", default_value_t = 10, conflicts_with = "missing",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Without --missing: go on with an interrupted replay, which printed this value
    #[arg(long, value_name = "REPLAY", conflicts_with = "missing")]
    resume: Option<Resume>,
    #[command(flatten)]
    rules: RulesFlags,
    #[command(flatten)]
    kubernetes: KubernetesFlags,
}

/// Plans the deliveries of events as a router does.
struct Planner {
    rules: LoadedRules,
    alert: Option<RuleName>,
    provider: Option<RuleName>,
    cluster: Option<String>,
    clusters: Clusters,
}

/// The planned deliveries of a time span, with the sequence of their event in EVENTS.
type Planned = HashMap<DeliveryKey, u64>;

/// Runs `tidings replay`.
///
/// # Errors
/// The bus or the rules cannot be read, the time span is invalid or too long, OUTCOMES does not
/// reach back to its start, or a delivery cannot be stored.
pub async fn run(arguments: ReplayArguments) -> anyhow::Result<()> {
    let mut planner = Planner::load(&arguments).await?;
    let bus = bus(&arguments.bus).await?;
    planner.clusters = ClusterRecords::open(&bus).await?.all().await?;
    let span = match arguments.resume {
        Some(resume) => Span::between(&bus, resume.sequence, resume.last).await?,
        None => Span::new(&bus, &arguments.since, &arguments.until).await?,
    };
    if !arguments.missing {
        let now = bus.clock().now();
        let options = again::Options {
            is_confirmed: arguments.yes,
            rate: arguments.rate,
            resume: arguments.resume.unwrap_or_else(|| Resume::new(now)),
        };
        return again::run(&bus, &planner, &span, &options).await;
    }
    let mut missing = planned(&bus, &planner, &span).await?;
    let planned = missing.len();
    if planned > 0 {
        span.require_outcomes(&bus).await?;
        stored::remove_stored(&bus, span.from, &mut missing).await?;
    }
    let mut sequences: Vec<u64> = missing.values().copied().collect();
    sequences.sort_unstable();
    sequences.dedup();
    let run = rand::random::<u64>();
    if !arguments.dry_run && !missing.is_empty() {
        let action = ManualAction::on("replay-missing", planner.text());
        let count = missing.len();
        record_of_tool(&bus, ManualAction { count, ..action }).await;
    }
    for sequence in sequences {
        let event = span::event_at(&bus, sequence).await?;
        for delivery in planner.plan(&event, sequence, 0) {
            if !missing.contains_key(&stored::key(&delivery.id)) {
                continue;
            }
            if !arguments.dry_run {
                restore(&bus, &delivery, run).await?;
            }
            if !print_line(&line(&delivery, &event))? {
                return Ok(());
            }
        }
    }
    let done = if arguments.dry_run {
        "would be replayed"
    } else {
        "replayed"
    };
    let deliveries = match missing.len() {
        1 => "1 missing delivery".to_owned(),
        number => format!("{number} missing deliveries"),
    };
    print_line(&format!("{deliveries} of {planned} planned {done}"))?;
    Ok(())
}

/// Plans the deliveries of all events of the span.
async fn planned(bus: &Bus, planner: &Planner, span: &Span) -> anyhow::Result<Planned> {
    let mut planned = Planned::new();
    span.for_each_event(bus, |event, sequence| {
        let deliveries = planner.plan(event, sequence, 0);
        planned.extend(deliveries.map(|delivery| (stored::key(&delivery.id), sequence)));
        ensure!(
            planned.len() <= MAX_DELIVERIES,
            "more than {MAX_DELIVERIES} deliveries were planned in this time span: shorten it with \
             --since and --until, or pass --alert or --provider"
        );
        Ok(())
    })
    .await?;
    Ok(planned)
}

async fn restore(bus: &Bus, delivery: &Delivery, run: u64) -> anyhow::Result<()> {
    bus.restore(delivery, run).await.with_context(|| {
        format!(
            "cannot store delivery {}: run the command again, it replays what is still missing",
            delivery.id
        )
    })?;
    Ok(())
}

fn line(delivery: &Delivery, event: &Event) -> String {
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    format!(
        "{} event {} of {} provider {}/{} ({}), alert {}/{}",
        delivery.id,
        event.id,
        tool::time(event.received_at),
        provider.namespace,
        provider.name,
        provider.r#type,
        alert.namespace,
        alert.name,
    )
}

impl Planner {
    async fn load(arguments: &ReplayArguments) -> anyhow::Result<Self> {
        let name = |kind, flag, text: &Option<String>| {
            let text = text.as_deref();
            text.map(|text| names::parse(kind, flag, text)).transpose()
        };
        let flags = [arguments.rules.flags(), arguments.kubernetes.flags()].concat();
        let planner = Self {
            alert: name(RuleKind::Alert, "--alert", &arguments.alert)?,
            provider: name(RuleKind::Provider, "--provider", &arguments.provider)?,
            cluster: arguments.cluster.clone(),
            clusters: Clusters::new(),
            rules: rules::load(&settings(&arguments.bus.common, flags)?).await?,
        };
        for problem in planner.rules.rules.problems() {
            eprintln!("{}", visible(&ProblemReport::new(problem).line()));
        }
        if let Some(unknown) = planner.rules.unknown.first() {
            bail!("nothing replayed: {unknown}");
        }
        Ok(planner)
    }

    /// What is selected, for people.
    pub fn text(&self) -> String {
        let name = |what: &str, name: &Option<RuleName>| {
            let name = name.as_ref();
            name.map(|name| format!("{what}={}/{}", name.namespace, name.name))
        };
        let cluster = self.cluster.as_ref();
        let cluster = cluster.map(|cluster| format!("cluster={cluster}"));
        let parts = [
            name("alert", &self.alert),
            name("provider", &self.provider),
            cluster,
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        match parts.is_empty() {
            true => "all".to_owned(),
            false => parts.join(" "),
        }
    }

    fn plan(
        &self,
        event: &Event,
        sequence: u64,
        generation: u32,
    ) -> impl Iterator<Item = Delivery> {
        let context = PlanContext {
            event_sequence: sequence,
            planned_at: to_proto(jiff::Timestamp::now()),
            generation,
        };
        let rules: &Rules = &self.rules.rules;
        let is_wanted = self
            .cluster
            .as_ref()
            .is_none_or(|name| *name == event.cluster);
        let planned = is_wanted.then(|| plan(rules, event, &self.clusters, context).deliveries);
        let deliveries = planned.unwrap_or_default().into_iter();
        deliveries.filter(|delivery| self.selects(delivery))
    }

    fn selects(&self, delivery: &Delivery) -> bool {
        let alert = delivery.alert.clone().unwrap_or_default();
        let provider = delivery.provider.clone().unwrap_or_default();
        let is = |wanted: &Option<RuleName>, namespace: &str, name: &str| {
            let wanted = wanted.as_ref();
            wanted.is_none_or(|wanted| (wanted.namespace == namespace) && (wanted.name == name))
        };
        is(&self.alert, &alert.namespace, &alert.name)
            && is(&self.provider, &provider.namespace, &provider.name)
    }
}
