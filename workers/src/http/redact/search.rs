//! Searches texts without their encodings for secrets and their parts.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use super::masks::Masks;
use super::views::{Folded, folded, layers};
use super::windows::{Pattern, Windows};
use super::{ORDINARY_SEGMENTS, SHORTEST_ENCODED};

/// The most bytes of secrets that are searched for in every encoding, the shortest secrets first. A
/// tenant chooses their size, and a search needs many times their size in memory.
pub const MOST_DECODED: usize = 64 << 10;
/// The most bytes of secrets whose parts are searched for, the shortest secrets first.
const MOST_DIVIDED: usize = 2 << 20;
/// The shortest word of a secret that stays readable. Shorter ones would be in too many secrets.
const SHORTEST_VISIBLE: usize = 3;
/// Words with which the value of a header may begin, besides its secret.
const SCHEMES: [&str; 6] = [
    "bearer ",
    "basic ",
    "token ",
    "digest ",
    "apikey ",
    "geniekey ",
];
/// Words of secrets that many texts have.
const ORDINARY_WORDS: [&str; 8] = [
    "begin certificate",
    "end certificate",
    "begin private key",
    "end private key",
    "begin rsa private key",
    "end rsa private key",
    "authorization",
    "redacted",
];

/// What to search for in a text without its encodings.
pub struct DecodedSecrets {
    /// Whole secrets, also as base64.
    pub texts: Vec<String>,
    search: Option<AhoCorasick>,
    windows: Windows,
    masks: Masks,
}

impl DecodedSecrets {
    /// Prepares the search. The secrets are ordered from the shortest to the longest.
    pub fn of(secrets: &[String], visible: &[String]) -> Self {
        let mut left = MOST_DECODED;
        let is_within = |texts: &Vec<String>| {
            let needed = texts.iter().map(String::len).sum();
            left.checked_sub(needed).map(|rest| left = rest).is_some()
        };
        let small = secrets.iter().filter(|it| it.len() < MOST_DECODED);
        let texts = small.map(|secret| decoded(secret)).take_while(is_within);
        let mut texts: Vec<String> = texts.flatten().collect();
        texts.sort_unstable();
        texts.dedup();
        let patterns = patterns(secrets, visible);
        Self {
            search: search(&texts),
            masks: Masks::of(patterns.iter().map(|pattern| pattern.text.as_str())),
            windows: Windows::of(patterns),
            texts,
        }
    }

    /// Whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.windows.is_empty()
    }

    /// Adds the parts of the original text that are secret.
    pub fn find(&self, view: &Folded, parts: &mut Vec<Range<usize>>) {
        if let Some(search) = &self.search {
            let found = search.find_iter(&view.text);
            parts.extend(found.map(|found| view.origin(found.range())));
        }
        self.masks
            .find(&view.text, |part| parts.push(view.origin(part)));
        for view in [view, &view.compact()] {
            self.windows.find(&view.text, |part| {
                parts.push(view.origin(without_separators(&view.text, part)));
            });
        }
    }
}

/// A part without the slashes and spaces at its ends, which separate it from other words. A part
/// of nothing else stays whole.
fn without_separators(text: &str, part: Range<usize>) -> Range<usize> {
    let is_separator = |at: &usize| matches!(text.as_bytes().get(*at), Some(b'/' | b' '));
    let start = part.clone().find(|at| !is_separator(at));
    let last = part.clone().rev().find(|at| !is_separator(at));
    match (start, last) {
        (Some(start), Some(last)) => start..last + 1,
        _ => part,
    }
}

fn search<Text: AsRef<[u8]>>(texts: &[Text]) -> Option<AhoCorasick> {
    // A DFA would need many times the memory and time to build, for short texts.
    let search = AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .match_kind(MatchKind::LeftmostLongest)
        .build(texts);
    search.ok()
}

/// The secrets as texts are compared, from the shortest to the longest.
fn patterns(secrets: &[String], visible: &[String]) -> Vec<Pattern> {
    let visible = visible.iter().map(|word| folded(word));
    let visible = visible.filter(|word| word.len() >= SHORTEST_VISIBLE);
    let ordinary = ORDINARY_WORDS.into_iter().chain(ORDINARY_SEGMENTS);
    let visible: Vec<String> = visible.chain(ordinary.map(str::to_owned)).collect();
    let visible = search(&visible);
    let mut left = MOST_DIVIDED;
    let mut patterns = Vec::new();
    for secret in secrets.iter().filter(|it| it.len() >= SHORTEST_ENCODED) {
        let Some(rest) = left.checked_sub(secret.len()) else {
            break;
        };
        left = rest;
        let texts = match secret.len() < MOST_DECODED {
            true => layers(secret).into_iter().map(|layer| layer.text).collect(),
            false => vec![folded(secret)],
        };
        for text in texts {
            let visible = visible_parts(text.trim(), visible.as_ref());
            patterns.push(compact(text.trim(), &visible));
            let text = text.trim().to_owned();
            patterns.push(Pattern { text, visible });
        }
    }
    patterns.retain(|pattern| pattern.text.len() >= SHORTEST_ENCODED);
    patterns.sort_by(|a, b| (a.text.len(), &a.text).cmp(&(b.text.len(), &b.text)));
    patterns.dedup_by(|a, b| a.text == b.text);
    patterns
}

/// The parts of a secret that texts may show, as whole words.
fn visible_parts(secret: &str, words: Option<&AhoCorasick>) -> Vec<Range<usize>> {
    let scheme = SCHEMES.iter().find(|scheme| secret.starts_with(*scheme));
    let scheme = scheme.map_or(0, |scheme| scheme.len());
    let bytes = secret.as_bytes();
    let is_in_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let found = words.into_iter().flat_map(|words| words.find_iter(secret));
    let found = found.map(|found| found.range()).filter(|part| {
        let before = part.start.checked_sub(1).and_then(|at| bytes.get(at));
        part.start >= scheme && !is_in_word(before) && !is_in_word(bytes.get(part.end))
    });
    let scheme = Some(0..scheme).filter(|scheme| !scheme.is_empty());
    scheme.into_iter().chain(found).collect()
}

/// The letters and digits of a secret.
fn compact(secret: &str, visible: &[Range<usize>]) -> Pattern {
    let mut text = String::with_capacity(secret.len());
    let mut end = 0;
    let mut compacted = Vec::new();
    let letters = |part: &str| -> String {
        part.chars()
            .filter(|value| value.is_alphanumeric())
            .collect()
    };
    for part in visible {
        text.push_str(&letters(&secret[end..part.start]));
        let start = text.len();
        text.push_str(&letters(&secret[part.clone()]));
        compacted.push(start..text.len());
        end = part.end;
    }
    text.push_str(&letters(&secret[end..]));
    Pattern {
        text,
        visible: compacted,
    }
}

/// A secret without its encodings, and as base64.
fn decoded(secret: &str) -> Vec<String> {
    let layers = layers(secret).into_iter().chain(layers(&base64s(secret)));
    let texts = layers.flat_map(|layer| {
        let parts = layer.text.split('\0').map(|text| text.trim().to_owned());
        parts.collect::<Vec<_>>()
    });
    texts
        .filter(|text| text.len() >= SHORTEST_ENCODED)
        .collect()
}

/// What a secret looks like within any text in base64, without the characters at its ends that
/// depend on its neighbors. Separated by NUL.
fn base64s(secret: &str) -> String {
    let encoded = (0..3).map(|before| {
        let mut text = vec![0; before];
        text.extend_from_slice(secret.as_bytes());
        let encoded = BASE64_STANDARD_NO_PAD.encode(&text);
        // Of 4 characters the first 2 or 3 hold bits of 1 or 2 bytes before.
        let start = [0, 2, 3][before];
        let end = match text.len() % 3 {
            0 => encoded.len(),
            _ => encoded.len() - 1,
        };
        encoded.get(start..end).unwrap_or_default().to_owned()
    });
    let standard: Vec<String> = encoded.collect();
    let url_safe = standard
        .iter()
        .map(|text| text.replace('+', "-").replace('/', "_"));
    let all: Vec<String> = url_safe.chain(standard.iter().cloned()).collect();
    all.join("\0")
}
