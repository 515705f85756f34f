//! "Did you mean": the known name that is most similar to a wrong one.

/// Longer names are compared with nothing, because the cost is quadratic.
const MAX_BYTES: usize = 128;

/// The known name that is most similar to `wrong`; `None` if no name is similar. Case and
/// punctuation do not count. A part may be missing, as in `provider` for `providerRef`. Of equally
/// similar names the first is returned.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = letters(wrong);
    let limit = 1 + wrong.len() / 4;
    most_similar(&wrong, known, |distance, name| {
        distance <= limit || is_large_part(&wrong, name)
    })
}

/// Like [`nearest`], but only a few letters may differ: one in words of up to six letters, else
/// two. For names that others may choose, too.
pub fn misspelled<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = letters(wrong);
    let limit = match wrong.len() {
        0..=3 => 0,
        4..=6 => 1,
        _ => 2,
    };
    most_similar(&wrong, known, |distance, _| distance <= limit)
}

/// The end of a sentence about an unknown name: what it probably means, or every known name.
pub fn instead(wrong: &str, known: &[&str]) -> String {
    match nearest(wrong, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("use one of {}", known.join(", ")),
    }
}

fn most_similar<'a>(
    wrong: &[u8],
    known: impl IntoIterator<Item = &'a str>,
    is_similar: impl Fn(usize, &[u8]) -> bool,
) -> Option<&'a str> {
    if wrong.is_empty() || wrong.len() > MAX_BYTES {
        return None;
    }
    known
        .into_iter()
        .map(|name| (letters(name), name))
        .map(|(letters, name)| (distance(wrong, &letters), letters, name))
        .filter(|(distance, letters, _)| is_similar(*distance, letters))
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., name)| name)
}

/// Whether one of the two contains the other, which has at least half of its letters.
fn is_large_part(left: &[u8], right: &[u8]) -> bool {
    let (short, long) = match left.len() < right.len() {
        true => (left, right),
        false => (right, left),
    };
    short.len() >= 4
        && 2 * short.len() >= long.len()
        && long.windows(short.len()).any(|part| part == short)
}

fn letters(name: &str) -> Vec<u8> {
    name.bytes()
        .filter(|byte| !byte.is_ascii_punctuation())
        .map(|byte| byte.to_ascii_lowercase())
        .collect()
}

/// The number of bytes to insert, remove, replace or swap with their neighbor.
fn distance(left: &[u8], right: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, byte) in left.iter().enumerate() {
        let mut next = vec![at + 1];
        for (column, other) in right.iter().enumerate() {
            let replaced = row[column] + usize::from(byte != other);
            let mut cost = replaced.min(row[column + 1] + 1).min(next[column] + 1);
            let is_swapped =
                at > 0 && column > 0 && *byte == right[column - 1] && left[at - 1] == *other;
            if is_swapped {
                cost = cost.min(before[column - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_is_found() {
        let known = [
            "clusters",
            "channel",
            "template",
            "rate-limit",
            "max-in-flight",
            "pool",
        ];
        for (wrong, expected) in [
            ("cluster", Some("clusters")),
            ("Clusters", Some("clusters")),
            ("clutsers", Some("clusters")),
            ("rateLimit", Some("rate-limit")),
            ("max_inflight", Some("max-in-flight")),
            ("chanel", Some("channel")),
            ("pol", Some("pool")),
            ("eventTemplate", Some("template")),
            ("owner", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(nearest(wrong, known), expected, "{wrong}");
        }
        assert_eq!(nearest(&"clusters".repeat(100), known), None);
    }

    #[test]
    fn a_name_of_which_a_part_is_missing_is_not_misspelled() {
        let known = ["GitRepository", "Kustomization", "Node", "Pod"];
        for (wrong, expected) in [
            ("kustomization", Some("Kustomization")),
            ("Kustomizations", Some("Kustomization")),
            ("pod", Some("Pod")),
            ("Pods", Some("Pod")),
            ("GitRepo", None),
            ("Kustomize", None),
            ("Role", None),
            ("Job", None),
        ] {
            assert_eq!(misspelled(wrong, known), expected, "{wrong}");
        }
    }

    #[test]
    fn a_sentence_names_the_nearest_or_all_known_names() {
        assert_eq!(instead("nmae", &["name", "key"]), "did you mean name?");
        assert_eq!(
            instead("optional", &["name", "key"]),
            "use one of name, key"
        );
    }

    #[test]
    fn a_swap_of_neighbors_is_one_change() {
        assert_eq!(distance(b"abcd", b"abdc"), 1);
        assert_eq!(distance(b"abcd", b""), 4);
        assert_eq!(distance(b"kitten", b"sitting"), 3);
    }
}
