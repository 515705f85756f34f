//! Adds the values of annotations to the spec of an object.

use std::borrow::Cow;

use serde_json::{Map, Value};
use tidings_core::model::nearest::nearest;

use super::{EXTENSIONS, Extension, PREFIX, near_miss};
use crate::object::Object;
use crate::report::Report;
use crate::resource::Version;

/// The spec with the values of all annotations, which are noted in the report. Each mistake in an
/// annotation is an error of the report.
pub(crate) fn merge<'a>(report: &mut Report<'a>) -> Cow<'a, Value> {
    let object = report.object;
    let spec = &object.value["spec"];
    near_miss::check_nulls(report);
    near_miss::check_labels(report);
    let annotations = match &object.value["metadata"]["annotations"] {
        Value::Null => return Cow::Borrowed(spec),
        Value::Object(annotations) => annotations,
        _ => {
            report.error("metadata.annotations", "must be a map of names to strings");
            return Cow::Borrowed(spec);
        }
    };
    let mut merged = Cow::Borrowed(spec);
    for (key, value) in annotations {
        if let Some(row) = row(object, key, report)
            && let Some(value) = read(row, value, report)
        {
            add(row, value, &mut merged, report);
        }
    }
    merged
}

/// The row of an annotation; `None` if the annotation is not ours. An unknown annotation is an
/// error, because a mistyped restriction must not be ignored.
fn row(object: &Object, key: &str, report: &mut Report<'_>) -> Option<&'static Extension> {
    let kind = object.text(&["kind"]);
    let ours = key.split_at_checked(PREFIX.len());
    let Some((prefix, name)) = ours.filter(|(prefix, _)| prefix.eq_ignore_ascii_case(PREFIX))
    else {
        near_miss::check_annotation(key, report);
        return None;
    };
    if let Some(row) = Extension::of(kind).find(|row| row.name == name && prefix == PREFIX) {
        return Some(row);
    }
    let other = EXTENSIONS
        .iter()
        .find(|row| row.name == name && row.kind != kind);
    let similar = nearest(name, Extension::of(kind).map(|row| row.name));
    let message = match (other, similar) {
        (Some(other), _) => format!("is for {}, not for {kind}; remove it", other.kind),
        (None, Some(similar)) => format!("is unknown; did you mean {PREFIX}{similar}?"),
        (None, None) => {
            let names: Vec<_> = Extension::of(kind).map(Extension::annotation).collect();
            format!("is unknown; remove it, or use one of {}", names.join(", "))
        }
    };
    report.error(&format!("metadata.annotations[{key}]"), message);
    None
}

fn read(row: &Extension, value: &Value, report: &mut Report<'_>) -> Option<Value> {
    let path = row.annotation_path();
    let Some(text) = value.as_str() else {
        report.error(&path, "must be a string; put it in quotes");
        return None;
    };
    match row.form.read(text) {
        Ok(value) => Some(value),
        Err(message) => {
            report.error(&path, message);
            None
        }
    }
}

/// Adds a value, unless the field has one. If the two differ, that is an error.
fn add(
    row: &'static Extension,
    value: Value,
    merged: &mut Cow<'_, Value>,
    report: &mut Report<'_>,
) {
    let default = default(row, report.object);
    let Some(field) = slot(row, merged.to_mut()) else {
        // The field's parent is no map, which is an error of its own.
        return;
    };
    let is_default = default.is_some() && field.as_str() == default;
    if field.is_null() || is_default {
        *field = value;
        report.annotated.push(row);
    } else if !row.form.agree(field, &value) {
        let message = format!("differs from {}; remove one of them", row.field_path());
        report.error(&row.annotation_path(), message);
    }
}

/// The default that an API server sets. It looks like a given value, so that an
/// annotation overrides it.
fn default(row: &Extension, object: &Object) -> Option<&'static str> {
    let version = Version::parse(object.text(&["apiVersion"]))?;
    (row.field == "eventSeverity").then(|| version.default_severity())
}

/// The place of the field; creates its parents. `None` if a parent is no map.
fn slot<'a>(row: &Extension, spec: &'a mut Value) -> Option<&'a mut Value> {
    row.field.split('.').try_fold(spec, |value, key| {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        Some(value.as_object_mut()?.entry(key).or_insert(Value::Null))
    })
}
