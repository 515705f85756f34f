//! `examples/consumers`: durable consumers in three languages.

use std::collections::BTreeSet;
use std::env::var_os;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use futures::future::join_all;
use futures::{StreamExt, stream};
use prost::Message as _;
use tidings_core::model::subject;
use tidings_core::{Event, ObjectReference};
use tidings_rig::{Rig, Role};
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;

use crate::TIDINGS;
use crate::command::Following;
use crate::python;

/// The events that every consumer follows.
const EVENTS: usize = 10_000;
/// A consumer is killed after this number of events.
const KILLED_AFTER: usize = 3_000;
/// The number of publishes that wait for their confirmation.
const WINDOW: usize = 256;

/// How to start one of the examples.
pub struct Example {
    pub language: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    folder: PathBuf,
    python_path: Option<PathBuf>,
}

impl Example {
    fn start(&self, more: &[&str]) -> Following {
        Following::start(self.command(more))
    }

    /// The command, with these arguments.
    pub fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(more)
            .current_dir(&self.folder);
        if let Some(path) = &self.python_path {
            command.env("PYTHONPATH", path);
        }
        command
    }
}

/// The examples in languages that this machine has; in CI all of them.
pub async fn examples(built: &Path) -> Vec<Example> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = [
        Some(rust(project).await),
        python(project).await,
        go(project, built).await,
    ];
    found.into_iter().flatten().collect()
}

async fn rust(project: &Path) -> Example {
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "build",
        "--quiet",
        "--locked",
        "--workspace",
        "--example",
        "consumer",
    ]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    build.current_dir(project);
    succeeds(build).await;
    let executables = Path::new(TIDINGS).parent().unwrap();
    Example {
        language: "rust",
        program: executables.join("examples/consumer"),
        arguments: Vec::new(),
        folder: project.to_owned(),
        python_path: None,
    }
}

async fn python(project: &Path) -> Option<Example> {
    Some(Example {
        language: "python",
        python_path: Some(python::imports(project).await?),
        program: "python3".into(),
        arguments: vec![project.join("examples/consumers/python/consumer.py").into()],
        folder: project.to_owned(),
    })
}

async fn go(project: &Path, built: &Path) -> Option<Example> {
    let mut version = Command::new("go");
    version.arg("version").stdout(Stdio::null());
    if version.status().await.is_err() && var_os("CI").is_none() {
        println!("skipped: examples/consumers/go needs Go");
        return None;
    }
    let folder = project.join("examples/consumers/go");
    let program = built.join("consumer");
    let mut build = Command::new("go");
    build
        .args(["build", "-mod=readonly", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(&folder);
    succeeds(build).await;
    Some(Example {
        language: "go",
        program,
        arguments: Vec::new(),
        folder,
        python_path: None,
    })
}

async fn succeeds(mut command: Command) {
    let status = command.status().await;
    let status = status.expect("the compiler can be started");
    assert!(status.success(), "the example cannot be built; see above");
}

fn id(number: usize) -> String {
    format!("{number:032x}")
}

/// Stores events in EVENTS as ingest does.
async fn publish(rig: &Rig, numbers: std::ops::Range<usize>) {
    let jetstream = &rig.jetstream().await;
    let stored = stream::iter(numbers).map(|number| async move {
        let event = Event {
            id: id(number),
            cluster: "hub".into(),
            involved_object: Some(ObjectReference {
                kind: "Kustomization".into(),
                namespace: "apps".into(),
                name: "web".into(),
                ..ObjectReference::default()
            }),
            severity: "info".into(),
            message: format!("event {number}"),
            ..Event::default()
        };
        let subject = subject::event(&event);
        let confirmation = jetstream.publish(subject, event.encode_to_vec().into());
        confirmation.await.unwrap().await.unwrap();
    });
    stored.buffer_unordered(WINDOW).collect::<Vec<()>>().await;
}

/// The event id that a line begins with.
fn id_of(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_owned()
}

/// Follows all events, and kills and resumes the consumer in between.
async fn follow(example: &Example, url: &str) {
    let language = example.language;
    let arguments = [url, language];
    let (mut seen, mut lines) = (BTreeSet::new(), 0);
    let mut consumer = example.start(&arguments);
    while lines < KILLED_AFTER {
        seen.insert(id_of(&consumer.next().await));
        lines += 1;
    }
    for line in consumer.kill().await {
        seen.insert(id_of(&line));
        lines += 1;
    }
    let mut consumer = example.start(&arguments);
    while seen.len() < EVENTS {
        seen.insert(id_of(&consumer.next().await));
        lines += 1;
    }
    let expected: BTreeSet<String> = (0..EVENTS).map(id).collect();
    assert!(seen == expected, "{language} misses or invents events");
    assert!(
        lines < EVENTS + KILLED_AFTER,
        "{language} began again instead of resuming: {lines} lines"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_in_three_languages_miss_no_event_although_they_are_killed() {
    let built = tempfile::tempdir().unwrap();
    let examples = examples(built.path()).await;
    let rig = Rig::start(TIDINGS).await;
    let _up = rig.run(Role::up()).await;
    publish(&rig, 0..EVENTS / 2).await;

    let following = join_all(examples.iter().map(|example| follow(example, rig.url())));
    tokio::join!(following, publish(&rig, EVENTS / 2..EVENTS));

    rig.routed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_in_three_languages_replay_from_a_time() {
    let built = tempfile::tempdir().unwrap();
    let examples = examples(built.path()).await;
    let rig = Rig::start(TIDINGS).await;
    let _up = rig.run(Role::up()).await;
    publish(&rig, 0..1).await;
    publish(&rig, 1..2).await;
    publish(&rig, 2..3).await;
    let events = rig.jetstream().await.get_stream("EVENTS").await.unwrap();
    let second = events.get_raw_message(2).await.unwrap();
    let start = second.time.format(&Rfc3339).unwrap();

    for example in &examples {
        let name = format!("replay-{}", example.language);
        let mut consumer = example.start(&[rig.url(), &name, &start]);
        for number in [1, 2] {
            let line = consumer.next().await;
            assert_eq!(id_of(&line), id(number), "{}: {line}", example.language);
        }
    }

    rig.routed().await;
}
