//! Random edits of kept inputs.

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;

/// The longest input, in bytes. Edits can double the length each time.
const LONGEST_INPUT: usize = 64 << 10;

/// A change of an input. Positions are relative, so that an edit fits every input.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Puts these bytes over others.
    Overwrite(Index, Vec<u8>),
    /// Inserts an entry of the target's dictionary.
    InsertToken(Index, Index),
    /// Inserts any characters.
    InsertText(Index, String),
    /// Removes a part.
    Remove(Index, Index),
    /// Repeats a part up to 64 times.
    Repeat(Index, Index, u8),
    /// Inserts a part of another kept input.
    Splice(Index, Index, Index, Index),
}

/// Any single edit.
pub fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), prop::collection::vec(any::<u8>(), 1..4))
            .prop_map(|(at, bytes)| Edit::Overwrite(at, bytes)),
        (at(), at()).prop_map(|(at, token)| Edit::InsertToken(at, token)),
        (at(), ".{1,8}").prop_map(|(at, text)| Edit::InsertText(at, text)),
        (at(), at()).prop_map(|(from, to)| Edit::Remove(from, to)),
        (at(), at(), 1..64u8).prop_map(|(from, to, times)| Edit::Repeat(from, to, times)),
        (at(), at(), at(), at())
            .prop_map(|(at, other, from, to)| Edit::Splice(at, other, from, to)),
    ]
}

/// Applies edits to one of the kept inputs.
pub fn mutated(kept: &[Vec<u8>], start: Index, edits: &[Edit], dictionary: &[&str]) -> Vec<u8> {
    let mut input = start.get(kept).clone();
    for edit in edits {
        apply(&mut input, edit, kept, dictionary);
        input.truncate(LONGEST_INPUT);
    }
    input
}

fn apply(input: &mut Vec<u8>, edit: &Edit, kept: &[Vec<u8>], dictionary: &[&str]) {
    let at = |index: &Index| index.index(input.len() + 1);
    match edit {
        Edit::Overwrite(index, bytes) => {
            let from = at(index);
            let to = input.len().min(from + bytes.len());
            input.splice(from..to, bytes.iter().copied());
        }
        Edit::InsertToken(index, token) => insert(input, index, token.get(dictionary).as_bytes()),
        Edit::InsertText(index, text) => insert(input, index, text.as_bytes()),
        Edit::Remove(from, to) => {
            input.drain(range(input.len(), from, to));
        }
        Edit::Repeat(from, to, times) => {
            let range = range(input.len(), from, to);
            let part = input[range.clone()].repeat(usize::from(*times));
            input.splice(range.end..range.end, part);
        }
        Edit::Splice(index, other, from, to) => {
            let other = other.get(kept);
            insert(input, index, &other[range(other.len(), from, to)]);
        }
    }
}

fn insert(input: &mut Vec<u8>, index: &Index, part: &[u8]) {
    let at = index.index(input.len() + 1);
    input.splice(at..at, part.iter().copied());
}

fn range(length: usize, from: &Index, to: &Index) -> Range<usize> {
    let (from, to) = (from.index(length + 1), to.index(length + 1));
    from.min(to)..from.max(to)
}
