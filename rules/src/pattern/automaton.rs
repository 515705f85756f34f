//! Compiles a pattern into an automaton with a known size.

use regex_automata::MatchKind;
use regex_automata::hybrid::dfa::{Builder, DFA};
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{self, Compiler, NFA, WhichCaptures};
use regex_automata::util::syntax;

/// The maximum size of a compiled pattern. A list of a few hundred patterns stays small.
pub(crate) const MAX_AUTOMATON_BYTES: usize = 4 << 20;
/// What the search needs besides the states.
const FIXED_BYTES: usize = 2 << 10;
/// The cache of the states that a search computes.
const CACHE_BYTES: usize = 512 << 10;
/// How often a search clears a full cache before it gives up.
const MAX_CACHE_CLEARS: usize = 3;
/// The maximum nesting of a pattern. The compiler recurses, and this depth fits its stack also
/// without optimizations. Go allows 1,000.
const MAX_DEPTH: u32 = 250;

/// A compiled pattern. Both engines share one NFA without captures.
#[derive(Debug)]
pub(crate) struct Automaton {
    pub(super) lazy: DFA,
    pub(super) simulation: PikeVM,
    states: u64,
    bytes: usize,
}

impl Automaton {
    /// Compiles a translated pattern to at most `limit` bytes.
    ///
    /// # Errors
    /// A message that completes the sentence "The pattern …".
    pub(super) fn compile(translated: &str, limit: usize) -> Result<Self, String> {
        let syntax = syntax::parse_with(translated, &syntax()).map_err(reason)?;
        let nfa = Compiler::new()
            .configure(
                thompson::Config::new()
                    .which_captures(WhichCaptures::None)
                    .nfa_size_limit(Some(limit)),
            )
            .build_from_hir(&syntax)
            .map_err(|error| match error.size_limit() {
                Some(_) => "is too large; use fewer repetitions or split it into several patterns"
                    .to_owned(),
                None => format!("is not a valid regular expression: {error}"),
            })?;
        Self::new(nfa).map_err(|error| format!("cannot be compiled: {error}"))
    }

    fn new(nfa: NFA) -> Result<Self, Box<dyn std::error::Error>> {
        let lazy = Builder::new()
            .configure(
                DFA::config()
                    // A match that ends within a character is no match in Go. The search goes on.
                    .match_kind(MatchKind::All)
                    .cache_capacity(CACHE_BYTES)
                    .skip_cache_capacity_check(true)
                    .minimum_cache_clear_count(Some(MAX_CACHE_CLEARS)),
            )
            .build_from_nfa(nfa.clone())?;
        Ok(Self {
            lazy,
            states: u64::try_from(nfa.states().len())?,
            bytes: nfa.memory_usage() + FIXED_BYTES,
            simulation: PikeVM::new_from_nfa(nfa)?,
        })
    }

    /// The number of states of the NFA.
    pub(super) fn states(&self) -> u64 {
        self.states
    }

    /// The memory that it uses.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Checks the syntax of a translated pattern without compiling it.
///
/// # Errors
/// A message that completes the sentence "The pattern …".
pub(super) fn check_syntax(translated: &str) -> Result<(), String> {
    syntax::parse_with(translated, &syntax())
        .map(drop)
        .map_err(reason)
}

fn syntax() -> syntax::Config {
    syntax::Config::new().nest_limit(MAX_DEPTH)
}

/// The last line is the reason. The others show the translated pattern.
fn reason(error: impl ToString) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default();
    format!(
        "is not a valid regular expression: {}",
        reason.trim_start_matches("error: ")
    )
}
