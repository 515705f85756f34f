//! Expressions that cost too much, and the child processes that evaluate them.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidings_core::DeadLetter;
use tidings_rig::{Forge, LogEvent, Manifest, Process, Rig, Role, alert, eventually, secret};

use crate::TIDINGS;
use crate::states::reconciled;

/// The tenant with the expression, and its neighbor.
const TENANTS: [&str; 2] = ["attacker", "neighbor"];
/// What a process that evaluates expressions in children may add to its memory, in KiB.
const MEMORY: u64 = 200 << 10;

/// Needs 17 TB.
fn memory_bomb() -> String {
    format!("['aaaaaaaaaaaaaaaa']{}[0]", ".map(x, x + x)".repeat(40))
}

/// Takes hours, and no memory.
fn time_bomb() -> String {
    let digits = "[1,2,3,4,5,6,7,8,9,0]";
    let variables: Vec<String> = (0..12).map(|number| format!("v{number}")).collect();
    let open: String = variables
        .iter()
        .map(|variable| format!("{digits}.all({variable}, "))
        .collect();
    format!(
        "{open}{} >= 0{} ? 'y' : 'n'",
        variables.join(" + "),
        ")".repeat(variables.len())
    )
}

/// Explodes only for events with this message, so that the check of the rules does not find it.
fn for_message(message: &str, bomb: &str) -> String {
    format!("event.message.contains('{message}') ? ({bomb}) : 'calm/' + event.message")
}

/// The rules of a tenant, whose objects have its name.
fn rules(forge: &Forge, tenant: &str, expression: &str) -> [Manifest; 3] {
    [
        secret(tenant, json!({"token": "hidden-token"})).in_namespace(tenant),
        provider(forge, tenant, tenant, expression),
        alert(tenant, tenant).in_namespace(tenant),
    ]
}

fn provider(forge: &Forge, tenant: &str, name: &str, expression: &str) -> Manifest {
    forge
        .provider("github")
        .set("/metadata/name", name)
        .in_namespace(tenant)
        .with("secretRef", json!({"name": tenant}))
        .with("commitStatusExpr", expression)
}

/// An event of a tenant for a commit of its own.
fn event(tenant: &str, number: u32, message: &str) -> Value {
    let mut event = reconciled(&format!("{number:040x}"), number, true);
    event["involvedObject"]["namespace"] = tenant.into();
    event["message"] = message.into();
    event
}

async fn post(up: &Process, tenant: &str, number: u32, message: &str) {
    let response = up.post(&event(tenant, number, message)).await;
    assert_eq!(response.expect("ingest responds").status, 202);
}

/// The children of a process that evaluate expressions.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("there is /proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(") ").next().unwrap_or_default();
        after_name.split(' ').nth(1) == Some(&parent.to_string()) && is_evaluator(*id)
    };
    ids.filter(is_child).collect()
}

fn is_evaluator(id: u32) -> bool {
    let command = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    command.contains("evaluate-expressions")
}

/// The child of a process, as soon as there is one.
async fn child(parent: u32) -> u32 {
    eventually("a child evaluates expressions", async || {
        children(parent).first().copied()
    })
    .await
}

/// The most memory that a process had so far, in KiB.
fn most_memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("the process runs")
}

async fn dead_letters(rig: &Rig, count: usize) -> Vec<DeadLetter> {
    eventually(&format!("{count} dead letters"), async || {
        let dead = rig.dead_letters().await;
        (dead.len() >= count).then_some(dead)
    })
    .await
}

/// Reason and detail of a dead letter.
fn end(dead: &DeadLetter) -> (&str, &str) {
    let delivery = dead.delivery.as_ref();
    let attempts = &delivery.expect("a dead letter has its delivery").attempts;
    assert_eq!(attempts.len(), 1, "it is given up at once");
    (&dead.reason, &attempts[0].detail)
}

fn is_too_costly(dead: &DeadLetter) -> bool {
    let (reason, detail) = end(dead);
    reason == "misconfigured" && detail.starts_with("expression too costly")
}

fn killed(event: &LogEvent) -> (String, String) {
    (event.field("provider"), event.field("cause"))
}

#[tokio::test]
async fn a_memory_bomb_costs_its_own_delivery_and_the_process_stays_small() {
    let (forge, rig) = (Forge::start().await, Rig::start(TIDINGS).await);
    let [attacker, neighbor] = TENANTS;
    rig.rules().put(rules(
        &forge,
        attacker,
        &for_message("boom", &memory_bomb()),
    ));
    rig.rules().put(rules(&forge, neighbor, "event.message"));
    let up = rig.run(Role::up()).await;
    let before = most_memory(up.id());

    post(&up, attacker, 1, "boom").await;
    for number in 2..22 {
        post(&up, neighbor, number, &format!("neighbor {number}")).await;
    }
    let dead = dead_letters(&rig, 1).await;
    post(&up, attacker, 22, "refused with its Provider").await;
    let dead = [dead, dead_letters(&rig, 2).await].concat();
    rig.drained().await;

    for dead in &dead {
        assert!(is_too_costly(dead), "{:?}", end(dead));
    }
    assert_eq!(rig.dead_letters().await.len(), 2, "and no other");
    assert_eq!(forge.contents().statuses.len(), 20);
    let log = up.log_events("expression-child-killed");
    let by_memory = ("attacker/attacker".to_owned(), "memory".to_owned());
    let of_memory = log.iter().filter(|event| killed(event) == by_memory);
    assert_eq!(
        of_memory.count(),
        1,
        "a refused expression is not evaluated"
    );
    let metric = "tidings_expression_children_killed_total";
    up.counts_any(metric, "cause=\"memory\"").await;
    let grown = most_memory(up.id()) - before;
    assert!(grown < MEMORY, "it grew by {grown} KiB");
}

#[tokio::test]
async fn a_time_bomb_costs_its_own_delivery_and_delays_no_other_tenant() {
    let (forge, rig) = (Forge::start().await, Rig::start(TIDINGS).await);
    let [attacker, neighbor] = TENANTS;
    rig.rules()
        .put(rules(&forge, attacker, &for_message("boom", &time_bomb())));
    rig.rules().put(rules(&forge, neighbor, "event.message"));
    let up = rig.run(Role::up()).await;

    for number in 0..20 {
        post(&up, attacker, number, &format!("boom {number}")).await;
        post(&up, neighbor, 100 + number, &format!("neighbor {number}")).await;
    }
    rig.drained().await;

    let dead = rig.dead_letters().await;
    assert_eq!(dead.len(), 20);
    for dead in &dead {
        assert!(is_too_costly(dead), "{:?}", end(dead));
    }
    assert_eq!(forge.contents().statuses.len(), 20);
    let log = up.log_events("expression-child-killed");
    assert_eq!(
        log.iter().map(killed).collect::<Vec<_>>(),
        [("attacker/attacker".to_owned(), "cpu-time".to_owned())],
        "a refused expression is not evaluated"
    );
}

#[tokio::test]
async fn rules_with_many_bombs_are_loaded_and_other_tenants_are_served() {
    let (forge, rig) = (Forge::start().await, Rig::start(TIDINGS).await);
    let [attacker, neighbor] = TENANTS;
    for number in 0..40 {
        let bomb = format!("{} + '{number}'", memory_bomb());
        let name = format!("bomb-{number}");
        rig.rules().put([
            provider(&forge, attacker, &name, &bomb),
            alert(&name, &name).in_namespace(attacker),
        ]);
    }
    rig.rules().put(rules(&forge, neighbor, "event.message"));
    let up = rig.run(Role::up()).await;

    post(&up, neighbor, 1, "neighbor").await;

    eventually("the neighbor's status is set", async || {
        (forge.contents().statuses.len() == 1).then_some(())
    })
    .await;
    assert!(!up.log_events("expression-child-killed").is_empty());
}

#[tokio::test]
async fn children_know_no_secret_and_end_with_their_parent() {
    let (forge, rig) = (Forge::start().await, Rig::start(TIDINGS).await);
    let [_, neighbor] = TENANTS;
    rig.rules().put(rules(&forge, neighbor, "event.message"));
    let role = Role::up().env("A_SECRET", "hidden-in-the-environment");
    let mut up = rig.run(role).await;
    for killed in [true, false] {
        let id = child(up.id()).await;
        let environment = fs::read_to_string(format!("/proc/{id}/environ"));
        assert_eq!(
            environment.expect("a child of this user can be read"),
            "MALLOC_ARENA_MAX=1\0MIMALLOC_DISALLOW_ARENA_ALLOC=1\0"
        );
        if killed {
            up.kill().await;
        } else {
            up.terminate().await;
        }
        eventually("the child ends", async || (!is_evaluator(id)).then_some(())).await;
        if killed {
            up.restart().await;
        }
    }
}

#[tokio::test]
async fn a_child_that_another_process_kills_costs_no_delivery() {
    let (forge, rig) = (Forge::start().await, Rig::start(TIDINGS).await);
    let [_, neighbor] = TENANTS;
    rig.rules().put(rules(&forge, neighbor, "event.message"));
    let up = rig.run(Role::up()).await;

    for number in 1..=5 {
        let id = child(up.id()).await;
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("it is a process id"), Signal::KILL).expect("it runs");
        post(&up, neighbor, number, &format!("neighbor {number}")).await;
        let count = number as usize;
        eventually("the status is set", async || {
            (forge.contents().statuses.len() == count).then_some(())
        })
        .await;
    }
    rig.drained().await;

    let outcomes = rig.outcomes().await;
    assert_eq!(outcomes.len(), 5, "each needed one attempt: {outcomes:?}");
}

#[tokio::test]
async fn a_child_that_hangs_costs_an_attempt_and_no_delivery() {
    let (forge, rig) = (Forge::start().await, Rig::start(TIDINGS).await);
    let [_, neighbor] = TENANTS;
    rig.rules().put(rules(&forge, neighbor, "event.message"));
    let up = rig.run(Role::up()).await;
    let id = child(up.id()).await;
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("it is a process id"), Signal::STOP).expect("it runs");

    post(&up, neighbor, 1, "neighbor").await;

    let killed_by = up.logs("expression-child-killed").await;
    assert_eq!(killed_by.field("cause"), "deadline");
    tidings_rig::eventually_within(Duration::from_secs(60), "the status is set", async || {
        (forge.contents().statuses.len() == 1).then_some(())
    })
    .await;
}
