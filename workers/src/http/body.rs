//! Reads the body of a response after its head.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::memory;

/// The most bytes of the answer to a read. The longest that a type needs is a page of 100 comments.
pub const MOST_OF_A_READ: usize = 8 << 20;
/// The most bytes of the confirmation of a write, which may repeat the text that was sent.
pub const MOST_OF_A_CONFIRMATION: usize = 1 << 20;
/// The most bytes of any other answer, of which an excerpt is shown.
pub const MOST_OF_AN_ERROR: usize = 64 << 10;
/// An answer up to this size is part of what each delivery reserves.
const SMALL: usize = 64 << 10;
/// An answer that does not fit waits for the memory of others, until its deadline.
const MEMORY_INTERVAL: Duration = Duration::from_millis(50);
/// A body that nobody needs is read up to this size and time, to use its connection again.
const MOST_DISCARDED: (usize, Duration) = (64 << 10, Duration::from_secs(1));

/// What was read of a body.
pub struct Body {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Why the rest is lost; `None` if the body ended, or reached the limit.
    pub broken: Option<String>,
}

/// Reads a body until it ends, breaks or reaches the limit, or until the deadline.
pub async fn read(response: reqwest::Response, most: usize, deadline: Instant) -> Body {
    let mut bytes = Vec::new();
    let mut waits_for_memory = false;
    let collected = collect(response, most, &mut bytes, &mut waits_for_memory);
    let broken = timeout_at(deadline, collected).await.unwrap_or_else(|_| {
        Some(match waits_for_memory {
            true => "did not fit into the memory for deliveries".to_owned(),
            false => "did not end in time".to_owned(),
        })
    });
    Body { bytes, broken }
}

/// Reads a body that nobody needs in the background.
pub fn discard(response: reqwest::Response) {
    if response.content_length() == Some(0) {
        return;
    }
    let (most, time) = MOST_DISCARDED;
    tokio::spawn(async move {
        let mut bytes = Vec::new();
        let _ = timeout(time, collect(response, most, &mut bytes, &mut false)).await;
    });
}

/// Appends the body to `bytes`. Returns why it broke, if it did.
async fn collect(
    mut response: reqwest::Response,
    most: usize,
    bytes: &mut Vec<u8>,
    waits_for_memory: &mut bool,
) -> Option<String> {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let larger = bytes.len() + chunk.len();
                if larger > SMALL {
                    // The service may have done what was asked, so its answer is worth a wait.
                    while !memory::grow(larger - bytes.len().max(SMALL)) {
                        *waits_for_memory = true;
                        sleep(MEMORY_INTERVAL).await;
                    }
                    *waits_for_memory = false;
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(None) => return None,
            Err(error) => return Some(format!("broke off: {}", cause(&error.without_url()))),
        }
        if bytes.len() > most {
            bytes.truncate(most);
            return None;
        }
    }
}

fn cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
