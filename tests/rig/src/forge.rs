//! A fake GitHub Enterprise Server with one repository, which stores statuses and comments.

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

use crate::rules::{Manifest, Rules, provider, secret};

/// The login of the token's owner.
pub const LOGIN: &str = "bot";

/// The server. Clones share their contents.
#[derive(Clone)]
pub struct Forge {
    repository: String,
    contents: Arc<Mutex<Contents>>,
    /// False: writes are carried out, and their responses wait.
    responds: watch::Sender<bool>,
}

/// The stored objects, and the requests so far.
#[derive(Default)]
pub struct Contents {
    /// Requests that only read.
    pub reads: usize,
    /// Writes, oldest first: commit and state of a status; `created` or `edited`, and the text of a
    /// comment.
    pub writes: Vec<(String, String)>,
    /// Statuses, oldest first.
    pub statuses: Vec<Status>,
    /// Author and text of comments, oldest first; the index is the id. A deleted comment has no
    /// text.
    pub comments: Vec<(String, Option<String>)>,
    /// The response to every request, if all are rejected.
    pub rejection: Option<Rejection>,
    /// The response to every write, if writes are rejected.
    pub write_rejection: Option<Rejection>,
    /// The maximum time of a response to a write; each takes a random part of it.
    pub slowest_response: Duration,
}

/// A commit status.
#[derive(Clone)]
pub struct Status {
    /// The full SHA.
    pub commit: String,
    /// As GitHub returns it.
    pub entry: Value,
}

/// A response that rejects a request.
#[derive(Clone)]
pub struct Rejection {
    /// The HTTP status.
    pub status: u16,
    /// Headers with their values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: &'static str,
}

impl Rejection {
    /// A rejection without headers and body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: "",
        }
    }
}

impl Forge {
    /// Starts the server.
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
            responds: watch::Sender::new(true),
        };
        let api = Router::new()
            .route(
                "/user",
                get(async |State(forge): State<Forge>| {
                    forge.respond_to_read(json!({"login": LOGIN}).into())
                }),
            )
            .route("/repos/org/repo/commits/{commit}/statuses", get(statuses))
            .route("/repos/org/repo/statuses/{commit}", post(create_status))
            .route(
                "/repos/org/repo/issues/{number}/comments",
                get(comments).post(create_comment),
            )
            .route("/repos/org/repo/issues/comments/{id}", patch(edit_comment))
            .with_state(forge.clone());
        let served = Router::new()
            .nest("/api/v3", api.clone())
            .nest("/below/api/v3", api);
        tokio::spawn(async move { axum::serve(listener, served).await });
        forge
    }

    /// A Provider of this type for the repository; its Secret comes from [`Forge::put_secret`].
    pub fn provider(&self, kind: &str) -> Manifest {
        let provider = provider("forge", &self.repository).with("type", kind);
        // With the default limit of 80 writes a minute, a hundred commits would take too long.
        provider
            .with("secretRef", json!({"name": "forge"}))
            .with("rateLimit", "1000/1s")
            .that_retries_soon()
    }

    /// Like [`Forge::provider`], at an address whose host has no API. `apiAddress` names the
    /// server, which is below a path.
    pub fn provider_below_a_path(&self, kind: &str) -> Manifest {
        let server = self.repository.trim_end_matches("/org/repo");
        self.provider(kind)
            .with("address", "https://git.example.invalid/below/org/repo.git")
            .with("apiAddress", format!("{server}/below/api/v3"))
    }

    /// Writes the Secret that the Providers reference.
    pub fn put_secret(rules: &Rules) {
        rules.put([secret("forge", json!({"token": "hidden-token"}))]);
    }

    /// The stored objects, and the requests so far.
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock()
    }

    /// The number of requests so far.
    pub fn calls(&self) -> usize {
        let contents = self.contents();
        contents.reads + contents.writes.len()
    }

    /// The states or texts of all writes, oldest first.
    pub fn states(&self) -> Vec<String> {
        self.contents()
            .writes
            .iter()
            .map(|(_, state)| state.clone())
            .collect()
    }

    /// Rejects every further request with this response. `None`: accepts requests.
    pub fn reject(&self, rejection: Option<Rejection>) {
        self.contents().rejection = rejection;
    }

    /// Rejects every further write with this response. `None`: accepts writes.
    pub fn reject_writes(&self, rejection: Option<Rejection>) {
        self.contents().write_rejection = rejection;
    }

    /// Turns responses to writes on or off. Writes are carried out while responses are off.
    pub fn respond_to_writes(&self, responds: bool) {
        self.responds.send_replace(responds);
    }

    fn respond_to_read(&self, body: Reading) -> Response {
        let mut contents = self.contents();
        if let Some(rejection) = contents.rejection.clone() {
            return rejection.into_response();
        }
        contents.reads += 1;
        body.into_response()
    }

    async fn respond_to_write(
        &self,
        write: impl FnOnce(&mut Contents) -> Option<(String, String, u64)>,
    ) -> Response {
        let (slowest, id) = {
            let mut contents = self.contents();
            let rejection = contents.rejection.clone();
            if let Some(rejection) = rejection.or(contents.write_rejection.clone()) {
                return rejection.into_response();
            }
            let Some((what, text, id)) = write(&mut contents) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            contents.writes.push((what, text));
            (contents.slowest_response, id)
        };
        let mut responds = self.responds.subscribe();
        responds
            .wait_for(|responds| *responds)
            .await
            .expect("the forge holds the sender");
        tokio::time::sleep(slowest.mul_f64(rand::random::<f64>())).await;
        (StatusCode::CREATED, json!({"id": id}).to_string()).into_response()
    }
}

impl IntoResponse for Rejection {
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

/// A page of a list, or a whole response.
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

/// The page of a list that a request asks for.
fn page_of(uri: &Uri, all: &[Value]) -> Reading {
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let number = |name: &str| {
        query.get(name).map_or(1, |text| {
            text.parse::<usize>()
                .expect("paging parameters are numbers")
        })
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
    forge.respond_to_read(page_of(&uri, &newest_first))
}

async fn create_status(
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
    forge.respond_to_write(write).await
}

async fn comments(State(forge): State<Forge>, uri: Uri) -> Response {
    let all = forge.contents().comments.clone();
    let shown = all
        .into_iter()
        .enumerate()
        .filter_map(|(id, (author, text))| {
            Some(json!({"id": id, "user": {"login": author}, "body": text?}))
        });
    forge.respond_to_read(page_of(&uri, &shown.collect::<Vec<_>>()))
}

async fn create_comment(State(forge): State<Forge>, body: String) -> Response {
    let text = text_of(&body);
    let write = |contents: &mut Contents| {
        contents
            .comments
            .push((LOGIN.to_owned(), Some(text.clone())));
        Some((
            "created".to_owned(),
            text,
            contents.comments.len() as u64 - 1,
        ))
    };
    forge.respond_to_write(write).await
}

async fn edit_comment(State(forge): State<Forge>, Path(id): Path<usize>, body: String) -> Response {
    let text = text_of(&body);
    let write = |contents: &mut Contents| {
        let comment = contents.comments.get_mut(id)?.1.as_mut()?;
        comment.clone_from(&text);
        Some(("edited".to_owned(), text, id as u64))
    };
    forge.respond_to_write(write).await
}

fn text_of(body: &str) -> String {
    let body: Value = serde_json::from_str(body).expect("a comment is JSON");
    body["body"]
        .as_str()
        .expect("a comment has a text")
        .to_owned()
}
