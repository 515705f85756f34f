//! The messages between a process and its children that evaluate expressions: JSON in frames, each
//! after its length in four bytes. Both sides refuse longer frames than they expect.

use std::io::{self, ErrorKind, Read, Write};

use serde::{Deserialize, Serialize};

use super::{Variables, Wrong};

/// The longest request in bytes. A child needs about forty times as much memory for the values of
/// a request, so that no event alone exceeds its limit.
pub const LONGEST_REQUEST: usize = 1 << 20;
/// The longest answer in bytes: a result of which every byte is escaped, and its frame.
pub const LONGEST_ANSWER: usize = 6 * super::evaluate::LONGEST_RESULT + 1024;

/// An expression, and the values that it reads.
#[derive(Serialize, Deserialize)]
pub struct Request {
    /// The expression.
    pub source: String,
    /// Its variables.
    pub variables: Variables,
}

/// The text that the expression gives, or its problem.
pub type Answer = Result<String, Wrong>;

/// Writes a frame.
///
/// # Errors
/// The other side is gone or does not read.
pub fn write(to: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| ErrorKind::InvalidInput)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(payload)
}

/// Reads a frame of at most this many bytes; `None` if the other side is gone.
///
/// # Errors
/// The frame is incomplete or too long.
pub fn read(from: &mut impl Read, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > most {
        let why = format!("a frame of {length} bytes; at most {most} are accepted");
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Some(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_written_and_have_a_longest_length() {
        let mut bytes = Vec::new();
        write(&mut bytes, b"first").unwrap();
        write(&mut bytes, b"").unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(read(&mut from, 5).unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(read(&mut from, 0).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(read(&mut from, 5).unwrap(), None);
        for (bytes, kind) in [
            (bytes.as_slice(), ErrorKind::InvalidData),
            (&bytes[..6], ErrorKind::UnexpectedEof),
            (&[0xff; 8], ErrorKind::InvalidData),
        ] {
            let most = if kind == ErrorKind::InvalidData { 4 } else { 5 };
            assert_eq!(read(&mut &*bytes, most).unwrap_err().kind(), kind);
        }
    }
}
