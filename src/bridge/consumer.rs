//! The durable consumer of a bridge: its name, and where it begins.

use anyhow::{bail, ensure};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{DeliverPolicy, Info};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::Stream;
use jiff::Timestamp;
use tidings_core::bus::streams::{self, BRIDGE, EVENTS, bridge_consumer};
use tidings_core::model::time::to_offset;
use tidings_core::model::{subject, tap_access};

use crate::command::tool;

/// The longest name.
const LONGEST_NAME: usize = 64;
/// The most filters. Each costs the server time for every event.
pub const MOST_FILTERS: usize = 16;

/// Where a bridge begins at its first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With events that are stored from now on.
    New,
    /// With the oldest stored event.
    All,
    /// With events that were stored since this time.
    Time(Timestamp),
}

impl Beginning {
    /// Parses `new`, `all` or a time.
    ///
    /// # Errors
    /// The text is neither.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "new" => Self::New,
            "all" => Self::All,
            time => Self::Time(tool::moment(time)?),
        })
    }

    fn policy(self, last_sequence: u64) -> anyhow::Result<DeliverPolicy> {
        Ok(match self {
            Self::New => DeliverPolicy::ByStartSequence {
                start_sequence: last_sequence + 1,
            },
            Self::All => DeliverPolicy::All,
            Self::Time(time) => DeliverPolicy::ByStartTime {
                start_time: to_offset(time),
            },
        })
    }
}

/// Checks a name: it is that of a consumer on the server.
///
/// # Errors
/// The name is invalid, or that of a consumer of Tidings.
pub fn check_name(name: &str, kinds: &[&str]) -> anyhow::Result<()> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    ensure!(
        (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_allowed),
        "--name {name:?}: expected up to {LONGEST_NAME} letters, digits, hyphens and underscores"
    );
    let of_others = ["router-", "ingest-", tap_access::PREFIX];
    let is_of_worker = |kind: &&str| {
        let pool = name.strip_suffix(*kind);
        pool.is_some_and(|pool| pool.ends_with('-'))
    };
    ensure!(
        !of_others.iter().any(|prefix| name.starts_with(prefix))
            && name != streams::ROUTER
            && !kinds.iter().any(is_of_worker),
        "--name {name}: this is the name of a consumer of Tidings; choose another one"
    );
    Ok(())
}

/// Checks a filter: a subject below `events.`, with wildcards.
///
/// # Errors
/// It is not.
pub fn check_filter(filter: &str) -> anyhow::Result<()> {
    let tokens: Vec<&str> = filter.split('.').collect();
    let is_valid = |(index, token): (usize, &&str)| match *token {
        "" => false,
        ">" => index == tokens.len() - 1,
        "*" => true,
        token => !token.contains(['*', '>']) && !token.contains(char::is_whitespace),
    };
    ensure!(
        filter.len() <= 1024
            && tokens[0] == "events"
            && tokens.len() > 1
            && tokens.iter().enumerate().all(is_valid),
        "--filter {filter}: expected events.CLUSTER.NAMESPACE.KIND.SEVERITY, with * for any value, \
         or {}",
        subject::ALL_EVENTS
    );
    Ok(())
}

/// The configuration of the consumer. It begins after the last acknowledged event if it exists, so
/// that one that is lost while the bridge runs is recreated there.
///
/// # Errors
/// The consumer is not of a bridge, or the server does not answer.
pub async fn configuration(
    events: &Stream,
    name: &str,
    filters: &[String],
    from: Beginning,
) -> anyhow::Result<pull::Config> {
    let info = match events.consumer_info(name).await {
        Ok(info) => info,
        Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => {
            let last = events.get_info().await?.state.last_sequence;
            return Ok(bridge_consumer(name, filters, from.policy(last)?));
        }
        Err(error) => return Err(error.into()),
    };
    if !info.config.metadata.contains_key(BRIDGE) {
        bail!(
            "--name {name}: the stream {EVENTS} has a consumer of this name that is not of a \
             bridge; choose another name"
        );
    }
    let begin = DeliverPolicy::ByStartSequence {
        start_sequence: begin(&info),
    };
    let config = bridge_consumer(name, filters, begin);
    // A new filter applies to the events that were not delivered yet.
    let is_same = info.config.filter_subject == config.filter_subject
        && info.config.filter_subjects == config.filter_subjects;
    if !is_same {
        let updated = pull::Config {
            deliver_policy: info.config.deliver_policy,
            memory_storage: info.config.memory_storage,
            ..config.clone()
        };
        events.update_consumer(updated).await?;
    }
    Ok(config)
}

/// The sequence after that of the last acknowledged event.
fn begin(info: &Info) -> u64 {
    let start = match info.config.deliver_policy {
        DeliverPolicy::ByStartSequence { start_sequence } => start_sequence,
        _ => 1,
    };
    start.max(info.ack_floor.stream_sequence + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_that_of_another_consumer() {
        for name in ["audit", "lake_1", "slack", "x-audit"] {
            assert!(check_name(name, &["slack"]).is_ok(), "{name}");
        }
        let long = "x".repeat(65);
        for name in [
            "",
            "a.b",
            "a b",
            "*",
            "router",
            "router-ahead",
            "ingest-a",
            "tap-dev-0",
            "default-slack",
            &long,
        ] {
            let error = check_name(name, &["slack"]).unwrap_err().to_string();
            assert!(error.contains("--name"), "{error}");
        }
    }

    #[test]
    fn a_filter_is_a_subject_of_events() {
        for filter in ["events.>", "events.prod.*.*.error", "events.a=2Eb.>"] {
            assert!(check_filter(filter).is_ok(), "{filter}");
        }
        for filter in [
            "",
            ">",
            "events",
            "events.",
            "deliveries.>",
            "events.>.x",
            "events.a*",
            "events. .x",
        ] {
            assert!(check_filter(filter).is_err(), "{filter}");
        }
    }

    #[test]
    fn a_bridge_begins_where_the_flag_says() {
        let after = |sequence| DeliverPolicy::ByStartSequence {
            start_sequence: sequence,
        };
        let begin = |text: &str| Beginning::parse(text).unwrap().policy(41).unwrap();
        assert_eq!(begin("new"), after(42));
        assert_eq!(begin("all"), DeliverPolicy::All);
        assert!(matches!(begin("90m"), DeliverPolicy::ByStartTime { .. }));
        assert!(Beginning::parse("yesterday").is_err());
    }
}
