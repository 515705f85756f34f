//! The parameters of a request.

use std::ops::RangeInclusive;

use url::form_urlencoded;

use super::problem::Problem;

/// The longest value.
const MAX_BYTES: usize = 512;

/// Parameters with known names, each at most once.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the parameters. Empty values are ignored.
    ///
    /// # Errors
    /// One is not among `known`, is too long, or occurs twice.
    pub fn read(raw: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(raw.unwrap_or_default().as_bytes()) {
            // The name is not repeated in the answer: it can be anything.
            let Some(name) = known.iter().find(|known| **known == name) else {
                let expected = known.join(", ");
                return Err(Problem::Invalid(format!(
                    "unknown parameter; expected: {expected}"
                )));
            };
            if value.len() > MAX_BYTES {
                return Err(Problem::Invalid(format!(
                    "{name}: longer than {MAX_BYTES} bytes"
                )));
            }
            if pairs.iter().any(|(other, _)| other == name) {
                return Err(Problem::Invalid(format!("{name}: given twice")));
            }
            if !value.is_empty() {
                pairs.push(((*name).to_owned(), value.into_owned()));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn text(&self, name: &str) -> Option<String> {
        let mut pairs = self.0.iter();
        let (_, value) = pairs.find(|(other, _)| other == name)?;
        Some(value.clone())
    }

    /// The value of a parameter that is a number.
    ///
    /// # Errors
    /// It is not a number in the range.
    pub fn number(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, Problem> {
        let Some(text) = self.text(name) else {
            return Ok(default);
        };
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            Problem::Invalid(format!("{name}: expected a number from {least} to {most}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_short_and_given_once() {
        let read = |raw: &str| Query::read(Some(raw), &["kind", "limit"]);
        let query = read("kind=Helm%20Release&limit=").ok().unwrap();
        assert_eq!(query.text("kind").as_deref(), Some("Helm Release"));
        assert_eq!(query.text("limit"), None);
        assert_eq!(query.number("limit", 1..=10, 5).ok(), Some(5));
        let long = format!("kind={}", "x".repeat(MAX_BYTES + 1));
        for raw in ["other=1", "kind=a&kind=b", &long] {
            assert!(matches!(read(raw), Err(Problem::Invalid(_))), "{raw}");
        }
        for raw in ["limit=0", "limit=11", "limit=-1", "limit=x"] {
            let query = read(raw).ok().unwrap();
            assert!(query.number("limit", 1..=10, 5).is_err(), "{raw}");
        }
    }
}
