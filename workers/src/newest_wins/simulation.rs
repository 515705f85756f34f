//! Deliveries of one key, among replicas that crash, stand still and lose answers: whatever happens
//! in whichever order, the forge ends with the newest state, and is written to no more often than
//! there is a reason for.
//!
//! Two things are left out, since no dispatcher could mend them with a forge that can't fence a
//! stale writer: a process that writes after another has taken its lease, and dies (or loses the
//! bus) before it sees that; and requests that a forge carries out after it has answered later
//! ones. Against the first, no write is begun with too little left of the lease.

mod world;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use self::world::{How, World};

/// One of those that are there: counted on from the first, and around.
const ANY: usize = 60;

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// The next event's delivery, for one of two Providers, is ready.
    Arrives(usize),
    /// A replica takes a delivery that is ready.
    Starts(usize, usize),
    /// An attempt does its next action, or is told how that ended.
    GoesOn(usize, How),
    /// A replica is killed, perhaps between an action and its answer.
    Crashes(usize, bool),
    /// A replica stands still, as when it is suspended or starved; or it goes on.
    StandsStill(usize, bool),
    /// Time passes for everybody.
    Passes(u64),
    /// The bus takes a process that stands still for dead, and hands its delivery to another.
    ComesAgain(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let how = prop_oneof![20 => Just(How::Well), 1 => Just(How::Refused), 2 => Just(How::AnswerLost), 1 => Just(How::RequestLost)];
    prop_oneof![
        6 => (0..2usize).prop_map(Happening::Arrives),
        8 => (0..ANY, 0..4usize).prop_map(|(message, replica)| Happening::Starts(message, replica)),
        40 => (0..ANY, how).prop_map(|(task, how)| Happening::GoesOn(task, how)),
        1 => (0..4usize, any::<bool>()).prop_map(|(replica, has_acted)| Happening::Crashes(replica, has_acted)),
        2 => (0..4usize, prop::bool::weighted(0.7)).prop_map(|(replica, is_still)| Happening::StandsStill(replica, is_still)),
        6 => prop_oneof![2 => 0..3_000u64, 1 => 20_000..90_000u64].prop_map(Happening::Passes),
        1 => (0..ANY).prop_map(Happening::ComesAgain),
    ]
}

/// What the events ask for, in the order of their arrival: when they happened, and one of three
/// states.
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
            Happening::GoesOn(task, how) => world.go_on(*task, *how),
            Happening::Crashes(replica, has_acted) => world.crash(replica % replicas, *has_acted),
            Happening::StandsStill(replica, is_still) => {
                world.stand_still(replica % replicas, *is_still)
            }
            Happening::Passes(milliseconds) => world.pass(*milliseconds),
            Happening::ComesAgain(task) => world.come_again(*task),
        }
    }
    world.come_to_rest();
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
    fn a_forge_ends_with_the_newest_status_and_no_more_writes_than_there_are_reasons(
        events in events(), script in script(), replicas in 1..=4usize, can_be_read in any::<bool>(),
    ) {
        let mut world = World::new(&events, false, can_be_read);
        play(&mut world, replicas, &script);
        prop_assert_eq!(world.shown(), world.newest());
        prop_assert!(world.writes <= world.reasons.sum(), "{} writes, and {:?}", world.writes, world.reasons);
        prop_assert!(world.reads <= 1 + world.reasons.sum(), "{} reads, and {:?}", world.reads, world.reasons);
    }

    #[test]
    fn a_change_request_ends_with_one_comment_that_says_the_newest(
        events in events(), script in script(), replicas in 1..=4usize,
    ) {
        let mut world = World::new(&events, true, true);
        play(&mut world, replicas, &script);
        prop_assert_eq!(world.made(), 1);
        prop_assert_eq!(world.shown(), world.newest());
        prop_assert!(world.writes <= world.reasons.sum(), "{} writes, and {:?}", world.writes, world.reasons);
    }

    #[test]
    fn without_faults_a_change_is_one_write_and_a_repetition_none(events in events(), starts in prop::collection::vec(0..4usize, 12)) {
        let mut world = World::new(&events, false, true);
        for replica in starts {
            world.arrive(0);
            world.start(0, replica);
            world.come_to_rest();
        }
        prop_assert_eq!(world.shown(), world.newest());
        prop_assert_eq!(world.writes, world.reasons.changes);
        prop_assert_eq!(world.reads, 1);
    }
}

/// An older failure whose writer stands still, and a newer success.
const FAILURE_THEN_SUCCESS: [(i64, u8); 2] = [(1, 0), (2, 1)];

/// A world in which replica 0 was about to write the older state until its lease ran out, and
/// replica 1 has the newer one.
fn with_a_stale_writer() -> World {
    let mut world = World::new(&FAILURE_THEN_SUCCESS, false, false);
    world.arrive(0);
    world.start(0, 0);
    world.go_on_to_write(0, false);
    world.pass(70_000);
    world.arrive(0);
    world.start(0, 1);
    world
}

#[test]
fn a_late_write_during_anothers_write_makes_that_one_write_again() {
    let mut world = with_a_stale_writer();
    world.go_on_to_write(1, true);
    world.go_on_to_end(0, How::Well);
    world.come_to_rest();
    assert_eq!(world.shown(), world.newest());
    assert_eq!(world.writes, 3);
}

#[test]
fn a_late_write_without_an_answer_makes_what_is_posted_doubtful() {
    let mut world = with_a_stale_writer();
    world.go_on_to_end(1, How::Well);
    world.go_on_to_end(0, How::AnswerLost);
    world.come_to_rest();
    assert_eq!(world.shown(), world.newest());
    assert_eq!(world.writes, 3);
}

#[test]
fn a_bucket_that_is_lost_during_a_write_loses_no_state() {
    let mut world = World::new(&FAILURE_THEN_SUCCESS, false, true);
    world.arrive(0);
    world.start(0, 0);
    world.go_on_to_write(0, true);
    world.arrive(0);
    world.start(0, 1);
    world.go_on_to_end(1, How::Well);
    world.lose_bucket();
    world.come_to_rest();
    assert_eq!(world.shown(), world.newest());
}

#[test]
fn a_state_that_could_not_be_noted_is_not_pushed_out_by_another_that_waits() {
    let mut world = World::new(&[(2, 0), (1, 1)], false, true);
    world.arrive(0);
    world.start(0, 0);
    world.go_on_to_end(0, How::RequestLost);
    world.arrive(0);
    world.start(0, 0);
    world.go_on_to_write(0, false);
    world.go_on_to_end(0, How::Refused);
    world.come_to_rest();
    assert_eq!(world.shown(), world.newest());
}
