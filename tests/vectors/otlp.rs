//! Decodes OTLP traces into protobuf's JSON mapping, with hexadecimal ids.

use prost::encoding::{WireType, decode_key, decode_varint};
use serde_json::{Map, Value, json};

/// How a field is written in JSON.
#[derive(Clone, Copy)]
enum Form {
    Message(Fields),
    /// A repeated message.
    Messages(Fields),
    Text,
    Hex,
    Number,
    /// A number as text.
    Long,
    Bool,
    Names(&'static [&'static str]),
}

/// Number, name and form of each field of a message.
type Fields = &'static [(u32, &'static str, Form)];

const REQUEST: Fields = &[(1, "resourceSpans", Form::Messages(RESOURCE_SPANS))];
const RESOURCE_SPANS: Fields = &[
    (1, "resource", Form::Message(RESOURCE)),
    (2, "scopeSpans", Form::Messages(SCOPE_SPANS)),
    (3, "schemaUrl", Form::Text),
];
const RESOURCE: Fields = &[
    (1, "attributes", Form::Messages(KEY_VALUE)),
    (2, "droppedAttributesCount", Form::Number),
];
const SCOPE_SPANS: Fields = &[
    (1, "scope", Form::Message(SCOPE)),
    (2, "spans", Form::Messages(SPAN)),
    (3, "schemaUrl", Form::Text),
];
const SCOPE: Fields = &[
    (1, "name", Form::Text),
    (2, "version", Form::Text),
    (3, "attributes", Form::Messages(KEY_VALUE)),
    (4, "droppedAttributesCount", Form::Number),
];
const SPAN: Fields = &[
    (1, "traceId", Form::Hex),
    (2, "spanId", Form::Hex),
    (3, "traceState", Form::Text),
    (4, "parentSpanId", Form::Hex),
    (5, "name", Form::Text),
    (6, "kind", Form::Names(SPAN_KINDS)),
    (7, "startTimeUnixNano", Form::Long),
    (8, "endTimeUnixNano", Form::Long),
    (9, "attributes", Form::Messages(KEY_VALUE)),
    (10, "droppedAttributesCount", Form::Number),
    (12, "droppedEventsCount", Form::Number),
    (14, "droppedLinksCount", Form::Number),
    (15, "status", Form::Message(STATUS)),
    (16, "flags", Form::Number),
];
const STATUS: Fields = &[
    (2, "message", Form::Text),
    (3, "code", Form::Names(STATUS_CODES)),
];
const KEY_VALUE: Fields = &[
    (1, "key", Form::Text),
    (2, "value", Form::Message(ANY_VALUE)),
];
const ANY_VALUE: Fields = &[
    (1, "stringValue", Form::Text),
    (2, "boolValue", Form::Bool),
    (3, "intValue", Form::Long),
];
const SPAN_KINDS: &[&str] = &[
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUS_CODES: &[&str] = &["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// An ExportTraceServiceRequest as JSON.
pub fn decode(bytes: &[u8]) -> Option<Value> {
    message(bytes, REQUEST)
}

fn message(mut bytes: &[u8], fields: Fields) -> Option<Value> {
    let mut decoded = Map::new();
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).ok()?;
        let (value, content) = take(&mut bytes, wire)?;
        // A field that the recordings do not have is a difference.
        let unknown = (number, "unknown", Form::Number);
        let (_, name, form) = *fields
            .iter()
            .find(|field| field.0 == number)
            .unwrap_or(&unknown);
        let json = match form {
            Form::Messages(fields) => {
                let list = decoded.entry(name).or_insert_with(|| json!([]));
                list.as_array_mut()?.push(message(content, fields)?);
                continue;
            }
            Form::Message(fields) => message(content, fields)?,
            Form::Text => json!(String::from_utf8_lossy(content)),
            Form::Hex => json!(hex::encode(content)),
            Form::Number => json!(value),
            Form::Long => json!(value.to_string()),
            Form::Bool => json!(value != 0),
            Form::Names(names) => json!(names.get(usize::try_from(value).ok()?)?),
        };
        decoded.insert(name.to_owned(), json);
    }
    Some(Value::Object(decoded))
}

/// Reads the next value: a number or bytes.
fn take<'a>(bytes: &mut &'a [u8], wire: WireType) -> Option<(u64, &'a [u8])> {
    let size = match wire {
        WireType::Varint => return Some((decode_varint(bytes).ok()?, &[])),
        WireType::SixtyFourBit => 8,
        WireType::ThirtyTwoBit => 4,
        _ => usize::try_from(decode_varint(bytes).ok()?).ok()?,
    };
    let (content, rest) = bytes.split_at_checked(size)?;
    *bytes = rest;
    let value = content
        .iter()
        .take(8)
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some((value, content))
}
