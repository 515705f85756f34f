//! Renders a message with the user's template and adds links.
//!
//! ```text
//!  template of Alert or Provider ─► Program (compiled once) ─┐
//!  event, alert, provider, links ─► TemplateContext ─────────┴─► title and text, or standard form
//! ```

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use tidings_core::bus::clusters::{Clusters, former_names};
use tidings_core::bus::live_clusters::LiveClusters;
use tidings_core::runtime::config::LinksSettings;
use tidings_core::wire::Cluster;
use tidings_rules::template::{Escape, Program, Rendered};
use tidings_rules::{Family, ResolvedProvider, Unresolved};

use crate::message::Message;
use crate::message::blocking::run_blocking;
use crate::message::links::{Patterns, commit_page, expand};
use crate::message::template_context::{TemplateContext, repository};
use crate::text::cut_chars;

/// The most compiled templates in the cache.
const MOST_PROGRAMS: usize = 500;
/// The longest error, in characters.
const LONGEST_ERROR: usize = 300;
/// The longest target URL that GitLab accepts.
const LONGEST_TARGET_URL: usize = 255;

/// What a provider type sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The event itself, in Flux's format. Templates and links do not apply.
    Event,
    /// Title, text and links. A template's values are escaped as the service's markup needs.
    Text(Escape),
}

/// What templates and links change in a message. Without it, the message has the standard form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedMessage {
    /// The template's title.
    pub title: Option<String>,
    /// The template's text.
    pub text: Option<String>,
    /// The links to show, in this order.
    pub links: Vec<Link>,
    /// The URL that a commit status links to.
    pub target_url: Option<String>,
    /// Why the template failed, so that the standard form is sent; empty if it did not fail.
    pub template_error: String,
}

/// A link to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name in templates and payloads.
    pub key: &'static str,
    /// Its label for people.
    pub label: &'static str,
    /// An http or https URL.
    pub url: String,
}

impl Link {
    /// In Markdown.
    pub fn markdown(&self) -> String {
        // A parenthesis would end the URL.
        format!(
            "[{}]({})",
            self.label,
            self.url.replace('(', "%28").replace(')', "%29")
        )
    }
}

impl RenderedMessage {
    /// The standard form.
    pub const STANDARD: &'static Self = &Self {
        title: None,
        text: None,
        links: Vec::new(),
        target_url: None,
        template_error: String::new(),
    };
}

/// Renders the messages of one process.
pub struct Renderer {
    patterns: Patterns,
    links_by_default: bool,
    clusters: Arc<LiveClusters>,
    programs: Mutex<HashMap<(String, Escape), Arc<Compiled>>>,
}

type Compiled = Result<Program, String>;

impl Renderer {
    /// Compiles the patterns of the settings.
    ///
    /// # Errors
    /// A pattern is invalid; the error names its key.
    pub fn new(settings: &LinksSettings) -> Result<Self, String> {
        Ok(Self {
            patterns: Patterns::new(settings)?,
            links_by_default: settings.enabled,
            clusters: LiveClusters::fixed(Clusters::new()),
            programs: Mutex::default(),
        })
    }

    /// Uses what the hub knows of clusters: their labels in templates, and their dashboards.
    #[must_use]
    pub fn with_clusters(self, clusters: Arc<LiveClusters>) -> Self {
        Self { clusters, ..self }
    }

    /// The names that a cluster had before it was renamed.
    pub fn former_clusters(&self, cluster: &str) -> Vec<String> {
        former_names(&self.clusters(), cluster)
            .map(str::to_owned)
            .collect()
    }

    /// What the hub knows of clusters now.
    pub fn clusters(&self) -> Arc<Clusters> {
        self.clusters.current()
    }

    /// Renders a message. `template` gives the source of the template, if there is one.
    ///
    /// # Guarantees
    /// A template that fails results in the standard form, so no message is lost.
    pub fn rendered(
        &self,
        message: &Message<'_>,
        provider: &ResolvedProvider,
        content: Content,
        template: impl FnOnce() -> Result<Option<String>, Unresolved>,
    ) -> RenderedMessage {
        let Content::Text(escape) = content else {
            return RenderedMessage::default();
        };
        if provider.kind.family == Family::CommitStatus {
            return RenderedMessage {
                target_url: self.target_url(message, provider),
                ..RenderedMessage::default()
            };
        }
        let template = template()
            .map_err(|unresolved| unresolved.to_string())
            .transpose();
        let shows_links = provider.links.unwrap_or(self.links_by_default);
        if template.is_none() && !shows_links {
            return RenderedMessage::default();
        }
        let (mut context, dashboard) = self.context(message, provider);
        let links = self.links(message, &context, dashboard);
        context.links = links
            .iter()
            .map(|link| (link.key, link.url.clone()))
            .collect();
        let mut rendered = RenderedMessage {
            links: if shows_links { links } else { Vec::new() },
            ..RenderedMessage::default()
        };
        let only_own = |text: String, source: &str| {
            let own = message.own_mentions;
            own.only(text, source, message.metadata)
        };
        let render = |source: Result<String, String>| {
            let source = source?;
            let Rendered { title, text } = self.render(source.clone(), escape, &context)?;
            Ok::<_, String>(Rendered {
                title: title.map(|title| only_own(title, &source)),
                text: only_own(text, &source),
            })
        };
        match template.map(render) {
            None => {}
            Some(Ok(Rendered { title, text })) => {
                (rendered.title, rendered.text) = (title, Some(text))
            }
            Some(Err(sentence)) => rendered.template_error = cut_chars(&sentence, LONGEST_ERROR),
        }
        rendered
    }

    /// The variables of a message, and the pattern of its cluster's dashboard, which may be empty.
    fn context(
        &self,
        message: &Message<'_>,
        provider: &ResolvedProvider,
    ) -> (TemplateContext, String) {
        let mut context = TemplateContext::new(message, provider);
        let cluster = self.clusters.current().get(&message.event.cluster).cloned();
        let Cluster {
            labels, dashboard, ..
        } = cluster.unwrap_or_default();
        context.cluster_labels = labels;
        (context, dashboard)
    }

    fn render(
        &self,
        source: String,
        escape: Escape,
        context: &TemplateContext,
    ) -> Result<Rendered, String> {
        let render = || {
            self.program(source, escape)
                .as_ref()
                .as_ref()
                .map_err(Clone::clone)?
                .render(context)
        };
        // No template is known to panic. A panic is handled like any other error of a template.
        run_blocking(|| catch_unwind(AssertUnwindSafe(render))).unwrap_or_else(|_| {
            Err("the template engine panicked; simplify the template".to_owned())
        })
    }

    /// The compiled template, or its error, from the cache.
    fn program(&self, source: String, escape: Escape) -> Arc<Compiled> {
        let mut programs = self.programs.lock();
        let key = (source, escape);
        if let Some(program) = programs.get(&key) {
            return program.clone();
        }
        if programs.len() >= MOST_PROGRAMS {
            programs.clear();
        }
        let program = Arc::new(Program::compile(&key.0, escape));
        programs.insert(key, program.clone());
        program
    }

    fn links(
        &self,
        message: &Message<'_>,
        context: &TemplateContext,
        own_dashboard: String,
    ) -> Vec<Link> {
        let page = || commit_page(&repository(message)?, context.commit()?);
        let commit = page().or_else(|| expand(self.patterns.commit.as_ref(), context));
        let dashboard = match own_dashboard.is_empty() {
            true => expand(self.patterns.dashboard.as_ref(), context),
            false => self.expand_own(own_dashboard, context),
        };
        let links = [
            ("commit", "Commit", commit),
            ("dashboard", "Dashboard", dashboard),
        ];
        links
            .into_iter()
            .filter_map(|(key, label, url)| {
                Some(Link {
                    key,
                    label,
                    url: url?,
                })
            })
            .collect()
    }

    /// The URL that a pattern gives that is not of the settings.
    fn expand_own(&self, pattern: String, context: &TemplateContext) -> Option<String> {
        run_blocking(|| {
            let program = self.program(pattern, Escape::Url);
            expand(program.as_ref().as_ref().ok(), context)
        })
    }

    fn target_url(&self, message: &Message<'_>, provider: &ResolvedProvider) -> Option<String> {
        let own = provider.commit_status.target_url.clone();
        if own.is_none() && self.patterns.commit_status.is_none() {
            return None;
        }
        let (context, _) = self.context(message, provider);
        let url = match own {
            Some(own) => self.expand_own(own, &context),
            None => expand(self.patterns.commit_status.as_ref(), &context),
        }?;
        Some(url).filter(|url| url.len() <= LONGEST_TARGET_URL)
    }
}

#[cfg(test)]
mod tests;
