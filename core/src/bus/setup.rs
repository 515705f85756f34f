//! Making sure that streams and buckets are on the server as they must be.

use crate::runtime::codes::log as codes;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::CreateStreamErrorKind;
use async_nats::jetstream::stream::Config;

use crate::bus::Bus;
use crate::bus::streams::{self, Sizing};

/// No stream that discards is made smaller than this.
const SMALLEST_LIMIT: i64 = 16 << 20;

/// What a process does about streams that are missing, or not as they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPolicy {
    /// Wait for EVENTS, which others make, and take it as it is.
    Wait,
    /// Make what is missing; refuse what differs, with the difference.
    Verify,
    /// Make what is missing, and change what differs.
    Update,
}

/// Why the streams can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The server could not be asked; it may pass.
    #[error("cannot use stream {stream}: {cause}")]
    Unavailable {
        /// The stream.
        stream: String,
        /// Why not.
        cause: String,
    },
    /// A stream is not as it must be.
    #[error(
        "stream {stream} is not as it must be: {difference}; `tidings streams apply` changes it"
    )]
    Differs {
        /// The stream.
        stream: String,
        /// Field by field.
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
    /// Makes streams and buckets that are missing, and checks or changes those that are there, as
    /// is this process's policy. Tells the sizes, with the account's limit where the settings
    /// name none.
    ///
    /// # Errors
    /// The server can't be asked, a stream differs and is not to be changed, or EVENTS is waited
    /// for.
    pub async fn set_up(
        &self,
        sizing: &Sizing,
        policy: StreamPolicy,
    ) -> Result<Sizing, SetupError> {
        if policy == StreamPolicy::Wait {
            return self.find_events(sizing).await.map(|()| *sizing);
        }
        let account = self.jetstream().query_account().await;
        let account =
            account.map_err(|error| SetupError::unavailable(streams::EVENTS, error.to_string()))?;
        let sizing = Sizing {
            storage_limit: storage_limit(account.limits.max_storage, sizing.storage_limit),
            ..*sizing
        };
        for must in streams::all(&sizing) {
            let is = match self.jetstream().get_stream(&must.name).await {
                Ok(stream) => stream.cached_info().config.clone(),
                Err(_) => self.create_stream(must.clone()).await?,
            };
            self.verify_stream(&is, must, policy).await?;
        }
        Ok(sizing)
    }

    async fn find_events(&self, sizing: &Sizing) -> Result<(), SetupError> {
        let found = self.jetstream().get_stream(streams::EVENTS).await;
        let found =
            found.map_err(|error| SetupError::unavailable(streams::EVENTS, error.to_string()))?;
        let window = found.cached_info().config.duplicate_window;
        if window != sizing.dedupe_interval {
            tracing::warn!(code = codes::DEDUPE_INTERVAL_DIFFERS, ?window, asked = ?sizing.dedupe_interval, "dedupe interval of stream EVENTS differs from the setting and is used instead; router and worker set it");
        }
        Ok(())
    }

    /// Compares a stream with what it must be, and changes it if that is this process's policy.
    ///
    /// # Errors
    /// It differs, or can't be changed.
    pub(super) async fn verify_stream(
        &self,
        is: &Config,
        must: Config,
        policy: StreamPolicy,
    ) -> Result<(), SetupError> {
        let differences = streams::differences(is, &must);
        let stream = must.name.clone();
        match policy {
            _ if differences.is_empty() => Ok(()),
            StreamPolicy::Wait => Ok(()),
            StreamPolicy::Verify => Err(SetupError::Differs {
                stream,
                difference: differences.join("; "),
            }),
            StreamPolicy::Update => {
                tracing::warn!(
                    code = codes::STREAM_UPDATED,
                    stream,
                    difference = differences.join("; "),
                    "stream configuration updated"
                );
                let changed = self.jetstream().update_stream(must).await;
                changed
                    .map(|_| ())
                    .map_err(|error| SetupError::unavailable(&stream, error.to_string()))
            }
        }
    }

    /// Makes a stream; where the server has less room than it would like, with a smaller limit.
    pub(super) async fn create_stream(&self, mut must: Config) -> Result<Config, SetupError> {
        loop {
            let error = match self.jetstream().create_stream(must.clone()).await {
                Ok(stream) => return Ok(stream.cached_info().config.clone()),
                Err(error) => error,
            };
            let is_too_large = matches!(
                error.kind(),
                CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED
            );
            if !is_too_large || must.max_bytes / 4 < SMALLEST_LIMIT {
                return Err(SetupError::unavailable(&must.name, error.to_string()));
            }
            // A quarter, so that there is room left for the others.
            must.max_bytes /= 4;
            tracing::warn!(
                code = codes::STREAM_LIMIT_REDUCED,
                stream = must.name,
                max_bytes = must.max_bytes,
                "server storage is small, stream limit reduced"
            );
        }
    }
}

/// What may be stored on disk: what the account allows, or less where the settings say so.
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
    fn what_may_be_stored_is_the_least_of_what_is_allowed_and_asked_for() {
        for (allowed, setting, least) in [
            (None, None, None),
            (Some(0), None, None),
            (Some(-1), Some(7), Some(7)),
            (Some(9), None, Some(9)),
            (Some(9), Some(7), Some(7)),
            (Some(5), Some(7), Some(5)),
        ] {
            assert_eq!(
                storage_limit(allowed, setting),
                least,
                "{allowed:?} {setting:?}"
            );
        }
    }
}
