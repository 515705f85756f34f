//! The text of a selector, as `kubectl --selector` reads it: `env=prod,tier in (a,b),!legacy`.

use serde_json::{Map, Value, json};

/// Reads the text of a selector. It gives the value of the field, whose keys and values are checked
/// later.
///
/// # Errors
/// What to write instead. The message does not quote the text.
pub(crate) fn parse(text: &str) -> Result<Value, &'static str> {
    const EXPECTED: &str =
        "must be requirements, separated by commas, such as env=prod,tier in (web,api),!legacy";
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for part in split(text).ok_or(EXPECTED)? {
        match requirement(part.trim()).ok_or(EXPECTED)? {
            // A second value of a key is a requirement of its own, as in Kubernetes.
            (key, "In", Some(values)) if values.len() == 1 && !labels.contains_key(key) => {
                labels.insert(key.to_owned(), values[0].into());
            }
            (key, operator, None) => expressions.push(json!({"key": key, "operator": operator})),
            (key, operator, Some(values)) => {
                expressions.push(json!({"key": key, "operator": operator, "values": values}))
            }
        }
    }
    let mut selector = json!({});
    if !labels.is_empty() {
        selector["matchLabels"] = labels.into();
    }
    if !expressions.is_empty() {
        selector["matchExpressions"] = expressions.into();
    }
    Ok(selector)
}

/// The parts between commas that are not in parentheses. `None` if a parenthesis is missing.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut is_inside) = (Vec::new(), 0, false);
    for (position, character) in text.char_indices() {
        match character {
            '(' if is_inside => return None,
            ')' if !is_inside => return None,
            '(' | ')' => is_inside = !is_inside,
            ',' if !is_inside => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    (!is_inside).then_some(parts)
}

/// Key, operator and values.
type Parsed<'a> = (&'a str, &'static str, Option<Vec<&'a str>>);

fn requirement(part: &str) -> Option<Parsed<'_>> {
    if let Some(key) = part.strip_prefix('!') {
        return Some((word(key)?, "DoesNotExist", None));
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, values) = list.split_once('(')?;
        let (key, operator) = head.trim_end().rsplit_once(char::is_whitespace)?;
        let operator = match operator {
            "in" => "In",
            "notin" => "NotIn",
            _ => return None,
        };
        return Some((
            word(key)?,
            operator,
            Some(values.split(',').map(str::trim).collect()),
        ));
    }
    for (sign, operator) in [("!=", "NotIn"), ("==", "In"), ("=", "In")] {
        if let Some((key, value)) = part.split_once(sign) {
            return Some((word(key)?, operator, Some(vec![value.trim()])));
        }
    }
    Some((word(part)?, "Exists", None))
}

/// The text without spaces around it, if it is one word.
fn word(text: &str) -> Option<&str> {
    let word = text.trim();
    let is_word = !word.is_empty() && !word.contains(char::is_whitespace);
    is_word.then_some(word)
}
