//! Times: conversions between jiff and protobuf, and arithmetic that cannot overflow.

use std::time::Duration;

use jiff::Timestamp;
use tidings_proto::Timestamp as ProtoTimestamp;
use time::OffsetDateTime;

const NANOSECONDS: i128 = 1_000_000_000;

/// Converts a time to its form on the wire.
pub fn to_proto(time: Timestamp) -> ProtoTimestamp {
    // Protobuf counts nanoseconds forward from the second, jiff counts them toward zero.
    let nanoseconds = time.as_nanosecond();
    ProtoTimestamp {
        seconds: i64::try_from(nanoseconds.div_euclid(NANOSECONDS)).unwrap_or_default(),
        nanos: i32::try_from(nanoseconds.rem_euclid(NANOSECONDS)).unwrap_or_default(),
    }
}

/// Converts a time from the wire. `None` if the field is not set or out of jiff's range.
pub fn from_proto(time: Option<ProtoTimestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// Returns a time from the wire in milliseconds since 1970. 0 if the field is not set.
pub fn proto_ms(time: Option<ProtoTimestamp>) -> i64 {
    from_proto(time).map_or(0, Timestamp::as_millisecond)
}

/// Converts a time to that of the NATS client. Both types have the same range of years.
pub fn to_offset(time: Timestamp) -> OffsetDateTime {
    let converted = OffsetDateTime::from_unix_timestamp_nanos(time.as_nanosecond());
    converted.unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Returns `time + wait`, or the latest possible time.
pub fn after(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Returns the time from `earlier` to `later`, or zero if `later` is before `earlier`.
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_one_of_the_client() {
        for time in [Timestamp::MIN, Timestamp::constant(-1, -1), Timestamp::MAX] {
            let converted = to_offset(time).unix_timestamp_nanos();
            assert_eq!(converted, time.as_nanosecond());
        }
    }

    #[test]
    fn a_time_survives_the_wire() {
        for (time, seconds, nanos, milliseconds) in [
            (
                Timestamp::constant(1_767_323_045, 678_000_009),
                1_767_323_045,
                678_000_009,
                1_767_323_045_678,
            ),
            (Timestamp::constant(-1, -1), -2, 999_999_999, -1000),
        ] {
            let proto = to_proto(time);
            assert_eq!((proto.seconds, proto.nanos), (seconds, nanos), "{time}");
            assert_eq!(from_proto(Some(proto)), Some(time));
            assert_eq!(proto_ms(Some(proto)), milliseconds);
        }
        let out_of_range = ProtoTimestamp {
            seconds: i64::MAX,
            nanos: 0,
        };
        assert_eq!(from_proto(Some(out_of_range)), None);
        assert_eq!((from_proto(None), proto_ms(None)), (None, 0));
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(after(Timestamp::MAX, Duration::MAX), Timestamp::MAX);
        let later = after(Timestamp::UNIX_EPOCH, Duration::from_secs(2));
        assert_eq!(
            between(Timestamp::UNIX_EPOCH, later),
            Duration::from_secs(2)
        );
        assert_eq!(between(later, Timestamp::UNIX_EPOCH), Duration::ZERO);
    }
}
