//! The user's own words: what a template makes of a message, and the links that go with it.
//!
//! ```text
//!  template of the Alert, else of the Provider ─► Program (compiled once) ─┐
//!  event, alert, provider, links ─► Scope ─────────────────────────────────┴─► title and text, or the standard form
//! ```

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use tidings_core::runtime::config::LinksSettings;
use tidings_rules::template::{Escape, Program, Rendered};
use tidings_rules::{Family, ResolvedProvider, Unresolved};

use crate::message::Message;
use crate::message::blocking::aside;
use crate::message::links::{Patterns, commit_page, expand};
use crate::message::scope::{Scope, repository};
use crate::message::text::cut_chars;

/// So many compiled templates are kept.
const MOST_PROGRAMS: usize = 500;
/// The longest sentence on an error, in characters.
const LONGEST_ERROR: usize = 300;
/// GitLab refuses longer ones.
const LONGEST_TARGET_URL: usize = 255;

/// What a provider type sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The event itself, in Flux's format. Templates and links do not apply.
    Event,
    /// Title, text and links. A template's values are escaped as the service's markup needs.
    Text(Escape),
}

/// How a message is worded where it is not in the standard form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedMessage {
    /// The template's title.
    pub title: Option<String>,
    /// The template's text.
    pub text: Option<String>,
    /// Links to show, in this order.
    pub links: Vec<Link>,
    /// What a commit status links to.
    pub target_url: Option<String>,
    /// What is wrong with the template, so that the standard form is sent; empty where nothing is.
    pub template_error: String,
}

/// A link to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is, as a word for machines.
    pub key: &'static str,
    /// What it is, for people.
    pub label: &'static str,
    /// An http or https URL.
    pub url: String,
}

impl Link {
    /// In Markdown.
    pub fn markdown(&self) -> String {
        // Brackets would end the address.
        format!(
            "[{}]({})",
            self.label,
            self.url.replace('(', "%28").replace(')', "%29")
        )
    }
}

impl RenderedMessage {
    /// Nothing but the standard form.
    pub const STANDARD: &'static Self = &Self {
        title: None,
        text: None,
        links: Vec::new(),
        target_url: None,
        template_error: String::new(),
    };
}

/// Renderer messages for one process.
pub struct Renderer {
    patterns: Patterns,
    links_by_default: bool,
    programs: Mutex<HashMap<(String, Escape), Arc<Compiled>>>,
}

type Compiled = Result<Program, String>;

impl Renderer {
    /// Takes the patterns of the settings.
    ///
    /// # Errors
    /// A pattern can't be used; the sentence names its key.
    pub fn new(settings: &LinksSettings) -> Result<Self, String> {
        Ok(Self {
            patterns: Patterns::new(settings)?,
            links_by_default: settings.enabled,
            programs: Mutex::default(),
        })
    }

    /// Renderer a message. `template` gives the text of the template, where there is one.
    ///
    /// # Guarantees
    /// It always ends, and in the standard form where the template can't be used: nothing is lost
    /// for a template's sake.
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
        let mut scope = Scope::new(message, provider);
        let links = self.links(message, &scope);
        scope.links = links
            .iter()
            .map(|link| (link.key, link.url.clone()))
            .collect();
        let mut rendered = RenderedMessage {
            links: if shows_links { links } else { Vec::new() },
            ..RenderedMessage::default()
        };
        match template.map(|source| self.render(source?, escape, &scope)) {
            None => {}
            Some(Ok(Rendered { title, text })) => {
                (rendered.title, rendered.text) = (title, Some(text))
            }
            Some(Err(sentence)) => rendered.template_error = cut_chars(&sentence, LONGEST_ERROR),
        }
        rendered
    }

    fn render(&self, source: String, escape: Escape, scope: &Scope) -> Result<Rendered, String> {
        let render = || {
            self.program(source, escape)
                .as_ref()
                .as_ref()
                .map_err(Clone::clone)?
                .render(scope)
        };
        // None is known that panics; if one does, it costs its rendered like any other error.
        aside(|| catch_unwind(AssertUnwindSafe(render)))
            .unwrap_or_else(|_| Err("the template makes the engine fail".to_owned()))
    }

    /// Compiled once, and remembered if it can't be.
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

    fn links(&self, message: &Message<'_>, scope: &Scope) -> Vec<Link> {
        let page = || commit_page(&repository(message)?, scope.commit()?);
        let commit = page().or_else(|| expand(self.patterns.commit.as_ref(), scope));
        let dashboard = expand(self.patterns.dashboard.as_ref(), scope);
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

    fn target_url(&self, message: &Message<'_>, provider: &ResolvedProvider) -> Option<String> {
        let own = provider.commit_status.target_url.clone();
        if own.is_none() && self.patterns.commit_status.is_none() {
            return None;
        }
        let scope = Scope::new(message, provider);
        let url = match own {
            Some(own) => aside(|| {
                expand(
                    self.program(own, Escape::Url).as_ref().as_ref().ok(),
                    &scope,
                )
            }),
            None => expand(self.patterns.commit_status.as_ref(), &scope),
        }?;
        Some(url).filter(|url| url.len() <= LONGEST_TARGET_URL)
    }
}

#[cfg(test)]
mod tests;
