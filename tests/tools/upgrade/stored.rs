//! Messages of a stream as files: one JSON object per line.

use std::fs;
use std::path::Path;

use async_nats::HeaderMap;
use async_nats::jetstream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// A stored message.
pub struct Stored {
    pub subject: String,
    pub headers: Vec<(String, String)>,
    pub payload: Bytes,
}

impl Stored {
    fn json(&self) -> Value {
        json!({
            "subject": self.subject,
            "headers": self.headers,
            "payload": STANDARD.encode(&self.payload),
        })
    }

    fn read(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap();
        Self {
            subject: value["subject"].as_str().unwrap().to_owned(),
            headers: serde_json::from_value(value["headers"].clone()).unwrap(),
            payload: STANDARD
                .decode(value["payload"].as_str().unwrap())
                .unwrap()
                .into(),
        }
    }

    /// Stores it on another server, with its headers.
    pub async fn publish(self, jetstream: &jetstream::Context) {
        let mut headers = HeaderMap::new();
        // What a message was expected to replace is on the other server.
        let kept = |(name, _): &&(String, String)| !name.starts_with("Nats-Expected-");
        for (name, value) in self.headers.iter().filter(kept) {
            headers.append(name.as_str(), value.as_str());
        }
        let subject = self.subject.clone();
        let stored = jetstream.publish_with_headers(self.subject, headers, self.payload);
        let stored = stored.await.unwrap().await;
        stored.unwrap_or_else(|error| panic!("{subject}: {error}"));
    }
}

/// Writes the messages of a stream into a folder.
pub async fn write_all(folder: &Path, stream: &str, jetstream: &jetstream::Context) {
    let found = jetstream.get_stream(stream).await.unwrap();
    let state = found.cached_info().state.clone();
    let mut lines = String::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let Ok(message) = found.get_raw_message(sequence).await else {
            continue;
        };
        let headers = message.headers.iter();
        let headers = headers.flat_map(|(name, values)| {
            let pair = move |value: &async_nats::HeaderValue| {
                (name.to_string(), value.as_str().to_owned())
            };
            values.iter().map(pair)
        });
        let stored = Stored {
            subject: message.subject.to_string(),
            headers: headers.collect(),
            payload: message.payload,
        };
        lines.push_str(&stored.json().to_string());
        lines.push('\n');
    }
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join(format!("{stream}.jsonl")), lines).unwrap();
}

/// The messages of a stream in a folder.
pub fn read_all(folder: &Path, stream: &str) -> Vec<Stored> {
    let text = fs::read_to_string(folder.join(format!("{stream}.jsonl"))).unwrap();
    text.lines().map(Stored::read).collect()
}

/// Whether a message of a stream holds a text.
pub fn holds(folder: &Path, stream: &str, text: &str) -> bool {
    let found = |message: &Stored| {
        let payload = &message.payload[..];
        payload
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    read_all(folder, stream).iter().any(found)
}
