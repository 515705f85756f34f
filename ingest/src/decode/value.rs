//! Visitors for the values of an event. Each knows the name of its field, for error messages.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Unexpected, Visitor};

use crate::timestamp;

/// The most metadata keys of an event. Each needs far more memory than its bytes in the body.
pub(super) const MAX_METADATA_KEYS: usize = 16_384;

/// A seed that passes a value of any type to the visitor.
pub(super) struct Any<V>(pub(super) V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Any<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self.0)
    }
}

/// A string or null, in the field of this name.
pub(super) struct Text<'n>(pub(super) &'n str);

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a string in {}", self.0)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }
}

/// A time. Null and Go's zero time are none.
pub(super) struct Time;

impl Visitor<'_> for Time {
    type Value = Option<i64>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an RFC 3339 time in timestamp, such as 2026-01-02T03:04:05Z")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        timestamp::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Adds the entries of metadata. Null removes all.
pub(super) struct Entries<'t, 'de>(pub(super) &'t mut Vec<(Cow<'de, str>, Cow<'de, str>)>);

impl<'de> Visitor<'de> for Entries<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object with string values in metadata")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        self.0.clear();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(key) = map.next_key_seed(Any(Text("a metadata key")))?.flatten() {
            if self.0.len() >= MAX_METADATA_KEYS {
                let problem = format!("metadata has more than {MAX_METADATA_KEYS} keys");
                return Err(A::Error::custom(problem));
            }
            let value = map.next_value_seed(Any(Value(&key)))?;
            self.0.push((key, value));
        }
        Ok(())
    }
}

/// The value of this metadata key. Null is the empty string.
struct Value<'k>(&'k str);

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a string in metadata.{}", self.0)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
