//! `otlp.…`: where traces are sent.

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use url::Url;

use super::read::Reader;
use super::secret::Secret;
use super::value::{self, Parsed};

/// The path of traces below the endpoint.
pub const TRACES_PATH: &str = "/v1/traces";
/// The most headers, and their length in all.
const MOST_HEADERS: usize = 16;
const LONGEST_HEADERS: usize = 8 << 10;

/// Where traces are sent, and how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtlpSettings {
    /// `otlp.endpoint`: the address of the collector; without one there are no traces.
    pub endpoint: Option<Url>,
    /// `otlp.sampling`: the part of the traces that is recorded.
    pub sampling: Ratio,
    /// `otlp.headers`, `otlp.headers_file`
    pub headers: Option<Secret>,
}

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio(f64);

/// It is a number.
impl Eq for Ratio {}

impl Ratio {
    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl OtlpSettings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let otlp = Self {
            endpoint: reader.optional_secret("otlp.endpoint", value::http_url),
            sampling: reader.value("otlp.sampling", ratio),
            headers: reader.secret("otlp.headers", "otlp.headers_file"),
        };
        let endpoint = otlp.endpoint.as_ref().map(Url::path);
        if endpoint.is_some_and(|path| path.trim_end_matches('/').ends_with(TRACES_PATH)) {
            let message = format!("write it without {TRACES_PATH}, which is added");
            reader.mistake("otlp.endpoint", &message);
        }
        let headers = otlp.headers.as_ref().map(Secret::expose);
        if let Some(Err(expected)) = headers.map(parse_headers) {
            reader.mistake("otlp.headers", &format!("expected {expected}"));
        }
        otlp
    }

    /// The headers of each request.
    pub fn header_map(&self) -> HeaderMap {
        let headers = self.headers.as_ref().map(Secret::expose);
        let headers = headers.and_then(|headers| parse_headers(headers).ok());
        headers.unwrap_or_default()
    }
}

/// `NAME=VALUE` separated by commas or line breaks, with percent-encoded values, as the variable
/// `OTEL_EXPORTER_OTLP_HEADERS` has them. The error does not repeat them.
fn parse_headers(text: &str) -> Parsed<HeaderMap> {
    const EXPECTED: &str = "at most 16 headers NAME=VALUE separated by commas, with \
         percent-encoded values, such as Authorization=Bearer%20TOKEN";
    let entries = text.split([',', '\n']).map(str::trim);
    let entries: Vec<&str> = entries.filter(|entry| !entry.is_empty()).collect();
    if text.len() > LONGEST_HEADERS || entries.len() > MOST_HEADERS {
        return Err(EXPECTED);
    }
    let mut headers = HeaderMap::new();
    for entry in entries {
        let (name, value) = entry.split_once('=').ok_or(EXPECTED)?;
        let name: HeaderName = name.trim().parse().map_err(|_| EXPECTED)?;
        let value: Vec<u8> = percent_decode_str(value.trim()).collect();
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| EXPECTED)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn ratio(text: &str) -> Parsed<Ratio> {
    let ratio = text
        .parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.map(Ratio).ok_or("a number from 0 to 1, such as 0.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_with_encoded_values() {
        let parsed = parse_headers("Authorization=Bearer%20a%2Cb, x-tenant=1\n").unwrap();
        assert_eq!(parsed["authorization"], "Bearer a,b");
        assert_eq!(parsed["x-tenant"], "1");
        assert!(parsed.values().all(HeaderValue::is_sensitive));
        let many = "a=b,".repeat(MOST_HEADERS + 1);
        let long = format!("a={}", "x".repeat(LONGEST_HEADERS));
        for wrong in ["Bearer token", "na me=a", "a=%0a", &many, &long] {
            assert!(parse_headers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_ratio_is_from_0_to_1() {
        for (written, is_valid) in [
            ("0", true),
            ("0.25", true),
            ("1.0", true),
            ("1.1", false),
            ("-1", false),
            ("NaN", false),
            ("", false),
        ] {
            assert_eq!(ratio(written).is_ok(), is_valid, "{written}");
        }
    }
}
