//! Finds extensions that are given where they have no effect. A restriction that is ignored would
//! select every cluster.

use serde_json::Value;
use tidings_core::model::nearest::misspelled;

use super::{Extension, Form, PREFIX};
use crate::object::GROUP;
use crate::report::Report;

/// Reports extension fields that are null. A template that renders nothing writes them, and the
/// field would count as absent. In a cluster, the API server decides about null.
pub(super) fn check_nulls(report: &mut Report<'_>) {
    let object = report.object;
    if object.origin.file.is_none() {
        return;
    }
    for row in Extension::of(object.text(&["kind"])) {
        // Flux's schema has `eventSeverity`.
        if row.form == Form::Severity {
            continue;
        }
        let (mut value, mut path) = (&object.value["spec"], "spec".to_owned());
        for key in row.field.split('.') {
            let Some(inner) = value.get(key) else {
                break;
            };
            path = format!("{path}.{key}");
            value = inner;
        }
        if value.is_null() && path != "spec" {
            report.error(
                &path,
                "is null, which sets nothing; set a value, or remove the field",
            );
        }
    }
}

/// Reports an annotation whose prefix is not ours, but whose name is that of an extension. Others
/// may use the name, so it is an error only if the prefix is similar to ours or that of Flux.
pub(super) fn check_annotation(key: &str, report: &mut Report<'_>) {
    let Some((row, is_similar)) = extension_of(key, report) else {
        return;
    };
    let path = format!("metadata.annotations[{key}]");
    let message = format!("is ignored; did you mean {}?", row.annotation());
    match is_similar {
        true => report.error(&path, message),
        false => report.warn(&path, message),
    }
}

/// Reports labels that are probably meant as annotations.
pub(super) fn check_labels(report: &mut Report<'_>) {
    let object = report.object;
    let Value::Object(labels) = &object.value["metadata"]["labels"] else {
        return;
    };
    for key in labels.keys() {
        if let Some((row, true)) = extension_of(key, report) {
            let message = format!(
                "is a label, which has no effect; move it to metadata.annotations as {}",
                row.annotation()
            );
            report.error(&format!("metadata.labels[{key}]"), message);
        }
    }
}

/// The extension that a key names, and whether its prefix is similar to ours or that of Flux.
fn extension_of(key: &str, report: &Report<'_>) -> Option<(&'static Extension, bool)> {
    let mut rows = Extension::of(report.object.text(&["kind"]));
    let (prefix, row) = match key.split_once('/') {
        Some((prefix, name)) => {
            let row = rows.find(|row| row.name.eq_ignore_ascii_case(name))?;
            (prefix, row)
        }
        // The slash is missing, as in `tidings.dev.clusters`.
        None => rows.find_map(|row| {
            let rest = key.strip_suffix(row.name)?;
            let prefix = rest.strip_suffix(['.', '-', '_', ':'])?;
            is_similar(prefix).then_some((prefix, row))
        })?,
    };
    Some((row, is_similar(prefix) || prefix == GROUP))
}

fn is_similar(prefix: &str) -> bool {
    let prefix = prefix.to_ascii_lowercase();
    let ours = PREFIX.trim_end_matches('/');
    let is_like = |part: &str| part == "tidings" || misspelled(part, ["tidings"]).is_some();
    prefix.split('.').any(is_like) || misspelled(&prefix, [ours]).is_some()
}
