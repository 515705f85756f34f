//! A GitHub Enterprise Server with one repository, which keeps what it is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::LINK;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::rules::{Manifest, Rules, provider};

/// The login of whoever has the token.
pub const LOGIN: &str = "bot";

/// The server. Its clones are one.
#[derive(Clone)]
pub struct Forge {
    repository: String,
    contents: Arc<Mutex<Contents>>,
    /// While it is false, requests that write are carried out and not answered.
    answers: watch::Sender<bool>,
}

/// What it holds, and what it was asked.
#[derive(Default)]
pub struct Contents {
    /// Requests that only read.
    pub reads: usize,
    /// Writes that were carried out: commit or comment, and what it then says, in the order of
    /// their receipt.
    pub writes: Vec<(String, String)>,
    /// Statuses, oldest first.
    pub statuses: Vec<Status>,
    /// Author and text, oldest first; the place is the id. Deleted ones have no text.
    pub comments: Vec<(String, Option<String>)>,
    /// How everything is answered, where it is not carried out.
    pub refusal: Option<Refusal>,
    /// The longest that it takes for an answer to a write; each takes a random part of it.
    pub slowest_answer: Duration,
}

/// A commit status.
#[derive(Clone)]
pub struct Status {
    /// 40 digits.
    pub commit: String,
    /// As GitHub gives it back.
    pub entry: Value,
}

/// An answer that refuses.
#[derive(Clone)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// Headers and their values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: &'static str,
}

impl Refusal {
    /// Without headers and body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: "",
        }
    }
}

impl Forge {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback interface has free ports");
        let repository = format!(
            "http://{}/org/repo",
            listener.local_addr().expect("a listener has an address")
        );
        let forge = Self {
            repository,
            contents: Arc::default(),
            answers: watch::Sender::new(true),
        };
        let api = Router::new()
            .route(
                "/user",
                get(async |State(forge): State<Forge>| {
                    forge.reading(json!({"login": LOGIN}).into())
                }),
            )
            .route("/repos/org/repo/commits/{commit}/statuses", get(statuses))
            .route("/repos/org/repo/statuses/{commit}", post(make_status))
            .route(
                "/repos/org/repo/issues/{number}/comments",
                get(comments).post(make_comment),
            )
            .route("/repos/org/repo/issues/comments/{id}", patch(edit_comment))
            .with_state(forge.clone());
        tokio::spawn(
            async move { axum::serve(listener, Router::new().nest("/api/v3", api)).await },
        );
        forge
    }

    /// A Provider of the repository with this type; its Secret is put by [`Forge::put_secret`].
    pub fn provider(&self, kind: &str) -> Manifest {
        let provider = provider("forge", &self.repository).with("type", json!(kind));
        // Beside GitHub's own 80 writes a minute a hundred commits take more than one.
        provider
            .with("secretRef", json!({"name": "forge"}))
            .with("rateLimit", json!("1000/1s"))
            .that_retries_soon()
    }

    /// Puts the Secret that the Providers name.
    pub fn put_secret(rules: &Rules) {
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: forge, namespace: apps}\nstringData: {token: hidden-token}\n";
        rules.put_text("secret.yaml", secret);
    }

    /// What it holds and was asked.
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock()
    }

    /// All requests so far.
    pub fn calls(&self) -> usize {
        let contents = self.contents();
        contents.reads + contents.writes.len()
    }

    /// What the writes said, in the order of their receipt.
    pub fn states(&self) -> Vec<String> {
        self.contents()
            .writes
            .iter()
            .map(|(_, state)| state.clone())
            .collect()
    }

    /// From now on everything is refused so, or nothing.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.contents().refusal = refusal;
    }

    /// From now on writes are answered, or carried out without an answer until then.
    pub fn answer(&self, does: bool) {
        self.answers.send_replace(does);
    }

    fn reading(&self, body: Reading) -> Response {
        let mut contents = self.contents();
        if let Some(refusal) = contents.refusal.clone() {
            return refusal.into_response();
        }
        contents.reads += 1;
        body.into_response()
    }

    async fn writing(
        &self,
        write: impl FnOnce(&mut Contents) -> Option<(String, String, u64)>,
    ) -> Response {
        let (slowest, id) = {
            let mut contents = self.contents();
            if let Some(refusal) = contents.refusal.clone() {
                return refusal.into_response();
            }
            let Some((what, says, id)) = write(&mut contents) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            contents.writes.push((what, says));
            (contents.slowest_answer, id)
        };
        let mut answers = self.answers.subscribe();
        answers
            .wait_for(|does| *does)
            .await
            .expect("the forge holds the sender");
        tokio::time::sleep(slowest.mul_f64(rand::random::<f64>())).await;
        (StatusCode::CREATED, json!({"id": id}).to_string()).into_response()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.insert(
                name,
                HeaderValue::from_str(&value).expect("the test's headers are valid"),
            );
        }
        (
            StatusCode::from_u16(self.status).expect("the test's statuses are valid"),
            headers,
            self.body,
        )
            .into_response()
    }
}

/// A page of a list, or a whole answer.
struct Reading {
    body: Value,
    has_next: bool,
}

impl From<Value> for Reading {
    fn from(body: Value) -> Self {
        Self {
            body,
            has_next: false,
        }
    }
}

impl IntoResponse for Reading {
    fn into_response(self) -> Response {
        let link = self.has_next.then_some((
            LINK,
            HeaderValue::from_static("<https://elsewhere/>; rel=\"next\""),
        ));
        (HeaderMap::from_iter(link), self.body.to_string()).into_response()
    }
}

/// The part of a list that a request asks for.
fn page_of(uri: &Uri, all: &[Value]) -> Reading {
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let number = |name: &str| {
        query
            .get(name)
            .map_or(1, |text| text.parse::<usize>().expect("a page has numbers"))
    };
    let (size, page) = (number("per_page"), number("page"));
    let begin = (page - 1) * size;
    let here: Vec<Value> = all.iter().skip(begin).take(size).cloned().collect();
    Reading {
        body: here.into(),
        has_next: all.len() > begin + size,
    }
}

async fn statuses(State(forge): State<Forge>, Path(commit): Path<String>, uri: Uri) -> Response {
    let all = forge.contents().statuses.clone();
    let newest_first: Vec<Value> = all
        .into_iter()
        .rev()
        .filter(|one| one.commit == commit)
        .map(|one| one.entry)
        .collect();
    forge.reading(page_of(&uri, &newest_first))
}

async fn make_status(
    State(forge): State<Forge>,
    Path(commit): Path<String>,
    body: String,
) -> Response {
    let entry: Value = serde_json::from_str(&body).expect("a status is JSON");
    let state = entry["state"]
        .as_str()
        .expect("a status has a state")
        .to_owned();
    let write = |contents: &mut Contents| {
        contents.statuses.push(Status {
            commit: commit.clone(),
            entry,
        });
        Some((commit, state, 1))
    };
    forge.writing(write).await
}

async fn comments(State(forge): State<Forge>, uri: Uri) -> Response {
    let all = forge.contents().comments.clone();
    let shown = all
        .into_iter()
        .enumerate()
        .filter_map(|(id, (author, text))| {
            Some(json!({"id": id, "user": {"login": author}, "body": text?}))
        });
    forge.reading(page_of(&uri, &shown.collect::<Vec<_>>()))
}

async fn make_comment(State(forge): State<Forge>, body: String) -> Response {
    let text = text_of(&body);
    let write = |contents: &mut Contents| {
        contents
            .comments
            .push((LOGIN.to_owned(), Some(text.clone())));
        Some(("made".to_owned(), text, contents.comments.len() as u64 - 1))
    };
    forge.writing(write).await
}

async fn edit_comment(State(forge): State<Forge>, Path(id): Path<usize>, body: String) -> Response {
    let text = text_of(&body);
    let write = |contents: &mut Contents| {
        let there = contents.comments.get_mut(id)?.1.as_mut()?;
        there.clone_from(&text);
        Some(("edited".to_owned(), text, id as u64))
    };
    forge.writing(write).await
}

fn text_of(body: &str) -> String {
    let body: Value = serde_json::from_str(body).expect("a comment is JSON");
    body["body"]
        .as_str()
        .expect("a comment has a text")
        .to_owned()
}
