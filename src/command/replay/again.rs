//! Routes stored events again, because a rule was wrong: first a dry run, then slowly.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use tidings_core::bus::Bus;
use tidings_core::{Delivery, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::span::{self, Span};
use super::{MAX_DELIVERIES, Planner, line};
use crate::audit::{ManualAction, record_of_tool};
use crate::command::tool::{count, print_line};

/// The number of deliveries that a dry run shows.
const SAMPLES: usize = 5;
/// How often it is asked whether the deliveries of a Provider ended.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Where a replay goes on. Times before now select other events later, so it has the sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    pub generation: u32,
    /// The next event.
    pub sequence: u64,
    /// How many deliveries of this event are stored.
    pub stored: usize,
    /// The last event.
    pub last: u64,
}

/// What a replay would store.
#[derive(Default)]
struct Preview {
    /// The number of deliveries by Alert and Provider.
    counts: BTreeMap<(String, String), usize>,
    /// The sequences of the events with deliveries, ascending.
    sequences: Vec<u64>,
    samples: Vec<String>,
    deliveries: usize,
}

impl Resume {
    /// The beginning of a new replay. Its generation is the minute, so that each replay has ids of
    /// its own.
    pub fn new(now: jiff::Timestamp) -> Self {
        Self {
            generation: u32::try_from(now.as_second() / 60).unwrap_or(u32::MAX),
            sequence: 0,
            stored: 0,
            last: u64::MAX,
        }
    }
}

impl std::str::FromStr for Resume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('.').collect();
        let parsed = || match parts[..] {
            [generation, sequence, stored, last] => Some(Self {
                generation: generation.parse().ok().filter(|number| *number > 0)?,
                sequence: sequence.parse().ok()?,
                stored: stored.parse().ok()?,
                last: last.parse().ok()?,
            }),
            _ => None,
        };
        parsed().ok_or_else(|| "expected what an interrupted replay printed".to_owned())
    }
}

impl std::fmt::Display for Resume {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            generation,
            sequence,
            stored,
            last,
        } = self;
        write!(formatter, "{generation}.{sequence}.{stored}.{last}")
    }
}

/// How a replay runs.
pub struct Options {
    /// Whether deliveries are stored.
    pub is_confirmed: bool,
    /// The most deliveries per second.
    pub rate: u32,
    pub resume: Resume,
}

/// Previews the replay and, if it is confirmed, carries it out.
///
/// # Errors
/// The events cannot be read, or a delivery cannot be stored.
pub async fn run(
    bus: &Bus,
    planner: &Planner,
    span: &Span,
    options: &Options,
) -> anyhow::Result<()> {
    let preview = preview(bus, planner, span, options.resume).await?;
    for line in preview.lines() {
        if !print_line(&line)? {
            return Ok(());
        }
    }
    let number = deliveries(preview.deliveries);
    if !options.is_confirmed {
        print_line(&format!("{number} would be replayed: pass --yes to replay"))?;
        return Ok(());
    }
    let action = ManualAction {
        count: preview.deliveries,
        detail: format!("--resume {}", options.resume),
        ..ManualAction::on("replay", planner.text())
    };
    record_of_tool(bus, action).await;
    store_all(bus, planner, &preview, options).await?;
    print_line(&format!("{number} replayed"))?;
    Ok(())
}

fn deliveries(number: usize) -> String {
    match number {
        1 => "1 delivery".to_owned(),
        number => format!("{number} deliveries"),
    }
}

async fn preview(
    bus: &Bus,
    planner: &Planner,
    span: &Span,
    resume: Resume,
) -> anyhow::Result<Preview> {
    let mut preview = Preview::default();
    span.for_each_event(bus, |event, sequence| {
        if sequence < resume.sequence {
            return Ok(());
        }
        let before = preview.deliveries;
        for delivery in planned(planner, event, sequence, resume) {
            if preview.samples.len() < SAMPLES {
                preview.samples.push(line(&delivery, event));
            }
            *preview.counts.entry(parties(&delivery)).or_default() += 1;
            preview.deliveries += 1;
        }
        if preview.deliveries > before {
            preview.sequences.push(sequence);
        }
        ensure!(
            preview.deliveries <= MAX_DELIVERIES,
            "more than {MAX_DELIVERIES} deliveries are planned in this time span: shorten it with \
             --since and --until"
        );
        Ok(())
    })
    .await?;
    Ok(preview)
}

/// The deliveries of an event that are not stored yet.
fn planned(
    planner: &Planner,
    event: &Event,
    sequence: u64,
    resume: Resume,
) -> impl Iterator<Item = Delivery> {
    let stored = match sequence == resume.sequence {
        true => resume.stored,
        false => 0,
    };
    let deliveries = planner.plan(event, sequence, resume.generation);
    deliveries.into_iter().skip(stored)
}

fn parties(delivery: &Delivery) -> (String, String) {
    let alert = delivery.alert.clone().unwrap_or_default();
    let provider = delivery.provider.clone().unwrap_or_default();
    (
        format!("{}/{}", alert.namespace, alert.name),
        format!("{}/{}", provider.namespace, provider.name),
    )
}

impl Preview {
    fn lines(&self) -> Vec<String> {
        let events = count(self.sequences.len(), "event");
        let mut lines = vec![format!("{events} matched by today's rules")];
        lines.extend(self.counts.iter().map(|((alert, provider), number)| {
            format!(
                "  alert {alert}, provider {provider}: {}",
                deliveries(*number)
            )
        }));
        if !self.samples.is_empty() {
            lines.push("the first ones".to_owned());
            let samples = self.samples.iter();
            lines.extend(samples.map(|sample| format!("  {sample}")));
        }
        lines
    }
}

/// Stores the deliveries one after the other. A Provider gets the next one when none of its
/// deliveries waits, so that a replay never delays a live delivery by more than one call.
async fn store_all(
    bus: &Bus,
    planner: &Planner,
    preview: &Preview,
    options: &Options,
) -> anyhow::Result<()> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let progress = progress(preview.deliveries);
    let pause = Duration::from_secs(1) / options.rate.max(1);
    let mut next = Instant::now();
    let last = preview.sequences.last().copied().unwrap_or_default();
    for sequence in &preview.sequences {
        let is_first = *sequence == options.resume.sequence;
        let mut resume = Resume {
            sequence: *sequence,
            stored: if is_first { options.resume.stored } else { 0 },
            last,
            ..options.resume
        };
        let how = |resume: Resume| {
            format!("interrupted; go on with the same flags and --resume {resume}")
        };
        let event = span::event_at(bus, *sequence)
            .await
            .with_context(|| how(resume))?;
        for delivery in planned(planner, &event, *sequence, resume) {
            let stored = async {
                sleep_until(next).await;
                wait_for_room(bus, &delivery, &progress).await?;
                bus.enqueue(&delivery)
                    .await
                    .context("cannot store a delivery")?;
                anyhow::Ok(())
            };
            tokio::select! {
                stored = stored => stored.with_context(|| how(resume))?,
                () = is_interrupted(&mut interrupted) => bail!(how(resume)),
            }
            resume.stored += 1;
            progress.inc(1);
            next = Instant::now() + pause;
        }
    }
    progress.finish_and_clear();
    Ok(())
}

async fn is_interrupted(signal: &mut Signal) {
    signal.recv().await;
}

/// Waits until no delivery of the Provider is ready or parked.
async fn wait_for_room(
    bus: &Bus,
    delivery: &Delivery,
    progress: &ProgressBar,
) -> anyhow::Result<()> {
    let provider = delivery.provider.clone().unwrap_or_default();
    let name = format!("{}/{}", provider.namespace, provider.name);
    while bus.has_waiting(&provider.namespace, &provider.name).await? {
        progress.set_message(format!("waits for the deliveries of provider {name}"));
        sleep(ASK_EVERY).await;
    }
    progress.set_message(name);
    Ok(())
}

/// A progress bar on standard error; nothing without a terminal.
fn progress(number: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg}");
    let progress = ProgressBar::new(number as u64);
    match style {
        Ok(style) => progress.with_style(style),
        Err(_) => progress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_goes_on_where_it_was_interrupted() {
        let new = Resume::new(jiff::Timestamp::from_second(1_800_000_000).unwrap());
        let interrupted = Resume {
            sequence: 17,
            stored: 2,
            last: 40,
            ..new
        };
        assert_eq!(interrupted.to_string(), "30000000.17.2.40");
        assert_eq!("30000000.17.2.40".parse(), Ok(interrupted));
        for wrong in [
            "",
            "1",
            "1.17",
            "0.1.0.2",
            "a.1.0.2",
            "1.b.0.2",
            "1.1.0.2.3",
        ] {
            assert!(wrong.parse::<Resume>().is_err(), "{wrong}");
        }
    }
}
