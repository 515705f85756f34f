//! Reads Events from the API server with a watch, and with a list if the watch cannot resume.

mod change;

use std::sync::OnceLock;
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use prometheus_client::metrics::gauge::Gauge;
use tidings_core::model::jitter::jitter;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::health::{Check, Health};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use crate::kubernetes::cursor::{Cursor, Start};
use crate::kubernetes::filter::Filter;
use crate::kubernetes::repeat_filter::ChangeType;

pub use change::EventChange;
use change::{ReadError, parse_version, status_error, watch_error, with_timeout};

/// The API server ends a watch after this time. The reader then compares resource versions again.
const WATCH_SECONDS: u32 = 240;
/// If a watch is silent for this much longer, its connection is dead.
const WATCH_MARGIN: Duration = Duration::from_secs(15);
/// Items in a page of a list.
const PAGE_SIZE: u32 = 500;
/// The pause between two watches.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause while the API server is unavailable or rejects requests.
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// Reads the Events that a filter selects.
pub struct EventReader {
    api: Api<Event>,
    field_selector: Option<String>,
    health: Health,
    /// Created when this replica first reads, so that a replica that never reads does not report
    /// it.
    check: OnceLock<Check>,
    watching: Gauge,
}

impl EventReader {
    /// Creates a reader. The gauge is 1 while the watch is established.
    pub fn new(client: Client, filter: &Filter, health: Health, watching: Gauge) -> Self {
        let api = match filter.namespace() {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        Self {
            api,
            field_selector: filter.field_selector(),
            health,
            check: OnceLock::new(),
            watching,
        }
    }

    /// Reads Events after the cursor, or from now on without one, until the receiver is dropped.
    ///
    /// # Guarantees
    /// A resource version is passed on only after all Events before it. An Event is skipped only if
    /// the API server no longer has it.
    pub async fn read(&self, mut cursor: Option<Cursor>, out: &Sender<EventChange>) {
        let mut pause = MIN_PAUSE;
        loop {
            match self.read_once(&mut cursor, out).await {
                Ok(()) => pause = MIN_PAUSE,
                Err(ReadError::ReceiverDropped) => return,
                Err(error) => {
                    tracing::warn!(
                        code = codes::EVENT_WATCH_FAILED,
                        %error,
                        "Event watch failed, retrying"
                    );
                    self.check().fail(error.to_string());
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
            self.watching.set(0);
            tokio::time::sleep(jitter(pause)).await;
        }
    }

    /// Reads until the watch ends, listing first if the watch cannot resume.
    async fn read_once(
        &self,
        cursor: &mut Option<Cursor>,
        out: &Sender<EventChange>,
    ) -> Result<(), ReadError> {
        let current = self.current_version().await?;
        let start = match cursor {
            Some(cursor) => cursor.start(current),
            None => {
                pass_on(cursor, out, EventChange::version_only(current)).await?;
                Start::After(current)
            }
        };
        if matches!(start, Start::Since(_)) {
            tracing::warn!(
                code = codes::EVENT_CURSOR_INVALID,
                current,
                ?cursor,
                "resource versions decreased, listing Events by time"
            );
            self.list(start, cursor, out).await?;
        }
        match self.watch(cursor, out).await {
            Err(ReadError::Expired) => {
                let version = cursor.map_or(current, |cursor| cursor.resource_version);
                let start = Start::After(version);
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

    /// The API server's resource version. It is requested before each watch, because a watch from a
    /// future version stays silent until that version is reached.
    async fn current_version(&self) -> Result<u64, ReadError> {
        let list = with_timeout(self.api.list(&self.page(1)))
            .await?
            .map_err(ReadError::Api)?;
        parse_version(list.metadata.resource_version.as_ref())
    }

    async fn watch(
        &self,
        cursor: &mut Option<Cursor>,
        out: &Sender<EventChange>,
    ) -> Result<(), ReadError> {
        let from = cursor
            .map_or(0, |cursor| cursor.resource_version)
            .to_string();
        let parameters = WatchParams {
            field_selector: self.field_selector.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let watch = with_timeout(self.api.watch(&parameters, &from))
            .await?
            .map_err(watch_error)?;
        self.check().succeed();
        self.watching.set(1);
        let mut watch = std::pin::pin!(watch);
        let max_silence = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_MARGIN;
        // If a watch is silent after the time of its end, the connection is dead.
        while let Ok(next) = timeout(max_silence, watch.try_next()).await {
            let Some(event) = next.map_err(watch_error)? else {
                break;
            };
            let change = match event {
                WatchEvent::Added(event) => EventChange::event(event, ChangeType::Added)?,
                WatchEvent::Modified(event) => EventChange::event(event, ChangeType::Modified)?,
                WatchEvent::Deleted(event) => EventChange {
                    event: None,
                    ..EventChange::event(event, ChangeType::Modified)?
                },
                WatchEvent::Bookmark(bookmark) => EventChange::version_only(parse_version(Some(
                    &bookmark.metadata.resource_version,
                ))?),
                WatchEvent::Error(status) => return Err(status_error(status)),
            };
            pass_on(cursor, out, change).await?;
        }
        Ok(())
    }

    /// Passes on the Events of a list that are not processed yet, ordered by resource version.
    async fn list(
        &self,
        start: Start,
        cursor: &mut Option<Cursor>,
        out: &Sender<EventChange>,
    ) -> Result<(), ReadError> {
        let (mut changes, mut parameters) = (Vec::new(), self.page(PAGE_SIZE));
        let version = loop {
            let page = with_timeout(self.api.list(&parameters))
                .await?
                .map_err(ReadError::Api)?;
            for event in page.items {
                let change = EventChange::event(event, ChangeType::Listed)?;
                if start.includes(change.version, change.stored_at) {
                    changes.push(change);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => break parse_version(page.metadata.resource_version.as_ref())?,
            }
        };
        changes.sort_by_key(|change| change.version);
        for change in changes {
            pass_on(cursor, out, change).await?;
        }
        pass_on(cursor, out, EventChange::version_only(version)).await
    }

    /// Clears the gauge and the check, when this replica no longer reads.
    pub fn stop(&self) {
        self.watching.set(0);
        self.check().succeed();
    }

    fn check(&self) -> &Check {
        self.check
            .get_or_init(|| self.health.optional_check("kubernetes-events-watch"))
    }

    fn page(&self, size: u32) -> ListParams {
        ListParams {
            field_selector: self.field_selector.clone(),
            limit: Some(size),
            ..ListParams::default()
        }
    }
}

async fn pass_on(
    cursor: &mut Option<Cursor>,
    out: &Sender<EventChange>,
    change: EventChange,
) -> Result<(), ReadError> {
    let advanced = cursor
        .unwrap_or_default()
        .advance(change.version, change.stored_at);
    out.send(change)
        .await
        .map_err(|_| ReadError::ReceiverDropped)?;
    *cursor = Some(advanced);
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    /// Sends response headers to watches and nothing else, like a connection that was cut.
    async fn silent_server() -> EventReader {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound");
        tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let length = connection.read(&mut request).await.unwrap_or_default();
                if String::from_utf8_lossy(&request[..length]).contains("watch=true") {
                    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                        transfer-encoding: chunked\r\n\r\n";
                    connection
                        .write_all(head)
                        .await
                        .expect("the client is connected");
                }
                connections.push(connection);
            }
        });
        let url = format!("http://{address}")
            .parse()
            .expect("the address is a URL");
        let client = Client::try_from(kube::Config::new(url)).expect("no request is sent yet");
        let (health, watching) = (Health::default(), Gauge::default());
        EventReader {
            api: Api::all(client),
            field_selector: None,
            health,
            check: OnceLock::new(),
            watching,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_connection_ends_a_request_and_a_watch() {
        let reader = silent_server().await;
        let (out, _receiver) = mpsc::channel(1);
        assert!(matches!(
            reader.current_version().await,
            Err(ReadError::Timeout)
        ));
        assert!(matches!(
            reader.list(Start::After(1), &mut None, &out).await,
            Err(ReadError::Timeout)
        ));
        assert!(reader.watch(&mut None, &out).await.is_ok());
        assert_eq!(reader.watching.get(), 1, "the watch was established");
    }
}
