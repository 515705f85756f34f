//! Continues what a dead worker left: probes and wake-ups.
//!
//! ```text
//!  every second, for each unfinished circuit:
//!    its wake-up has no live holder       ─► take it, wake the parked deliveries, store it as done
//!    the process of its probe has ended   ─► end the probe, wake one delivery: the next probe
//!    no delivery has made a due probe     ─► wake one delivery
//! ```
//!
//! Every worker looks; compare-and-set lets one act.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tidings_core::bus::process_leases::ProcessLeases;
use tidings_core::bus::{Bus, BusError, streams};
use tidings_core::model::circuit::overdue;
use tidings_core::runtime::codes::log as codes;
use tidings_core::wire::circuit::State;
use tidings_core::wire::{Circuit, ParkedScope};
use tidings_core::{Destination, ProtoTimestamp};
use tokio_util::sync::CancellationToken;

use super::breaker::{Breaker, HeldProbe};
use super::circuit_change::ChangeKind;
use super::waker::Waker;

/// How often a worker looks for unfinished circuits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A probe that nobody makes for this long is prompted, then after twice as long, and so on. The
/// delivery that was to make it may be held by a dead worker.
const FIRST_PROMPT: Duration = Duration::from_secs(5);
/// By then a delivery that a dead worker held is redelivered.
const MOST_PROMPTS: u32 = 4;

/// Continues unfinished circuits.
pub struct Takeover {
    bus: Bus,
    leases: Arc<ProcessLeases>,
    breaker: Arc<Breaker>,
    waker: Arc<Waker>,
    /// The wake-ups that run in this process.
    running: Mutex<HashSet<Destination>>,
    prompts: Mutex<HashMap<Destination, Prompts>>,
}

/// The prompts for one due probe.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Prompts {
    /// Since when it is due.
    due: Option<ProtoTimestamp>,
    made: u32,
}

impl Prompts {
    /// Whether to prompt now, when the probe has been due for `overdue`.
    fn is_next(&mut self, overdue: Duration) -> bool {
        let is_next = self.made < MOST_PROMPTS && overdue >= FIRST_PROMPT * ((2 << self.made) - 1);
        self.made += u32::from(is_next);
        is_next
    }
}

impl Takeover {
    /// A takeover that does not run yet.
    pub fn new(
        bus: &Bus,
        leases: &Arc<ProcessLeases>,
        breaker: Arc<Breaker>,
        waker: Arc<Waker>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bus: bus.clone(),
            leases: leases.clone(),
            breaker,
            waker,
            running: Mutex::default(),
            prompts: Mutex::default(),
        })
    }

    /// Looks for unfinished circuits every second, until `stop`.
    pub async fn run(self: &Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let unfinished = self.breaker.unfinished();
            self.forget_prompts(&unfinished);
            for circuit in unfinished {
                if let Err(error) = self.look_at(&circuit).await {
                    tracing::debug!(
                        code = codes::TAKEOVER_FAILED,
                        %error,
                        "work of a dead worker not continued, retrying"
                    );
                    break;
                }
            }
        }
    }

    async fn look_at(self: &Arc<Self>, circuit: &Circuit) -> Result<(), BusError> {
        if !self.bus.may_read(streams::DELIVERIES) {
            return Ok(());
        }
        let destination = Arc::new(Destination::of(circuit));
        let now = self.bus.clock().now();
        if let Some(pending) = &circuit.wake_up {
            let process = pending.process.clone().unwrap_or_default();
            let is_running = self.running.lock().contains(destination.as_ref());
            if !is_running && self.leases.has_ended(&process, &pending.holder).await? {
                return self.take_wake_up(&destination, circuit).await;
            }
        }
        if circuit.state() == State::HalfOpen
            && let Some(process) = &circuit.probe_process
            && self.leases.has_ended(process, &circuit.probe).await?
        {
            let kind = ChangeKind::DropProbe(circuit.probe.clone());
            if self.breaker.change(&destination, None, kind).await? {
                self.prompt(&destination, circuit).await?;
            }
        } else if self.is_prompt_due(&destination, circuit, now) {
            self.prompt(&destination, circuit).await?;
        }
        Ok(())
    }

    async fn take_wake_up(
        self: &Arc<Self>,
        destination: &Arc<Destination>,
        circuit: &Circuit,
    ) -> Result<(), BusError> {
        let held = HeldProbe::new(&self.leases, "wake-up");
        let kind = ChangeKind::TakeWakeUp {
            former: circuit.wake_up.clone().unwrap_or_default().holder,
            holder: held.holder.clone(),
            process: held.lease.process().to_owned(),
        };
        if self.breaker.change(destination, None, kind).await? {
            let pending = circuit.wake_up.clone().unwrap_or_default();
            let parked = scope(circuit);
            let every_channel = parked.every_channel || pending.whole_provider;
            let parked = ParkedScope {
                every_channel,
                ..parked
            };
            self.wake(destination, parked, held);
        }
        Ok(())
    }

    /// Carries out the wake-up of a circuit that this process holds. If it fails, or another
    /// process takes it, the record still says that it is pending.
    pub fn wake(
        self: &Arc<Self>,
        destination: &Arc<Destination>,
        parked: ParkedScope,
        held: HeldProbe,
    ) {
        if !self.bus.may_read(streams::DELIVERIES) {
            return self.leave_to_others(destination, &held);
        }
        if !self.running.lock().insert(destination.as_ref().clone()) {
            return;
        }
        let (takeover, destination) = (self.clone(), destination.clone());
        tokio::spawn(async move {
            let woken = selected(&destination, parked);
            let waking = takeover.waker.wake(&woken, parked.no_channel);
            match held.lease.while_held(waking).await {
                Some(Ok(())) => {
                    let kind = ChangeKind::EndWakeUp(held.holder.clone());
                    let ended = takeover.breaker.change(&destination, None, kind).await;
                    report(ended.map(drop));
                }
                Some(Err(error)) => report(Err(error)),
                None => {}
            }
            takeover.running.lock().remove(destination.as_ref());
        });
    }

    /// Gives a wake-up up that this process must not carry out, because the worker of one pool may
    /// not read parked deliveries. A worker of the hub takes it after some seconds.
    fn leave_to_others(&self, destination: &Arc<Destination>, held: &HeldProbe) {
        let kind = ChangeKind::TakeWakeUp {
            former: held.holder.clone(),
            holder: format!("left by {}", held.holder),
            process: String::new(),
        };
        let (breaker, destination) = (self.breaker.clone(), destination.clone());
        tokio::spawn(async move {
            let left = breaker.change(&destination, None, kind).await;
            report(left.map(drop));
        });
    }

    /// Wakes one parked delivery, so that it becomes the probe.
    async fn prompt(&self, destination: &Destination, circuit: &Circuit) -> Result<(), BusError> {
        let parked = scope(circuit);
        let woken = selected(destination, parked);
        self.bus.wake_one(&woken, parked.no_channel).await?;
        Ok(())
    }

    fn is_prompt_due(&self, destination: &Destination, circuit: &Circuit, now: Timestamp) -> bool {
        let Some(overdue) = overdue(circuit, now) else {
            return false;
        };
        let first = Prompts {
            due: circuit.until,
            made: 0,
        };
        let mut prompts = self.prompts.lock();
        let prompts = prompts.entry(destination.clone()).or_insert(first);
        if prompts.due != circuit.until {
            *prompts = first;
        }
        prompts.is_next(overdue)
    }

    /// Drops the prompts of circuits that need none any more.
    fn forget_prompts(&self, unfinished: &[Circuit]) {
        let unfinished: HashSet<Destination> = unfinished.iter().map(Destination::of).collect();
        let mut prompts = self.prompts.lock();
        prompts.retain(|destination, _| unfinished.contains(destination));
    }
}

/// Which parked deliveries wait for a circuit. An older version did not store it.
fn scope(circuit: &Circuit) -> ParkedScope {
    circuit.parked.unwrap_or(ParkedScope {
        every_channel: false,
        no_channel: true,
    })
}

/// The destination whose parked deliveries are woken.
fn selected(destination: &Destination, parked: ParkedScope) -> Destination {
    match parked.every_channel {
        true => Destination::whole(&destination.namespace, &destination.provider),
        false => destination.clone(),
    }
}

fn report(woken: Result<(), BusError>) {
    if let Err(error) = woken {
        tracing::warn!(
            code = codes::WAKE_FAILED,
            %error,
            "parked deliveries not woken, retrying"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_due_probe_that_nobody_makes_is_prompted_four_times_later_and_later() {
        let mut prompts = Prompts { due: None, made: 0 };
        let prompted: Vec<u64> = (0..1000)
            .filter(|second| prompts.is_next(Duration::from_secs(*second)))
            .collect();
        assert_eq!(prompted, [5, 15, 35, 75]);
    }
}
