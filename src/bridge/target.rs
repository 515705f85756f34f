//! Where a bridge sends events: a stream of CloudEvents, or a URL.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use tidings_core::Event;
use tidings_core::bus::{Bus, BusError};
use tidings_core::model::{cloud_event, subject};
use tidings_workers::http::classify::wait_until;
use tidings_workers::http::discard;

use super::answer::Answer;

/// How long a URL may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the events go.
pub enum Target {
    /// Subjects `cloudevents.…` of the same NATS server.
    Stream(Box<Bus>),
    /// A URL.
    Url(UrlTarget),
}

/// A URL that takes CloudEvents by POST.
pub struct UrlTarget {
    client: Client,
    url: Url,
}

impl Target {
    /// Sends an event once. `body` is the CloudEvent.
    pub async fn send(&self, event: &Event, body: Bytes) -> Answer {
        match self {
            Self::Stream(bus) => store(bus, event, body).await,
            Self::Url(target) => target.post(body).await,
        }
    }

    /// What logs say of it, without a path or query that may be secret.
    pub fn name(&self) -> String {
        match self {
            Self::Stream(_) => subject::ALL_CLOUD_EVENTS.to_owned(),
            Self::Url(target) => target.url.origin().ascii_serialization(),
        }
    }
}

async fn store(bus: &Bus, event: &Event, body: Bytes) -> Answer {
    let subject = subject::cloud_event(event);
    match bus.store_cloud_event(subject, &event.id, body).await {
        Ok(ack) if ack.duplicate => Answer::Duplicate,
        Ok(_) => Answer::Taken,
        Err(error @ BusError::TooLarge(_)) => Answer::Impossible(error.to_string()),
        Err(error) => Answer::Unavailable(error.to_string(), None),
    }
}

impl UrlTarget {
    /// A client for a URL. The headers are sent with every event.
    ///
    /// # Errors
    /// The URL cannot be used; the error says why, without the URL's secrets.
    pub fn new(url: &str, mut headers: HeaderMap) -> anyhow::Result<Self> {
        let url = parse(url)?;
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(cloud_event::CONTENT_TYPE),
        );
        let client = Client::builder()
            .default_headers(headers)
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, url })
    }

    async fn post(&self, body: Bytes) -> Answer {
        match self.client.post(self.url.clone()).body(body).send().await {
            Ok(response) => {
                let answer = Answer::of_status(response.status().as_u16(), wait(&response));
                discard(response);
                answer
            }
            Err(error) => Answer::Unavailable(describe(error), None),
        }
    }
}

fn parse(url: &str) -> anyhow::Result<Url> {
    let url: Url = url
        .parse()
        .map_err(|error| anyhow::anyhow!("--url: {error}; expected http://… or https://…"))?;
    anyhow::ensure!(
        matches!(url.scheme(), "http" | "https") && url.has_host(),
        "--url: expected http://… or https://…"
    );
    anyhow::ensure!(
        url.username().is_empty() && url.password().is_none(),
        "--url: must not contain credentials; put `Authorization: …` into a file and pass it with \
         --headers-file"
    );
    Ok(url)
}

/// The wait that `Retry-After` states.
fn wait(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    wait_until(value, jiff::Timestamp::now())
}

/// The error and its causes, without the URL.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_used_is_refused_without_repeating_it() {
        for (url, named) in [
            ("ftp://example.com/", "expected http"),
            ("example", "expected http"),
            ("https://user:hunter2@example.com/", "--headers-file"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("--url"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(parse("https://example.com/events?token=1").is_ok());
    }

    #[test]
    fn logs_name_only_the_origin_of_a_url() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let target = UrlTarget::new("https://example.com/hunter2?a=b", HeaderMap::new()).unwrap();
        assert_eq!(Target::Url(target).name(), "https://example.com");
    }
}
