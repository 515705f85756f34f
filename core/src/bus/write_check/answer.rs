//! What the answer of a stream says about its write error.

use async_nats::jetstream::ErrorCode;

/// The server's errors when it looks for a message that does not exist.
const NO_SUCH_MESSAGE: [&str; 2] = ["stream store EOF", "no message found"];
/// The server's errors while it stops.
const CLOSED: [&str; 2] = ["store is closed", "stream closed"];
const NOT_PERMITTED: &str = "not permitted";

/// An answer of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The stream has no write error.
    Writable,
    /// The write error.
    Failed(String),
    /// No answer in time.
    Silent,
    /// Nobody answers requests to JetStream.
    NoJetStream,
    /// The answer says nothing.
    Unknown,
}

/// What an error says that a stream answered with.
pub fn of_error(code: ErrorCode, text: &str) -> Answer {
    let contains = |known: &[&str]| known.iter().any(|known| text.contains(known));
    match code {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Answer::NoJetStream
        }
        ErrorCode::STREAM_MESSAGE_DELETE_FAILED
        | ErrorCode::STREAM_PURGE_FAILED
        | ErrorCode::STREAM_GENERALOR => {
            if contains(&NO_SUCH_MESSAGE) {
                Answer::Writable
            } else if contains(&CLOSED) || contains(&[NOT_PERMITTED]) {
                Answer::Unknown
            } else {
                Answer::Failed(text.to_owned())
            }
        }
        // The stream looked for the message.
        ErrorCode::SEQUENCE_NOT_FOUND => Answer::Writable,
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_write_error_is_a_failure() {
        let full = "write /data/EVENTS/msgs/1.blk: no space left on device (code 500)";
        for (code, text, answer) in [
            (10057, "stream store EOF (code 500)", Answer::Writable),
            (10057, full, Answer::Failed(full.to_owned())),
            (10051, full, Answer::Failed(full.to_owned())),
            (10057, "store is closed", Answer::Unknown),
            (10057, "message delete not permitted", Answer::Unknown),
            (10043, "sequence 7 not found", Answer::Writable),
            (10059, "stream not found", Answer::Unknown),
            (
                10039,
                "JetStream not enabled for account",
                Answer::NoJetStream,
            ),
        ] {
            assert_eq!(of_error(ErrorCode(code), text), answer, "{code} {text}");
        }
    }
}
