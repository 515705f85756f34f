//! The checks of rules that need the code of the provider types.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tidings_rules::template::Escape;
use tidings_rules::{ResolvedProvider, TypeChecks};

use crate::attempt::PreparedProviders;
use crate::http::HttpClients;
use crate::message::blocking::run_blocking;
use crate::message::template_check;

/// The most templates whose result is kept.
const MOST_TEMPLATES: usize = 2_000;

/// Prepares Providers and renders templates, and sends nothing. Results are kept, so that a new
/// snapshot costs only what has changed.
pub struct RuleChecks {
    providers: PreparedProviders,
    templates: Mutex<HashMap<TemplateKey, Vec<String>>>,
}

type TemplateKey = (String, Escape, BTreeMap<String, String>);

impl RuleChecks {
    /// Checks that use these clients.
    pub fn new(http_clients: HttpClients) -> Self {
        Self {
            providers: PreparedProviders::new(http_clients),
            templates: Mutex::default(),
        }
    }
}

impl TypeChecks for RuleChecks {
    fn check_provider(&self, provider: Arc<ResolvedProvider>) -> Result<(), String> {
        self.providers
            .prepare(provider)
            .map(drop)
            .map_err(|failure| failure.detail)
    }

    fn check_template(
        &self,
        source: &str,
        escape: Escape,
        metadata: &BTreeMap<String, String>,
    ) -> Vec<String> {
        let key = (source.to_owned(), escape, metadata.clone());
        if let Some(known) = self.templates.lock().get(&key) {
            return known.clone();
        }
        let found = run_blocking(|| template_check::check(source, escape, metadata));
        let mut templates = self.templates.lock();
        if templates.len() >= MOST_TEMPLATES {
            templates.clear();
        }
        templates.insert(key, found.clone());
        found
    }
}
