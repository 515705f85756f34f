use super::*;

const SIZING: Sizing = Sizing {
    dedupe_interval: Duration::from_secs(300),
    storage_limit: None,
    replicas: 1,
};

#[test]
fn events_take_at_most_a_third_of_the_storage() {
    assert_eq!(events(&SIZING).max_bytes, 10 << 30);
    let small = Sizing {
        storage_limit: Some(3 << 20),
        ..SIZING
    };
    assert_eq!(events(&small).max_bytes, 1 << 20);
}

#[test]
fn nothing_evicts_the_events_of_an_edge() {
    let [_, events] = edge(&SIZING);
    assert_eq!(events.discard, DiscardPolicy::New);
    assert!(events.max_age.is_zero() && events.max_bytes > 0);
}

#[test]
fn all_replicas_of_the_streams_fit_into_the_storage() {
    for replicas in [1, 3, 5] {
        let limit = replicas * (3 << 30);
        let sizing = Sizing {
            storage_limit: Some(limit as u64),
            replicas,
            ..SIZING
        };
        assert_eq!(events(&sizing).max_bytes, 1 << 30, "{replicas}");
        let limited = [events(&sizing), outcomes(&sizing), dead(&sizing)];
        let stored: i64 = limited.iter().map(|stream| stream.max_bytes).sum();
        assert!(stored * (replicas as i64) < limit as i64, "{replicas}");
    }
}

#[test]
fn differences_are_listed_by_field() {
    let expected = &events(&SIZING);
    assert_eq!(differences(expected, expected), Vec::<String>::new());
    let actual = Config {
        max_age: Duration::from_secs(1),
        ..expected.clone()
    };
    assert_eq!(
        differences(&actual, expected),
        ["max_age is 1s, expected 259200s"]
    );
    let (smaller, unlimited) = (
        Config {
            max_bytes: 1,
            ..expected.clone()
        },
        Config {
            max_bytes: -1,
            ..expected.clone()
        },
    );
    assert_eq!(differences(&smaller, expected), Vec::<String>::new());
    assert_eq!(differences(&unlimited, expected).len(), 1);
}
