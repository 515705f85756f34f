//! Text encoded as a token of a subject, of a bucket key or of a consumer's name.

use std::fmt;

use sha2::{Digest, Sha256};

/// Longer encodings are truncated and end with a hash.
const MAX_LENGTH: usize = 100;
/// The length of the readable part of a truncated encoding.
const READABLE: usize = 60;

/// Any text, encoded so that it is one token of a NATS subject.
///
/// Bytes outside `[A-Za-z0-9_-]` become `=HH`, and an empty text becomes `=`. An encoding of more
/// than 100 bytes becomes its first 60 bytes, `=h` and 16 hexadecimal digits of the text's SHA-256.
///
/// # Guarantees
/// Different texts have different tokens, unless their SHA-256 collides. A token never contains
/// `.`, `*`, `>`, white space or a slash.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token(String);

impl Token {
    /// Encodes a text.
    pub fn new(text: &str) -> Self {
        if text.is_empty() {
            return Self("=".to_owned());
        }
        let mut token = String::with_capacity(text.len());
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
                token.push(char::from(byte));
            } else {
                token.push('=');
                token.push_str(&hex(&[byte]).to_uppercase());
            }
        }
        if token.len() > MAX_LENGTH {
            token.truncate(READABLE);
            token.push_str("=h");
            token.push_str(&hex(&Sha256::digest(text)[..8]));
        }
        Self(token)
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text that a token encodes. A truncated token, whose text is not known, stays as it is.
pub fn decoded(token: &str) -> String {
    if token == "=" {
        return String::new();
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'=' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|digit| {
            let digit = digit.map(char::from).and_then(|digit| digit.to_digit(16));
            digit.and_then(|digit| u8::try_from(digit).ok())
        });
        match digits {
            [Some(high), Some(low)] => bytes.push(high << 4 | low),
            _ => return token.to_owned(),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| token.to_owned())
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Bytes in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_encoded_as_one_token() {
        let long = "a".repeat(101);
        for (text, token) in [
            ("flux-system", "flux-system"),
            ("incident.io", "incident=2Eio"),
            ("", "="),
            ("*", "=2A"),
            ("a=b", "a=3Db"),
            ("é", "=C3=A9"),
            (&"a".repeat(100), &"a".repeat(100)),
            (
                &long,
                &format!("{}=h{}", "a".repeat(60), &hex(&Sha256::digest(&long))[..16]),
            ),
        ] {
            assert_eq!(Token::new(text).as_str(), token, "{text:?}");
        }
    }

    #[test]
    fn a_truncated_token_and_one_of_others_stay_as_they_are() {
        let long = Token::new(&"a".repeat(101));
        for token in [long.as_str(), "=zz", "a=4", "=FF"] {
            assert_eq!(decoded(token), token);
        }
    }

    proptest! {
        #[test]
        fn a_short_token_is_decoded_to_its_text(text in ".{0,8}") {
            prop_assert_eq!(decoded(Token::new(&text).as_str()), text);
        }

        #[test]
        fn any_text_is_a_valid_token(text in ".*") {
            let token = Token::new(&text);
            prop_assert!(!token.as_str().is_empty() && token.as_str().len() <= MAX_LENGTH);
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
            prop_assert!(token.as_str().bytes().all(is_allowed));
        }

        #[test]
        fn different_texts_have_different_tokens(left in ".{0,120}", right in ".{0,120}") {
            prop_assert_eq!(left == right, Token::new(&left) == Token::new(&right));
        }
    }
}
