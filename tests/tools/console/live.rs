//! Live streams.

use std::fs;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::Value;
use tidings_rig::{PATIENCE, Receiver, Rig, alert, event, provider};
use tokio::time::timeout;

use super::client::{Console, VIEW};
use crate::TIDINGS;

/// A stream of server-sent events.
struct Stream {
    response: Response,
    rest: String,
    last_id: String,
}

impl Stream {
    async fn open(console: &Console, query: &str) -> Self {
        Self::resume(console, query, "").await
    }

    /// Opens it again after this id.
    async fn resume(console: &Console, query: &str, last_id: &str) -> Self {
        let path = format!("/api/events?{query}");
        let mut request = console.request(Method::GET, &path).bearer_auth(VIEW);
        if !last_id.is_empty() {
            request = request.header("last-event-id", last_id);
        }
        let response = request.send().await.expect("the console answers");
        assert_eq!(response.status(), 200, "{query}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            rest: String::new(),
            last_id: String::new(),
        }
    }

    /// Waits until the console ends it.
    async fn end(mut self) {
        let end = async { while let Ok(Some(_)) = self.response.chunk().await {} };
        timeout(PATIENCE, end).await.expect("the stream ends");
    }

    /// The next message: its name and data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((block, rest)) = self.rest.split_once("\n\n") {
                let field = |name: &str| {
                    let line = block.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                let (name, data) = (field("event:"), field("data:"));
                let id = field("id:");
                self.rest = rest.to_owned();
                if !id.is_empty() {
                    self.last_id = id;
                }
                if !data.is_empty() {
                    return (name, serde_json::from_str(&data).expect("it is JSON"));
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk
                .expect("a message arrives")
                .expect("the stream goes on");
            let chunk = chunk.expect("the stream does not end");
            self.rest.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    /// The text of the next event.
    async fn event(&mut self) -> String {
        loop {
            if let (name, data) = self.next().await
                && name == "event"
            {
                return data["message"].as_str().unwrap_or_default().to_owned();
            }
        }
    }
}

#[tokio::test]
async fn a_stream_shows_past_and_new_events_that_its_filters_select() {
    let console = Console::start().await;
    let post = async |message: &str, name: &str, severity: &str| {
        let mut event = event(message);
        event["involvedObject"]["name"] = name.into();
        event["severity"] = severity.into();
        assert_eq!(console.up.post(&event).await.unwrap().status, 202);
    };
    post("first", "apps", "info").await;
    post("second", "other", "error").await;
    let mut new = Stream::open(&console, "").await;
    let mut past = Stream::open(&console, "past=100&name=apps").await;
    let mut errors = Stream::open(&console, "past=100&severity=error&kind=Kustomization").await;
    let mut with_text = Stream::open(&console, "past=100&text=THIRD").await;
    post("the third", "apps", "error").await;
    post("fourth", "apps", "info").await;
    assert_eq!(
        [new.event().await, new.event().await],
        ["the third", "fourth"]
    );
    let shown = [past.event().await, past.event().await, past.event().await];
    assert_eq!(shown, ["first", "the third", "fourth"]);
    assert_eq!(
        [errors.event().await, errors.event().await],
        ["second", "the third"]
    );
    assert_eq!(with_text.event().await, "the third");
}

#[tokio::test]
async fn a_stream_shows_outcomes_too() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let console = Console::start_on(rig).await;
    let mut stream = Stream::open(&console, "outcomes=true").await;
    console.up.post(&event("an event")).await.unwrap();
    let (mut event_id, mut outcome) = (None, None);
    while event_id.is_none() || outcome.is_none() {
        match stream.next().await {
            (name, data) if name == "event" => event_id = Some(data["id"].clone()),
            (name, data) if name == "outcome" => outcome = Some(data),
            _ => {}
        }
    }
    let outcome = outcome.unwrap();
    assert_eq!(outcome["outcome"], "delivered");
    assert_eq!(outcome["provider"], "apps/hook");
    assert_eq!(Some(&outcome["eventId"]), event_id.as_ref());
}

#[tokio::test]
async fn a_stream_that_is_opened_again_misses_nothing() {
    let receiver = Receiver::start().await;
    let rig = Rig::start(TIDINGS).await;
    rig.rules()
        .put([provider("hook", receiver.url()), alert("all", "hook")]);
    let console = Console::start_on(rig).await;
    let mut stream = Stream::open(&console, "outcomes=true").await;
    console.up.post(&event("before")).await.unwrap();
    while stream.next().await.0 != "outcome" {}
    let last_id = stream.last_id.clone();
    drop(stream);
    console.up.post(&event("in the gap")).await.unwrap();
    receiver.accepts("in the gap").await;
    console.rig.drained().await;
    let mut again = Stream::resume(&console, "outcomes=true", &last_id).await;
    let (mut messages, mut outcomes) = (Vec::new(), 0);
    while messages.is_empty() || outcomes == 0 {
        match again.next().await {
            (name, data) if name == "event" => messages.push(data["message"].clone()),
            (name, _) if name == "outcome" => outcomes += 1,
            (name, data) => assert_eq!((name.as_str(), &data), ("position", &Value::Null)),
        }
    }
    assert_eq!((messages, outcomes), (vec!["in the gap".into()], 1));
    let request = console
        .request(Method::GET, "/api/events")
        .bearer_auth(VIEW);
    let answer = console.send(request.header("last-event-id", "x")).await;
    assert_eq!(answer.error(), (400, "invalid-parameter".to_owned()));
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let console = Console::start().await;
    let stream = Stream::open(&console, "").await;
    fs::write(
        console.rig.folder().join("view"),
        "eve other-token-0123456789\n",
    )
    .unwrap();
    stream.end().await;
    let request = console.request(Method::GET, "/api/session");
    assert_eq!(console.send(request.bearer_auth(VIEW)).await.status, 401);
}

#[tokio::test]
async fn streams_have_a_limit_and_end_with_the_process() {
    let mut console = Console::start().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(Stream::open(&console, "").await);
    }
    let answer = console.get("/api/events").await;
    assert_eq!(answer.error(), (503, "console-busy".to_owned()));
    assert_eq!(console.get("/api/session").await.status, 200);
    console.up.counts("tidings_console_streams", "", 16.0).await;
    streams.pop();
    // A stream that nobody reads ends.
    console.up.counts("tidings_console_streams", "", 15.0).await;
    Stream::open(&console, "").await;

    // Open streams do not use up the grace period, which is longer.
    let ended = timeout(Duration::from_secs(8), console.up.terminate()).await;
    assert!(ended.is_ok_and(|status| status.success()));
}
