//! Searches a text with one pattern, within a number of steps.
//!
//! A lazy DFA reads the text. It computes a state the first time it is needed, from the states of
//! the NFA, and keeps it in a cache of fixed size. Each search has a new cache, so earlier searches
//! change nothing. If the cache keeps filling, a simulation of the NFA takes over, provided that
//! states × bytes are within the steps.

use regex_automata::hybrid::dfa::Cache;
use regex_automata::hybrid::{LazyStateID, dfa::DFA};
use regex_automata::util::start;

use super::automaton::Automaton;
use super::{Decision, Steps};

/// How many bytes count as one step while no state is computed.
const BYTES_PER_STEP: u64 = 4;

/// How the lazy search ended.
enum End {
    Decided(bool),
    NoStepsLeft,
    CacheFull,
}

impl Automaton {
    /// Whether a part of the text matches.
    pub(super) fn search(&self, text: &str, steps: &mut Steps) -> Decision {
        // A new one: a cache that was used by another pattern counts its memory differently.
        let mut cache = self.lazy.create_cache();
        let end = self.search_lazily(&mut cache, text, steps);
        drop(cache);
        let is_match = match end {
            End::Decided(is_match) => is_match,
            End::NoStepsLeft => return Decision::Undecided,
            End::CacheFull => {
                let all = self.states().saturating_mul(length(text) + 1);
                if !steps.take(all) {
                    return Decision::Undecided;
                }
                let mut cache = self.simulation.create_cache();
                self.simulation.is_match(&mut cache, text)
            }
        };
        if is_match {
            Decision::Match
        } else {
            Decision::NoMatch
        }
    }

    fn search_lazily(&self, cache: &mut Cache, text: &str, steps: &mut Steps) -> End {
        let mut walk = Walk {
            dfa: &self.lazy,
            cache,
            cost: self.states(),
            steps,
        };
        // Every byte is read at most once. What is not read is given back.
        if !walk.steps.take(length(text) / BYTES_PER_STEP + 1) {
            return End::NoStepsLeft;
        }
        let (end, read) = match walk.run(text) {
            Ok((is_match, read)) => (End::Decided(is_match), read),
            Err(end) => (end, text.len()),
        };
        let unread = text.len().saturating_sub(read) as u64 / BYTES_PER_STEP;
        *walk.steps = Steps::new(walk.steps.left() + unread);
        end
    }
}

/// A run of the lazy DFA over a text.
struct Walk<'a> {
    dfa: &'a DFA,
    cache: &'a mut Cache,
    /// The steps to compute a state.
    cost: u64,
    steps: &'a mut Steps,
}

impl Walk<'_> {
    /// Returns whether a part of the text matches, and how many bytes were read.
    fn run(&mut self, text: &str) -> Result<(bool, usize), End> {
        self.pay()?;
        let start = start::Config::new().anchored(regex_automata::Anchored::No);
        let mut state = self
            .dfa
            .start_state(self.cache, &start)
            .map_err(|_| End::CacheFull)?;
        for (at, byte) in text.bytes().enumerate() {
            state = self.next(state, byte)?;
            if !state.is_tagged() {
                continue;
            }
            // A match is noticed one byte after its end. One that ends within a character is an
            // empty match that Go does not see.
            if state.is_match() && text.is_char_boundary(at) {
                return Ok((true, at));
            }
            if state.is_dead() {
                return Ok((false, at));
            }
        }
        self.pay()?;
        let end = self
            .dfa
            .next_eoi_state(self.cache, state)
            .map_err(|_| End::CacheFull)?;
        Ok((end.is_match(), text.len()))
    }

    /// The state after this byte. Computing it costs steps, a known state does not.
    fn next(&mut self, state: LazyStateID, byte: u8) -> Result<LazyStateID, End> {
        if !state.is_tagged() {
            let next = self.dfa.next_state_untagged(self.cache, state, byte);
            if !next.is_unknown() {
                return Ok(next);
            }
        }
        self.pay()?;
        self.dfa
            .next_state(self.cache, state, byte)
            .map_err(|_| End::CacheFull)
    }

    fn pay(&mut self) -> Result<(), End> {
        if self.steps.take(self.cost) {
            Ok(())
        } else {
            Err(End::NoStepsLeft)
        }
    }
}

fn length(text: &str) -> u64 {
    text.len() as u64
}
