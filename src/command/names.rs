//! Refuses names of Alerts and Providers that do not exist.

use anyhow::{Context as _, bail};
use tidings_core::bus::Bus;
use tidings_core::bus::names::{RuleKind, RuleName};

/// Parses `NAMESPACE/NAME` of an Alert or Provider.
///
/// # Errors
/// The text has another form. `what` names the argument.
pub fn parse(kind: RuleKind, what: &str, text: &str) -> anyhow::Result<RuleName> {
    let parts = text.split_once('/');
    let parts = parts.filter(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/')
    });
    let (namespace, name) =
        parts.with_context(|| format!("{what} {text:?}: expected NAMESPACE/NAME"))?;
    Ok(RuleName {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Checks that an Alert or Provider exists: in the rules of a running router or worker, or in what
/// the streams hold. `stored` are the names that the caller found there.
///
/// # Errors
/// The name does not exist; the error suggests a similar one. Or the bus is unavailable.
pub async fn require<'a>(
    bus: &Bus,
    name: &RuleName,
    stored: impl Iterator<Item = (&'a str, &'a str)>,
) -> anyhow::Result<()> {
    let stored = name.answer(stored);
    let RuleName {
        kind,
        namespace,
        name: short,
    } = name;
    if stored.is_known || (*kind == RuleKind::Provider && bus.has_history(namespace, short).await?)
    {
        return Ok(());
    }
    let asked = bus.ask_name(name).await?;
    if asked.as_ref().is_some_and(|answer| answer.is_known) {
        return Ok(());
    }
    let what = format!("{} {namespace}/{short} not found", kind.as_str());
    let is_answered = asked.is_some();
    match asked.and_then(|answer| answer.similar).or(stored.similar) {
        Some(similar) => bail!("{what}; did you mean {similar}?"),
        None if is_answered => bail!("{what}: no router or worker has it in its rules"),
        None => bail!("{what}: no router or worker runs that could know it; start one first"),
    }
}
