//! Creates streams and buckets on the server, and verifies or updates their configuration.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::Config;

use crate::bus::Bus;
use crate::bus::streams::{self, Sizing};
use crate::runtime::codes::log as codes;

/// No stream with a limit is created smaller than this.
const SMALLEST_LIMIT: i64 = 16 << 20;

/// How a process handles streams that are missing or whose configuration differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPolicy {
    /// Wait for EVENTS, which other roles create, and use it as it is.
    Wait,
    /// Create missing streams, and refuse to start if the configuration of one differs.
    Verify,
    /// Create missing streams, and update those whose configuration differs.
    Update,
}

/// What [`Bus::set_up`] would do with a stream or bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamChange {
    /// The stream.
    pub stream: String,
    /// Whether it would be created.
    pub is_missing: bool,
    /// The fields that would be updated; empty if nothing differs.
    pub differences: Vec<String>,
}

/// The streams cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The server does not answer, or refuses the request. A retry can succeed.
    #[error("cannot use stream {stream}: {cause}")]
    Unavailable {
        /// The stream.
        stream: String,
        /// The error of the server or client.
        cause: String,
    },
    /// The configuration of a stream differs from the expected one.
    #[error(
        "the configuration of stream {stream} differs: {difference}; \
         run `tidings streams apply` to update it"
    )]
    Differs {
        /// The stream.
        stream: String,
        /// The fields that differ.
        difference: String,
    },
}

impl SetupError {
    fn unavailable(stream: &str, cause: String) -> Self {
        Self::Unavailable {
            stream: stream.to_owned(),
            cause,
        }
    }
}

impl Bus {
    /// Creates missing streams and buckets, and verifies or updates the others, as the policy says.
    /// Returns the sizing with the storage limit of the account.
    ///
    /// # Errors
    /// The server does not answer, a stream differs and the policy is not to update it, or EVENTS
    /// does not exist yet.
    pub async fn set_up(
        &self,
        sizing: &Sizing,
        policy: StreamPolicy,
    ) -> Result<Sizing, SetupError> {
        if policy == StreamPolicy::Wait {
            return self.find_events(sizing).await.map(|()| *sizing);
        }
        let sizing = self.limited(sizing).await?;
        self.report_missing_extensions().await?;
        for expected in streams::all(&sizing) {
            self.set_up_stream(expected, policy).await?;
        }
        // Roles may not be allowed to create it.
        let _ = self.store_check(&streams::checks(&sizing)).await;
        Ok(sizing)
    }

    /// Creates a stream if it is missing, and verifies or updates it, as the policy says.
    pub(super) async fn set_up_stream(
        &self,
        expected: Config,
        policy: StreamPolicy,
    ) -> Result<(), SetupError> {
        let actual = match self.jetstream().get_stream(&expected.name).await {
            Ok(stream) => stream.cached_info().config.clone(),
            Err(_) => self.create_stream(expected.clone()).await?,
        };
        self.verify_stream(&actual, expected, policy).await
    }

    /// Compares every stream and bucket with its expected configuration, and changes nothing.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn stream_changes(&self, sizing: &Sizing) -> Result<Vec<StreamChange>, SetupError> {
        let sizing = self.limited(sizing).await?;
        let mut changes = Vec::new();
        for expected in streams::all(&sizing) {
            let found = self.request_stream(&expected.name).await;
            let found = found.map_err(|error| SetupError::unavailable(&expected.name, error))?;
            changes.push(StreamChange {
                is_missing: found.is_none(),
                differences: found.map_or_else(Vec::new, |actual| {
                    streams::differences(&actual.config, &expected)
                }),
                stream: expected.name,
            });
        }
        Ok(changes)
    }

    /// The sizing with the storage limit of the account.
    async fn limited(&self, sizing: &Sizing) -> Result<Sizing, SetupError> {
        let account = self.jetstream().query_account().await;
        let account =
            account.map_err(|error| SetupError::unavailable(streams::EVENTS, error.to_string()))?;
        Ok(Sizing {
            storage_limit: storage_limit(account.limits.max_storage, sizing.storage_limit),
            ..*sizing
        })
    }

    /// Logs that the bucket of extensions was deleted while no role ran. At the first start it is
    /// created before EVENTS.
    async fn report_missing_extensions(&self) -> Result<(), SetupError> {
        let unavailable = |error| SetupError::unavailable(streams::EVENTS, error);
        let events = self.request_stream(streams::EVENTS).await;
        if events.map_err(unavailable)?.is_none() {
            return Ok(());
        }
        let bucket = format!("KV_{}", streams::EXTENSIONS);
        let found = self.find_stream(&bucket).await;
        if found.map_err(unavailable)?.is_none() {
            tracing::error!(
                code = codes::EXTENSIONS_MISSING,
                "bucket extensions not found in an existing installation, restrictions that Alerts \
                 kept are lost"
            );
        }
        Ok(())
    }

    async fn find_events(&self, sizing: &Sizing) -> Result<(), SetupError> {
        let found = self.jetstream().get_stream(streams::EVENTS).await;
        let found =
            found.map_err(|error| SetupError::unavailable(streams::EVENTS, error.to_string()))?;
        let window = found.cached_info().config.duplicate_window;
        warn_if_dedupe_interval_differs(window, sizing);
        Ok(())
    }

    /// Compares a stream with its expected configuration, and updates it if that is the policy.
    ///
    /// # Errors
    /// The configuration differs or cannot be updated.
    pub(super) async fn verify_stream(
        &self,
        actual: &Config,
        expected: Config,
        policy: StreamPolicy,
    ) -> Result<(), SetupError> {
        let differences = streams::differences(actual, &expected);
        let stream = expected.name.clone();
        match policy {
            _ if differences.is_empty() => Ok(()),
            StreamPolicy::Wait => Ok(()),
            StreamPolicy::Verify => Err(SetupError::Differs {
                stream,
                difference: differences.join("; "),
            }),
            StreamPolicy::Update => {
                let changed = self.jetstream().update_stream(expected).await;
                changed.map_err(|error| SetupError::unavailable(&stream, error.to_string()))?;
                tracing::warn!(
                    code = codes::STREAM_UPDATED,
                    stream,
                    difference = differences.join("; "),
                    "stream configuration updated"
                );
                Ok(())
            }
        }
    }

    /// Creates a stream. If the server has too little storage, the stream gets a smaller limit.
    pub(super) async fn create_stream(&self, mut expected: Config) -> Result<Config, SetupError> {
        loop {
            let error = match self.jetstream().create_stream(expected.clone()).await {
                Ok(stream) => return Ok(stream.cached_info().config.clone()),
                Err(error) => error,
            };
            let is_too_large = matches!(
                error.kind(),
                CreateStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED
            );
            if !is_too_large || expected.max_bytes / 4 < SMALLEST_LIMIT {
                return Err(SetupError::unavailable(&expected.name, error.to_string()));
            }
            // A quarter, so that some storage is left for the other streams.
            expected.max_bytes /= 4;
            tracing::warn!(
                code = codes::STREAM_LIMIT_REDUCED,
                stream = expected.name,
                max_bytes = expected.max_bytes,
                "server storage is small, stream limit reduced"
            );
        }
    }
}

pub(super) fn warn_if_dedupe_interval_differs(window: Duration, sizing: &Sizing) {
    if window != sizing.dedupe_interval {
        tracing::warn!(
            code = codes::DEDUPE_INTERVAL_DIFFERS,
            ?window,
            setting = ?sizing.dedupe_interval,
            "dedupe interval of stream EVENTS differs from the setting and is used instead"
        );
    }
}

/// The storage limit in bytes: the lower one of the account's limit and the setting.
pub(super) fn storage_limit(allowed: Option<i64>, setting: Option<u64>) -> Option<u64> {
    let allowed = allowed
        .and_then(|limit| u64::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    allowed.into_iter().chain(setting).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_storage_limit_applies() {
        for (allowed, setting, lower) in [
            (None, None, None),
            (Some(0), None, None),
            (Some(-1), Some(7), Some(7)),
            (Some(9), None, Some(9)),
            (Some(9), Some(7), Some(7)),
            (Some(5), Some(7), Some(5)),
        ] {
            assert_eq!(
                storage_limit(allowed, setting),
                lower,
                "{allowed:?} {setting:?}"
            );
        }
    }
}
