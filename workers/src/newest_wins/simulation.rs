//! Deliveries of one key, on replicas that crash, stall and lose responses. In any order of events,
//! the service ends with the newest state, and each write has a reason.
//!
//! Two cases are not simulated, because they need a service that fences stale writers. First, a
//! process writes after another has taken its lease, and dies or loses the bus before it sees that.
//! Against this, no write begins if too little is left of the lease, and calls are cut off when the
//! lease of the process lapses. Second, a service carries out an earlier request after it has
//! answered a later one.

mod processes;
mod world;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use self::world::{Course, World};

/// An index below this selects any of the existing entries, modulo their number.
const ANY: usize = 60;

#[derive(Clone, Debug)]
enum Happening {
    /// The delivery of the next event, for one of two Providers, is ready.
    Arrives(usize),
    /// A replica starts to attempt a delivery that is ready.
    Starts(usize, usize),
    /// An attempt carries out its next action, or receives the result.
    Advances(usize, Course),
    /// A replica is killed, perhaps between an action and its result.
    Crashes(usize, bool),
    /// A replica stalls, as when it is suspended or starved; or it continues.
    Stalls(usize, bool),
    /// The bus stops to confirm the renewals of a replica, or confirms them again.
    StopsRenewals(usize, bool),
    /// Time passes on all replicas.
    Passes(u64),
    /// The bus redelivers the delivery of a running attempt.
    Redelivers(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::{
        Advances, Arrives, Crashes, Passes, Redelivers, Stalls, Starts, StopsRenewals,
    };
    let course = prop_oneof![
        20 => Just(Course::Succeeds),
        1 => Just(Course::FailsAtService),
        2 => Just(Course::AnswerLost),
        1 => Just(Course::RequestLost),
        1 => Just(Course::NotAdmitted),
    ];
    let milliseconds = prop_oneof![
        4 => 0..3_000u64,
        2 => 3_000..8_000u64,
        1 => 20_000..90_000u64,
    ];
    let is_stalled = prop::bool::weighted(0.7);
    let is_stopped = prop::bool::weighted(0.6);
    prop_oneof![
        6 => (0..2usize).prop_map(Arrives),
        8 => (0..ANY, 0..4usize).prop_map(|(message, replica)| Starts(message, replica)),
        40 => (0..ANY, course).prop_map(|(task, course)| Advances(task, course)),
        1 => (0..4usize, any::<bool>()).prop_map(|(replica, after)| Crashes(replica, after)),
        2 => (0..4usize, is_stalled).prop_map(|(replica, is_stalled)| Stalls(replica, is_stalled)),
        2 => (0..4usize, is_stopped).prop_map(|(replica, stops)| StopsRenewals(replica, stops)),
        6 => milliseconds.prop_map(Passes),
        1 => (0..ANY).prop_map(Redelivers),
    ]
}

/// The events in the order of their arrival: when each happened, and one of three states.
fn events() -> impl Strategy<Value = Vec<(i64, u8)>> {
    prop::collection::vec((0..12i64, 0..3u8), 1..12)
}

fn script() -> impl Strategy<Value = Vec<Happening>> {
    prop::collection::vec(happening(), 0..160)
}

fn play(world: &mut World, replicas: usize, script: &[Happening]) {
    for happening in script {
        match happening {
            Happening::Arrives(provider) => world.arrive(*provider),
            Happening::Starts(message, replica) => world.start(*message, replica % replicas),
            Happening::Advances(task, course) => world.advance(*task, *course),
            Happening::Crashes(replica, after) => world.crash(replica % replicas, *after),
            Happening::Stalls(replica, is_stalled) => world.stall(replica % replicas, *is_stalled),
            Happening::StopsRenewals(replica, is_stopped) => {
                world.stop_renewals(replica % replicas, *is_stopped);
            }
            Happening::Passes(milliseconds) => world.pass(*milliseconds),
            Happening::Redelivers(task) => world.redeliver(*task),
        }
    }
    world.finish();
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1_000,
        rng_seed: RngSeed::Fixed(6),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_service_ends_with_the_newest_status_and_each_write_has_a_reason(
        events in events(),
        script in script(),
        replicas in 1..=4usize,
        is_readable in any::<bool>(),
    ) {
        let mut world = World::new(&events, false, is_readable);
        play(&mut world, replicas, &script);
        let (writes, reads, reasons) = (world.writes, world.reads, &world.reasons);
        prop_assert_eq!(world.shown(), world.newest());
        prop_assert!(writes <= reasons.sum(), "{writes} writes, {reasons:?}");
        prop_assert!(reads <= 1 + reasons.sum(), "{reads} reads, {reasons:?}");
    }

    #[test]
    fn a_change_request_ends_with_one_comment_with_the_newest_state(
        events in events(), script in script(), replicas in 1..=4usize,
    ) {
        let mut world = World::new(&events, true, true);
        play(&mut world, replicas, &script);
        let (writes, reasons) = (world.writes, &world.reasons);
        prop_assert_eq!(world.comments(), 1);
        prop_assert_eq!(world.shown(), world.newest());
        prop_assert!(writes <= reasons.sum(), "{writes} writes, {reasons:?}");
    }

    #[test]
    fn without_faults_a_change_is_one_write_and_a_repetition_is_none(
        events in events(), starts in prop::collection::vec(0..4usize, 12),
    ) {
        let mut world = World::new(&events, false, true);
        for replica in starts {
            world.arrive(0);
            world.start(0, replica);
            world.finish();
        }
        prop_assert_eq!(world.shown(), world.newest());
        prop_assert_eq!(world.writes, world.reasons.changes);
        prop_assert_eq!(world.reads, 1);
    }
}

/// An older failure, whose writer stalls, and a newer success.
const FAILURE_THEN_SUCCESS: [(i64, u8); 2] = [(1, 0), (2, 1)];

/// Replica 0 is about to write the older state, but its lease has expired. Replica 1 has the newer
/// state.
fn with_a_stale_writer() -> World {
    let mut world = World::new(&FAILURE_THEN_SUCCESS, false, false);
    world.arrive(0);
    world.start(0, 0);
    world.advance_to_write(0, false);
    world.stall(0, true);
    world.pass(6_000);
    world.stall(0, false);
    world.arrive(0);
    world.start(0, 1);
    world
}

#[test]
fn after_a_writer_died_another_one_writes_within_seconds() {
    let mut world = World::new(&FAILURE_THEN_SUCCESS, false, false);
    world.arrive(0);
    world.start(0, 0);
    world.advance_to_write(0, false);
    world.pass(3_000);
    world.crash(0, false);
    world.arrive(0);
    world.pass(1_900);
    world.start(1, 1);
    world.advance_to_end(1, Course::Succeeds);
    assert_eq!(world.writes, 0, "the lease may still be renewed");
    world.pass(3_200);
    world.start(1, 1);
    world.advance_to_end(1, Course::Succeeds);
    assert_eq!(world.shown(), world.newest());
    world.finish();
    assert_eq!(world.writes, 1);
}

#[test]
fn a_slow_writer_keeps_its_lease_while_its_process_renews_it() {
    let mut world = World::new(&FAILURE_THEN_SUCCESS, false, false);
    world.arrive(0);
    world.start(0, 0);
    world.advance_to_write(0, false);
    world.arrive(0);
    for _ in 0..10 {
        world.pass(2_500);
        world.start(0, 1);
        world.advance_to_end(1, Course::Succeeds);
        assert_eq!(world.writes, 0, "another one writes");
    }
    world.finish();
    assert_eq!(world.shown(), world.newest());
    assert_eq!(world.reasons.lost_leases(), 0);
}

#[test]
fn a_writer_whose_renewals_are_not_confirmed_stops_before_another_one_writes() {
    let mut world = World::new(&FAILURE_THEN_SUCCESS, false, false);
    world.stop_renewals(0, true);
    world.arrive(0);
    world.start(0, 0);
    world.advance_to_write(0, false);
    world.arrive(0);
    world.pass(4_500);
    world.start(0, 1);
    world.advance_to_end(1, Course::Succeeds);
    assert_eq!(world.writes, 0, "others wait a little longer");
    world.advance_to_end(0, Course::Succeeds);
    assert_eq!(world.writes, 0, "its call is cut off");
    world.finish();
    assert_eq!(world.shown(), world.newest());
    assert_eq!(world.writes, 1);
}

#[test]
fn a_late_write_during_another_write_causes_a_third_one() {
    let mut world = with_a_stale_writer();
    world.advance_to_write(1, true);
    world.advance_to_end(0, Course::Succeeds);
    world.finish();
    assert_eq!(world.shown(), world.newest());
    assert_eq!(world.writes, 3);
}

#[test]
fn a_late_write_without_an_answer_causes_another_write() {
    let mut world = with_a_stale_writer();
    world.advance_to_end(1, Course::Succeeds);
    world.advance_to_end(0, Course::AnswerLost);
    world.finish();
    assert_eq!(world.shown(), world.newest());
    assert_eq!(world.writes, 3);
}

#[test]
fn a_bucket_that_is_deleted_during_a_write_loses_no_state() {
    let mut world = World::new(&FAILURE_THEN_SUCCESS, false, true);
    world.arrive(0);
    world.start(0, 0);
    world.advance_to_write(0, true);
    world.arrive(0);
    world.start(0, 1);
    world.advance_to_end(1, Course::Succeeds);
    world.delete_bucket();
    world.finish();
    assert_eq!(world.shown(), world.newest());
}

#[test]
fn a_state_that_is_not_recorded_is_not_replaced_by_another_parked_one() {
    let mut world = World::new(&[(2, 0), (1, 1)], false, true);
    world.arrive(0);
    world.start(0, 0);
    world.advance_to_end(0, Course::RequestLost);
    world.arrive(0);
    world.start(0, 0);
    world.advance_to_write(0, false);
    world.advance_to_end(0, Course::FailsAtService);
    world.finish();
    assert_eq!(world.shown(), world.newest());
}

#[test]
fn a_delivery_that_is_not_admitted_releases_its_lease() {
    let mut world = World::new(&FAILURE_THEN_SUCCESS, false, false);
    world.arrive(0);
    world.start(0, 0);
    world.advance_to_prepare(0);
    world.advance_to_end(0, Course::NotAdmitted);
    world.arrive(0);
    world.start(0, 1);
    world.advance_to_end(1, Course::Succeeds);
    assert_eq!(
        world.shown(),
        world.newest(),
        "without waiting for the lease to expire"
    );
    world.finish();
    assert_eq!(world.writes, 1);
}
