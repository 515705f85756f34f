//! The watchdog: a notice in each interval, by the server's clock. Pure except for that.

use std::time::Duration;

use jiff::Timestamp;
use tidings_core::model::notice::NoticeKind;
use tidings_core::model::time::{after, proto_ms, to_proto};
use tidings_core::runtime::config::ProviderName;
use tidings_core::wire::NoticeState;

use super::deliver::{Notice, delivery};
use super::{Due, Notices, shown};

impl Notices {
    /// The notice of this interval, if there was none yet. Its delivery ends with the interval:
    /// late notices would say that all is well now.
    pub(super) fn plan_watchdog(
        &self,
        state: Option<&NoticeState>,
        provider: &ProviderName,
    ) -> Option<Due> {
        let now = self.bus.clock().now();
        let begins = due(state, self.watchdog.interval, now)?;
        let interval = shown(self.watchdog.interval);
        let notice = Notice {
            kind: NoticeKind::Watchdog,
            severity: "info",
            reason: "Watchdog",
            message: format!(
                "Tidings routes and delivers events. This notice comes every {interval}: if it \
                 stays away, notifications do not work."
            ),
            seed: begins.as_millisecond().to_string(),
            not_after: Some(after(begins, self.watchdog.interval)),
        };
        let pending = delivery(&notice, &self.rules.current(), provider, &self.cluster, now);
        Some(Due {
            state: NoticeState {
                last: Some(to_proto(begins)),
                pending: Some(pending),
                ..NoticeState::default()
            },
            excluded: Vec::new(),
        })
    }
}

/// When the present interval began; `None` if it has its notice. Intervals are counted from 1970,
/// so that they are the same for all routers.
fn due(state: Option<&NoticeState>, interval: Duration, now: Timestamp) -> Option<Timestamp> {
    let interval_ms = i64::try_from(interval.as_millis()).ok()?.max(1);
    let begins_ms = now.as_millisecond().div_euclid(interval_ms) * interval_ms;
    let is_new = state.is_none_or(|state| proto_ms(state.last) < begins_ms);
    is_new
        .then(|| Timestamp::from_millisecond(begins_ms).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn each_interval_has_one_notice() {
        let minute = Duration::from_secs(60);
        let state = |last| NoticeState {
            last: Some(to_proto(at(last))),
            ..NoticeState::default()
        };
        for (last, now, expected) in [
            (None, 119, Some(60)),
            (Some(60), 60, None),
            (Some(60), 119, None),
            (Some(60), 120, Some(120)),
            // Intervals that passed without a router are not made up for.
            (Some(60), 600, Some(600)),
            // The clock went back.
            (Some(600), 60, None),
        ] {
            let state = last.map(state);
            let begins = due(state.as_ref(), minute, at(now));
            assert_eq!(begins, expected.map(at), "{last:?} at {now}");
        }
    }
}
