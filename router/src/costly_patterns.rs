//! Which Alerts have patterns that were too costly for a message, as this router has seen it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings_core::model::origin;
use tidings_core::runtime::codes::log as codes;
use tidings_rules::pattern::Patterns;
use tidings_rules::{Alert, Rules, RulesOrigin};
use tokio::sync::watch;

use crate::pattern_searches::LeftOut;
use crate::plan::explain_left_out;

/// How long a finding counts after it was seen last.
const KEPT_FOR: Duration = Duration::from_secs(3600);
/// How many fields a log event names.
const MAX_FIELDS: usize = 10;
/// The highest number of findings. Beyond it, all are dropped.
const MAX_FINDINGS: usize = 10_000;

/// The Alerts whose patterns were too costly in the last hour.
#[derive(Debug, Default)]
pub struct CostlyPatterns {
    findings: Mutex<HashMap<(String, String), Finding>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Finding {
    /// The patterns of the Alert at that time. Later ones may not be costly.
    patterns: [Option<Patterns>; 2],
    fields: Vec<String>,
    message_bytes: usize,
    seen: Instant,
}

/// The findings about the Alerts of one source.
#[derive(Clone, Copy, Debug)]
pub struct CostlyOf<'a> {
    all: &'a CostlyPatterns,
    qualifier: Option<&'a str>,
}

impl CostlyOf<'_> {
    /// What was left out of the Alert and why, if its patterns are still the same.
    pub fn explain(&self, alert: &Alert) -> Option<String> {
        let namespace = match self.qualifier {
            Some(qualifier) => origin::qualified(qualifier, &alert.namespace),
            None => alert.namespace.clone(),
        };
        self.all.explain((namespace, alert.name.clone()), alert)
    }
}

impl CostlyPatterns {
    /// Records what was left out for a message of this length. Logs it if it is new.
    pub fn record(&self, rules: &Rules, left_out: &LeftOut, message_bytes: usize) {
        let Some(alert) = rules.alert(&left_out.namespace, &left_out.name) else {
            return;
        };
        let finding = Finding {
            patterns: patterns(alert),
            fields: left_out.fields.clone(),
            message_bytes,
            seen: Instant::now(),
        };
        if !self.insert(alert, finding) {
            return;
        }
        tracing::warn!(
            code = codes::PATTERN_TOO_COSTLY,
            alert = %format_args!("{}/{}", alert.namespace, alert.name),
            fields = left_out.fields[..left_out.fields.len().min(MAX_FIELDS)].join(" "),
            patterns = left_out.fields.len(),
            bytes = message_bytes,
            "patterns too costly for a message and left out"
        );
        self.changes.send_modify(|number| *number += 1);
    }

    /// Inserts a finding. Returns whether none was known for these patterns of the Alert.
    fn insert(&self, alert: &Alert, finding: Finding) -> bool {
        let key = (alert.namespace.clone(), alert.name.clone());
        let mut findings = self.findings.lock();
        if let Some(known) = findings.get_mut(&key)
            && known.patterns == finding.patterns
        {
            known.seen = finding.seen;
            return false;
        }
        if findings.len() >= MAX_FINDINGS {
            findings.clear();
        }
        findings.insert(key, finding);
        true
    }

    /// The findings about Alerts of one source, which are asked for with its own namespaces.
    pub fn of_origin<'a>(&'a self, origin: &'a RulesOrigin) -> CostlyOf<'a> {
        CostlyOf {
            all: self,
            qualifier: origin.qualifier(),
        }
    }

    fn explain(&self, key: (String, String), alert: &Alert) -> Option<String> {
        let findings = self.findings.lock();
        let finding = findings.get(&key)?;
        let is_current = finding.seen.elapsed() < KEPT_FOR && finding.patterns == patterns(alert);
        is_current.then(|| {
            format!(
                "{} (a message of {} bytes)",
                explain_left_out(&finding.fields),
                finding.message_bytes
            )
        })
    }

    /// Drops old findings.
    pub fn expire(&self) {
        let mut findings = self.findings.lock();
        let before = findings.len();
        findings.retain(|_, finding| finding.seen.elapsed() < KEPT_FOR);
        if findings.len() < before {
            self.changes.send_modify(|number| *number += 1);
        }
    }

    /// Notifies of every new finding, and of dropped ones.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn patterns(alert: &Alert) -> [Option<Patterns>; 2] {
    [alert.included.clone(), alert.excluded.clone()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_rules::Options;
    use tidings_rules::testing::alert;

    use super::*;

    fn rules(pattern: &str) -> Rules {
        let alert = alert("a", "p").with("inclusionList", json!(["x", pattern]));
        Rules::compile(&[alert.object()], &[], &Options::default())
    }

    #[test]
    fn a_finding_counts_until_the_patterns_change() {
        let (costly, first, changed) = (CostlyPatterns::default(), rules("a"), rules("b"));
        let left_out = LeftOut {
            namespace: "apps".into(),
            name: "a".into(),
            fields: vec!["spec.inclusionList[1]".into()],
        };
        let explain = |rules: &Rules| {
            let own = costly.of_origin(&RulesOrigin::Hub);
            own.explain(rules.alert("apps", "a").unwrap())
        };
        let mut changes = costly.changes();
        assert_eq!(explain(&first), None);
        costly.record(&first, &left_out, 400_000);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        costly.record(&first, &left_out, 500_000);
        assert!(!changes.has_changed().unwrap(), "it is known");
        let message = explain(&first).unwrap();
        assert!(
            message.contains("spec.inclusionList[1]") && message.contains("400000"),
            "{message}"
        );
        assert_eq!(explain(&changed), None);
        costly.record(&changed, &left_out, 1);
        assert!(changes.has_changed().unwrap());
    }
}
