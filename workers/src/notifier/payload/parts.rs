//! Cuts the parts of a JSON body that exceed the limits of a service.

use serde_json::Value;

use crate::notifier::contract::limits::{SizeLimit, SizeLimits, SizeUnit};
use crate::text::{cut_bytes, cut_chars, cut_id, cut_utf16};

impl SizeLimits {
    /// The body, with every part within its limit. Texts end in an ellipsis where they are cut, ids
    /// in a hash; lists and objects lose their last elements.
    pub fn applied_to(&self, mut body: Value) -> Value {
        for limit in self.parts {
            let steps: Vec<&str> = limit.part.split('/').skip(1).collect();
            apply(limit, &steps, &mut body);
        }
        body
    }
}

fn apply(limit: &SizeLimit, steps: &[&str], value: &mut Value) {
    match (steps.split_first(), value) {
        (None, value) => cut(limit, value),
        (Some((&"*", rest)), Value::Array(items)) => {
            items.iter_mut().for_each(|item| apply(limit, rest, item));
        }
        (Some((&"*", rest)), Value::Object(fields)) => {
            fields
                .values_mut()
                .for_each(|field| apply(limit, rest, field));
        }
        (Some((step, rest)), value) => {
            let inner = match value {
                Value::Array(items) => step.parse().ok().and_then(|at: usize| items.get_mut(at)),
                Value::Object(fields) => fields.get_mut(*step),
                _ => None,
            };
            if let Some(inner) = inner {
                apply(limit, rest, inner);
            }
        }
    }
}

fn cut(limit: &SizeLimit, value: &mut Value) {
    match value {
        Value::String(text) if limit.unit.size(text) > limit.most => {
            *text = match limit.unit {
                _ if limit.is_id => cut_id(text, limit.most),
                SizeUnit::Bytes => cut_bytes(text, limit.most),
                SizeUnit::Characters => cut_chars(text, limit.most),
                SizeUnit::Utf16 => cut_utf16(text, limit.most),
                SizeUnit::Items => return,
            }
        }
        Value::Array(items) if limit.unit == SizeUnit::Items => items.truncate(limit.most),
        Value::Object(fields) if limit.unit == SizeUnit::Items => {
            let surplus: Vec<String> = fields.keys().skip(limit.most).cloned().collect();
            surplus.iter().for_each(|key| {
                fields.remove(key);
            });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::notifier::contract::limits::BodyLimit;

    const LIMITS: SizeLimits = SizeLimits {
        source: "",
        body: BodyLimit::Parts,
        parts: &[
            SizeLimit::characters("/title", 4),
            SizeLimit::id("/key", 20),
            SizeLimit::items("/fields", 2),
            SizeLimit::utf16("/fields/*/value", 3),
            SizeLimit::items("/tags", 1),
            SizeLimit::bytes("/list/1", 5),
        ],
    };

    #[test]
    fn each_part_is_cut_in_its_own_unit() {
        let body = json!({
            "title": "äöüßx",
            "key": "k".repeat(30),
            "fields": [{"value": "🚀🚀"}, {"value": "abc"}, {"value": "x"}],
            "tags": {"a": "1", "b": "2"},
            "list": ["whole, whole", "éééé"],
        });
        let cut = LIMITS.applied_to(body);
        assert_eq!(cut["title"], "äöü…");
        assert_eq!(cut["key"].as_str().unwrap().len(), 20);
        assert_eq!(cut["fields"], json!([{"value": "🚀…"}, {"value": "abc"}]));
        assert_eq!(cut["tags"], json!({"a": "1"}));
        assert_eq!(cut["list"], json!(["whole, whole", "é…"]));
    }

    #[test]
    fn parts_within_their_limits_and_absent_parts_stay_as_they_are() {
        let body = json!({"title": "äöüß", "key": null, "fields": 7});
        assert_eq!(LIMITS.applied_to(body.clone()), body);
    }
}
