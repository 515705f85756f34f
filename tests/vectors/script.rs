//! The scripted responses of a case.

use regex::Regex;

use crate::case::Rule;

/// The rules of a case, and how often each was used.
#[derive(Default)]
pub struct Script {
    rules: Vec<(Rule, usize)>,
}

impl Script {
    pub fn new(rules: &[Rule]) -> Self {
        Self {
            rules: rules.iter().map(|rule| (rule.clone(), 0)).collect(),
        }
    }

    /// The first rule that matches and is not used up.
    pub fn pick(&mut self, method: &str, host: &str, path: &str) -> Option<Rule> {
        let host = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(host, |(name, _)| name);
        let fits = |(rule, used): &&mut (Rule, usize)| {
            let wanted = &rule.matcher;
            wanted
                .method
                .as_deref()
                .is_none_or(|wanted| wanted == method)
                && wanted.host.as_deref().is_none_or(|wanted| wanted == host)
                && wanted
                    .path
                    .as_deref()
                    .is_none_or(|wanted| is_path(wanted, path))
                && (rule.times == 0 || *used < rule.times)
        };
        let (rule, used) = self.rules.iter_mut().find(fits)?;
        *used += 1;
        Some(rule.clone())
    }
}

fn is_path(wanted: &str, path: &str) -> bool {
    match wanted.strip_prefix('~') {
        Some(pattern) => Regex::new(&format!("^(?:{pattern})$"))
            .expect("the recorded pattern is valid")
            .is_match(path),
        None => wanted == path,
    }
}
