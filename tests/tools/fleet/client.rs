//! A NATS client with the credentials of a user, which collects what the server refuses.

use std::path::Path;
use std::sync::Arc;

use async_nats::{Client, ConnectOptions, Event};
use parking_lot::Mutex;
use tidings_core::model::access::Access;
use tidings_rig::eventually;

/// A client that expects refusals.
pub struct Intruder {
    pub client: Client,
    violations: Arc<Mutex<Vec<String>>>,
}

impl Intruder {
    /// Connects with a credentials file, and with the inbox that it permits.
    pub async fn connect(url: &str, file: &Path) -> Self {
        let credentials = std::fs::read_to_string(file).unwrap();
        let access = Access::of_credentials(&credentials);
        Self::with_inbox(url, file, access.inbox_prefix().unwrap()).await
    }

    /// Connects with a credentials file and an inbox.
    pub async fn with_inbox(url: &str, file: &Path, inbox: &str) -> Self {
        let credentials = std::fs::read_to_string(file).unwrap();
        let violations = Arc::new(Mutex::new(Vec::new()));
        let collected = violations.clone();
        let client = ConnectOptions::with_credentials(&credentials)
            .unwrap()
            .custom_inbox_prefix(inbox)
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    collected.lock().push(error.to_string().to_lowercase());
                }
                std::future::ready(())
            })
            .connect(url)
            .await
            .unwrap();
        Self { client, violations }
    }

    /// Connects with the credentials of a tap, which has no inbox of its own.
    pub async fn of_tap(url: &str, file: &Path) -> Self {
        Self::with_inbox(url, file, "_INBOX").await
    }

    /// Asserts that the server refuses a message to a subject.
    pub async fn may_not_publish(&self, subject: &str) {
        let inbox = self.client.new_inbox();
        let subject = subject.to_owned();
        let published = self
            .client
            .publish_with_reply(subject.clone(), inbox, "{}".into());
        published.await.unwrap();
        self.is_refused("publish", &subject).await;
    }

    /// Asserts that the server refuses a message to a subject that the account maps to another.
    pub async fn may_not_publish_mapped(&self, subject: &str, result: &str) {
        let inbox = self.client.new_inbox();
        let subject = subject.to_owned();
        let published = self.client.publish_with_reply(subject, inbox, "{}".into());
        published.await.unwrap();
        self.is_refused("publish", result).await;
    }

    /// Asserts that the server refuses a subscription.
    pub async fn may_not_subscribe(&self, subject: &str) {
        let _subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.is_refused("subscription", subject).await;
    }

    async fn is_refused(&self, action: &str, subject: &str) {
        self.client.flush().await.unwrap();
        let expected = format!("permissions violation for {action} to \"{subject}\"");
        let expected = expected.to_lowercase();
        eventually(&format!("the server refuses: {expected}"), async || {
            let violations = self.violations.lock();
            let mut violations = violations.iter();
            violations
                .any(|violation| violation.contains(&expected))
                .then_some(())
        })
        .await;
    }
}
