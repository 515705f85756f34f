//! Reads Events from the API server: one watch, and lists where it can't go on.

use std::sync::OnceLock;
use std::time::Duration;
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;

use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Status;
use kube::{Api, Client};
use prometheus_client::metrics::gauge::Gauge;
use tidings_core::runtime::health::{Check, Health};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use crate::kubernetes::cursor::{Cursor, Start};
use crate::kubernetes::filter::Filter;
use crate::kubernetes::repeats::Came;
use crate::kubernetes::report;

/// The API server ends a watch after so many seconds; each time the storage's version is compared
/// with ours.
const WATCH_SECONDS: u32 = 240;
/// A watch that tells nothing for so much longer hangs on a connection that is dead.
const LATE: Duration = Duration::from_secs(15);
/// How long one request may take until its answer begins, or a page of a list until it ends.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Items in a page of a list.
const PAGE: u32 = 500;
/// Before the watch goes on after its end.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause while the API server refuses or is away.
const MOST_PAUSE: Duration = Duration::from_secs(15);

/// Where Events come from.
pub struct Source {
    api: Api<Event>,
    fields: Option<String>,
    health: Health,
    /// There is something to check only in a replica that watches.
    check: OnceLock<Check>,
    up: Gauge,
}

/// Something that was read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The version of the storage that is reached with it.
    pub version: u64,
    /// When the API server had stored it.
    pub stored_at: Option<Timestamp>,
    /// An Event; nothing where it was deleted, or where only the version has moved.
    pub event: Option<(Box<Event>, Came)>,
}

/// Why reading does not go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the Events can't be read: {0}")]
    Refused(kube::Error),
    #[error("the Events can't be read: the API server has not answered within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    #[error("the API server's version {0:?} of an object is not a number")]
    NotANumber(Option<String>),
    /// The API server no longer has what came after our version.
    #[error("the watch is expired")]
    Expired,
    #[error("nobody listens")]
    Closed,
}

impl Source {
    /// The Events that a filter takes; `up` is 1 while they are read.
    pub fn new(client: Client, filter: &Filter, health: Health, up: Gauge) -> Self {
        let api = match filter.namespace() {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        Self {
            api,
            fields: filter.field_selector(),
            health,
            check: OnceLock::new(),
            up,
        }
    }

    /// Reads what comes after the cursor, for as long as somebody listens. Without a cursor that is
    /// what comes from now on.
    ///
    /// # Guarantees
    /// Each version moves on only after everything before it was handed over: nothing is left out
    /// while the API server still has it.
    pub async fn read(&self, mut cursor: Option<Cursor>, out: &Sender<Seen>) {
        let mut pause = PAUSE;
        loop {
            match self.read_once(&mut cursor, out).await {
                Ok(()) => pause = PAUSE,
                Err(Trouble::Closed) => return,
                Err(trouble) => {
                    tracing::warn!(code = codes::EVENT_WATCH_FAILED, %trouble, "Event watch failed, retrying");
                    self.check().fail(trouble.to_string());
                    pause = (pause * 2).min(MOST_PAUSE);
                }
            }
            self.up.set(0);
            tokio::time::sleep(jitter(pause)).await;
        }
    }

    /// One watch, to its end.
    async fn read_once(
        &self,
        cursor: &mut Option<Cursor>,
        out: &Sender<Seen>,
    ) -> Result<(), Trouble> {
        let now = self.version_now().await?;
        let start = match cursor {
            Some(cursor) => cursor.start(now),
            None => {
                hand_over(
                    cursor,
                    out,
                    Seen {
                        version: now,
                        stored_at: None,
                        event: None,
                    },
                )
                .await?;
                Start::After(now)
            }
        };
        if matches!(start, Start::Since(_)) {
            tracing::warn!(
                code = codes::EVENT_CURSOR_INVALID,
                now,
                ?cursor,
                "resource versions went back, listing Events by time"
            );
            self.list(start, cursor, out).await?;
        }
        match self.watch(cursor, out).await {
            Err(Trouble::Expired) => {
                let start = Start::After(cursor.map_or(now, |cursor| cursor.resource_version));
                tracing::info!(
                    code = codes::EVENT_WATCH_EXPIRED,
                    ?start,
                    "Event watch expired, listing Events"
                );
                self.list(start, cursor, out).await
            }
            result => result,
        }
    }

    /// The storage's version. It is asked before each watch: one that begins at a version of the
    /// future just waits for it.
    async fn version_now(&self) -> Result<u64, Trouble> {
        let one = answered(self.api.list(&self.page(1)))
            .await?
            .map_err(Trouble::Refused)?;
        number(one.metadata.resource_version.as_ref())
    }

    async fn watch(&self, cursor: &mut Option<Cursor>, out: &Sender<Seen>) -> Result<(), Trouble> {
        let from = cursor
            .map_or(0, |cursor| cursor.resource_version)
            .to_string();
        let parameters = WatchParams {
            field_selector: self.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let watch = answered(self.api.watch(&parameters, &from))
            .await?
            .map_err(trouble)?;
        self.check().succeed();
        self.up.set(1);
        let mut watch = std::pin::pin!(watch);
        let longest = Duration::from_secs(WATCH_SECONDS.into()) + LATE;
        // One that is silent for longer than it lasts has ended, however its connection looks.
        while let Ok(next) = timeout(longest, watch.try_next()).await {
            let Some(change) = next.map_err(trouble)? else {
                break;
            };
            let seen = match change {
                WatchEvent::Added(event) => Seen::event(event, Came::Added)?,
                WatchEvent::Modified(event) => Seen::event(event, Came::Modified)?,
                WatchEvent::Deleted(event) => Seen {
                    event: None,
                    ..Seen::event(event, Came::Modified)?
                },
                WatchEvent::Bookmark(bookmark) => Seen {
                    version: number(Some(&bookmark.metadata.resource_version))?,
                    stored_at: None,
                    event: None,
                },
                WatchEvent::Error(status) => return Err(refused(status)),
            };
            hand_over(cursor, out, seen).await?;
        }
        Ok(())
    }

    /// Hands over what a list has that is still to be taken, in the order in which it was stored.
    async fn list(
        &self,
        start: Start,
        cursor: &mut Option<Cursor>,
        out: &Sender<Seen>,
    ) -> Result<(), Trouble> {
        let (mut left, mut parameters) = (Vec::new(), self.page(PAGE));
        let version = loop {
            let page = answered(self.api.list(&parameters))
                .await?
                .map_err(Trouble::Refused)?;
            for event in page.items {
                let seen = Seen::event(event, Came::Listed)?;
                if start.leaves(seen.version, seen.stored_at) {
                    left.push(seen);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => break number(page.metadata.resource_version.as_ref())?,
            }
        };
        left.sort_by_key(|seen| seen.version);
        for seen in left {
            hand_over(cursor, out, seen).await?;
        }
        hand_over(
            cursor,
            out,
            Seen {
                version,
                stored_at: None,
                event: None,
            },
        )
        .await
    }

    /// This replica no longer reads: another one's trouble is not ours.
    pub fn rest(&self) {
        self.up.set(0);
        self.check().succeed();
    }

    fn check(&self) -> &Check {
        self.check
            .get_or_init(|| self.health.side_check("kubernetes-events-watch"))
    }

    fn page(&self, size: u32) -> ListParams {
        ListParams {
            field_selector: self.fields.clone(),
            limit: Some(size),
            ..ListParams::default()
        }
    }
}

impl Seen {
    fn event(mut event: Event, came: Came) -> Result<Self, Trouble> {
        let version = number(event.metadata.resource_version.as_ref())?;
        let stored_at = report::stored_at(&event);
        event.metadata.managed_fields = None;
        Ok(Self {
            version,
            stored_at,
            event: Some((Box::new(event), came)),
        })
    }
}

async fn hand_over(
    cursor: &mut Option<Cursor>,
    out: &Sender<Seen>,
    seen: Seen,
) -> Result<(), Trouble> {
    let before = cursor.unwrap_or(Cursor {
        resource_version: 0,
        time: None,
    });
    let moved = before.moved(seen.version, seen.stored_at);
    out.send(seen).await.map_err(|_| Trouble::Closed)?;
    *cursor = Some(moved);
    Ok(())
}

/// With an end to waiting.
async fn answered<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<Result<T, kube::Error>, Trouble> {
    timeout(ANSWER_WITHIN, request)
        .await
        .map_err(|_| Trouble::Silent)
}

fn number(version: Option<&String>) -> Result<u64, Trouble> {
    version
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| Trouble::NotANumber(version.cloned()))
}

fn trouble(error: kube::Error) -> Trouble {
    match error {
        kube::Error::Api(status) => refused(status),
        error => Trouble::Refused(error),
    }
}

fn refused(status: Box<Status>) -> Trouble {
    if status.code == 410 {
        Trouble::Expired
    } else {
        Trouble::Refused(kube::Error::Api(status))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    /// Begins to answer watches, and says nothing else: as a connection does whose other end is cut
    /// off.
    async fn silent_server() -> Source {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let length = connection.read(&mut request).await.unwrap_or_default();
                if String::from_utf8_lossy(&request[..length]).contains("watch=true") {
                    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                    connection
                        .write_all(head)
                        .await
                        .expect("the client listens");
                }
                connections.push(connection);
            }
        });
        let url = format!("http://{address}").parse().expect("it is a URL");
        let client = Client::try_from(kube::Config::new(url)).expect("nothing is asked yet");
        let (health, up) = (Health::default(), Gauge::default());
        Source {
            api: Api::all(client),
            fields: None,
            health,
            check: OnceLock::new(),
            up,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_dead_ends_a_request_and_a_watch() {
        let source = silent_server().await;
        let (out, _taken) = mpsc::channel(1);
        assert!(matches!(source.version_now().await, Err(Trouble::Silent)));
        assert!(matches!(
            source.list(Start::After(1), &mut None, &out).await,
            Err(Trouble::Silent)
        ));
        assert!(source.watch(&mut None, &out).await.is_ok());
        assert_eq!(source.up.get(), 1, "the watch had begun");
    }
}
