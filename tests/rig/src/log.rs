//! The output of a process: log events, which tests find by code and fields, and other lines.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tidings_core::runtime::codes;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

use crate::wait::eventually;

/// The number of lines to keep, for tests and for the report of a failed test.
const LINES_KEPT: usize = 2000;

/// The lines that a process wrote to standard output and standard error.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    /// Reads until the process closes `output`.
    pub(crate) fn collect(&self, output: impl AsyncRead + Unpin + Send + 'static) {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(line);
            }
        });
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock();
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    pub(crate) fn events(&self, code: &str) -> Vec<LogEvent> {
        assert!(
            codes::log::ALL.iter().any(|entry| entry.code == code),
            "{code:?} is not in the table of log codes"
        );
        self.lines()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok().map(LogEvent))
            .filter(|event| event.0["code"] == code)
            .collect()
    }

    pub(crate) async fn line_with(&self, text: &str) -> String {
        eventually(&format!("a line with {text:?}"), async || {
            self.lines().into_iter().find(|line| line.contains(text))
        })
        .await
    }
}

/// One event of a process's log.
#[derive(Clone, Debug)]
pub struct LogEvent(Value);

impl LogEvent {
    /// A field as text; empty if the event does not have the field.
    pub fn field(&self, name: &str) -> String {
        match &self.0[name] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}
