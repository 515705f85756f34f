//! Twenty destinations, of which some fail, under a steady load and random faults.
//!
//! `SOAK_MINUTES` sets the duration (default: 2), `SOAK_SEED` repeats a run. The seed and every
//! fault are printed.

mod destination;
mod fault;

use std::env;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tidings_rig::{Posted, Rig, event, eventually_within, post_steadily};
use tokio::time::Instant;

use crate::TIDINGS;
use destination::{Destination, RETRIED_FOR};
use fault::{Fault, Roles};

/// Events a second.
const RATE: u32 = 200;
const DESTINATIONS: u32 = 20;
/// The time limit for deliveries after the last event.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn under_random_faults_every_accepted_event_is_delivered_or_a_dead_letter() {
    let length = Duration::from_secs(60 * number("SOAK_MINUTES").unwrap_or(2));
    let seed = number("SOAK_SEED").unwrap_or_else(|| rand::rng().random());
    println!("SOAK_SEED={seed} SOAK_MINUTES={}", length.as_secs() / 60);
    let mut rig = Rig::start(TIDINGS).await;
    let mut destinations = Vec::new();
    for number in 0..DESTINATIONS {
        destinations.push(Destination::start(&rig, number).await);
    }
    let mut roles = Roles::start(&rig).await;

    let ingest = roles.ingest.address();
    let posting =
        tokio::spawn(async move { post_steadily(&ingest, RATE, length, numbered_event).await });
    let faults = inject_faults(&mut rig, &mut roles, StdRng::seed_from_u64(seed), length).await;
    let posted = posting.await.expect("posting does not panic");

    let dead = finished(&rig).await;
    let counts = rig.recorded_counts().await.expect("the roles count");
    assert_eq!(
        counts.lost_ready + counts.lost_parked + counts.lost_skipped,
        0,
        "faults are no losses"
    );
    for destination in &destinations {
        let own: Vec<&Posted> = posted
            .iter()
            .filter(|posted| destination.owns(&posted.message))
            .collect();
        destination.balances(&own, &dead, faults);
    }
}

/// The event's message names its destination: number modulo [`DESTINATIONS`].
fn numbered_event(number: u32) -> Value {
    let mut event = event(&format!("{number} for {}", number % DESTINATIONS));
    event["involvedObject"]["name"] = destination::object(number % DESTINATIONS).into();
    event
}

/// Injects faults until shortly before the end, and returns their number.
async fn inject_faults(
    rig: &mut Rig,
    roles: &mut Roles,
    mut random: StdRng,
    length: Duration,
) -> usize {
    let (began, mut faults) = (Instant::now(), 0);
    while began.elapsed() + Duration::from_secs(15) < length {
        tokio::time::sleep(Duration::from_millis(random.random_range(2_000..6_000))).await;
        let fault = Fault::random(&mut random);
        println!("{:>5.1} s: {fault:?}", began.elapsed().as_secs_f32());
        fault.inject(rig, roles).await;
        faults += 1;
    }
    assert!(faults > 3, "more than three faults were injected");
    faults
}

/// Waits until every event is routed and every delivery has ended, and returns the messages of the
/// dead letters' events.
async fn finished(rig: &Rig) -> Vec<String> {
    let jetstream = rig.jetstream().await;
    for (stream, what) in [
        ("EVENTS", "every event is routed"),
        ("DELIVERIES", "every delivery has ended"),
    ] {
        eventually_within(PATIENCE + RETRIED_FOR, what, async || {
            let mut stream = jetstream.get_stream(stream).await.ok()?;
            let left = match stream.cached_info().config.name.as_str() {
                "EVENTS" => stream.consumer_info("router").await.ok()?.num_pending,
                _ => stream.info().await.ok()?.state.messages,
            };
            (left == 0).then_some(())
        })
        .await;
    }
    let events = rig
        .dead_letters()
        .await
        .into_iter()
        .filter_map(|dead| dead.delivery?.event);
    events.map(|event| event.message).collect()
}

fn number(variable: &str) -> Option<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a parameter of a test, not a setting"
    )]
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
    )
}
