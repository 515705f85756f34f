use super::*;

fn channel(channel: impl ToString) -> Destination {
    Destination::channel("apps", "hook", &channel.to_string())
}

/// Takes every permit that a destination gets at once.
async fn take_all(
    permits: &LocalPermits,
    destination: &Destination,
    capacity: &TypeCapacity,
) -> Vec<LocalPermit> {
    let mut taken = Vec::new();
    for _ in 0..100 {
        let take = permits.take(destination, None, capacity);
        let result = tokio::time::timeout(Duration::ZERO, take).await;
        taken.extend(result.ok().and_then(Result::ok));
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_destination_has_64_permits_and_the_next_delivery_waits_for_a_moment() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
    let (a, other) = (channel("a"), channel("other"));
    let mut taken = take_all(&permits, &a, &capacity).await;
    assert_eq!(taken.len(), limit::FIRST_CALLS);
    let next = permits.take(&a, None, &capacity).await;
    assert!(next.is_err(), "none is returned");
    assert!(permits.take(&other, None, &capacity).await.is_ok());
    let (next, ()) = tokio::join!(permits.take(&a, None, &capacity), async {
        drop(taken.pop())
    });
    assert!(next.is_ok(), "one is returned");
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_answers_gets_half_of_the_capacity_until_it_fails() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(512));
    let a = channel("a");
    let round = async |answered: bool| {
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.extend(take_all(&permits, &a, &capacity).await);
        }
        taken.iter_mut().for_each(LocalPermit::start);
        tokio::time::advance(Duration::from_millis(200)).await;
        let count = taken.len();
        // The last one ends first, while all are in use.
        if let Some(last) = taken.last_mut() {
            last.answered(answered);
        }
        taken.pop();
        taken.iter_mut().for_each(|permit| permit.answered(true));
        count
    };
    let mut counts = Vec::new();
    for _ in 0..400 {
        counts.push(round(true).await);
    }
    assert_eq!((counts[0], counts[399]), (64, 256));
    assert_eq!(round(false).await, 256);
    assert_eq!(round(true).await, 128);
}

#[tokio::test(start_paused = true)]
async fn max_in_flight_sets_the_number_of_permits() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
    let a = channel("a");
    let _one = permits.take(&a, Some(1), &capacity).await.unwrap();
    assert!(permits.take(&a, Some(1), &capacity).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn unused_destinations_are_dropped_and_used_ones_are_not() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
    let held = channel("held");
    let _held = permits.take(&held, Some(1), &capacity).await.unwrap();
    for number in 0..10_000 {
        let other = channel(number);
        permits.take(&other, None, &capacity).await.unwrap();
    }
    assert!(permits.destinations.lock().len() <= 1000);
    let again = permits.take(&held, Some(1), &capacity).await;
    assert!(again.is_err(), "its only permit is still taken");
}

#[tokio::test(start_paused = true)]
async fn destinations_that_hang_leave_capacity_for_another_one() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
    let (mut hanging, mut counts) = (Vec::new(), Vec::new());
    for number in 0..8 {
        let taken = take_all(&permits, &channel(number), &capacity).await;
        counts.push(taken.len());
        hanging.extend(taken);
    }
    assert_eq!(counts, [64, 59, 39, 26, 18, 12, 8, 5]);
    drop(hanging);
    let left = capacity.held.load(Ordering::Relaxed);
    assert_eq!(left, 0, "every share is returned");
}

#[tokio::test(start_paused = true)]
async fn any_number_of_slow_destinations_leaves_the_reserved_part_to_the_others() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
    let call = async |name: &str, takes| {
        let mut permit = permits.take(&channel(name), None, &capacity).await.unwrap();
        permit.start();
        tokio::time::advance(takes).await;
    };
    call("fast", Duration::from_millis(20)).await;
    for number in 0..50 {
        call(&number.to_string(), SLOW).await;
    }
    let mut others = Vec::new();
    for number in 0..100 {
        others.extend(take_all(&permits, &channel(number), &capacity).await);
    }
    assert_eq!(others.len(), 256 - 8, "50 slow and 50 unknown destinations");
    let fast = take_all(&permits, &channel("fast"), &capacity).await;
    assert_eq!(fast.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_fast_destination_whose_calls_stall_leaves_the_reserved_part() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(32));
    let a = channel("a");
    permits.take(&a, None, &capacity).await.unwrap().start();
    let mut hanging = take_all(&permits, &a, &capacity).await;
    assert_eq!(hanging.len(), 16, "of 32 it holds what it leaves free");
    tokio::time::advance(SLOW).await;
    drop(hanging.split_off(9));
    tokio::time::advance(SLOW).await;
    assert_eq!(take_all(&permits, &a, &capacity).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_wait_for_a_permit_leave_capacity_too() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
    let hook = channel("a");
    let takes = (0..200).map(|_| permits.take(&hook, None, &capacity));
    let mut takes = std::pin::pin!(futures::future::join_all(takes));
    assert!(futures::poll!(&mut takes).is_pending());
    let held = capacity.held.load(Ordering::Relaxed);
    assert_eq!(held, 80, "64 call and 16 wait");
    let taken = takes.await;
    assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 64);
    assert_eq!(capacity.held.load(Ordering::Relaxed), 64);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_holds_one_delivery_at_a_time_makes_calls() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(1));
    let one = permits.take(&channel("a"), None, &capacity).await;
    assert!(one.is_ok());
    let next = permits.take(&channel("b"), None, &capacity).await;
    assert!(next.is_err());
}

#[tokio::test(start_paused = true)]
async fn parked_deliveries_are_retried_one_after_the_other_within_five_minutes() {
    let permits = LocalPermits::default().of(&channel("a"), Some(1));
    permits.pace.lock().took = Some(Duration::from_secs(6));
    for least in [6.0, 12.0, 18.0] {
        let wait = permits.retry_after().as_secs_f64();
        assert!((least..=1.25 * least).contains(&wait), "{wait}");
    }
    permits.pace.lock().last_retry = Instant::now() + 100 * MAX_RETRY;
    assert!((MAX_RETRY / 2..=MAX_RETRY).contains(&permits.retry_after()));
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_find_no_capacity_are_retried_at_different_times() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(1));
    let _one = permits.take(&channel("a"), None, &capacity).await;
    let b = channel("b");
    let mut last = Duration::ZERO;
    for _ in 0..5000 {
        last = permits.take(&b, None, &capacity).await.err().unwrap();
    }
    assert!(last >= Duration::from_secs(5), "5,000 within {last:?}");
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_that_of_the_slowest_of_the_last_calls() {
    let mut pace = Pace::new();
    pace.count_end(Duration::from_secs(30));
    for _ in 1..64 {
        pace.count_end(Duration::from_secs(30));
    }
    assert_eq!(pace.apart(64, 0).as_millis(), 468);
    tokio::time::advance(Duration::from_secs(60)).await;
    let hanging = pace.apart(64, 64).as_millis();
    assert_eq!(hanging, 1875, "no call ended for a minute");
    pace.count_end(Duration::from_millis(20));
    assert_eq!(pace.took, Some(Duration::from_secs(15)));
    for _ in 0..4 {
        pace.count_end(Duration::from_millis(20));
    }
    assert!(pace.is_fast(0), "quick calls in a row are enough");
}

#[tokio::test(start_paused = true)]
async fn retry_times_start_over_when_half_of_the_permits_are_free() {
    let (permits, capacity) = (LocalPermits::default(), TypeCapacity::new(256));
    let hook = permits.of(&channel("a"), None);
    hook.pace.lock().last_retry = Instant::now() + MAX_RETRY;
    permits.take(&channel("a"), None, &capacity).await.unwrap();
    assert!(hook.retry_after() < Duration::from_secs(1));
}
