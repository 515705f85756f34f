//! Compares a request with the recorded one.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use percent_encoding::percent_decode_str;
use regex::Regex;
use serde_json::Value;
use url::form_urlencoded;

use crate::body::decode;
use crate::case::{ExpectedRequest, Looseness};
use crate::report::{expect_equal, short};
use crate::sink::Received;

/// Headers with credentials: present only if they were recorded.
const IDENTITY_HEADERS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "private-token",
    "dd-api-key",
    "x-signature",
    "x-sentry-auth",
];

/// Marks that may replace the end of a shortened text.
static MARK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*(…|(\\?\.){3})?\s*([\[(][^\])]*(truncated|cut|omitted)[^\])]*[\])])?\s*")
        .expect("the pattern is valid")
});

/// Collects differences.
pub struct Comparison<'a> {
    loose: &'a BTreeMap<String, Looseness>,
    pub problems: Vec<String>,
}

impl<'a> Comparison<'a> {
    pub fn new(loose: &'a BTreeMap<String, Looseness>) -> Self {
        Self {
            loose,
            problems: Vec::new(),
        }
    }

    /// Compares a request; `signature` is the expected X-Signature, if it depends on the body.
    pub fn request(
        &mut self,
        expected: &ExpectedRequest,
        got: &Received,
        number: usize,
        signature: Option<&str>,
    ) {
        let at = format!("/requests/{number}");
        self.equal(&format!("{at}/method"), &expected.method, &got.method);
        self.equal(
            &format!("{at}/scheme"),
            expected.scheme.as_str(),
            got.scheme,
        );
        self.equal(
            &format!("{at}/host"),
            &expected.host.to_lowercase(),
            &got.host.to_lowercase(),
        );
        if !is_same_path(&expected.path, &got.path) {
            self.equal(&format!("{at}/path"), &expected.path, &got.path);
        }
        self.equal(
            &format!("{at}/query"),
            &pairs(&expected.query),
            &pairs(&got.query),
        );
        self.equal(
            &format!("{at}/via_proxy"),
            &expected.via_proxy,
            &got.via_proxy,
        );
        self.equal(
            &format!("{at}/client_cert_cn"),
            &expected.client_cert_cn,
            &got.client_cert_cn,
        );
        self.headers(&expected.headers, got, &format!("{at}/headers"), signature);
        self.body(expected, got, &at);
    }

    /// Compares JSON values.
    pub fn json(&mut self, expected: &Value, got: &Value, at: &str) {
        match (self.loose.get(at), expected, got) {
            (Some(Looseness::Any), _, _) => {}
            (Some(Looseness::Prefix), Value::String(expected), Value::String(got)) => {
                self.prefix(expected, got, at)
            }
            (Some(Looseness::Value), _, _) if is_same_type(expected, got) => {}
            (Some(Looseness::Order), Value::Array(expected), Value::Array(got)) => {
                self.unordered(
                    expected.iter().map(canonical),
                    got.iter().map(canonical),
                    at,
                );
            }
            (Some(Looseness::LineOrder), Value::String(expected), Value::String(got)) => {
                self.unordered(
                    expected.lines().map(str::to_owned),
                    got.lines().map(str::to_owned),
                    at,
                );
            }
            (_, Value::Object(expected), Value::Object(got)) => {
                for key in expected
                    .keys()
                    .chain(got.keys().filter(|key| !expected.contains_key(*key)))
                {
                    self.member(
                        expected.get(key),
                        got.get(key),
                        &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    );
                }
            }
            (_, Value::Array(expected), Value::Array(got)) => {
                self.equal(
                    &format!("{at}, number of elements"),
                    &expected.len(),
                    &got.len(),
                );
                for (number, (expected, got)) in expected.iter().zip(got).enumerate() {
                    self.json(expected, got, &format!("{at}/{number}"));
                }
            }
            (_, Value::Number(expected), Value::Number(got))
                if expected.as_f64() == got.as_f64() => {}
            _ => self.equal(at, expected, got),
        }
    }

    fn member(&mut self, expected: Option<&Value>, got: Option<&Value>, at: &str) {
        match (expected, got) {
            (Some(expected), Some(got)) => self.json(expected, got, at),
            _ if self.loose.get(at) == Some(&Looseness::Any) => {}
            (Some(expected), None) => self
                .problems
                .push(format!("{at}: missing, expected {}", short(expected))),
            (None, Some(got)) => self
                .problems
                .push(format!("{at}: not expected, got {}", short(got))),
            (None, None) => {}
        }
    }

    /// A shortened text has its beginning, a mark, and perhaps the end of the recorded text.
    fn prefix(&mut self, expected: &str, got: &str, at: &str) {
        let common: usize = expected
            .chars()
            .zip(got.chars())
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        let rest = MARK.replace(&got[common..], "");
        if expected != got && (common < expected.len().min(100) || !expected.ends_with(&*rest)) {
            self.problems.push(format!(
                "{at}: expected {}, perhaps cut short, got {}",
                short(&expected.into()),
                short(&got.into())
            ));
        }
    }

    fn unordered(
        &mut self,
        expected: impl Iterator<Item = String>,
        got: impl Iterator<Item = String>,
        at: &str,
    ) {
        let [mut expected, mut got] = [expected.collect::<Vec<_>>(), got.collect()];
        expected.sort();
        got.sort();
        self.equal(&format!("{at}, in any order"), &expected, &got);
    }

    fn headers(
        &mut self,
        expected: &BTreeMap<String, Value>,
        got: &Received,
        at: &str,
        signature: Option<&str>,
    ) {
        for (name, value) in expected {
            let here = format!("{at}/{name}");
            let first_word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
            let wanted = match (value, signature) {
                (_, Some(signature)) if name.eq_ignore_ascii_case("x-signature") => {
                    vec![signature.to_owned()]
                }
                (Value::Array(values), _) => values
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
                _ => vec![value.as_str().unwrap_or_default().trim().to_owned()],
            };
            let [wanted, actual] =
                [wanted, got.header(name)].map(|values| without_client(name, values));
            match self.loose.get(&here) {
                Some(Looseness::Any) => {}
                Some(Looseness::Value) => {
                    let words = |values: &[String]| {
                        values
                            .iter()
                            .map(|value| first_word(value))
                            .collect::<Vec<_>>()
                    };
                    self.equal(&here, &words(&wanted), &words(&actual));
                }
                _ => self.equal(&here, &wanted, &actual),
            }
        }
        let is_listed = |name: &str| {
            expected
                .keys()
                .any(|listed| listed.eq_ignore_ascii_case(name))
        };
        for name in IDENTITY_HEADERS
            .into_iter()
            .filter(|name| !is_listed(name) && got.headers.contains_key(*name))
        {
            self.problems.push(format!("{at}/{name}: not expected"));
        }
    }

    fn body(&mut self, expected: &ExpectedRequest, got: &Received, at: &str) {
        let text = String::from_utf8_lossy(&got.body);
        match expected.body() {
            Some((form, body)) => match decode(got, form) {
                Some(decoded) => self.json(body, &decoded, &format!("{at}/{form}")),
                None => self.problems.push(format!(
                    "{at}/{form}: expected {}, got {}",
                    short(body),
                    short(&text.into())
                )),
            },
            None if !text.is_empty() => self.problems.push(format!(
                "{at}: no body expected, got {}",
                short(&text.into())
            )),
            None => {}
        }
    }

    fn equal<T: PartialEq + serde::Serialize + ?Sized>(&mut self, at: &str, expected: &T, got: &T) {
        self.problems.extend(expect_equal(at, expected, got));
    }
}

/// Compares decoded segments; a recorded segment `*` matches any text.
pub fn is_same_path(expected: &str, got: &str) -> bool {
    let [expected, got] = [expected, got].map(|path| path.split('/').collect::<Vec<_>>());
    let same = |(left, right): (&&str, &&str)| {
        (*left == "*" && !right.is_empty())
            || percent_decode_str(left).eq(percent_decode_str(right))
    };
    expected.len() == got.len() && expected.iter().zip(&got).all(same)
}

/// Removes the client's name from Sentry's header with the key.
fn without_client(name: &str, values: Vec<String>) -> Vec<String> {
    if !name.eq_ignore_ascii_case("x-sentry-auth") {
        return values;
    }
    let is_key = |part: &&str| !part.starts_with("sentry_client=");
    values
        .iter()
        .map(|value| {
            value
                .split(", ")
                .filter(is_key)
                .collect::<Vec<_>>()
                .join(", ")
        })
        .collect()
}

/// As text, with sorted object members.
fn canonical(value: &Value) -> String {
    let mut sorted = value.clone();
    sorted.sort_all_objects();
    sorted.to_string()
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    pairs.sort();
    pairs
}

fn is_same_type(left: &Value, right: &Value) -> bool {
    std::mem::discriminant(left) == std::mem::discriminant(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mark_may_replace_the_end_of_a_text() {
        let loose = BTreeMap::from([("/text".to_owned(), Looseness::Prefix)]);
        let long = "word ".repeat(100);
        let problems = |got: &str| {
            let mut comparison = Comparison::new(&loose);
            comparison.json(&long.clone().into(), &got.into(), "/text");
            comparison.problems
        };
        assert!(problems(&long).is_empty());
        assert!(problems(&format!("{}…", &long[..200])).is_empty());
        assert!(problems(&format!("{}… (truncated)", &long[..200])).is_empty());
        assert!(!problems(&format!("{} and more", &long[..200])).is_empty());
        assert!(!problems(&format!("{}…", &long[..50])).is_empty());
    }

    #[test]
    fn elements_in_another_order_are_equal_only_where_allowed() {
        let (expected, got) = (
            serde_json::json!([{"a": 1, "b": 2}, 3]),
            serde_json::json!([3, {"b": 2, "a": 1}]),
        );
        let problems = |loose| {
            let mut comparison = Comparison::new(&loose);
            comparison.json(&expected, &got, "/list");
            comparison.problems.len()
        };
        assert_eq!(
            problems(BTreeMap::from([("/list".to_owned(), Looseness::Order)])),
            0
        );
        assert_eq!(problems(BTreeMap::new()), 2);
    }

    #[test]
    fn an_unrecorded_value_is_a_difference() {
        let loose = BTreeMap::new();
        let mut comparison = Comparison::new(&loose);
        comparison.json(
            &serde_json::json!({"a": 1}),
            &serde_json::json!({"a": 1, "b": 2}),
            "",
        );
        assert_eq!(comparison.problems, ["/b: not expected, got 2"]);
    }
}
