//! The patterns of all rules. Equal patterns are one.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use parking_lot::Mutex;

use super::automaton::{self, Automaton, MAX_AUTOMATON_BYTES};
use super::translate::translate;
use super::{Decision, Steps};

/// The memory for patterns without a user, which are kept with the results of their checks.
const MAX_UNUSED_BYTES: usize = 8 << 20;

/// A pattern with a valid syntax.
///
/// It compiles when it is needed first. A snapshot of rules keeps the automata of its Alerts.
#[derive(Debug)]
pub struct Pattern {
    translated: String,
    class_characters: u64,
    syntax: OnceLock<Result<(), String>>,
    size: OnceLock<Result<Size, String>>,
    automaton: Mutex<Weak<Automaton>>,
}

/// The size of an automaton.
#[derive(Clone, Copy, Debug)]
struct Size {
    bytes: usize,
    states: u64,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.translated == other.translated
    }
}

impl Eq for Pattern {}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, String> {
        let translated = translate(pattern)?;
        Ok(Self {
            translated: translated.text,
            class_characters: translated.class_characters,
            syntax: OnceLock::new(),
            size: OnceLock::new(),
            automaton: Mutex::default(),
        })
    }

    pub(super) fn class_characters(&self) -> u64 {
        self.class_characters
    }

    pub(super) fn check_syntax(&self) -> Result<(), String> {
        let check = || automaton::check_syntax(&self.translated);
        self.syntax.get_or_init(check).clone()
    }

    /// The automaton, which lives as long as it is used.
    ///
    /// # Errors
    /// The pattern is too large. The message completes the sentence "The pattern …".
    pub(crate) fn automaton(&self) -> Result<Arc<Automaton>, String> {
        if let Some(Err(message)) = self.size.get() {
            return Err(message.clone());
        }
        let mut known = self.automaton.lock();
        if let Some(automaton) = known.upgrade() {
            return Ok(automaton);
        }
        let compiled = self.compile(MAX_AUTOMATON_BYTES).map(Arc::new);
        let size = compiled
            .as_ref()
            .map_err(Clone::clone)
            .map(|automaton| Size {
                bytes: automaton.bytes(),
                states: automaton.states(),
            });
        self.size.get_or_init(|| size);
        if let Ok(automaton) = &compiled {
            *known = Arc::downgrade(automaton);
        }
        compiled
    }

    pub(super) fn compile(&self, limit: usize) -> Result<Automaton, String> {
        self.check_syntax()?;
        Automaton::compile(&self.translated, limit)
    }

    /// The memory that the automaton uses.
    ///
    /// # Errors
    /// See [`Pattern::automaton`].
    pub(crate) fn bytes(&self) -> Result<usize, String> {
        if self.size.get().is_none() {
            self.automaton()?;
        }
        match self.size.get() {
            Some(Ok(size)) => Ok(size.bytes),
            Some(Err(message)) => Err(message.clone()),
            None => Ok(0),
        }
    }

    pub(super) fn steps_per_byte(&self) -> u64 {
        match self.size.get() {
            Some(Ok(size)) => size.states,
            Some(Err(_)) => 0,
            // Not compiled yet. The search compiles it.
            None => self.translated.len() as u64,
        }
    }

    /// Whether a part of the text matches. A pattern that is too large matches nothing.
    pub fn search(&self, text: &str, steps: &mut Steps) -> Decision {
        match self.automaton() {
            Ok(automaton) => automaton.search(text, steps),
            Err(_) => Decision::NoMatch,
        }
    }
}

/// Valid patterns, and the errors of invalid ones.
struct Store {
    patterns: HashMap<String, Result<Arc<Pattern>, String>>,
    /// The memory of all entries.
    bytes: usize,
    /// Above it, unused patterns are removed.
    limit: usize,
}

static STORE: LazyLock<Mutex<Store>> = LazyLock::new(|| {
    Mutex::new(Store {
        patterns: HashMap::new(),
        bytes: 0,
        limit: MAX_UNUSED_BYTES,
    })
});

/// The pattern with this text.
///
/// # Errors
/// A message that completes the sentence "The pattern …".
pub(super) fn get(text: &str) -> Result<Arc<Pattern>, String> {
    if let Some(known) = STORE.lock().patterns.get(text) {
        return known.clone();
    }
    let pattern = Pattern::new(text).map(Arc::new);
    let mut store = STORE.lock();
    if store.bytes > store.limit {
        store.remove_unused();
    }
    store.bytes += cost(text);
    let stored = store.patterns.entry(text.to_owned()).or_insert(pattern);
    stored.clone()
}

/// About what an entry needs in memory.
fn cost(text: &str) -> usize {
    512 + 3 * text.len()
}

impl Store {
    fn remove_unused(&mut self) {
        self.patterns.retain(|_, pattern| {
            pattern
                .as_ref()
                .is_ok_and(|pattern| Arc::strong_count(pattern) > 1)
        });
        self.bytes = self.patterns.keys().map(|text| cost(text)).sum();
        // Otherwise every pattern beyond the limit would start a search for unused ones.
        self.limit = self.bytes + MAX_UNUSED_BYTES;
    }
}
