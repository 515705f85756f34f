//! Tests of what is asked and kept, with a scripted authorizer.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// `admin` may do everything, `down` gets no answer, `hang` none in time, and others may get what
/// is in the namespace of their name, of one resource only if it is `half`.
#[derive(Default)]
struct Scripted {
    asked: AtomicUsize,
}

impl Authorizer for Scripted {
    async fn may(
        &self,
        user: &User,
        verb: &'static str,
        resource: &'static str,
        namespace: &str,
    ) -> Result<bool, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match user.name.as_str() {
            "admin" => Ok(true),
            "down" => Err("down".to_owned()),
            "hang" => std::future::pending().await,
            "half" => Ok(namespace == "half" && resource == "alerts"),
            name => Ok(namespace == name && verb == "get"),
        }
    }
}

fn user(name: &str) -> Arc<User> {
    Arc::new(User {
        name: name.to_owned(),
        ..User::default()
    })
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test]
async fn a_user_sees_the_namespaces_where_it_may_get_both_kinds_of_rules() {
    let permissions = Permissions::new(Scripted::default());
    let all = names(["", "a", "b", "half", "prod:a", "A", "a/b"]);
    let among = async |name, verb| permissions.among(&user(name), verb, all.clone()).await;
    assert_eq!(among("admin", Verb::Update).await, Ok(all.clone()));
    assert_eq!(among("a", Verb::Get).await, Ok(names(["a"])));
    assert_eq!(among("a", Verb::Update).await, Ok(names([])));
    assert_eq!(among("half", Verb::Get).await, Ok(names([])));
    for other in ["prod:a", "A", "a/b"] {
        assert_eq!(among(other, Verb::Get).await, Ok(names([])), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_nothing_is_allowed_and_nothing_is_kept() {
    let permissions = Permissions::new(Scripted::default());
    for name in ["down", "hang", "down"] {
        let user = user(name);
        let among = permissions.among(&user, Verb::Get, names(["a"]));
        assert_eq!(among.await, Err(NoAnswer), "{name}");
    }
    assert!(permissions.known.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn answers_are_kept_for_a_short_time_and_their_number_is_bounded() {
    let (permissions, a) = (Permissions::new(Scripted::default()), user("a"));
    for _ in 0..3 {
        let among = permissions.among(&a, Verb::Get, names(["a"]));
        assert_eq!(among.await, Ok(names(["a"])));
    }
    // Alerts of all namespaces, and both kinds of one.
    assert_eq!(permissions.authorizer.asked.load(Ordering::Relaxed), 3);
    tokio::time::advance(VALID_FOR).await;
    let among = permissions.among(&a, Verb::Get, names(["a"]));
    assert_eq!(among.await, Ok(names(["a"])));
    assert_eq!(permissions.authorizer.asked.load(Ordering::Relaxed), 6);
    let start = Instant::now();
    for number in 0..MOST_ANSWERS + 10 {
        permissions.put(&user("a"), Verb::Get, &number.to_string(), true, start);
    }
    let kept = |name: &str| permissions.known.lock()[&user(name)].allowed.len();
    assert_eq!(kept("a"), MOST_ANSWERS);
    let among = permissions.among(&a, Verb::Get, names(["a", "one-more"]));
    assert_eq!(among.await, Ok(names(["a"])), "what is known stays known");
    let asked = permissions.authorizer.asked.load(Ordering::Relaxed);
    assert_eq!(asked, 6, "nothing more is asked");
    for number in 0..MOST_USERS + 10 {
        permissions.put(&user(&format!("u{number}")), Verb::Get, "a", true, start);
    }
    assert_eq!(permissions.known.lock().len(), MOST_USERS);
    permissions.put(&user("last"), Verb::Get, "a", true, start + VALID_FOR);
    assert_eq!(permissions.known.lock().len(), 1);
}
