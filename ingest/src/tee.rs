//! The tee: posts a copy of each stored event to a URL, such as that of notification-controller.
//!
//! ```text
//!  body ─► hold (bytes) ─► stored: send (count) ─► queue ─► POST, again until it is too old
//! ```
//!
//! A copy never delays a sender. What does not fit into the queue is dropped and counted.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use futures::StreamExt;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::log_pace::LogPace;
use tidings_core::runtime::metrics::labels::TeeOutcome;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The most copies that wait.
const MOST_COPIES: usize = 1_000;
/// Copies that are sent at the same time, so that a slow receiver keeps up with bursts.
const IN_FLIGHT: usize = 8;
/// The time limit of one request, as Flux's controllers have it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A copy is given up when it is this old. Longer than the restart of a pod.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The pause after the first failure of a copy. It doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Takes copies of stored events.
#[derive(Clone)]
pub struct Tee {
    queue: mpsc::Sender<Copy>,
    /// Free memory for copies, in KiB.
    memory: Arc<Semaphore>,
    report: Arc<Report>,
}

/// Sends copies. [`TeeSender::run`] does it.
pub struct TeeSender {
    queue: mpsc::Receiver<Copy>,
    client: Client,
    url: Url,
    report: Arc<Report>,
}

/// Counts and logs what becomes of copies.
struct Report {
    counter: Family<TeeOutcome, Counter>,
    /// The URL without its path, for logs.
    origin: String,
    pace: Mutex<LogPace>,
}

/// A copy of a body.
struct Copy {
    body: Bytes,
    content_type: Option<HeaderValue>,
    since: Instant,
    _memory: OwnedSemaphorePermit,
}

/// A copy of an event that is being stored.
pub struct HeldCopy {
    tee: Tee,
    /// `None` if there is no memory for it.
    copy: Option<Copy>,
}

/// How one request ended.
enum Answer {
    Accepted,
    Refused(String),
    TryAgain(String),
}

/// A tee to a URL, with this much memory for copies in bytes, and what sends them.
///
/// # Errors
/// The system's certificates cannot be read.
pub fn tee(
    url: Url,
    memory: usize,
    counter: Family<TeeOutcome, Counter>,
) -> Result<(Tee, TeeSender), reqwest::Error> {
    let client = Client::builder()
        .redirect(Policy::none())
        .timeout(REQUEST_TIMEOUT)
        .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let (sender, receiver) = mpsc::channel(MOST_COPIES);
    let report = Arc::new(Report {
        counter,
        origin: url.origin().ascii_serialization(),
        pace: Mutex::default(),
    });
    let tee = Tee {
        queue: sender,
        memory: Arc::new(Semaphore::new(memory / 1024)),
        report: report.clone(),
    };
    let sender = TeeSender {
        queue: receiver,
        client,
        url,
        report,
    };
    Ok((tee, sender))
}

impl Tee {
    /// Holds a copy of a body until its event is stored.
    pub(crate) fn hold(&self, body: Vec<u8>, content_type: Option<HeaderValue>) -> HeldCopy {
        let header = content_type.as_ref().map_or(0, HeaderValue::len);
        let needed = u32::try_from((body.len() + header) / 1024 + 1).unwrap_or(u32::MAX);
        let memory = self.memory.clone().try_acquire_many_owned(needed).ok();
        HeldCopy {
            copy: memory.map(|memory| Copy {
                body: exact(body),
                content_type: content_type.as_ref().and_then(own),
                since: Instant::now(),
                _memory: memory,
            }),
            tee: self.clone(),
        }
    }
}

/// The bytes without spare capacity, so that no more is kept than is counted.
fn exact(body: Vec<u8>) -> Bytes {
    body.into_boxed_slice().into()
}

/// The header with memory of its own: that of a request is a part of all its headers.
fn own(header: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(header.as_bytes()).ok()
}

impl HeldCopy {
    /// Queues the copy. Never waits.
    pub(crate) fn send(self) {
        let queued = match self.copy {
            Some(copy) => self.tee.queue.try_send(copy).is_ok(),
            None => false,
        };
        if !queued {
            self.tee.report.dropped();
        }
    }
}

impl TeeSender {
    /// Sends copies until every [`Tee`] is gone and the queue is empty, or until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            queue,
            client,
            url,
            report,
        } = self;
        let copies = futures::stream::unfold(queue, |mut queue| async move {
            let copy = queue.recv().await?;
            Some((copy, queue))
        });
        let sending = copies.for_each_concurrent(IN_FLIGHT, move |copy| {
            let (client, url, report) = (client.clone(), url.clone(), report.clone());
            async move { report.ended(send(&client, &url, &copy).await) }
        });
        stop.run_until_cancelled(sending).await;
    }
}

/// Posts a copy until it is accepted or refused, or too old. The error says why, without the body
/// and the URL.
async fn send(client: &Client, url: &Url, copy: &Copy) -> Result<(), String> {
    let mut why = "it waited too long".to_owned();
    let mut pause = FIRST_PAUSE;
    while let Some(left) = MAX_AGE.checked_sub(copy.since.elapsed()) {
        match timeout(left, post(client, url, copy)).await {
            Ok(Answer::Accepted) => return Ok(()),
            Ok(Answer::Refused(status)) => return Err(status),
            Ok(Answer::TryAgain(error)) => why = error,
            Err(_) => return Err("no answer in time".to_owned()),
        }
        sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
    Err(why)
}

async fn post(client: &Client, url: &Url, copy: &Copy) -> Answer {
    let mut request = client.post(url.clone()).body(copy.body.clone());
    if let Some(content_type) = &copy.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    match request.send().await {
        Ok(response) => match response.status().as_u16() {
            // It has the event already.
            200..300 | 429 => Answer::Accepted,
            status @ (408 | 500..) => Answer::TryAgain(format!("answered {status}")),
            status => Answer::Refused(format!("answered {status}")),
        },
        Err(error) if error.is_timeout() => Answer::TryAgain("no answer in time".to_owned()),
        Err(_) => Answer::TryAgain("no connection, or no answer".to_owned()),
    }
}

impl Report {
    fn ended(&self, result: Result<(), String>) {
        let Err(why) = result else {
            self.count(TeeOutcome::Sent);
            self.pace.lock().reset();
            return;
        };
        self.count(TeeOutcome::Failed);
        if self.pace.lock().is_due(&why, StdInstant::now()) {
            tracing::warn!(
                code = codes::TEE_FAILED,
                origin = self.origin,
                why,
                "copy of an event not accepted"
            );
        }
    }

    fn dropped(&self) {
        self.count(TeeOutcome::Dropped);
        if self.pace.lock().is_due("dropped", StdInstant::now()) {
            tracing::warn!(
                code = codes::TEE_DROPPED,
                origin = self.origin,
                "copy of an event dropped, too many wait"
            );
        }
    }

    fn count(&self, outcome: TeeOutcome) {
        self.counter.get_or_create(&outcome).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_no_more_than_is_counted() {
        let mut body = Vec::with_capacity(64 << 10);
        body.extend_from_slice(b"{}");
        let kept = Vec::from(exact(body));
        assert_eq!((kept.capacity(), &kept[..]), (2, &b"{}"[..]));

        let head = Bytes::from(vec![b'a'; 4096]);
        let header = HeaderValue::from_maybe_shared(head.slice(..16)).unwrap();
        let kept = own(&header).unwrap();
        drop(header);
        assert_eq!(kept, "a".repeat(16));
        assert!(head.is_unique(), "the other headers are still kept");
    }

    #[test]
    fn a_copy_without_memory_is_dropped() {
        let url = Url::parse("http://127.0.0.1:9/").unwrap();
        let (tee, sender) = tee(url, 4 << 10, Family::default()).unwrap();
        let held: Vec<_> = (0..5).map(|_| tee.hold(vec![b'.'; 900], None)).collect();
        let kept = held.iter().filter(|held| held.copy.is_some()).count();
        assert_eq!(kept, 4);
        drop(sender);
    }
}
